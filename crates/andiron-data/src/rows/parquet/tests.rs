use std::fs;

use super::*;
use crate::rows::{ChatFields, RowReader, Shape};
use serde_json::{Value, json};

/// A file that `tests/golden/parquet_files.py` wrote.
macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/golden/parquet/", $name, ".parquet")).as_slice()
    };
}

fn open(content: &[u8], options: &RowOptions) -> Result<Vec<Result<Row, RowsError>>, RowsError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.parquet");
    fs::write(&path, content).unwrap();
    Ok(RowReader::open(&path, options)?.collect())
}

fn rows(content: &[u8]) -> Vec<Row> {
    open(content, &RowOptions::default()).unwrap().into_iter().map(Result::unwrap).collect()
}

const TEXTS: [&str; 5] = ["To be, or not to be", "죽느냐 사느냐", "", "a\nb\t\"c\"", "last"];

// pandas 3.1.1 writes LargeUtf8 and, for the category, a dictionary of it; polars writes zstd; datasets writes snappy.
#[test]
fn files_of_other_programs_have_the_same_rows() {
    for (name, content) in
        [("pandas", golden!("pandas")), ("polars", golden!("polars")), ("datasets", golden!("datasets"))]
    {
        let rows = rows(content);
        let texts: Vec<_> = rows.iter().map(|row| row.text("text").unwrap()).collect();
        assert_eq!(texts, TEXTS, "{name}");
        let languages: Vec<_> = rows.iter().map(|row| row.text("lang").unwrap()).collect();
        assert_eq!(languages, ["en", "ko", "en", "en", "ko"], "{name}");
        let scores: Vec<_> = rows.iter().map(|row| row.number("score").ok()).collect();
        assert_eq!(scores, [Some(0.1), None, Some(-2.5), None, Some(3.0)], "{name}");
        assert_eq!(rows[3].origin().to_string().rsplit('/').next(), Some("r.parquet: row 4"), "{name}");
        let messages =
            json!([{ "role": "user", "content": "Hi" }, { "role": "assistant", "content": "Answer 1" }]);
        assert_eq!(rows[1].get("messages").unwrap(), &messages, "{name}");
        assert_eq!(rows[0].get("messages").unwrap(), &json!([]), "{name}");
        let chat = ChatFields::default().read(&rows[4]).unwrap();
        assert_eq!(chat.messages.len(), 2, "{name}");
    }
    assert_eq!(rows(golden!("pandas"))[0].text("when").unwrap(), "2024-01-02T03:04:05.678");
}

#[test]
fn every_type_has_a_value() {
    let rows: Vec<Value> =
        rows(golden!("pyarrow-zstd")).into_iter().map(|row| Value::Object(row.into_fields())).collect();
    assert_eq!(
        rows[0],
        json!({
            "text": TEXTS[0], "lang": "en", "f32": 0.1, "f16": 1.5, "u64": u64::MAX, "price": -1.25,
            "day": "1969-12-31", "hour": "03:04:05", "at": "2024-01-02T03:04:05.678", "raw": null,
            "tags": ["a", null], "pairs": { "k": 1 }, "nested": { "a": { "b": [true, null] } },
        })
    );
    assert_eq!((&rows[1]["raw"], &rows[1]["tags"]), (&json!("ok"), &json!([])));
    assert_eq!((&rows[2]["f32"], &rows[2]["tags"]), (&Value::Null, &Value::Null));
    assert_eq!((rows.len(), &rows[4]["text"], &rows[4]["f32"]), (5, &json!("last"), &json!(1e30)));
}

#[test]
fn pages_may_be_compressed() {
    for content in [
        golden!("pyarrow-none"),
        golden!("pyarrow-snappy"),
        golden!("pyarrow-gzip"),
        golden!("pyarrow-lz4"),
        golden!("pyarrow-delta"),
    ] {
        let texts: Vec<_> = rows(content).iter().map(|row| row.text("text").unwrap().to_owned()).collect();
        assert_eq!(texts, TEXTS);
    }
    let read = open(golden!("pyarrow-brotli"), &RowOptions::default()).unwrap();
    let error = read[0].as_ref().unwrap_err().to_string();
    let said = "is compressed with Brotli, which cannot be read; write the file anew with Zstandard, Snappy, gzip or LZ4; the rest of \
                its row group is not read";
    assert!(error.contains("r.parquet: row 1: column \"text\" ") && error.ends_with(said), "{error}");
    assert_eq!(read.len(), 1);
}

#[test]
fn long_rows_and_bombs_are_refused() {
    let options = RowOptions { max_row_bytes: 60, ..RowOptions::default() };
    let read = open(golden!("pyarrow-none"), &options).unwrap();
    let fine: Vec<bool> = read.iter().map(Result::is_ok).collect();
    assert_eq!(fine, [false, true, true, true, true]);
    let said = "r.parquet: row 1: longer than 60 bytes; raise the limit if this is meant";
    assert!(read[0].as_ref().unwrap_err().to_string().ends_with(said));
}

// The crate would make room for all of them: 48 GB of one damaged file that was met.
#[test]
fn a_dictionary_that_claims_more_than_it_has_is_an_error() {
    let whole = golden!("pyarrow-none");
    let mut refused = 0;
    // The first page is the dictionary of the first column.
    for at in 4..100 {
        // A number of the compact Thrift protocol: the largest.
        let mut damaged = whole.to_vec();
        damaged.splice(at..=at, [0xfe, 0xff, 0xff, 0xff, 0x0f]);
        let Ok(read) = open(&damaged, &RowOptions::default()) else { continue };
        let said = |row: &Result<Row, RowsError>| {
            row.as_ref()
                .is_err_and(|error| error.to_string().contains("a dictionary has fewer values than it says"))
        };
        refused += usize::from(read.iter().any(said));
    }
    assert!(refused > 0);
}

#[test]
fn damaged_files_are_errors() {
    let whole = golden!("pyarrow-snappy");
    for end in 0..whole.len() {
        assert!(open(&whole[..end], &RowOptions::default()).is_err(), "cut at {end}");
    }
    let error = open(b"PAR1 no parquet", &RowOptions::default()).unwrap_err().to_string();
    assert!(error.contains("r.parquet: "), "{error}");
    // The first text is not UTF-8. The second row group is read.
    let mut damaged = golden!("pyarrow-none").to_vec();
    let at = damaged.windows(5).position(|bytes| bytes == b"To be").unwrap();
    damaged[at] = 0xff;
    let read = open(&damaged, &RowOptions::default()).unwrap();
    let error = read[0].as_ref().unwrap_err().to_string();
    assert!(error.contains("row 1: ") && error.contains("UTF-8"), "{error}");
    let rest: Vec<_> = read[1..].iter().map(|row| row.as_ref().unwrap()).collect();
    assert_eq!(rest.iter().map(|row| row.text("text").unwrap()).collect::<Vec<_>>(), TEXTS[3..]);
    assert!(rest[0].origin().to_string().ends_with("row 4"));
}
