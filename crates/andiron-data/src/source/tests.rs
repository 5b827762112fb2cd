use std::fs;
use std::path::PathBuf;

use super::*;
use crate::input::tests::{gzip, zstd};
use serde_json::{Value, json};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

/// Each document as `[id, text, metadata]`, each bad record as its message without the folder.
fn read(name: &str, content: impl AsRef<[u8]>, options: &SourceOptions) -> Vec<Value> {
    let folder = Folder::new();
    let path = folder.write(name, content);
    let prefix = format!("{}/", folder.0.path().display());
    let message = |error: SourceError| {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(below) = cause {
            message += &format!(": {below}");
            cause = below.source();
        }
        Value::String(message.replace(&prefix, ""))
    };
    match open(&path, options) {
        Err(error) => vec![message(error)],
        Ok(source) => source
            .map(|item| match item {
                Ok(Document { id, text, metadata }) => json!([id, text, metadata]),
                Err(error) => message(error),
            })
            .collect(),
    }
}

#[track_caller]
fn check(name: &str, content: impl AsRef<[u8]>, expected: Value) {
    assert_eq!(Value::Array(read(name, content, &SourceOptions::default())), expected);
}

#[test]
fn the_extension_chooses_the_source() {
    let folder = Folder::new();
    let options = SourceOptions::default();
    let texts =
        |path: &Path| -> Vec<String> { open(path, &options).unwrap().map(|d| d.unwrap().text).collect() };
    let record = "{\"text\":\"x\"}\n";
    assert_eq!(texts(&folder.write("a.JSONL", record)), ["x"]);
    assert_eq!(texts(&folder.write("a.txt", record)), [record]);
    assert_eq!(texts(&folder.write("noextension", "y")), ["y"]);
    assert_eq!(texts(&folder.write("a.jsonl.gz", gzip(record.as_bytes()))), ["x"]);
    assert_eq!(texts(&folder.write("a.jsonl.zst", zstd(record.as_bytes()))), ["x"]);
    assert_eq!(texts(&folder.write("a.json", "[{\"text\": \"x\"},\n{\"text\": \"y\"}]")), ["x", "y"]);
    assert_eq!(texts(&folder.write("a.tsv.gz", gzip(b"id\ttext\n1\tx\n"))), ["x"]);
    let archive = folder.write("a.zip", "PK");
    assert!(matches!(open(&archive, &options), Err(SourceError::Unsupported { .. })));
    let missing = folder.0.path().join("missing.txt");
    assert!(matches!(open(&missing, &options), Err(SourceError::Read { .. })));
}

#[test]
fn rows_of_tables_are_documents() {
    check(
        "r.csv",
        "id,text,lang\n7,\"a, \"\"b\"\"\nc\",en\n,d,\nx\n9,e,ko\n",
        json!([
            ["7", "a, \"b\"\nc", { "lang": "en" }],
            ["r.csv:4", "d", { "lang": "" }],
            "r.csv:5: 1 cells, but the header has 3; cells that contain a separator or a line break are put in quotes",
            ["9", "e", { "lang": "ko" }],
        ]),
    );
    let options = SourceOptions {
        text_field: "body".into(),
        id_field: "url".into(),
        separator: Some('|'),
        quotes: false,
        ..SourceOptions::default()
    };
    assert_eq!(read("r.csv", "url|body\nu|\"a\n", &options), [json!(["u", "\"a", {}])]);
    let error = "r.csv:2: no field `text`; the record has \"a\"; name the field that holds the text";
    check("r.csv", "a\n1\n", json!([error]));
}

#[test]
fn lists_of_json_are_documents() {
    check(
        "r.json",
        r#"[{"id": 3, "text": "a", "n": [1]}, {"text": 4}, {"text": "b"}]"#,
        json!([["3", "a", { "n": [1] }], "r.json:1: field `text` is not a string", ["r.json:1", "b", {}]]),
    );
}

#[test]
fn a_bad_byte_loses_its_row_only() {
    let bad = "r.jsonl:2: invalid UTF-8 at byte 9 of the record; convert the file to UTF-8";
    check(
        "r.jsonl",
        b"{\"text\":\"a\"}\n{\"text\":\"\xff\"}\n{\"text\":\"c\"}\n",
        json!([["r.jsonl:1", "a", {}], bad, ["r.jsonl:3", "c", {}]]),
    );
}

#[test]
fn a_damaged_file_is_a_bad_record() {
    let lines: String = (0..20_000).map(|n| format!("{{\"text\":\"{}\"}}\n", n * 7919)).collect();
    for (name, whole) in [("r.jsonl.gz", gzip(lines.as_bytes())), ("r.jsonl.zst", zstd(lines.as_bytes()))] {
        let read = read(name, &whole[..whole.len() / 2], &SourceOptions::default());
        let (last, before) = read.split_last().unwrap();
        assert!(before.len() > 1000 && before.iter().all(Value::is_array), "{name}");
        let said = last.as_str().unwrap();
        assert!(
            said.starts_with(&format!("{name}: it is compressed, and cannot be decompressed: ")),
            "{said}"
        );
        assert!(said.ends_with("; the rest of the file is not read"), "{said}");
    }
    let folder = Folder::new();
    let path = folder.write("t.csv.gz", &gzip(b"text\na\n")[..14]);
    let error = open(&path, &SourceOptions::default()).err().unwrap();
    assert!(matches!(error, SourceError::Record(_)), "{error}");
}

#[test]
fn bombs_are_named_with_the_limit() {
    let bomb = gzip(&vec![b'\n'; 70 << 20]);
    let options = SourceOptions { max_expansion: 10, ..SourceOptions::default() };
    let said = "its content is over 10 times as long as the file; raise `max_expansion` if this is meant; the rest of the file is not read";
    for name in ["b.jsonl", "b.txt", "b.warc"] {
        assert_eq!(read(name, &bomb, &options), [json!(format!("{name}: {said}"))]);
    }
    assert_eq!(read("b.csv", &bomb, &options), [json!(format!("b.csv:1: {said}"))]);
}

#[cfg(not(feature = "parquet"))]
#[test]
fn a_build_without_parquet_says_so() {
    check(
        "a.parquet",
        "PAR1",
        json!(["a.parquet: this program was built without Parquet; build it with `--features parquet`"]),
    );
}
