//! Cleaned documents on disk: JSON Lines that other programs read too.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::PrepareError;
use super::pipeline::failed_to_read;
use super::work::open;
use andiron_data::Document;
use andiron_data::document::Metadata;

/// A document as it is written.
#[derive(Serialize)]
struct Written<'a> {
    // First, so that it is found without parsing the rest.
    id: &'a str,
    source: &'a str,
    file: &'a str,
    text: &'a str,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    metadata: &'a Metadata,
}

/// What is read of it again.
#[derive(Debug, Deserialize)]
pub(super) struct Stored {
    pub(super) id: String,
    pub(super) text: String,
}

/// The line of a document, with its line feed.
pub(super) fn line(document: &Document, source: &str, file: &str) -> Vec<u8> {
    let Document { id, text, metadata } = document;
    let mut line = Vec::with_capacity(text.len() + text.len() / 16 + 128);
    serde_json::to_writer(&mut line, &Written { id, source, file, text, metadata })
        .expect("a document is plain data");
    line.push(b'\n');
    line
}

/// The id of the document in a line, or in the beginning of one.
pub(super) fn id_of(line: &[u8]) -> Option<String> {
    let rest = line.strip_prefix(b"{\"id\":")?;
    serde_json::Deserializer::from_slice(rest).into_iter().next()?.ok()
}

/// The document in a line of a file.
pub(super) fn parse(line: &[u8], path: &Path) -> Result<Stored, PrepareError> {
    serde_json::from_slice(line).map_err(|source| PrepareError::Damaged { path: path.to_owned(), source })
}

/// All fields of a line, in order.
pub(super) fn fields_of(line: &[u8], path: &Path) -> Result<Metadata, PrepareError> {
    serde_json::from_slice(line).map_err(|source| PrepareError::Damaged { path: path.to_owned(), source })
}

/// The line of some fields, with its line feed.
pub(super) fn line_of(fields: &Metadata) -> Vec<u8> {
    let mut line = serde_json::to_vec(fields).expect("fields are plain data");
    line.push(b'\n');
    line
}

/// The lines of a file of documents.
pub(super) struct StoredLines {
    path: PathBuf,
    file: std::io::BufReader<andiron_files::ReadFile>,
    line: Vec<u8>,
}

impl StoredLines {
    pub(super) fn open(path: &Path) -> Result<Self, PrepareError> {
        Ok(Self { path: path.to_owned(), file: open(path)?, line: Vec::new() })
    }

    /// The next line, with its line feed.
    pub(super) fn next_line(&mut self) -> Result<Option<&[u8]>, PrepareError> {
        self.line.clear();
        let n = self.file.read_until(b'\n', &mut self.line).map_err(failed_to_read(&self.path))?;
        Ok((n > 0).then_some(&self.line[..]))
    }

    /// The next document.
    pub(super) fn next_document(&mut self) -> Result<Option<Stored>, PrepareError> {
        let path = self.path.clone();
        let Some(line) = self.next_line()? else { return Ok(None) };
        parse(line, &path).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_the_document_back() {
        let mut document = Document::new("a\"\n", "é\u{0}\u{2028}\n");
        document.metadata.insert("lang".into(), "en".into());
        let line = line(&document, "web", "a.jsonl");
        let stored: Stored = serde_json::from_slice(&line).unwrap();
        assert_eq!((&stored.id, &stored.text), (&document.id, &document.text));
        assert_eq!(id_of(&line).as_ref(), Some(&document.id));
        assert_eq!(id_of(&line[..14]).as_ref(), Some(&document.id));
        assert_eq!(id_of(&line[..9]), None);
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
    }
}
