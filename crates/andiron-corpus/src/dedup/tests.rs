//! Near-duplicates through all phases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::words::mixed;
use super::*;

struct Random(u64);

impl Random {
    /// A number below `n`.
    fn below(&mut self, n: u32) -> u32 {
        self.0 += 1;
        (mixed(self.0) % u64::from(n)) as u32
    }
}

fn random() -> Random {
    Random(7 << 32)
}

/// `n` words of a vocabulary of 3000.
fn text(random: &mut Random, n: usize) -> Vec<u32> {
    (0..n).map(|_| random.below(3000)).collect()
}

fn spelled(words: &[u32]) -> String {
    // Words without digits, which would all be equal.
    let letters = |word: &u32| -> String {
        [word / 400, word / 20 % 20, word % 20].map(|letter| char::from(b'a' + letter as u8)).iter().collect()
    };
    words.iter().map(letters).collect::<Vec<_>>().join(" ")
}

fn jaccard(a: &[u32], b: &[u32]) -> f64 {
    use std::collections::HashSet;
    let set = |words: &[u32]| words.windows(5).map(<[u32]>::to_vec).collect::<HashSet<_>>();
    let (a, b) = (set(a), set(b));
    a.intersection(&b).count() as f64 / a.union(&b).count() as f64
}

/// Signs the files of documents, decides, and returns for each document what was decided.
fn run(
    directory: &Path,
    files: &[Vec<String>],
    memory_bytes: usize,
) -> (DuplicateSummary, Vec<Vec<Option<Clustered>>>) {
    let config = MinHashConfig::default();
    let signer = Signer::new(&config).unwrap();
    let mut scratch = SignerScratch::default();
    let paths: Vec<PathBuf> =
        (0..files.len()).map(|index| directory.join(format!("{index}.minhash"))).collect();
    for (index, (path, documents)) in paths.iter().zip(files).enumerate() {
        let mut writer = SignatureWriter::begin(path, &config).unwrap();
        for (number, text) in documents.iter().enumerate() {
            writer.push(&format!("{index}\n{number}"), signer.sign(text, &mut scratch).as_ref()).unwrap();
        }
        writer.finish().unwrap();
    }
    let output = directory.join("decisions");
    let summary = decide(&paths, &output, &DecideOptions { memory_bytes }).unwrap();
    let written = DuplicateSummary::open(&output).unwrap();
    assert_eq!(written, DuplicateSummary { spilled_bytes: 0, ..summary.clone() });
    let decided = files.iter().enumerate().map(|(index, documents)| {
        let mut decisions = Decisions::open(&output, index).unwrap();
        documents.iter().map(|_| decisions.next_document().unwrap()).collect()
    });
    (summary, decided.collect())
}

#[test]
fn planted_near_duplicates_are_found_and_others_are_not() {
    let mut random = random();
    let (mut documents, mut planted) = (Vec::new(), 0);
    let mut expected = BTreeMap::new();
    for _ in 0..1500 {
        let original = text(&mut random, 120);
        let mut copy = original.clone();
        // Words replaced in two stretches leave about 0.8 to 0.95 of the n-grams.
        for _ in 0..=random.below(2) {
            let at = random.below(120) as usize;
            copy[at] = random.below(3000);
        }
        let is_near = jaccard(&original, &copy) >= 0.8;
        documents.push(spelled(&original));
        if is_near {
            planted += 1;
            expected.insert(documents.len(), documents.len() - 1);
            documents.push(spelled(&copy));
        }
    }
    assert!(planted > 1000);
    let dir = tempfile::tempdir().unwrap();
    let (summary, decided) = run(dir.path(), std::slice::from_ref(&documents), 64 << 20);
    let found = |number: usize| decided[0][number].as_ref().filter(|one| one.is_duplicate());
    let right = expected.iter().filter(|(copy, original)| {
        found(**copy).is_some_and(|one| one.duplicate_of.as_deref() == Some(&format!("0\n{original}")))
    });
    let right = right.count();
    let n_false = (0..documents.len()).filter(|n| found(*n).is_some() && !expected.contains_key(n)).count();
    assert!(right as f64 >= 0.95 * planted as f64, "{right} of {planted}");
    assert_eq!(n_false, 0);
    assert_eq!(summary.duplicates, (right + n_false) as u64);
    assert_eq!(summary.sizes, BTreeMap::from([(2, right as u64)]));
    let similar = decided[0].iter().flatten().filter_map(|one| one.similarity).all(|s| s > 0.6);
    assert!(similar);
}

#[test]
fn the_result_depends_neither_on_memory_nor_on_threads_nor_on_the_division_into_files() {
    let mut random = random();
    let mut documents: Vec<String> = (0..600).map(|_| spelled(&text(&mut random, 20))).collect();
    for copy in 0..2000 {
        documents.push(documents[copy % 300 * 2].clone());
    }
    documents.extend(["".to_owned(), "too short".to_owned()]);
    let flat = |files: &[Vec<String>], memory, threads| {
        let dir = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (summary, decided) = pool.install(|| run(dir.path(), files, memory));
        let kept: Vec<_> = decided
            .concat()
            .into_iter()
            .map(|one| one.map(|one| (one.cluster, one.size, one.similarity)))
            .collect();
        (summary, kept)
    };
    let (summary, one) = flat(std::slice::from_ref(&documents), 256 << 20, 1);
    assert_eq!((summary.documents, summary.too_short), (2602, 2));
    assert_eq!((summary.duplicates, summary.clusters, summary.spilled_bytes), (2000, 300, 0));
    assert_eq!(summary.sizes, BTreeMap::from([(7, 100), (8, 200)]));
    let apart: Vec<Vec<String>> = documents.chunks(700).map(<[_]>::to_vec).collect();
    for (files, memory, threads) in
        [(vec![documents.clone()], 1 << 16, 3), (apart.clone(), 1 << 16, 1), (apart, 1 << 30, 2)]
    {
        let (other_summary, other) = flat(&files, memory, threads);
        assert_eq!(other, one, "{} files, {memory} bytes, {threads} threads", files.len());
        assert_eq!(other_summary.spilled_bytes > 0, memory == 1 << 16);
        assert_eq!(DuplicateSummary { spilled_bytes: 0, ..other_summary }, summary);
    }
}

#[test]
fn of_a_cluster_the_first_document_stays() {
    let dir = tempfile::tempdir().unwrap();
    let same = "these are the same seven words".to_owned();
    let files = [
        vec!["".into(), "something else that nobody wrote".into()],
        vec![same.clone()],
        vec![same.clone(), same],
    ];
    let (summary, decided) = run(dir.path(), &files, 1 << 20);
    assert_eq!((summary.clusters, summary.duplicates, summary.too_short), (1, 2, 1));
    assert_eq!(decided[0], [None, None]);
    let kept = Clustered { document: 0, cluster: 0, size: Some(3), duplicate_of: None, similarity: None };
    assert_eq!(decided[1], [Some(kept.clone())]);
    let gone = Clustered {
        size: None,
        duplicate_of: Some("1\n0".to_owned()),
        similarity: Some(1.0),
        ..kept.clone()
    };
    assert_eq!(decided[2], [Some(gone.clone()), Some(Clustered { document: 1, ..gone })]);
}

#[test]
fn large_documents_are_signed() {
    let mut random = random();
    let mut words = text(&mut random, 2_500_000);
    let signer = Signer::new(&MinHashConfig::default()).unwrap();
    let mut scratch = SignerScratch::default();
    let whole = spelled(&words);
    assert!(whole.len() > 9_900_000);
    let first = signer.sign(&whole, &mut scratch).unwrap();
    for at in (0..words.len()).step_by(1000) {
        words[at] = 3001;
    }
    let second = signer.sign(&spelled(&words), &mut scratch).unwrap();
    // One n-gram of 200 changed: 0.99 of them are in both texts.
    assert!((first.similarity(&second) - 0.99).abs() < 0.04, "{}", first.similarity(&second));
    assert!(signer.sign(&"x".repeat(10_000_000), &mut scratch).is_none());
}

#[test]
fn damaged_and_foreign_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, config: &MinHashConfig| {
        let path = dir.path().join(name);
        let mut writer = SignatureWriter::begin(&path, config).unwrap();
        let signature = Signer::new(config).unwrap().sign("a b c d e f", &mut SignerScratch::default());
        writer.push("id", signature.as_ref()).unwrap();
        writer.finish().unwrap();
        path
    };
    let fine = write("fine", &MinHashConfig::default());
    let other = write("other", &MinHashConfig { seed: 2, ..MinHashConfig::default() });
    let output = dir.path().join("out");
    let fails = |files: &[PathBuf]| {
        let error = decide(files, &output, &DecideOptions::default()).unwrap_err().to_string();
        assert!(!output.exists());
        error.replace(&dir.path().display().to_string(), "")
    };
    assert_eq!(
        fails(&[fine.clone(), other]),
        "/other was made with other settings than /fine; remove both, so that they are made again"
    );
    let bytes = std::fs::read(&fine).unwrap();
    for cut in [0, 5, bytes.len() - 1] {
        std::fs::write(&fine, &bytes[..cut]).unwrap();
        assert_eq!(
            fails(std::slice::from_ref(&fine)),
            "/fine is damaged, or of another version; remove it, so that it is made again"
        );
    }
    for at in (0..bytes.len()).rev().take(60) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x41;
        std::fs::write(&fine, &bytes).unwrap();
        // Whatever comes of it: no panic.
        let _ = decide(std::slice::from_ref(&fine), &output, &DecideOptions::default());
    }
}
