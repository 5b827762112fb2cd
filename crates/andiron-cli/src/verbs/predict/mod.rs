//! `andiron predict`: rows of JSON in, rows of JSON out.

mod answer;
mod classify;
mod embed;
mod fill_mask;
mod generate;
mod guard;
mod input;
mod options;
mod output;
mod reader;
mod rerank;
mod score;
mod token_classify;
mod write;

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use andiron_models::encoder::EncoderHead;
use andiron_models::generate::{BeamOptions, GenerationConfig};
use andiron_models::{AnyBundle, AnyConfig, Family, ModelFiles};
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use options::{Reading, Searching};
use reader::Reader;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::grammar::{Constraints, Holding};
use crate::model::{AnyModel, EncoderModel, Opened, PromptChoice, RunChoice};
use crate::text::Sampling;
use crate::verbs::generate::MAX_TOKENS;

/// Longest line of input, in bytes: a row is held in memory.
const MAX_LINE: u64 = 64 << 20;

/// What some editors put in front of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Answer rows of a JSONL file
///
/// One output row for each input row, in order, with the input's `id` if it has one. A row that cannot be answered gives
/// an `error` in its place; the others still run, and the exit code is 1.
#[derive(Debug, Args)]
pub struct Predict {
    /// Model directory, or a GGUF file
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What to do with each row, and which fields it has; by default what the model was made for
    #[arg(long, value_enum)]
    task: Option<Task>,
    /// JSONL file to read; `-` is standard input
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// JSONL file to write; `-` is standard output. A file appears when all rows are answered; until then, and after a
    /// failure, what there is so far is beside it, in `.NAME.partial`
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Most tokens to generate for a row that does not set `max_tokens`; by default what the model's files say, or 256
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// generate: continue so many rows together, which takes little longer than one
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    batch_size: NonZeroUsize,
    #[command(flatten)]
    prompts: PromptChoice,
    #[command(flatten)]
    run: RunChoice,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    holding: Holding,
    #[command(flatten)]
    searching: Searching,
    #[command(flatten)]
    reading: Reading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Task {
    /// `{"text"}` or `{"ids"}`, of an encoder-decoder `{"source","target"}` or `{"source_ids","target_ids"}`:
    /// log-probability of each token given all before it
    Score,
    /// `{"prompt"}` or `{"prompt_ids"}`: continue it; a row may set `max_tokens`, `seed` and `stop`, and `choice`, `regex`
    /// or `json_schema`
    Generate,
    /// `{"text"}` with the mask token in it, or `{"ids","mask_positions"}`: what may be hidden there
    FillMask,
    /// `{"text"}` or `{"ids"}`: one vector for it; a text is read after the model's prompt, if it has one
    Embed,
    /// `{"text"}`, perhaps with `"text_pair"`, or `{"ids","type_ids"}`: its labels, best first, with their probabilities; a
    /// single label has the sigmoid of its output, or the output itself if `problem_type` is `regression`
    Classify,
    /// `{"text"}` or `{"ids"}`: stretches of it with a label, such as names
    TokenClassify,
    /// `{"question","context"}` or `{"ids","type_ids"}`: where the answer stands
    Answer,
    /// `{"query","documents":[…]}`: how well each document fits, best first
    Rerank,
    /// `{"text"}` or `{"ids"}`: the same in another language; a row may set `max_tokens`
    Translate,
    /// `{"text"}` or `{"ids"}`: the same in fewer words; a row may set `max_tokens`
    Summarize,
}

/// A model that answers rows.
trait Answer {
    /// The answer to a row, its `id` taken out.
    fn answer(&self, row: Row) -> Result<Row, RowError>;

    /// The answers to several rows, for models that are faster with several.
    fn answer_all(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        rows.into_iter().map(|row| self.answer(row)).collect()
    }
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

impl From<anyhow::Error> for RowError {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(error)
    }
}

type Row = Map<String, Value>;

impl Predict {
    /// Does it.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let model = self.open(common)?;
        let mut reader = open_input(&self.input)?;
        let mut writer = output::open(&self.output)?;
        let mut ending = Ending::Done;
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let name = || format!("cannot read {}", self.input.display());
            let len = (&mut *reader).take(MAX_LINE + 1).read_until(b'\n', &mut line).with_context(name)?;
            if number == 1 && line.starts_with(BYTE_ORDER_MARK) {
                line.drain(..BYTE_ORDER_MARK.len());
            }
            let too_long = len as u64 > MAX_LINE;
            if too_long && line.last() != Some(&b'\n') {
                reader.skip_until(b'\n').with_context(name)?;
            }
            if !line.trim_ascii().is_empty() {
                let row = if too_long { Err(RowError::too_long()) } else { parse(&line) };
                waiting.push(Waiting::new(number, row));
            }
            if len == 0 || waiting.len() == self.batch_size.get() {
                let write = || format!("cannot write {}", self.output.display());
                for output in answer(&*model, std::mem::take(&mut waiting)) {
                    if output.contains_key("error") {
                        ending = Ending::SomeFailed;
                    }
                    writeln!(writer, "{}", Value::Object(output)).with_context(write)?;
                }
            }
            if len == 0 {
                break;
            }
        }
        writer.finish().with_context(|| format!("cannot write {}", self.output.display()))?;
        Ok(ending)
    }
}

/// A line that was read and not answered yet.
struct Waiting {
    number: usize,
    id: Option<Value>,
    row: Result<Row, RowError>,
}

impl Waiting {
    fn new(number: usize, mut row: Result<Row, RowError>) -> Self {
        let id = row.as_mut().ok().and_then(|row| row.shift_remove("id"));
        Self { number, id, row }
    }
}

/// The output of some lines, in their order: an answer each, or an `error`.
fn answer(model: &dyn Answer, waiting: Vec<Waiting>) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut outputs = Vec::new();
    for Waiting { number, id, row } in waiting {
        outputs.push((number, id, row.map(|row| rows.push(row)).err()));
    }
    let mut answers = guard::answer_all(model, rows).into_iter();
    let output = |(number, id, error): (usize, Option<Value>, Option<RowError>)| {
        let answer = match error {
            Some(error) => Err(error),
            None => answers.next().expect("each row has an answer"),
        };
        let mut output: Row = id.map(|id| ("id".to_owned(), id)).into_iter().collect();
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

impl Predict {
    fn open(&self, common: &Common) -> anyhow::Result<Box<dyn Answer>> {
        self.sampling.check()?;
        let grammar = self.holding.grammar()?;
        let mut files = None;
        let task = match self.task {
            Some(task) => task,
            None => default_task(files.insert(ModelFiles::open(&self.model)?))?,
        };
        let searches = self.searching.num_beams.is_some_and(|n| n > 1);
        if grammar.is_some() && (task != Task::Generate || searches) {
            let message = "a choice, regex or JSON schema needs the task generate without beams";
            return Err(Usage(message.to_owned()).into());
        }
        let holds = grammar.is_some();
        let files = files.map_or_else(|| ModelFiles::open(&self.model), Ok)?;
        let opened = AnyModel::open_files(files, self.run, common)?.reading(self.prompts);
        let constraints = Constraints::new(opened.tokenizer.as_ref(), grammar)?;
        let wishes = |files: &GenerationConfig| generate::Wishes {
            sampling: self.sampling.params(files),
            max_tokens: self.max_tokens,
            constraints,
        };
        // Where the command line does not say, a search that the files ask for is made, unless ids are to be drawn or held to a
        // grammar.
        let by_files = self.searching.num_beams.is_none() && !holds && !self.sampling.draws();
        let searches = searches || by_files && opened.generation().is_some_and(GenerationConfig::searches);
        Ok(match task {
            Task::Score if opened.bundle.family() == Family::EncoderDecoder => {
                Box::new(score::ScoreTarget::new(opened.encoder_decoder()?)?)
            }
            Task::Score => Box::new(score::Score { model: opened.decoder()? }),
            Task::Translate | Task::Summarize => {
                let model = opened.encoder_decoder()?;
                let options = self.beam_options(&model.bundle.generation)?;
                let sampling = write::drawn(&model.bundle.generation, &self.sampling, &options)?;
                Box::new(write::Write { model, options, sampling, prefix: self.searching.prefix.clone() })
            }
            Task::Generate if opened.bundle.family() == Family::EncoderDecoder => {
                let model = opened.encoder_decoder()?;
                match searches {
                    true => {
                        let options = self.beam_options(&model.bundle.generation)?;
                        Box::new(write::Search { model, options })
                    }
                    false => {
                        let wishes = wishes(&model.bundle.generation);
                        Box::new(write::Draw { model, wishes })
                    }
                }
            }
            Task::Generate if searches => {
                let model = opened.decoder()?;
                let options = self.beam_options(&model.bundle.generation)?;
                Box::new(generate::Search { model, options, max_tokens: self.max_tokens })
            }
            Task::Generate => {
                let model = opened.decoder()?;
                let wishes = wishes(&model.bundle.generation);
                Box::new(generate::Generate { model, wishes })
            }
            Task::FillMask => {
                let model = opened.encoder()?;
                ensure_head(&model, task, |head| head == EncoderHead::MaskedLm)?;
                let model = Reader::new(model);
                Box::new(fill_mask::FillMask { model, top: self.reading.top })
            }
            Task::Embed => {
                let model = self.reading.embedder(opened.encoder()?)?;
                Box::new(embed::Embed { model: Reader::new(model) })
            }
            Task::Classify => match opened.bundle {
                AnyBundle::Classifier(bundle) => {
                    let model = Opened { bundle, tokenizer: opened.tokenizer };
                    Box::new(classify::Classify { model: Reader::new(model) })
                }
                _ => {
                    let model = opened.encoder()?;
                    ensure_head(&model, task, |head| matches!(head, EncoderHead::Classify { .. }))?;
                    Box::new(classify::Classify { model: Reader::new(model) })
                }
            },
            Task::TokenClassify => {
                let model = opened.encoder()?;
                ensure_head(&model, task, |head| head == EncoderHead::TokenClassify)?;
                Box::new(token_classify::TokenClassify { model: Reader::new(model) })
            }
            Task::Answer => {
                let model = opened.encoder()?;
                ensure_head(&model, task, |head| head == EncoderHead::Span)?;
                let model = Reader::new(model);
                Box::new(answer::FindAnswer { model, max_tokens: self.reading.max_answer_tokens })
            }
            Task::Rerank => {
                let model = opened.encoder()?;
                let labels = model.bundle.config.labels().len();
                let classifies = matches!(model.bundle.config.head(), EncoderHead::Classify { .. });
                anyhow::ensure!(
                    !classifies || labels == 1,
                    "a model that reranks has one label; this one has {labels}"
                );
                let model = self.reading.embedder(model)?;
                Box::new(rerank::Rerank { model: Reader::new(model) })
            }
        })
    }

    /// How a model whose files say `files` searches, as far as the command line does not say.
    fn beam_options(&self, files: &GenerationConfig) -> anyhow::Result<BeamOptions> {
        let mut options = files.beam_options();
        if files.length_limit().is_none() {
            options.max_new_tokens = MAX_TOKENS;
        }
        let penalty = self.sampling.given().repetition_penalty;
        options.repetition_penalty = penalty.unwrap_or(options.repetition_penalty);
        self.searching.apply(&mut options, self.max_tokens)?;
        Ok(options)
    }
}

/// What the class in `config.json` was made for.
fn default_task(files: &ModelFiles) -> anyhow::Result<Task> {
    Ok(match &files.config()?.config {
        AnyConfig::Decoder(_) => Task::Generate,
        AnyConfig::Classifier(_) => Task::Classify,
        AnyConfig::Encoder(config) => match config.head() {
            EncoderHead::None => Task::Embed,
            EncoderHead::MaskedLm => Task::FillMask,
            EncoderHead::Classify { .. } => Task::Classify,
            EncoderHead::TokenClassify => Task::TokenClassify,
            EncoderHead::Span => Task::Answer,
        },
        AnyConfig::EncoderDecoder(config) if config.model_type() == "bart" => Task::Summarize,
        AnyConfig::EncoderDecoder(_) => Task::Translate,
    })
}

fn ensure_head(model: &EncoderModel, task: Task, fits: impl Fn(EncoderHead) -> bool) -> anyhow::Result<()> {
    let config = &model.bundle.config;
    let name = task.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    anyhow::ensure!(
        fits(config.head()),
        "the task {name} needs a model with a head for it; this one is a {}: fine-tune it for the task first, or leave \
         --task out to do what it was made for",
        config.class_name()
    );
    Ok(())
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

/// A field of a row, if it is there and not null.
fn take<T: DeserializeOwned>(row: &mut Row, key: &str, what: &str) -> Result<Option<T>, RowError> {
    let value = row.shift_remove(key).unwrap_or(Value::Null);
    serde_json::from_value(value).map_err(|_| RowError::invalid(format!("{key} is not {what}")))
}

/// Most tokens that a row may ask for. Some models, such as T5, have no longest text themselves.
const MOST_TOKENS: usize = 1 << 20;

/// The field `max_tokens`.
fn take_max_tokens(row: &mut Row) -> Result<Option<usize>, RowError> {
    match take::<u64>(row, "max_tokens", "a whole number")? {
        Some(n) if n > MOST_TOKENS as u64 => {
            Err(RowError::invalid(format!("max_tokens is {n}: a row may ask for {MOST_TOKENS} at most")))
        }
        n => Ok(n.map(|n| n as usize)),
    }
}

/// An answer written as an object.
fn object(value: Value) -> Row {
    match value {
        Value::Object(row) => row,
        other => unreachable!("{other} is not an object"),
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
