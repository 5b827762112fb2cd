//! Rows of JSON: read them, answer them in batches, write the answers in order.

use std::io::Write as _;
use std::path::Path;
use std::str::FromStr;

use andiron_pipelines::{
    AnswerError, CompletionError, FillError, InputError, PromptInput, ScoreTextError, SourceError, TextError,
    TextInput,
};
use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{guard, output};
use crate::exit::Ending;
use crate::json_lines::{JsonLines, MAX_LINE};

/// Rows are answered when this many bytes of input have been read.
const MAX_WAITING: usize = 4 << 20;

pub(super) type Row = Map<String, Value>;

/// A model that answers rows.
pub(super) trait Answer {
    /// The answers to rows, whose `id` has been removed.
    fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>>;

    /// How many rows are read before they are answered: rows of equal length share a batch.
    fn rows_together(&self) -> usize {
        1024
    }
}

/// Why a row cannot be answered: a code for programs, and a message.
#[derive(Debug)]
pub(super) struct RowError {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl RowError {
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { code: "invalid_row", message: message.into() }
    }

    fn too_long() -> Self {
        Self::invalid(format!("a row has at most {MAX_LINE} bytes"))
    }

    fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self { code: "cannot_answer", message: format!("{:#}", error.into()) }
    }
}

/// Errors that are not about the format of a row.
macro_rules! failed {
    ($($error:ty),+) => {$(
        impl From<$error> for RowError {
            fn from(error: $error) -> Self {
                Self::failed(error)
            }
        }
    )+};
}
failed! { TextError, ScoreTextError }

impl From<InputError> for RowError {
    fn from(error: InputError) -> Self {
        match error.is_about_ids() {
            true => Self::invalid(error.to_string()),
            false => Self::failed(error),
        }
    }
}

impl From<CompletionError> for RowError {
    fn from(error: CompletionError) -> Self {
        match error {
            CompletionError::NothingFound => Self::invalid(error.to_string()),
            error => Self::failed(error),
        }
    }
}

impl From<SourceError> for RowError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Input(error) => error.into(),
            SourceError::Completion(error) => error.into(),
            error => Self::failed(error),
        }
    }
}

impl From<FillError> for RowError {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Input(error) => error.into(),
            error => Self::invalid(error.to_string()),
        }
    }
}

impl From<AnswerError> for RowError {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Input(error) => error.into(),
            error => Self::invalid(error.to_string()),
        }
    }
}

/// A field that is copied from an input row to its output.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Its name in the output.
    name: String,
    /// Its name in the input.
    field: String,
}

impl FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, field) = text.split_once('=').unwrap_or((text, text));
        if name.is_empty() || field.is_empty() {
            return Err("the name of a field is empty: give FIELD or NEW=FIELD".to_owned());
        }
        Ok(Self { name: name.to_owned(), field: field.to_owned() })
    }
}

/// The fields that are copied from input rows to their outputs.
pub(super) struct Keep {
    pub(super) fields: Vec<Kept>,
    /// The fields that the task reads; if there are fields to copy, it is given no others.
    pub(super) reads: &'static [&'static str],
}

impl Keep {
    /// Copies the fields of a row.
    fn copy(&self, row: &mut Row) -> Result<Row, RowError> {
        let mut kept = Row::new();
        for Kept { name, field } in &self.fields {
            let value = row.get(field);
            let value = value.ok_or_else(|| RowError::invalid(format!("there is no {field} to keep")))?;
            kept.insert(name.clone(), value.clone());
        }
        if !self.fields.is_empty() {
            row.retain(|field, _| self.reads.contains(&field.as_str()));
        }
        Ok(kept)
    }
}

/// Answers the rows of `input` in `output`, in order.
pub(super) fn answer_file(
    model: &dyn Answer,
    keep: &Keep,
    input: &Path,
    output: &Path,
) -> anyhow::Result<Ending> {
    let mut lines = JsonLines::open(input)?;
    let mut writer = output::open(output)?;
    let mut ending = Ending::Done;
    let (mut waiting, mut waiting_bytes): (Vec<Waiting>, usize) = (Vec::new(), 0);
    let mut line = Vec::new();
    loop {
        let read = lines.next(&mut line)?;
        let at_end = read.is_none();
        if let Some(read) = read {
            let row = if read.too_long { Err(RowError::too_long()) } else { parse(&line) };
            waiting.push(Waiting::new(read.number, row, keep));
            waiting_bytes += line.len();
        }
        if at_end || waiting.len() >= model.rows_together() || waiting_bytes >= MAX_WAITING {
            let write = || format!("cannot write {}", named(output, "standard output"));
            for output in outputs(model, std::mem::take(&mut waiting)) {
                if output.contains_key("error") {
                    ending = Ending::SomeFailed;
                }
                writeln!(writer, "{}", Value::Object(output)).with_context(write)?;
            }
            waiting_bytes = 0;
        }
        if at_end {
            break;
        }
    }
    writer.finish().with_context(|| format!("cannot write {}", named(output, "standard output")))?;
    Ok(ending)
}

/// A line that was read and is not answered yet.
struct Waiting {
    number: u64,
    /// The beginning of the output: `id`, and fields that are copied.
    kept: Row,
    row: Result<Row, RowError>,
}

impl Waiting {
    fn new(number: u64, row: Result<Row, RowError>, keep: &Keep) -> Self {
        let mut kept = Row::new();
        let row = row.and_then(|mut row| {
            kept.extend(row.shift_remove_entry("id"));
            kept.extend(keep.copy(&mut row)?);
            Ok(row)
        });
        Self { number, kept, row }
    }
}

/// The outputs of lines, in order: an answer or an `error` for each.
fn outputs(model: &dyn Answer, waiting: Vec<Waiting>) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut outputs = Vec::new();
    for Waiting { number, kept, row } in waiting {
        outputs.push((number, kept, row.map(|row| rows.push(row)).err()));
    }
    let mut answers = guard::answer(model, rows).into_iter();
    let output = |(number, mut output, error): (u64, Row, Option<RowError>)| {
        let answer = match error {
            Some(error) => Err(error),
            None => answers.next().expect("each row has an answer"),
        };
        let taken = |answer: &Row| answer.keys().find(|name| output.contains_key(*name)).cloned();
        let answer = answer.and_then(|answer| match taken(&answer) {
            Some(name) => Err(RowError::invalid(format!(
                "the answer has a {name} of its own: keep that of the row under another name, as in --keep input={name}"
            ))),
            None => Ok(answer),
        });
        match answer {
            Ok(answer) => output.extend(answer),
            Err(RowError { code, message }) => {
                let message = format!("line {number}: {message}");
                output.insert("error".to_owned(), json!({ "code": code, "message": message }));
            }
        }
        output
    };
    outputs.into_iter().map(output).collect()
}

/// Parses each row, answers those that could be parsed as one call, and puts the errors of the others in their places.
pub(super) fn answer_parsed<T>(
    rows: Vec<Row>,
    parse: impl Fn(&mut Row) -> Result<T, RowError>,
    answer: impl FnOnce(Vec<T>) -> Vec<Result<Row, RowError>>,
) -> Vec<Result<Row, RowError>> {
    let mut parsed = Vec::with_capacity(rows.len());
    let mut places = Vec::with_capacity(rows.len());
    for mut row in rows {
        let taken = parse(&mut row).and_then(|taken| ensure_empty(&row).map(|()| taken));
        places.push(taken.map(|taken| parsed.push(taken)));
    }
    let mut answers = answer(parsed).into_iter();
    let mut next = |()| answers.next().expect("each parsed row has an answer");
    places.into_iter().map(|place| place.and_then(&mut next)).collect()
}

fn parse(line: &[u8]) -> Result<Row, RowError> {
    match serde_json::from_slice(line) {
        Ok(Value::Object(row)) => Ok(row),
        Ok(_) => Err(RowError::invalid("expected a JSON object")),
        Err(error) => Err(RowError::invalid(format!("not JSON: {error}"))),
    }
}

/// The prompt of a row: ids in `ids_key`, or text in `text_key`.
pub(super) fn take_prompt(row: &mut Row, text_key: &str, ids_key: &str) -> Result<PromptInput, RowError> {
    match (row.shift_remove(text_key), row.shift_remove(ids_key)) {
        (Some(Value::String(text)), None) => Ok(PromptInput::Text(text)),
        (None, Some(ids)) => serde_json::from_value(ids)
            .map(PromptInput::Ids)
            .map_err(|error| RowError::invalid(format!("{ids_key} is not a list of token ids: {error}"))),
        (Some(_), Some(_)) => Err(RowError::invalid(format!("give {text_key} or {ids_key}, not both"))),
        (Some(_), None) => Err(RowError::invalid(format!("{text_key} is not a string"))),
        (None, None) => Err(RowError::invalid(format!("there is neither {text_key} nor {ids_key}"))),
    }
}

/// `text`, or `ids` with optional `type_ids`.
pub(super) fn take_input(row: &mut Row) -> Result<TextInput, RowError> {
    take_with(row, None)
}

/// The same, with an optional `text_pair`.
pub(super) fn take_pair(row: &mut Row) -> Result<TextInput, RowError> {
    let pair = take(row, "text_pair", "a string")?;
    take_with(row, pair)
}

fn take_with(row: &mut Row, pair: Option<String>) -> Result<TextInput, RowError> {
    if row.contains_key("ids") {
        if row.contains_key("text") || pair.is_some() {
            return Err(RowError::invalid("give text or ids, not both"));
        }
        let (ids, type_ids) = take_typed_ids(row)?;
        return Ok(TextInput::Ids { ids, type_ids });
    }
    let text =
        take(row, "text", "a string")?.ok_or_else(|| RowError::invalid("there is neither text nor ids"))?;
    Ok(TextInput::Text { text, pair })
}

/// `ids` with optional `type_ids`.
pub(super) fn take_typed_ids(row: &mut Row) -> Result<(Vec<u32>, Option<Vec<u32>>), RowError> {
    let ids = take(row, "ids", "a list of token ids")?.unwrap_or_default();
    Ok((ids, take(row, "type_ids", "a list of numbers")?))
}

/// Sets `truncated` in `answer` if the text was truncated.
pub(super) fn tell_truncation(answer: &mut Row, truncated: bool) {
    if truncated {
        answer.insert("truncated".to_owned(), json!(true));
    }
}

/// A field of a row, if it is there and not null.
pub(super) fn take<T: DeserializeOwned>(row: &mut Row, key: &str, what: &str) -> Result<Option<T>, RowError> {
    let value = row.shift_remove(key).unwrap_or(Value::Null);
    serde_json::from_value(value).map_err(|_| RowError::invalid(format!("{key} is not {what}")))
}

/// Maximum `max_tokens` of a row. Some models, such as T5, have no limit of their own.
const MOST_TOKENS: usize = 1 << 20;

/// The field `max_tokens`.
pub(super) fn take_max_tokens(row: &mut Row) -> Result<Option<usize>, RowError> {
    match take::<u64>(row, "max_tokens", "a whole number")? {
        Some(n) if n > MOST_TOKENS as u64 => {
            Err(RowError::invalid(format!("max_tokens is {n}: a row may ask for {MOST_TOKENS} at most")))
        }
        n => Ok(n.map(|n| n as usize)),
    }
}

/// The object in `value`.
pub(super) fn object(value: Value) -> Row {
    match value {
        Value::Object(row) => row,
        other => unreachable!("{other} is not an object"),
    }
}

/// Refuses unknown fields, which would silently have no effect.
fn ensure_empty(row: &Row) -> Result<(), RowError> {
    match row.keys().next() {
        Some(key) => Err(RowError::invalid(format!("unknown field {key}"))),
        None => Ok(()),
    }
}

/// The path for a message; `standard` stands for `-`.
fn named(path: &Path, standard: &str) -> String {
    if path == Path::new("-") { standard.to_owned() } else { path.display().to_string() }
}
