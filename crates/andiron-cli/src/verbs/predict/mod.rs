//! `andiron predict`: rows of JSON in, rows of JSON out.

mod generate;
mod score;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::exit::Ending;
use crate::flags::Common;
use crate::text::{Sampling, TextModel};

/// Longest line of input, in bytes: a row is held in memory.
const MAX_LINE: u64 = 64 << 20;

/// Answer rows of a JSONL file
///
/// One output row for each input row, in order, with the input's `id` if it has one. A row that cannot be answered gives
/// an `error` in its place; the others still run, and the exit code is 1.
#[derive(Debug, Args)]
pub struct Predict {
    /// Model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What to do with each row, and which fields it has
    #[arg(long, value_enum, default_value = "generate")]
    task: Task,
    /// JSONL file to read; `-` is standard input
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// JSONL file to write; `-` is standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Most tokens to generate for a row that does not set `max_tokens`
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: Sampling,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Task {
    /// `{"text"}` or `{"ids"}`: log-probability of each token given all before it
    Score,
    /// `{"prompt"}` or `{"prompt_ids"}`: continue it; a row may set `max_tokens`, `seed` and `stop`
    Generate,
}

/// Why a row cannot be answered: a code for programs and a sentence for people.
struct RowError {
    code: &'static str,
    message: String,
}

impl RowError {
    fn invalid(message: impl Into<String>) -> Self {
        Self { code: "invalid_row", message: message.into() }
    }

    fn too_long() -> Self {
        Self::invalid(format!("a row has at most {MAX_LINE} bytes"))
    }

    fn failed(error: impl std::fmt::Display) -> Self {
        Self { code: "cannot_answer", message: format!("{error:#}") }
    }
}

type Row = Map<String, Value>;

impl Predict {
    /// Does it.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let sampling = self.sampling.params()?;
        let model = TextModel::open(&self.model, &common.open_device()?)?;
        let mut reader = open_input(&self.input)?;
        let mut writer = open_output(&self.output)?;
        let mut ending = Ending::Done;
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let name = || format!("cannot read {}", self.input.display());
            let len = (&mut *reader).take(MAX_LINE + 1).read_until(b'\n', &mut line).with_context(name)?;
            if len == 0 {
                break;
            }
            let too_long = len as u64 > MAX_LINE;
            if too_long && line.last() != Some(&b'\n') {
                reader.skip_until(b'\n').with_context(name)?;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let row = if too_long { Err(RowError::too_long()) } else { parse(&line) };
            let (id, answer) = match row {
                Ok(mut row) => {
                    let id = row.shift_remove("id");
                    let answer = match self.task {
                        Task::Score => score::answer(&model, row),
                        Task::Generate => generate::answer(&model, row, &sampling, self.max_tokens),
                    };
                    (id, answer)
                }
                Err(error) => (None, Err(error)),
            };
            let mut output = Map::new();
            if let Some(id) = id {
                output.insert("id".to_owned(), id);
            }
            match answer {
                Ok(answer) => output.extend(answer),
                Err(RowError { code, message }) => {
                    ending = Ending::SomeFailed;
                    let message = format!("line {number}: {message}");
                    output.insert("error".to_owned(), json!({ "code": code, "message": message }));
                }
            }
            let write = || format!("cannot write {}", self.output.display());
            writeln!(writer, "{}", Value::Object(output)).with_context(write)?;
        }
        writer.flush().with_context(|| format!("cannot write {}", self.output.display()))?;
        Ok(ending)
    }
}

fn parse(line: &[u8]) -> Result<Row, RowError> {
    match serde_json::from_slice(line) {
        Ok(Value::Object(row)) => Ok(row),
        Ok(_) => Err(RowError::invalid("expected a JSON object")),
        Err(error) => Err(RowError::invalid(format!("not JSON: {error}"))),
    }
}

/// The ids that a row gives: as ids under `ids_key`, or as text under `text_key`, which `encode` turns into ids.
fn take_ids(
    row: &mut Row,
    text_key: &str,
    ids_key: &str,
    encode: impl FnOnce(&str) -> anyhow::Result<Vec<u32>>,
) -> Result<Vec<u32>, RowError> {
    match (row.shift_remove(text_key), row.shift_remove(ids_key)) {
        (Some(Value::String(text)), None) => encode(&text).map_err(RowError::failed),
        (None, Some(ids)) => serde_json::from_value(ids)
            .map_err(|error| RowError::invalid(format!("{ids_key} is not a list of token ids: {error}"))),
        (Some(_), Some(_)) => Err(RowError::invalid(format!("give {text_key} or {ids_key}, not both"))),
        (Some(_), None) => Err(RowError::invalid(format!("{text_key} is not a string"))),
        (None, None) => Err(RowError::invalid(format!("there is neither {text_key} nor {ids_key}"))),
    }
}

/// A field that nobody took would silently mean nothing.
fn ensure_empty(row: &Row) -> Result<(), RowError> {
    match row.keys().next() {
        Some(key) => Err(RowError::invalid(format!("unknown field {key}"))),
        None => Ok(()),
    }
}

fn open_input(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}

fn open_output(path: &Path) -> anyhow::Result<Box<dyn Write>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufWriter::new(std::io::stdout().lock())));
    }
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Box::new(BufWriter::new(file)))
}
