//! JSON Lines: each line is an object and a document.

use std::path::{Path, PathBuf};

use super::fields::document;
use super::{RecordError, RecordFault, Source, SourceError, SourceOptions, utf8};
use crate::document::{Document, Metadata};
use crate::lines::{Line, Lines};

/// The documents of a JSON Lines file. Blank lines are skipped.
pub struct JsonlSource {
    path: PathBuf,
    lines: Lines,
    options: SourceOptions,
    failed: bool,
}

impl JsonlSource {
    /// Opens a file.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Self, SourceError> {
        let lines = Lines::open_within(path, options.max_record_bytes, options.max_expansion)
            .map_err(|source| SourceError::reading(path, source))?;
        Ok(Self { path: path.to_owned(), lines, options: options.clone(), failed: false })
    }

    fn parse(&self, line: &[u8]) -> Result<Document, RecordFault> {
        let text = utf8(line)?;
        let fields: Metadata = serde_json::from_str(text).map_err(|cause| RecordFault::Json { cause })?;
        document(fields, &self.options, &self.path, self.lines.number())
    }
}

impl Iterator for JsonlSource {
    type Item = Result<Document, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let mut line = Vec::new();
        let parsed = match self.lines.next(&mut line) {
            Ok(None) => return None,
            Ok(Some(Line::Whole)) => self.parse(&line),
            Ok(Some(Line::TooLong)) => Err(RecordFault::TooLong { limit: self.lines.limit() }),
            Err(source) => {
                self.failed = true;
                return Some(Err(SourceError::reading(&self.path, source)));
            }
        };
        Some(parsed.map_err(|fault| {
            let line = Some(self.lines.number());
            RecordError { path: self.path.clone(), line, row: None, fault }.into()
        }))
    }
}

impl Source for JsonlSource {
    fn bytes_read(&self) -> u64 {
        self.lines.bytes_read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Documents, OnError};

    fn source(content: &[u8], max_line_bytes: u64) -> JsonlSource {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        std::fs::write(&path, content).unwrap();
        // The open file outlives its folder on the systems that tests run on.
        JsonlSource::open(
            &path,
            &SourceOptions { max_record_bytes: max_line_bytes, ..SourceOptions::default() },
        )
        .unwrap()
    }

    #[test]
    fn fields_become_documents() {
        let rows: Vec<_> = source(
            "\u{feff}{\"text\":\"a\\n\",\"id\":\"x\",\"lang\":\"en\"}\n\n{\"id\":7,\"text\":\"\"}\r\n{\"text\":\"é\"}".as_bytes(),
            1000,
        )
        .map(Result::unwrap)
        .collect();
        assert_eq!(rows.len(), 3);
        assert_eq!((rows[0].id.as_str(), rows[0].text.as_str()), ("x", "a\n"));
        assert_eq!(rows[0].metadata["lang"], "en");
        assert_eq!(rows[1].id, "7");
        assert_eq!((rows[2].id.as_str(), rows[2].text.as_str()), ("rows.jsonl:4", "é"));
    }

    #[test]
    fn a_record_without_text_says_what_it_has() {
        let mut rows = source(b"{\"id\":1,\"document\":\"a\",\"summary\":\"b\"}\n", 100);
        let error = rows.next().unwrap().unwrap_err().to_string();
        let said = "no field `text`; the record has \"id\", \"document\", \"summary\"; name the field that holds the text";
        assert!(error.ends_with(said), "{error}");
    }

    #[test]
    fn bad_lines_are_named_and_can_be_skipped() {
        let deep = format!("{{\"text\":\"x\",\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        let mut content = b"{\"text\":\"ok\"}\n{\"text\":\n{\"tex\":\"\"}\n{\"text\":3}\n\xff\n".to_vec();
        content.extend_from_slice(b"[1]\n{\"text\":\"\\ud800\"}\n");
        content.extend_from_slice(deep.as_bytes());
        content.extend_from_slice(b"\n{\"text\":\"last\"}");
        let mut documents = Documents::new(source(&content, 1 << 20), OnError::Skip);
        let texts: Vec<_> = documents.by_ref().map(|d| d.unwrap().text).collect();
        assert_eq!(texts, ["ok", "last"]);
        let counts: Vec<_> = documents.skipped().iter().map(|(k, v)| (*k, *v)).collect();
        assert_eq!(
            counts,
            [("invalid-json", 4), ("invalid-utf8", 1), ("missing-text", 1), ("text-is-no-string", 1)]
        );
        let first = Documents::new(source(&content, 1 << 20), OnError::Fail).nth(1).unwrap();
        assert!(
            first
                .unwrap_err()
                .to_string()
                .ends_with("rows.jsonl:2: invalid JSON: EOF while parsing a value at column 8")
        );
    }

    #[test]
    fn what_the_parser_says_of_a_line_is_told() {
        for (line, said) in [
            (r#"{"text":"ok","score":NaN}"#, "expected value at column 22"),
            (r#"{"text":"\ud800"}"#, "unexpected end of hex escape at column 16"),
            (r#"{"text":"ok","score":1e400}"#, "number out of range at column 26"),
            (r#"{"text":"ok",}"#, "trailing comma at column 14"),
        ] {
            let error = source(line.as_bytes(), 100).next().unwrap().unwrap_err().to_string();
            assert!(error.ends_with(&format!("rows.jsonl:1: invalid JSON: {said}")), "{error}");
        }
    }

    #[test]
    fn a_line_over_the_limit_is_passed_over_without_being_held() {
        let mut content = b"{\"text\":\"".to_vec();
        content.extend(std::iter::repeat_n(b'a', 300_000));
        content.extend_from_slice(b"\"}\n{\"text\":\"b\"}\n");
        let rows: Vec<_> = source(&content, 100).collect();
        assert!(rows[0].as_ref().unwrap_err().to_string().contains("rows.jsonl:1: longer than 100 bytes"));
        assert_eq!(rows[1].as_ref().unwrap().text, "b");
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_read() {
        let rows: Vec<_> = source(b"{\"text\":\"b\"}\n{\"text\":\"b\"}", 12).collect();
        assert!(rows.iter().all(Result::is_ok) && rows.len() == 2);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(content: Vec<u8>) {
            for _ in source(&content, 16) {}
        }
    }
}
