//! Plain text: each file is a document.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{RecordError, RecordFault, Source, SourceError, file_name};
use crate::document::Document;
use crate::input::Input;

/// How a plain text file is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextOptions {
    /// The longest file read, in bytes. A file is held in memory as a whole.
    pub max_bytes: u64,
}

impl Default for TextOptions {
    /// One gibibyte.
    fn default() -> Self {
        Self { max_bytes: 1 << 30 }
    }
}

/// A UTF-8 file as one document whose id is the file's name. A byte order mark at its start is dropped.
pub struct TextSource {
    path: PathBuf,
    input: Input,
    options: TextOptions,
    is_read: bool,
}

impl TextSource {
    /// Opens a file; its content is read with the first call of `next`.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path, options: TextOptions) -> Result<Self, SourceError> {
        let input =
            Input::open(path).map_err(|source| SourceError::Read { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), input, options, is_read: false })
    }

    fn read(&mut self) -> Result<Document, SourceError> {
        let mut bytes = Vec::new();
        let limit = self.options.max_bytes;
        (&mut self.input)
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| SourceError::Read { path: self.path.clone(), source })?;
        let fail = |fault| RecordError { path: self.path.clone(), line: None, fault };
        if bytes.len() as u64 > limit {
            return Err(fail(RecordFault::TooLong { limit }).into());
        }
        let text = String::from_utf8(bytes)
            .map_err(|e| fail(RecordFault::Utf8 { offset: e.utf8_error().valid_up_to() }))?;
        Ok(Document::new(file_name(&self.path), text))
    }
}

impl Iterator for TextSource {
    type Item = Result<Document, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_read = std::mem::replace(&mut self.is_read, true);
        (!is_read).then(|| self.read())
    }
}

impl Source for TextSource {
    fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8], max_bytes: u64) -> Vec<Result<Document, SourceError>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("play.txt");
        std::fs::write(&path, content).unwrap();
        TextSource::open(&path, TextOptions { max_bytes }).unwrap().collect()
    }

    #[test]
    fn a_file_is_one_document() {
        let documents = read("a\r\n\n é".as_bytes(), 100);
        assert_eq!(documents.len(), 1);
        assert_eq!(documents[0].as_ref().unwrap(), &Document::new("play.txt", "a\r\n\n é"));
    }

    #[test]
    fn a_byte_order_mark_is_not_text() {
        assert_eq!(read("\u{feff}a".as_bytes(), 100)[0].as_ref().unwrap().text, "a");
    }

    #[test]
    fn bad_bytes_and_long_files_are_errors_of_the_record() {
        let message = |item: &Result<Document, SourceError>| item.as_ref().unwrap_err().to_string();
        assert!(
            message(&read(b"ab\xff", 100)[0])
                .ends_with("play.txt: invalid UTF-8 at byte 2 of the record; convert the file to UTF-8")
        );
        assert!(message(&read(b"abcd", 3)[0]).contains("longer than 3 bytes"));
        assert!(read(b"abc", 3)[0].is_ok());
    }
}
