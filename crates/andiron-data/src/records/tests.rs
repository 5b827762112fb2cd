use std::fs;

use super::*;
use crate::shard::DatasetError;
use andiron_files::fault::{Fault, with_fault};
use proptest::prelude::*;
use serde_json::{Value, json};

const COLUMNS: [(&str, ColumnType); 3] =
    [("ids", ColumnType::Ids), ("labels", ColumnType::Ids), ("values", ColumnType::Numbers)];

type Row = (Vec<u32>, Vec<u32>, Vec<f32>);

fn record((ids, labels, values): &Row) -> Record<'_> {
    Record::default()
        .with_ids("ids", ids.as_slice())
        .with_ids("labels", labels.as_slice())
        .with_numbers("values", values.as_slice())
}

fn write(rows: &[Row], settings: Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = RecordWriter::create(&dir.path().join("d"), &COLUMNS, settings).unwrap();
    for row in rows {
        writer.push(&record(row)).unwrap();
    }
    writer.finish().unwrap();
    dir
}

fn sample() -> tempfile::TempDir {
    let row = |i: u32| ((0..i * 2).collect(), vec![i % 3], vec![i as f32 / 2.0; i as usize % 4]);
    write(&(0..8).map(row).collect::<Vec<_>>(), json!({ "from": "rows" }))
}

fn open(dir: &tempfile::TempDir) -> Result<RecordDataset, DatasetError> {
    RecordDataset::open(&dir.path().join("d"))
}

#[test]
fn the_files_are_as_documented() {
    let dir = write(&[(vec![1, 258], vec![3], vec![]), (vec![], vec![4], vec![0.5])], json!("s"));
    let read = |name: &str| fs::read(dir.path().join("d").join(name)).unwrap();
    assert_eq!(read("ids.u32"), [1, 0, 0, 0, 2, 1, 0, 0]);
    let offsets = |offsets: [u64; 3]| offsets.iter().flat_map(|at| at.to_le_bytes()).collect::<Vec<_>>();
    assert_eq!(read("ids.offsets"), offsets([0, 2, 2]));
    assert_eq!(read("labels.offsets"), offsets([0, 1, 2]));
    assert_eq!(read("values.f32"), 0.5f32.to_le_bytes());
    let manifest: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
    assert_eq!(manifest["format"], "andiron-records");
    assert_eq!(
        (&manifest["version"], &manifest["records"], &manifest["settings"]),
        (&json!(1), &json!(2), &json!("s"))
    );
    assert_eq!(
        (&manifest["columns"][2]["holds"], &manifest["columns"][2]["values"]),
        (&json!("numbers"), &json!(1))
    );
    assert_eq!(manifest["columns"][0]["values_blake3"], blake3::hash(&read("ids.u32")).to_hex().as_str());
    assert_eq!(fs::read_dir(dir.path().join("d")).unwrap().count(), 7);
}

#[test]
fn records_are_read_without_a_copy() {
    let dir = sample();
    let dataset = open(&dir).unwrap();
    let (record, again) = (dataset.record(3), dataset.record(3));
    assert!(cfg!(target_endian = "big") || std::ptr::eq(record.ids("ids"), again.ids("ids")));
    assert!(cfg!(target_endian = "big") || std::ptr::eq(record.numbers("values"), again.numbers("values")));
    assert_eq!(record.ids("ids"), [0, 1, 2, 3, 4, 5]);
    assert_eq!(record.numbers("values"), [1.5; 3]);
    assert_eq!(dataset.length(3), 7);
}

#[test]
fn nothing_appears_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    let mut writer = RecordWriter::create(&path, &COLUMNS, Value::Null).unwrap();
    writer.push(&record(&(vec![1], vec![2], vec![]))).unwrap();
    assert!(!path.exists());
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_dataset_is_opened_again_only_for_the_same_settings() {
    let dir = sample();
    let path = dir.path().join("d");
    let open = |settings: Value| RecordDataset::open_if_made_from(&path, &settings);
    assert_eq!(open(json!({ "from": "rows" })).unwrap().unwrap().n_records(), 8);
    assert!(open(json!({ "from": "others" })).unwrap().is_none());
    fs::write(path.join("ids.u32"), vec![1; 4 * 56]).unwrap();
    let damaged = open(json!({ "from": "rows" })).unwrap_err().to_string();
    assert!(damaged.ends_with(
        "ids.u32: its hash differs from the manifest; the file is damaged, prepare the dataset again"
    ));
    let manifest = fs::read_to_string(path.join("manifest.json")).unwrap();
    fs::write(path.join("manifest.json"), manifest.replace("\"version\": 1", "\"version\": 2")).unwrap();
    assert!(open(json!({ "from": "rows" })).unwrap().is_none());
}

#[test]
fn what_holds_no_records_is_not_for_replacing() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| RecordDataset::open_if_made_from(&dir.path().join(name), &Value::Null);
    assert!(open("missing").unwrap().is_none());
    fs::create_dir(dir.path().join("empty")).unwrap();
    assert!(open("empty").unwrap().is_none());
    fs::create_dir(dir.path().join("photos")).unwrap();
    fs::write(dir.path().join("photos/a.jpg"), "x").unwrap();
    fs::create_dir(dir.path().join("shards")).unwrap();
    fs::write(dir.path().join("shards/manifest.json"), "{\"format\": \"andiron-dataset\"}").unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    for name in ["photos", "shards", "file"] {
        assert!(matches!(open(name), Err(DatasetError::NotRecords { .. })), "{name}");
    }
}

#[test]
fn a_writer_killed_anywhere_leaves_the_old_records_or_the_new() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    let write = |settings: &str| -> Result<(), DatasetError> {
        let mut writer = RecordWriter::create(&path, &COLUMNS, json!(settings))?;
        writer.push(&record(&(vec![1, 2], vec![3], vec![0.5])))?;
        writer.finish().map(drop)
    };
    let (written, seen) = with_fault(Fault::none(), || write("old"));
    written.unwrap();
    assert!(seen.len() > 20, "{seen:?}");
    for (at, seen) in seen.iter().enumerate() {
        for fault in [Fault::killed_at(at), Fault::once(at, 5)] {
            write("old").unwrap();
            let (written, _) = with_fault(fault, || write("new"));
            // Between two renamings nothing stands there; the old one is beside it.
            let place = if path.exists() { path.clone() } else { dir.path().join(".d.old") };
            let found = RecordDataset::open(&place).unwrap();
            found.verify().unwrap();
            assert!(written.is_err() || found.manifest().settings == "new", "{seen:?}");
            write("new").unwrap();
            assert!(RecordDataset::open_if_made_from(&path, &json!("new")).unwrap().is_some());
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{seen:?}");
        }
    }
}

#[test]
fn every_truncation_is_an_error() {
    for name in ["manifest.json", "ids.u32", "ids.offsets", "values.f32", "values.offsets"] {
        let dir = sample();
        let path = dir.path().join("d").join(name);
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
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
    for name in ["ids.u32", "ids.offsets", "labels.u32", "values.f32", "values.offsets"] {
        let path = dir.path().join("d").join(name);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, bad).unwrap();
            let found = open(&dir).and_then(|dataset| {
                // Reading a damaged dataset may give wrong values, but no panic.
                (0..dataset.n_records()).for_each(|i| drop(dataset.record(i)));
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
    let manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let check = |pointer: &str, value: Value, message: &str| {
        let mut bad = manifest.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        fs::write(&path, bad.to_string()).unwrap();
        let error = open(&dir).unwrap_err().to_string();
        assert!(error.contains(message), "{pointer}: {error}");
    };
    check("/records", json!(u64::MAX), "it has no columns, or too many records");
    check("/records", json!(u64::MAX - 1), "bytes, the manifest says");
    check("/records", json!(7), "bytes, the manifest says");
    check("/columns", json!([]), "it has no columns, or too many records");
    check("/columns/0/values", json!(u64::MAX), "bytes, the manifest says");
    check("/columns/0/name", json!("../ids"), "the column \"../ids\" cannot be stored");
    check("/columns/0/name", json!("labels"), "the column \"labels\" cannot be stored");
    check("/columns/0/holds", json!("text"), "is not what it should be");
    check("/version", json!(2), "\"andiron-records\" version 2 is not one this program reads");
    check("/format", json!("andiron-dataset"), "is not one this program reads");
}

#[test]
fn the_first_id_outside_of_its_range_is_named() {
    let dataset = open(&sample()).unwrap();
    dataset.check_ids("labels", 3).unwrap();
    let error = dataset.check_ids("labels", 2).unwrap_err().to_string();
    assert_eq!(error, "record 2: 2 in column \"labels\" is not below 2");
}

#[test]
#[should_panic(expected = "columns of the record")]
fn a_record_with_another_column_is_the_callers_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = RecordWriter::create(&dir.path().join("d"), &COLUMNS[..1], Value::Null).unwrap();
    writer.push(&record(&(vec![], vec![], vec![]))).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_goes_in_comes_out(
        rows in prop::collection::vec(
            (
                prop::collection::vec(any::<u32>(), 0..20),
                prop::collection::vec(any::<u32>(), 0..3),
                prop::collection::vec(-1e6f32..1e6, 0..4),
            ),
            0..20,
        ),
    ) {
        let dir = write(&rows, Value::Null);
        let dataset = open(&dir).unwrap();
        dataset.verify().unwrap();
        prop_assert_eq!(dataset.n_records(), rows.len() as u64);
        for (index, row) in rows.iter().enumerate() {
            prop_assert_eq!(dataset.record(index as u64), record(row));
        }
    }
}
