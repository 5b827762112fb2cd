//! Web archives: the pages of WARC files and the texts of WET files.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use super::web::{self, Declared, HTML, Response};
use super::{CONTENT_TYPE, RecordError, RecordFault, Source, SourceError, SourceOptions};
use crate::document::Document;
use crate::input::Input;

/// The longest line of a header.
const MAX_LINE: u64 = 64 << 10;
/// The most lines of a header.
const MAX_HEADERS: usize = 1000;

/// The documents of a web archive of version 0.17 to 1.1, as a whole or by the record compressed.
///
/// A `response` with a status of 2xx gives its page if that is HTML or plain text: as it is, tags included, in the character
/// set that it declares. A `conversion` of type `text/plain`, as Common Crawl's WET files hold, gives its text. A `resource`
/// is like a `response` without HTTP. Other records are no documents. The id is the `WARC-Record-ID` without
/// `<urn:uuid:…>`; `url`, `date` and `content_type` are metadata.
///
/// After a bad record, the source continues at the next line that begins a record.
///
/// Source: ISO 28500:2017, <https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/>.
pub struct WarcSource {
    path: PathBuf,
    input: Input,
    name: String,
    max_record_bytes: u64,
    number: u64,
    /// The line that begins the next record, if it was read already.
    begun: Option<Vec<u8>>,
    ended: bool,
}

/// The header of a record: names in lower case, and values.
struct Header(Vec<(String, String)>);

impl WarcSource {
    /// Opens a file.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Self, SourceError> {
        let input =
            Input::open(path, options.max_expansion).map_err(|source| SourceError::reading(path, source))?;
        Ok(Self {
            path: path.to_owned(),
            input,
            name: options.name_of(path),
            max_record_bytes: options.max_record_bytes,
            number: 0,
            begun: None,
            ended: false,
        })
    }

    /// The next record: a document, its fault, or nothing that is wanted. `None` at the end of the file.
    fn record(&mut self) -> io::Result<Option<Result<Option<Document>, RecordFault>>> {
        if self.begun.take().is_none() {
            let Some(line) = self.first_line()? else { return Ok(None) };
            if !begins(&line) {
                self.number += 1;
                self.find_next()?;
                return Ok(Some(bad("it does not begin with WARC/1.0 or WARC/1.1")));
            }
        }
        self.number += 1;
        let header = match self.header()? {
            Ok(header) => header,
            Err(problem) => {
                self.find_next()?;
                return Ok(Some(bad(problem)));
            }
        };
        let Some(length) = header.get("content-length").and_then(|length| length.parse::<u64>().ok()) else {
            self.find_next()?;
            return Ok(Some(bad("it has no Content-Length")));
        };
        let is_wanted = header.is_wanted();
        let mut content = Vec::new();
        if is_wanted && length <= self.max_record_bytes {
            self.input.by_ref().take(length).read_to_end(&mut content)?;
            if content.len() as u64 != length {
                self.ended = true;
                return Ok(Some(bad("the file ends inside of it")));
            }
            return Ok(Some(header.document(content, self.max_record_bytes)));
        }
        let passed = io::copy(&mut self.input.by_ref().take(length), &mut io::sink())?;
        Ok(Some(if passed < length {
            self.ended = true;
            bad("the file ends inside of it")
        } else if is_wanted {
            Err(RecordFault::TooLong { limit: self.max_record_bytes })
        } else {
            Ok(None)
        }))
    }

    /// The next line that is not blank.
    fn first_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(line) = self.line()? else { return Ok(None) };
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    /// Reads the lines up to the next one that begins a record.
    fn find_next(&mut self) -> io::Result<()> {
        while let Some(line) = self.line()? {
            if begins(&line) {
                self.begun = Some(line);
                return Ok(());
            }
        }
        Ok(())
    }

    /// A line without its end, cut off after [`MAX_LINE`] bytes.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        if self.input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else {
            self.input.skip_until(b'\n')?;
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }

    fn header(&mut self) -> io::Result<Result<Header, &'static str>> {
        let mut fields: Vec<(String, String)> = Vec::new();
        loop {
            let Some(line) = self.line()? else { return Ok(Err("the file ends inside of its header")) };
            if line.is_empty() {
                return Ok(Ok(Header(fields)));
            }
            let line = String::from_utf8_lossy(&line);
            match line.split_once(':') {
                // A line that continues the one before.
                _ if line.starts_with([' ', '\t']) => {
                    if let Some((_, value)) = fields.last_mut()
                        && value.len() < MAX_LINE as usize
                    {
                        value.push(' ');
                        value.push_str(line.trim());
                    }
                }
                Some((name, value)) if fields.len() < MAX_HEADERS => {
                    fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
                }
                Some(_) => return Ok(Err("its header is too long")),
                None => return Ok(Err("its header has a line without a colon")),
            }
        }
    }
}

impl Header {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Whether the record may hold a document.
    fn is_wanted(&self) -> bool {
        let is_text = |header: Option<&str>| {
            header.is_none_or(|header| {
                let (mime, _) = web::content_type(header);
                mime == "text/plain" || is_html(&mime)
            })
        };
        match self.get("warc-type").unwrap_or_default() {
            "response" => is_text(self.get("warc-identified-payload-type")),
            "resource" => self.get("content-type").is_some() && is_text(self.get("content-type")),
            "conversion" => is_text(self.get("content-type")),
            _ => false,
        }
    }

    /// The document in the record, if there is one.
    fn document(&self, content: Vec<u8>, limit: u64) -> Result<Option<Document>, RecordFault> {
        if self.get("warc-type") != Some("response") {
            let (mime, charset) = web::content_type(self.get("content-type").unwrap_or("text/plain"));
            return self.page(content, mime, charset).map(Some);
        }
        let Some(mut response) = Response::parse(&content, limit)? else {
            // An answer of another protocol, such as of DNS.
            return Ok(None);
        };
        if !(200..300).contains(&response.status) {
            return Ok(None);
        }
        let body = std::mem::take(&mut response.body);
        let (declared, charset) = web::content_type(response.header("content-type").unwrap_or_default());
        let identified = self.get("warc-identified-payload-type").map(|header| web::content_type(header).0);
        let mime = identified.unwrap_or(declared);
        let mime = match mime.as_str() {
            "text/plain" => mime,
            "" if body.trim_ascii_start().starts_with(b"<") => HTML.to_owned(),
            _ if is_html(&mime) => HTML.to_owned(),
            _ => return Ok(None),
        };
        self.page(body, mime, charset).map(Some)
    }

    fn page(&self, body: Vec<u8>, mime: String, charset: Option<&str>) -> Result<Document, RecordFault> {
        let declared = if is_html(&mime) { Declared::InMeta } else { Declared::Nowhere };
        let text = web::decode(body, charset, declared)?;
        let id = self.get("warc-record-id").unwrap_or_default();
        let id = id.trim_start_matches('<').trim_end_matches('>');
        let mut document = Document::new(id.strip_prefix("urn:uuid:").unwrap_or(id), text);
        // WARC 1.0 shows URIs in angle brackets, and some programs write them.
        let url = self.get("warc-target-uri").map(|url| url.trim_start_matches('<').trim_end_matches('>'));
        let entries = [("url", url), ("date", self.get("warc-date")), (CONTENT_TYPE, Some(mime.as_str()))];
        for (name, value) in entries {
            if let Some(value) = value {
                document.metadata.insert(name.into(), value.into());
            }
        }
        Ok(document)
    }
}

impl Iterator for WarcSource {
    type Item = Result<Document, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let fault = match self.record() {
                Ok(None) => return None,
                Ok(Some(Ok(None))) => continue,
                Ok(Some(Ok(Some(mut document)))) => {
                    if document.id.is_empty() {
                        document.id = format!("{}:{}", self.name, self.number);
                    }
                    return Some(Ok(document));
                }
                Ok(Some(Err(fault))) => fault,
                Err(source) => {
                    self.ended = true;
                    return Some(Err(SourceError::reading(&self.path, source)));
                }
            };
            let (path, row) = (self.path.clone(), Some(self.number));
            return Some(Err(RecordError { path, line: None, row, fault }.into()));
        }
        None
    }
}

impl Source for WarcSource {
    fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }
}

/// Whether a line begins a record.
fn begins(line: &[u8]) -> bool {
    line.starts_with(b"WARC/1.") || line.starts_with(b"WARC/0.1")
}

fn bad<T>(problem: &'static str) -> Result<T, RecordFault> {
    Err(RecordFault::Warc { problem })
}

fn is_html(mime: &str) -> bool {
    mime == HTML || mime == "application/xhtml+xml"
}

#[cfg(test)]
mod tests;
