//! Damaged files of every format: nothing panics, hangs or takes memory without bound, whatever is in them.
//!
//! Files are damaged at random, in as many ways as `ANDIRON_FUZZ_RUNS` says for each test, else in a few hundred.
#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use andiron_data::rows::{RowOptions, RowReader};
use andiron_data::shard::{Dataset, DatasetWriter, WriterOptions};
use andiron_data::source::{self, SourceOptions};
use andiron_data::tokenizer::{BpeOptions, Message, Special, Tokenizer, train_bpe, train_chars};
use serde_json::{Map, json};

/// No input of a few kilobytes takes longer, not even on a busy machine.
const MOST_TIME: Duration = Duration::from_secs(20);

fn runs(usual: u64) -> u64 {
    std::env::var("ANDIRON_FUZZ_RUNS").map_or(usual, |runs| runs.parse().unwrap())
}

/// Random numbers, the same in each run: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// The same bytes with a few things wrong.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let end = (at + 1 + self.below(16)).min(bytes.len());
            match self.below(8) {
                _ if bytes.is_empty() => bytes.push(self.next() as u8),
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.next() as u8,
                2 => bytes[at] = [0, 0x7f, 0x80, 0xff, b'"', b'\n', b'{', b'}'][self.below(8)],
                3 => drop(bytes.drain(at..end)),
                4 => {
                    let copy = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, copy);
                }
                5 => bytes.truncate(at),
                6 => {
                    let number =
                        [u64::MAX, 1 << 63, 1 << 31, u64::from(u32::MAX), self.next()][self.below(5)];
                    for (byte, new) in bytes[at..end].iter_mut().zip(number.to_le_bytes()) {
                        *byte = new;
                    }
                }
                _ => {
                    let to = self.below(bytes.len());
                    bytes.swap(at, to);
                }
            }
        }
    }
}

/// Runs `read` on many damaged copies of each seed.
fn fuzz(usual: u64, seeds: &[Vec<u8>], mut read: impl FnMut(&[u8])) {
    // Panics that are caught would fill the output.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut random = Random(7);
    for run in 0..runs(usual) {
        let mut bytes = seeds[run as usize % seeds.len()].clone();
        random.damage(&mut bytes);
        let start = Instant::now();
        let read = catch_unwind(AssertUnwindSafe(|| read(&bytes)));
        if let Err(panic) = read {
            std::panic::set_hook(hook);
            let file = std::env::temp_dir().join("andiron-damaged");
            std::fs::write(&file, &bytes).unwrap();
            eprintln!("run {run}: a panic; the file is {}", file.display());
            std::panic::resume_unwind(panic);
        }
        assert!(start.elapsed() < MOST_TIME, "run {run} took {:?}", start.elapsed());
    }
    std::panic::set_hook(hook);
    assert!(most_memory() < 1 << 30, "{} bytes", most_memory());
}

/// The most memory that this process has had at once, where the system tells.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kb| kb << 10)
}

/// Reads damaged files with this name as documents and as rows.
fn fuzz_files(usual: u64, name: &str, seeds: &[Vec<u8>]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fuzz(usual, seeds, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        read_all(&path);
    });
}

/// Reads a file to its end. There are never more records than bytes that could begin one.
fn read_all(path: &Path) {
    const MOST: usize = 100_000;
    if let Ok(source) = source::open(path, &SourceOptions::default()) {
        assert!(source.take(MOST).count() < MOST, "a source does not end");
    }
    if let Ok(rows) = RowReader::open(path, &RowOptions::default()) {
        assert!(rows.take(MOST).count() < MOST, "rows do not end");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

const LINES: &str = "{\"id\": 1, \"text\": \"To be\\n\", \"n\": [1.5e3, null, {\"a\": \"\\u00e9\"}]}\n\n{\"text\": \"or not\"}\r\n";

#[test]
fn lines_of_json() {
    fuzz_files(500, "f.jsonl", &[LINES.into()]);
}

#[test]
fn documents_of_json() {
    let lists = [
        "[{\"text\": \"a\"}, {\"text\": \"b, ]\"}]",
        "{\"data\": [{\"title\": \"t\", \"paragraphs\": [{\"context\": \"c\", \"qas\": [{\"id\": \"q\", \"question\": \"?\", \"answers\": []}]}]}]}",
    ];
    fuzz_files(500, "f.json", &lists.map(Vec::from));
}

#[test]
fn tables() {
    fuzz_files(
        500,
        "f.csv",
        &["id,text,lang\n1,\"a \"\"b\"\",\nc\",en\r\n2,d,ko\n".into(), "\u{feff}a;b\n1;\"2\"\n".into()],
    );
    fuzz_files(100, "f.tsv", &["text\tlabel\na\t1\n".into()]);
}

#[test]
fn compressed_files() {
    let text = LINES.repeat(20);
    let frames = [zstd(text.as_bytes()), b"\x50\x2a\x4d\x18\x02\0\0\0ab".to_vec(), zstd(b"x")].concat();
    let members = [gzip(text.as_bytes()), vec![0; 9], gzip(b"x")].concat();
    fuzz_files(600, "f.jsonl", &[frames, members]);
}

#[test]
fn web_archives() {
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=euc-kr\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n<p>a\r\n0\r\n\r\n";
    let record = |kind: &str, content: &str| {
        format!(
            "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:1>\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{content}\r\n\r\n",
            content.len()
        )
    };
    let archive = record("warcinfo", "a: b") + &record("response", page) + &record("conversion", "text");
    fuzz_files(500, "f.warc", &[archive.clone().into(), gzip(archive.as_bytes())]);
}

#[test]
fn web_pages() {
    fuzz_files(200, "f.html", &[b"<meta charset='euc-kr'><p>\xc7\xd1".to_vec(), b"\xff\xfea\0".to_vec()]);
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parquet");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    fuzz_files(400, "f.parquet", &seeds);
}

#[test]
fn tokenizers() {
    let bpe = train_bpe(["the cat sat on the mat"], &BpeOptions::new(262)).unwrap();
    let chars = train_chars(["the cat sat"], &Default::default()).unwrap();
    fuzz(100, &[bpe.json().to_vec(), chars.json().to_vec()], |bytes| {
        if let Ok(tokenizer) = Tokenizer::from_json(bytes)
            && let Ok(ids) = tokenizer.encode("the cat's <|endoftext|> 123 한국\n\n ")
        {
            let _ = tokenizer.decode(&ids, Special::Skip);
        }
    });
}

#[test]
fn templates() {
    let template = "{% for m in messages %}{% if loop.first and m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}<|{{ m.role | upper }}|>{{ m['content'].strip()[:9] | tojson }}{{ '\\n' * 2 }}{% endfor %}{%- macro f(x) -%}{{ x ~ 1 }}{%- endmacro -%}{% set ns = namespace(n=0) %}{{ f(ns.n) }}";
    let json = train_chars(["the cat"], &Default::default()).unwrap().json().to_vec();
    let messages = [Message::new("user", "Hi"), Message::new("assistant", "there")];
    fuzz(300, &[template.into()], |bytes| {
        let mut config = Map::new();
        config.insert("chat_template".into(), json!(String::from_utf8_lossy(bytes)));
        if let Ok(tokenizer) = Tokenizer::from_contents(&json, config) {
            let _ = tokenizer.chat_text(&messages);
        }
    });
}

#[test]
fn shards() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    let mut writer = DatasetWriter::create(&path, WriterOptions::new(300, "t".repeat(64))).unwrap();
    for n in 0..6u32 {
        writer.push(&format!("doc {n}"), &(0..n * 3).collect::<Vec<_>>(), "text").unwrap();
    }
    writer.finish().unwrap();
    for name in ["shard-00000.ids", "shard-00000.docs", "manifest.json", "stats.json"] {
        let file = path.join(name);
        let whole = std::fs::read(&file).unwrap();
        fuzz(80, std::slice::from_ref(&whole), |bytes| {
            // A new file: the one before may be mapped.
            std::fs::remove_file(&file).unwrap();
            std::fs::write(&file, bytes).unwrap();
            let Ok(dataset) = Dataset::open(&path) else { return };
            let mut ids = vec![0; usize::try_from(dataset.tokens()).unwrap()];
            dataset.read(0, &mut ids);
            let _ = (dataset.verify(), dataset.check_ids(300), dataset.documents().count());
        });
        std::fs::write(&file, whole).unwrap();
    }
}
