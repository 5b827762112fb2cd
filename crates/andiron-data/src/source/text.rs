//! Text, Markdown and HTML: each file is a document.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{CONTENT_TYPE, RecordError, RecordFault, Source, SourceError, SourceOptions, web};
use crate::document::Document;
use crate::input::Input;

/// What a file is that is one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Plain text.
    Text,
    /// Markdown, whose marks are part of the text.
    Markdown,
    /// A web page, whose tags are part of the text.
    Html,
}

/// A file as one document whose id is the file's name. A byte order mark at its start is dropped.
///
/// Text and Markdown are UTF-8. HTML is in the character set that it declares, else UTF-8.
pub struct FileSource {
    path: PathBuf,
    input: Input,
    kind: FileKind,
    name: String,
    max_bytes: u64,
    is_read: bool,
}

impl FileSource {
    /// Opens a file; its content is read with the first call of `next`.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path, kind: FileKind, options: &SourceOptions) -> Result<Self, SourceError> {
        let input =
            Input::open(path, options.max_expansion).map_err(|source| SourceError::reading(path, source))?;
        let (name, max_bytes) = (options.name_of(path), options.max_file_bytes);
        Ok(Self { path: path.to_owned(), input, kind, name, max_bytes, is_read: false })
    }

    fn read(&mut self) -> Result<Document, SourceError> {
        let mut bytes = Vec::new();
        let limit = self.max_bytes;
        (&mut self.input)
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| SourceError::reading(&self.path, source))?;
        let fail = |fault| RecordError::of_file(&self.path, fault);
        if bytes.len() as u64 > limit {
            return Err(fail(RecordFault::TooLong { limit }).into());
        }
        let text = match self.kind {
            FileKind::Html => web::decode(bytes, None, web::Declared::InMeta).map_err(fail)?,
            FileKind::Text | FileKind::Markdown => String::from_utf8(bytes)
                .map_err(|e| fail(RecordFault::Utf8 { offset: e.utf8_error().valid_up_to() }))?,
        };
        let mut document = Document::new(self.name.clone(), text);
        let content_type = match self.kind {
            FileKind::Text => None,
            FileKind::Markdown => Some("text/markdown"),
            FileKind::Html => Some(web::HTML),
        };
        if let Some(content_type) = content_type {
            document.metadata.insert(CONTENT_TYPE.into(), content_type.into());
        }
        Ok(document)
    }
}

impl Iterator for FileSource {
    type Item = Result<Document, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_read = std::mem::replace(&mut self.is_read, true);
        (!is_read).then(|| self.read())
    }
}

impl Source for FileSource {
    fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8], kind: FileKind, max_file_bytes: u64) -> Vec<Result<Document, SourceError>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("play.txt");
        std::fs::write(&path, content).unwrap();
        let options = SourceOptions { max_file_bytes, ..SourceOptions::default() };
        FileSource::open(&path, kind, &options).unwrap().collect()
    }

    #[test]
    fn a_file_is_one_document() {
        let documents = read("a\r\n\n é".as_bytes(), FileKind::Text, 100);
        assert_eq!(documents.len(), 1);
        assert_eq!(documents[0].as_ref().unwrap(), &Document::new("play.txt", "a\r\n\n é"));
    }

    #[test]
    fn a_byte_order_mark_is_not_text() {
        assert_eq!(read("\u{feff}a".as_bytes(), FileKind::Text, 100)[0].as_ref().unwrap().text, "a");
    }

    #[test]
    fn what_is_no_plain_text_says_so() {
        for (kind, content_type) in [(FileKind::Markdown, "text/markdown"), (FileKind::Html, "text/html")] {
            let documents = read(b"# <b>a</b>", kind, 100);
            let document = documents[0].as_ref().unwrap();
            assert_eq!(
                (document.text.as_str(), &document.metadata[CONTENT_TYPE]),
                ("# <b>a</b>", &content_type.into())
            );
        }
    }

    #[test]
    fn bad_bytes_and_long_files_are_errors_of_the_record() {
        let message = |item: &Result<Document, SourceError>| item.as_ref().unwrap_err().to_string();
        for kind in [FileKind::Text, FileKind::Markdown, FileKind::Html] {
            assert!(
                message(&read(b"ab\xff", kind, 100)[0])
                    .ends_with("play.txt: invalid UTF-8 at byte 2 of the record; convert the file to UTF-8")
            );
            assert!(message(&read(b"abcd", kind, 3)[0]).contains("longer than 3 bytes"));
            assert!(read(b"abc", kind, 3)[0].is_ok());
        }
    }
}
