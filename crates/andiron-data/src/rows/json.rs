//! Rows of JSON: one object per line, the items of an array, or a document with a list `data`, as SQuAD's.

use std::borrow::Cow;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::{Origin, Place, RowError, RowsError};
use super::reader::{RowOptions, Rows};
use super::row::{Cells, Row};
use crate::input::Input;
use crate::lines::{Line, Lines};
use crate::source::{RecordFault, utf8};

/// The largest file that is read as one JSON value, in bytes.
const DOCUMENT_LIMIT: u64 = 256 << 20;

/// Opens a file that is an array of objects, an object `{"data": […]}`, or, although it is named `.json`, an object per line.
pub(super) fn open(path: &Path, options: &RowOptions) -> Result<Box<dyn Rows>, RowsError> {
    let read = |source| RowsError::reading(&path.into(), 1, source);
    let mut input = Input::open(path, options.max_expansion).map_err(read)?;
    if skip_space(&mut input, &mut 0).map_err(read)? == Some(b'[') {
        return Ok(Box::new(ArrayRows::open(path, options)?));
    }
    let mut line = Vec::new();
    let lines = Lines::open_within(path, options.max_row_bytes, options.max_expansion);
    let first = lines.and_then(|mut lines| lines.next(&mut line)).map_err(read)?;
    if first == Some(Line::Whole)
        && let Ok(row) = parse(&line)
        && !row.get("data").is_some_and(Value::is_array)
    {
        return Ok(Box::new(LineRows::open(path, options)?));
    }
    document(path, options)
}

/// The rows of a JSON Lines file. Blank lines are skipped.
pub(super) struct LineRows {
    file: Arc<Path>,
    lines: Lines,
    ended: bool,
}

impl LineRows {
    pub(super) fn open(path: &Path, options: &RowOptions) -> Result<Self, RowsError> {
        let lines = Lines::open_within(path, options.max_row_bytes, options.max_expansion)
            .map_err(|source| RowsError::reading(&path.into(), 1, source))?;
        Ok(Self { file: path.into(), lines, ended: false })
    }
}

impl Iterator for LineRows {
    type Item = Result<Row, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let mut line = Vec::new();
        let parsed = match self.lines.next(&mut line) {
            Ok(Some(Line::Whole)) => parse(&line),
            Ok(Some(Line::TooLong)) => Err(RecordFault::TooLong { limit: self.lines.limit() }),
            Ok(None) => return None,
            Err(source) => {
                self.ended = true;
                return Some(Err(RowsError::reading(&self.file, self.lines.number(), source)));
            }
        };
        Some(row(parsed, &self.file, self.lines.number()))
    }
}

impl Rows for LineRows {
    fn bytes_read(&self) -> u64 {
        self.lines.bytes_read()
    }
}

/// The items of an array, read one by one.
struct ArrayRows {
    file: Arc<Path>,
    input: Input,
    max_row_bytes: u64,
    line: u64,
    ended: bool,
}

impl ArrayRows {
    fn open(path: &Path, options: &RowOptions) -> Result<Self, RowsError> {
        let read = |source| RowsError::reading(&path.into(), 1, source);
        let mut rows = Self {
            file: path.into(),
            input: Input::open(path, options.max_expansion).map_err(read)?,
            max_row_bytes: options.max_row_bytes,
            line: 1,
            ended: false,
        };
        skip_space(&mut rows.input, &mut rows.line).map_err(read)?;
        rows.input.consume(1);
        rows.ended = skip_space(&mut rows.input, &mut rows.line).map_err(read)? == Some(b']');
        Ok(rows)
    }

    /// Reads an item into `item`, and what separates it from the next one. It ends at a comma or bracket outside of strings and
    /// of brackets; whether it is JSON is not looked at. The error is that of the array as a whole.
    fn item(&mut self, item: &mut Vec<u8>) -> io::Result<Result<Line, &'static str>> {
        let (mut depth, mut quoted, mut escaped) = (0u64, false, false);
        let mut read = Line::Whole;
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                self.ended = true;
                return Ok(Err("the file ends inside of an array"));
            }
            let mut end = None;
            for (at, &byte) in buffer.iter().enumerate() {
                self.line += u64::from(byte == b'\n');
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if quoted => escaped = true,
                    b'"' => quoted = !quoted,
                    _ if quoted => {}
                    b'[' | b'{' => depth += 1,
                    b',' | b']' if depth == 0 => {
                        end = Some((at, byte));
                        break;
                    }
                    b']' | b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            let used = end.map_or(buffer.len(), |(at, _)| at);
            if item.len() as u64 + used as u64 > self.max_row_bytes {
                read = Line::TooLong;
                item.clear();
            }
            if read == Line::Whole {
                item.extend_from_slice(&buffer[..used]);
            }
            self.input.consume(used + usize::from(end.is_some()));
            if let Some((_, byte)) = end {
                self.ended = byte == b']';
                let after = if self.ended { skip_space(&mut self.input, &mut self.line)? } else { None };
                return Ok(if after.is_some() { Err("there is more after the array") } else { Ok(read) });
            }
        }
    }
}

impl Iterator for ArrayRows {
    type Item = Result<Row, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let mut item = Vec::new();
        let mut line = self.line;
        let read = skip_space(&mut self.input, &mut self.line).and_then(|_| {
            line = self.line;
            self.item(&mut item)
        });
        let path = || self.file.to_path_buf();
        Some(match read {
            Ok(Ok(Line::Whole)) => row(parse(&item), &self.file, line),
            Ok(Ok(Line::TooLong)) => {
                row(Err(RecordFault::TooLong { limit: self.max_row_bytes }), &self.file, line)
            }
            Ok(Err(problem)) => Err(RowsError::Content { path: path(), problem: problem.to_owned() }),
            Err(source) => {
                self.ended = true;
                Err(RowsError::reading(&self.file, self.line, source))
            }
        })
    }
}

impl Rows for ArrayRows {
    fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }
}

/// The rows of a document that was read as a whole.
struct DocumentRows<I> {
    rows: I,
    bytes: u64,
}

impl<I: Iterator<Item = Row>> Iterator for DocumentRows<I> {
    type Item = Result<Row, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.next().map(Ok)
    }
}

impl<I: Iterator<Item = Row> + Send> Rows for DocumentRows<I> {
    fn bytes_read(&self) -> u64 {
        self.bytes
    }
}

/// The rows of `{"data": […]}`: each item of the list, or, if it is an article of SQuAD's, each of its questions.
fn document(path: &Path, options: &RowOptions) -> Result<Box<dyn Rows>, RowsError> {
    let read = |source| RowsError::reading(&path.into(), 1, source);
    let mut input = Input::open(path, options.max_expansion).map_err(read)?;
    let mut content = Vec::new();
    input.by_ref().take(DOCUMENT_LIMIT + 1).read_to_end(&mut content).map_err(read)?;
    let problem = |problem: String| RowsError::Content { path: path.to_owned(), problem };
    if content.len() as u64 > DOCUMENT_LIMIT {
        return Err(problem(format!("longer than {DOCUMENT_LIMIT} bytes; write it as JSON Lines (.jsonl)")));
    }
    if content.trim_ascii().is_empty() {
        return Ok(Box::new(DocumentRows { rows: std::iter::empty::<Row>(), bytes: input.bytes_read() }));
    }
    let text = utf8(&content).map_err(|fault| problem(fault.to_string()))?;
    let document: Value = serde_json::from_str(&without_nan(text))
        .map_err(|source| RowsError::Json { path: path.to_owned(), source })?;
    let data = match document {
        Value::Object(mut fields) => fields.shift_remove("data"),
        _ => None,
    };
    let Some(Value::Array(data)) = data else {
        return Err(problem(
            "it is neither a list of rows, nor {\"data\": [...]} as SQuAD's files are".into(),
        ));
    };
    let file: Arc<Path> = path.into();
    let mut number = 0;
    let rows = data.into_iter().flat_map(questions).map(move |fields| {
        number += 1;
        let place = match fields.get("id") {
            Some(Value::String(id)) => Place::Id(id.clone()),
            _ => Place::Item(number),
        };
        Row::new(fields, Origin { file: file.clone(), place }, Cells::Typed)
    });
    Ok(Box::new(DocumentRows { rows, bytes: input.bytes_read() }))
}

/// An article of SQuAD's as one row for each question, in the columns of the `squad` dataset; anything else as it is.
fn questions(article: Value) -> Vec<Map<String, Value>> {
    let Some(Value::Array(paragraphs)) = article.get("paragraphs") else {
        return vec![object(article)];
    };
    let mut rows = Vec::new();
    for paragraph in paragraphs {
        for question in paragraph.get("qas").and_then(Value::as_array).into_iter().flatten() {
            let mut fields = object(question.clone());
            for (name, value) in [("context", paragraph.get("context")), ("title", article.get("title"))] {
                if let Some(value) = value {
                    fields.insert(name.to_owned(), value.clone());
                }
            }
            rows.push(fields);
        }
    }
    rows
}

/// The fields of an object. Of anything else there are none, so that whatever is read from them is missing.
fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(fields) = value { fields } else { Map::new() }
}

fn row(
    parsed: Result<Map<String, Value>, RecordFault>,
    file: &Arc<Path>,
    line: u64,
) -> Result<Row, RowsError> {
    let origin = Origin { file: file.clone(), place: Place::Line(line) };
    match parsed {
        Ok(fields) => Ok(Row::new(fields, origin, Cells::Typed)),
        Err(fault) => Err(RowError { origin, fault: fault.into() }.into()),
    }
}

/// Parses an object, in which `NaN` and `Infinity` may stand as Python's `json` writes them: they are read as `null`.
fn parse(bytes: &[u8]) -> Result<Map<String, Value>, RecordFault> {
    let text = utf8(bytes)?;
    serde_json::from_str(text).or_else(|cause| match without_nan(text) {
        Cow::Borrowed(_) => Err(RecordFault::Json { cause }),
        Cow::Owned(text) => serde_json::from_str(&text).map_err(|cause| RecordFault::Json { cause }),
    })
}

/// JSON with `null` in place of `NaN`, `Infinity` and `-Infinity` outside of strings.
fn without_nan(text: &str) -> Cow<'_, str> {
    let mut cleaned = String::new();
    let (mut kept, mut at, mut quoted) = (0, 0, false);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'N' | b'I' | b'-' if !quoted => {
                let word =
                    ["NaN", "Infinity", "-Infinity"].iter().find(|word| text[at..].starts_with(**word));
                if let Some(word) = word {
                    cleaned.push_str(&text[kept..at]);
                    cleaned.push_str("null");
                    at += word.len();
                    kept = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    cleaned.push_str(&text[kept..]);
    Cow::Owned(cleaned)
}

/// Consumes white space and counts its lines; gives the byte after it.
fn skip_space(input: &mut Input, line: &mut u64) -> io::Result<Option<u8>> {
    loop {
        let buffer = input.fill_buf()?;
        let spaces = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        *line += buffer[..spaces].iter().filter(|&&byte| byte == b'\n').count() as u64;
        let (next, ended) = (buffer.get(spaces).copied(), buffer.is_empty());
        input.consume(spaces);
        if next.is_some() || ended {
            return Ok(next);
        }
    }
}
