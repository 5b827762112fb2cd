//! JSON Lines: each line is an object and a document.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RecordError, RecordFault, Source, SourceError, file_name};
use crate::document::{Document, Metadata};
use crate::files::{self, ReadFile, without_mark};

/// How a file with one JSON object per line is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonlOptions {
    /// The field that holds the text.
    pub text_key: String,
    /// The field that holds the id, a string or a number; without it the id is `file:line`.
    pub id_key: String,
    /// The longest line read, in bytes.
    pub max_line_bytes: u64,
}

impl Default for JsonlOptions {
    /// Fields `text` and `id`, lines of at most 64 MiB.
    fn default() -> Self {
        Self { text_key: "text".into(), id_key: "id".into(), max_line_bytes: 64 << 20 }
    }
}

/// The documents of a JSON Lines file. Blank lines are skipped.
pub struct JsonlSource {
    path: PathBuf,
    reader: BufReader<ReadFile>,
    options: JsonlOptions,
    line: u64,
    bytes_read: u64,
    failed: bool,
}

impl JsonlSource {
    /// Opens a file.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path, options: JsonlOptions) -> Result<Self, SourceError> {
        let file = files::open(path).map_err(|source| SourceError::Read { path: path.to_owned(), source })?;
        let reader = BufReader::with_capacity(1 << 16, file);
        Ok(Self { path: path.to_owned(), reader, options, line: 0, bytes_read: 0, failed: false })
    }

    /// Reads the next line into `line` without its line ending. `None` is the end of the file, `Some(false)` a line that is
    /// too long and was skipped.
    fn next_line(&mut self, line: &mut Vec<u8>) -> std::io::Result<Option<bool>> {
        line.clear();
        let limit = self.options.max_line_bytes;
        let read = self.reader.by_ref().take(limit.saturating_add(1)).read_until(b'\n', line)? as u64;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        self.bytes_read += read;
        if line.last() == Some(&b'\n') {
            line.pop();
            return Ok(Some(true));
        }
        if read <= limit {
            return Ok(Some(true));
        }
        self.pass_over_line()?;
        Ok(Some(false))
    }

    fn pass_over_line(&mut self) -> std::io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            let end = buffer.iter().position(|&b| b == b'\n');
            let used = end.map_or(buffer.len(), |at| at + 1);
            self.reader.consume(used);
            self.bytes_read += used as u64;
            if end.is_some() || used == 0 {
                return Ok(());
            }
        }
    }

    fn parse(&self, line: &[u8]) -> Result<Document, RecordFault> {
        let text = std::str::from_utf8(line).map_err(|e| RecordFault::Utf8 { offset: e.valid_up_to() })?;
        let mut fields: Metadata = serde_json::from_str(text).map_err(|cause| RecordFault::Json { cause })?;
        let key = &self.options.text_key;
        let text = match fields.remove(key) {
            Some(Value::String(text)) => text,
            Some(_) => return Err(RecordFault::NotText { key: key.clone() }),
            None => return Err(RecordFault::MissingText { key: key.clone() }),
        };
        let id = match fields.remove(&self.options.id_key) {
            Some(Value::String(id)) => id,
            Some(Value::Number(id)) => id.to_string(),
            _ => format!("{}:{}", file_name(&self.path), self.line),
        };
        Ok(Document { id, text, metadata: fields })
    }
}

impl Iterator for JsonlSource {
    type Item = Result<Document, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        while !self.failed {
            let whole = match self.next_line(&mut line) {
                Ok(None) => return None,
                Ok(Some(whole)) => whole,
                Err(source) => {
                    self.failed = true;
                    return Some(Err(SourceError::Read { path: self.path.clone(), source }));
                }
            };
            let fault = if whole {
                let mut content = line.as_slice();
                if self.line == 1 {
                    content = without_mark(content);
                }
                if content.trim_ascii().is_empty() {
                    continue;
                }
                match self.parse(content) {
                    Ok(document) => return Some(Ok(document)),
                    Err(fault) => fault,
                }
            } else {
                RecordFault::TooLong { limit: self.options.max_line_bytes }
            };
            let error = RecordError { path: self.path.clone(), line: Some(self.line), fault };
            return Some(Err(error.into()));
        }
        None
    }
}

impl Source for JsonlSource {
    fn bytes_read(&self) -> u64 {
        self.bytes_read
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
        JsonlSource::open(&path, JsonlOptions { max_line_bytes, ..JsonlOptions::default() }).unwrap()
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
