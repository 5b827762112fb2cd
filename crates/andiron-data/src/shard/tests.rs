use super::*;
use proptest::prelude::*;
use std::fs;

fn write(documents: &[(String, Vec<u32>)], vocab_size: u32, tokens_per_shard: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let options = WriterOptions { tokens_per_shard, ..WriterOptions::new(vocab_size, "t".repeat(64)) };
    let mut writer = DatasetWriter::create(&dir.path().join("d"), options).unwrap();
    for (id, ids) in documents {
        writer.push(id, ids, "é!").unwrap();
    }
    writer.finish().unwrap();
    dir
}

fn sample() -> tempfile::TempDir {
    let document = |i: u32| (format!("doc {i}"), (0..i * 3).collect());
    write(&(0..8).map(document).collect::<Vec<_>>(), 100, 20)
}

fn open(dir: &tempfile::TempDir) -> Result<Dataset, DatasetError> {
    Dataset::open(&dir.path().join("d"))
}

#[test]
fn datasets_put_together_are_as_if_written_at_once() {
    let document = |i: u32| (format!("doc {i}"), (0..i * 3).collect());
    let documents: Vec<(String, Vec<u32>)> = (0..8).map(document).collect();
    // A shard that is full ends where the second dataset begins.
    let (first, second) = (write(&documents[..5], 100, 20), write(&documents[5..], 100, 20));
    let nothing = write(&[], 100, 20);
    let dir = tempfile::tempdir().unwrap();
    let options = WriterOptions { tokens_per_shard: 20, ..WriterOptions::new(100, "t".repeat(64)) };
    let mut writer = DatasetWriter::create(&dir.path().join("d"), options).unwrap();
    for part in [&nothing, &first, &nothing, &second] {
        writer.append(&open(part).unwrap()).unwrap();
    }
    writer.finish().unwrap();
    let (joined, whole) = (open(&dir).unwrap(), open(&write(&documents, 100, 20)).unwrap());
    joined.verify().unwrap();
    assert_eq!(joined.stats(), whole.stats());
    assert_eq!(joined.documents().collect::<Vec<_>>(), whole.documents().collect::<Vec<_>>());
}

#[test]
fn the_files_are_as_documented() {
    let dir = write(&[("a".into(), vec![1, 258]), ("bc".into(), vec![3])], 300, 100);
    let read = |name: &str| fs::read(dir.path().join("d").join(name)).unwrap();
    assert_eq!(read("shard-00000.ids"), [1, 0, 2, 1, 3, 0]);
    let mut docs = b"ANDRDOCS".to_vec();
    for word in [2u64, 0, 2, 3, 0, 1, 3] {
        docs.extend(word.to_le_bytes());
    }
    docs.extend(b"abc");
    assert_eq!(read("shard-00000.docs"), docs);
    let manifest: Manifest = serde_json::from_slice(&read("manifest.json")).unwrap();
    assert_eq!((manifest.format.as_str(), manifest.version), ("andiron-dataset", 1));
    assert_eq!(manifest.shards[0].ids_blake3, blake3::hash(&[1, 0, 2, 1, 3, 0]).to_hex().as_str());
    let stats: Stats = serde_json::from_slice(&read("stats.json")).unwrap();
    assert_eq!((stats.documents, stats.tokens, stats.characters, stats.bytes), (2, 3, 4, 6));
    assert_eq!((stats.min_document_tokens, stats.max_document_tokens), (1, 2));
    assert_eq!(fs::read_dir(dir.path().join("d")).unwrap().count(), 4);
}

#[test]
fn nothing_appears_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    let mut writer = DatasetWriter::create(&path, WriterOptions::new(10, "t")).unwrap();
    writer.push("a", &[1], "").unwrap();
    assert!(!path.exists());
    let bad = writer.push("b", &[1, 10], "").unwrap_err();
    assert!(matches!(bad, DatasetError::IdOutOfRange { id: 10, position: 1, vocab_size: 10 }));
    assert!(matches!(writer.push(&"n".repeat(70_000), &[1], ""), Err(DatasetError::DocumentId { .. })));
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_widest_vocabulary_of_two_bytes_is_65536() {
    for (vocab_size, last, width) in [(1 << 16, 65_535, 2), ((1 << 16) + 1, 65_536, 4)] {
        let dir = write(&[("a".into(), vec![last])], vocab_size, 10);
        let dataset = open(&dir).unwrap();
        let mut id = [0];
        dataset.read(0, &mut id);
        assert_eq!((id[0], dataset.manifest().token_type.bytes()), (last, width));
        dataset.verify().unwrap();
    }
}

#[test]
fn every_truncation_is_an_error() {
    for name in ["manifest.json", "stats.json", "shard-00000.ids", "shard-00001.docs"] {
        let dir = sample();
        let path = dir.path().join("d").join(name);
        let whole = fs::read(&path).unwrap();
        for end in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
            fs::write(&path, &whole[..end]).unwrap();
            assert!(open(&dir).is_err(), "{name} cut at {end}");
        }
        fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert!(open(&dir).is_err(), "{name} with a byte more");
        fs::remove_file(&path).unwrap();
        assert!(matches!(open(&dir), Err(DatasetError::Read { .. })));
    }
}

#[test]
fn every_flipped_bit_of_the_data_is_found() {
    let dir = sample();
    for name in ["shard-00000.ids", "shard-00001.ids", "shard-00000.docs", "shard-00001.docs"] {
        let path = dir.path().join("d").join(name);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, bad).unwrap();
            let found = open(&dir).and_then(|dataset| {
                // Reading a damaged dataset may give wrong names, but no panic.
                dataset.documents().for_each(drop);
                dataset.verify()
            });
            assert!(found.is_err(), "{name} at byte {at}");
        }
        fs::write(&path, whole).unwrap();
    }
    open(&dir).unwrap().verify().unwrap();
}

#[test]
fn a_manifest_that_lies_is_refused_without_allocation() {
    let dir = sample();
    let path = dir.path().join("d/manifest.json");
    let whole = fs::read_to_string(&path).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&whole).unwrap();
    let huge = serde_json::json!(u64::MAX);
    for pointer in ["/tokens", "/documents", "/shards/0/tokens", "/shards/0/documents"] {
        let mut bad = manifest.clone();
        *bad.pointer_mut(pointer).unwrap() = huge.clone();
        fs::write(&path, bad.to_string()).unwrap();
        assert!(open(&dir).is_err(), "{pointer}");
    }
    for (from, to) in [
        ("\"version\": 1", "\"version\": 2"),
        ("andiron-dataset", "else"),
        ("\"u16\"", "\"u32\""),
        ("\"u16\"", "\"u8\""),
        ("\"tokens\"", "\"token\""),
    ] {
        assert!(whole.contains(from));
        fs::write(&path, whole.replace(from, to)).unwrap();
        assert!(open(&dir).is_err(), "{to}");
    }
    fs::write(&path, whole.replace("\"version\": 1", "\"version\": 2")).unwrap();
    let message = open(&dir).unwrap_err().to_string();
    assert!(message.contains("\"andiron-dataset\" version 2 is not one this program reads"), "{message}");
}

#[test]
#[should_panic(expected = "2 ids from 83 on, of 84")]
fn reading_beyond_the_end_is_the_callers_mistake() {
    open(&sample()).unwrap().read(83, &mut [0; 2]);
}

#[test]
fn an_empty_dataset_is_one() {
    let dir = write(&[], 10, 10);
    let dataset = open(&dir).unwrap();
    assert_eq!((dataset.tokens(), dataset.documents().count()), (0, 0));
    assert_eq!(dataset.documents_in(0..0).count(), 0);
    dataset.verify().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_goes_in_comes_out(
        documents in prop::collection::vec((any::<String>(), prop::collection::vec(0u32..70_000, 0..20)), 0..20),
        tokens_per_shard in 1u64..40,
        from in 0u64..100, length in 0u64..100,
    ) {
        let dir = write(&documents, 70_000, tokens_per_shard);
        let dataset = open(&dir).unwrap();
        dataset.verify().unwrap();
        let all: Vec<u32> = documents.iter().flat_map(|(_, ids)| ids.clone()).collect();
        let mut read = vec![0; all.len()];
        dataset.read(0, &mut read);
        prop_assert_eq!(&read, &all);

        let mut at = 0;
        for (document, (id, ids)) in dataset.documents().zip(&documents) {
            prop_assert_eq!(document.id, id);
            prop_assert_eq!(document.tokens, at..at + ids.len() as u64);
            at += ids.len() as u64;
        }
        prop_assert_eq!(dataset.documents().count(), documents.len());

        let from = from.min(dataset.tokens());
        let to = (from + length).min(dataset.tokens());
        let inside: Vec<u64> = dataset.documents_in(from..to).map(|d| d.index).collect();
        let expected: Vec<u64> = dataset
            .documents()
            .filter(|d| from < to && d.tokens.start < to && d.tokens.end > from && !d.tokens.is_empty())
            .map(|d| d.index)
            .collect();
        prop_assert_eq!(inside, expected);
    }
}

#[test]
fn the_first_id_that_a_smaller_vocabulary_lacks_is_named() {
    let dir = write(&[("a".into(), vec![1, 2]), ("b".into(), vec![3, 7, 8])], 10, 2);
    let dataset = Dataset::open(&dir.path().join("d")).unwrap();
    dataset.check_ids(9).unwrap();
    let error = dataset.check_ids(7).unwrap_err();
    assert!(matches!(error, DatasetError::IdOutOfRange { id: 7, position: 3, vocab_size: 7 }), "{error}");
}
