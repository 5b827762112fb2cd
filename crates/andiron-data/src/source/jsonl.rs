//! JSON Lines: each line is an object and a document.

use std::io::{self, BufRead as _, Read as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::fields::document;
use super::{RecordError, RecordFault, Source, SourceError, SourceOptions, utf8};
use crate::document::{Document, Metadata};
use crate::input::Input;

/// Bytes of a block: so few that it stays in a processor's cache while it is parsed.
const BLOCK: usize = 64 << 10;

/// The documents of a JSON Lines file. Blank lines are skipped.
pub struct JsonlSource {
    blocks: JsonlBlocks,
    current: Option<JsonlDocuments>,
}

impl JsonlSource {
    /// Opens a file.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Self, SourceError> {
        Ok(Self { blocks: JsonlBlocks::open(path, options)?, current: None })
    }
}

impl Iterator for JsonlSource {
    type Item = Result<Document, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.current.as_mut().and_then(Iterator::next) {
                return Some(found.map_err(SourceError::from));
            }
            match self.blocks.next()? {
                Ok(block) => self.current = Some(block.into_documents()),
                Err(error) => {
                    self.current = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Source for JsonlSource {
    fn bytes_read(&self) -> u64 {
        self.blocks.bytes_read()
    }
}

/// A JSON Lines file in blocks of whole lines, in order: one thread reads it, and others parse the blocks.
///
/// # Example
/// ```
/// use andiron_data::source::{JsonlBlocks, SourceOptions};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("rows.jsonl");
/// std::fs::write(&path, "{\"text\": \"one\"}\n{\"text\": \"two\"}\n")?;
/// for block in JsonlBlocks::open(&path, &SourceOptions::default())? {
///     let texts: Vec<_> = block?.into_documents().map(|document| document.map(|it| it.text)).collect::<Result<_, _>>()?;
///     assert_eq!(texts, ["one", "two"]);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct JsonlBlocks {
    input: Input,
    path: Arc<Path>,
    options: Arc<SourceOptions>,
    /// The beginning of a line, which the next block goes on with.
    rest: Vec<u8>,
    buffers: Buffers,
    /// Lines before that.
    lines: u64,
    failure: Option<io::Error>,
    ended: bool,
}

/// Some whole lines of a JSON Lines file.
pub struct JsonlBlock {
    path: Arc<Path>,
    options: Arc<SourceOptions>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are lines.
    bytes: usize,
    /// Lines before it.
    lines: u64,
    buffers: Buffers,
}

/// Buffers of blocks that were parsed, for other blocks: so that they are neither allocated nor filled with zeros again.
#[derive(Clone, Default)]
struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    const MOST: usize = 128;

    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Keeps a buffer, unless a long line made it large.
    fn give(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < Self::MOST && buffer.len() <= 4 * BLOCK {
            kept.push(buffer);
        }
    }
}

impl JsonlBlocks {
    /// Whether a file is JSON Lines, by its extension.
    pub fn reads(path: &Path) -> bool {
        matches!(super::extension(path).as_str(), "jsonl" | "ndjson")
    }

    /// Opens a file.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Self, SourceError> {
        let input =
            Input::open(path, options.max_expansion).map_err(|source| SourceError::reading(path, source))?;
        Ok(Self {
            input,
            path: path.into(),
            options: Arc::new(options.clone()),
            rest: Vec::new(),
            buffers: Buffers::default(),
            lines: 0,
            failure: None,
            ended: false,
        })
    }

    /// Bytes of the file consumed so far, for progress.
    pub fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }

    /// Reads whole lines into a buffer, and notes why there are no more; says how many bytes they have. Of a line that is longer than
    /// the limit only the beginning is kept.
    fn read(&mut self, buffer: &mut Vec<u8>) -> usize {
        let limit = self.options.max_record_bytes;
        let mut len = self.rest.len();
        buffer.resize(buffer.len().max(len), 0);
        buffer[..len].copy_from_slice(&self.rest);
        self.rest.clear();
        loop {
            // No line ends before this.
            let searched = len;
            let end = fill(&mut self.input, buffer, &mut len);
            if let Some(last) = memchr::memrchr(b'\n', &buffer[searched..len]) {
                let whole = searched + last + 1;
                self.rest.extend_from_slice(&buffer[whole..len]);
                len = whole;
            } else if len as u64 > limit {
                // As much as tells that it is too long.
                len = limit as usize + 1;
                if end.as_ref().is_ok_and(|ended| !ended) {
                    self.failure = self.input.skip_until(b'\n').err();
                }
                buffer.resize(buffer.len().max(len + 1), 0);
                buffer[len] = b'\n';
                len += 1;
            } else {
                match end {
                    Ok(false) => continue,
                    // Part of a line: what follows is not known.
                    Err(_) => len = 0,
                    Ok(true) => {}
                }
            }
            match end {
                Ok(ended) => self.ended = ended && self.rest.is_empty(),
                Err(error) => self.failure = Some(error),
            }
            return len;
        }
    }
}

/// Reads another block of bytes behind the first `len`; says whether the file ended.
fn fill(input: &mut Input, buffer: &mut Vec<u8>, len: &mut usize) -> io::Result<bool> {
    let end = *len + BLOCK;
    buffer.resize(buffer.len().max(end), 0);
    while *len < end {
        match input.read(&mut buffer[*len..end]) {
            Ok(0) => return Ok(true),
            Ok(n) => *len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

impl Iterator for JsonlBlocks {
    type Item = Result<JsonlBlock, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failure.is_none() && !self.ended {
            let lines = self.lines;
            let mut buffer = self.buffers.take();
            let bytes = self.read(&mut buffer);
            if bytes > 0 {
                self.lines += memchr::memchr_iter(b'\n', &buffer[..bytes]).count() as u64;
                let (path, options) = (Arc::clone(&self.path), Arc::clone(&self.options));
                return Some(Ok(JsonlBlock {
                    path,
                    options,
                    buffer,
                    bytes,
                    lines,
                    buffers: self.buffers.clone(),
                }));
            }
        }
        let failure = self.failure.take()?;
        self.ended = true;
        Some(Err(SourceError::reading(&self.path, failure)))
    }
}

impl JsonlBlock {
    /// Bytes of its lines.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Parses the lines. Blank ones are skipped.
    pub fn into_documents(self) -> JsonlDocuments {
        JsonlDocuments { block: self, at: 0, line: 0 }
    }

    fn parse(&self, line: &[u8], number: u64) -> Result<Document, RecordFault> {
        let limit = self.options.max_record_bytes;
        if line.len() as u64 > limit {
            return Err(RecordFault::TooLong { limit });
        }
        let text = utf8(line)?;
        let fields: Metadata = serde_json::from_str(text).map_err(|cause| RecordFault::Json { cause })?;
        document(fields, &self.options, &self.path, number)
    }
}

impl Drop for JsonlBlock {
    fn drop(&mut self) {
        self.buffers.give(std::mem::take(&mut self.buffer));
    }
}

/// The documents of a [`JsonlBlock`].
pub struct JsonlDocuments {
    block: JsonlBlock,
    /// Where the next line begins.
    at: usize,
    /// Lines of the block that were parsed.
    line: u64,
}

impl Iterator for JsonlDocuments {
    type Item = Result<Document, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.block.buffer.get(self.at..self.block.bytes).filter(|rest| !rest.is_empty())?;
            let line = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
            self.at += line.len() + 1;
            self.line += 1;
            let is_long = line.len() as u64 > self.block.options.max_record_bytes;
            if !is_long && line.trim_ascii().is_empty() {
                continue;
            }
            let number = self.block.lines + self.line;
            let fail = |fault| RecordError {
                path: self.block.path.to_path_buf(),
                line: Some(number),
                row: None,
                fault,
            };
            return Some(self.block.parse(line, number).map_err(fail));
        }
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
