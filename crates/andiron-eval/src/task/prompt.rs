//! A task with its rows: prompts, few-shot examples, answers and choices.

use andiron_data::jinja::{self, TemplateError, is_space};
use serde_json::Value;

use super::chat::{Chat, Role, Turn, plain};
use super::config::{FewshotConfig, OutputType, TaskConfig};
use super::dataset::{Doc, Splits};
use super::error::TaskError;
use super::python;
use super::random::PythonRandom;

/// A task with its rows.
#[derive(Debug)]
pub struct Task {
    /// Its configuration.
    pub config: TaskConfig,
    /// Few-shot examples for each row.
    pub num_fewshot: usize,
    /// Rows of the split that is evaluated.
    pub n_rows: usize,
    /// The rows that are evaluated.
    pub(crate) docs: Vec<Doc>,
    /// What a row's fields become.
    pub(crate) prompts: Vec<Prompt>,
    /// Whether the choices are contexts, and the answer is what continues each.
    pub(crate) multiple_input: bool,
    /// Whether there are several right answers.
    pub(crate) multiple_target: bool,
    /// What stands between a context and a choice.
    pub(crate) target_delimiter: String,
}

/// The prompt of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prompt {
    /// What the model reads: one text, or one for each choice.
    pub(crate) contexts: Vec<String>,
    /// The question, or the number of the right choice.
    pub(crate) text: Value,
    /// The answer: a text, the number of a choice, or a list.
    pub(crate) target: Value,
    /// The choices.
    pub(crate) choices: Option<Vec<String>>,
}

/// How a task is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskOptions {
    /// Few-shot examples, where the task does not say 0.
    pub num_fewshot: Option<usize>,
    /// Rows at most.
    pub limit: Option<usize>,
    /// Seed of the draws of few-shot examples.
    pub seed: u64,
}

impl Default for TaskOptions {
    /// All rows, and the seed of lm-evaluation-harness.
    fn default() -> Self {
        Self { num_fewshot: None, limit: None, seed: 1234 }
    }
}

impl Task {
    /// Reads the rows of a task and makes their prompts.
    ///
    /// # Errors
    /// If the rows cannot be read, or do not suit the task.
    pub fn open(config: TaskConfig, options: TaskOptions) -> Result<Self, TaskError> {
        Self::open_as(config, options, None)
    }

    /// The same with prompts that are conversations.
    ///
    /// # Errors
    /// As for [`open`](Self::open), and if the chat template is absent or refuses a conversation.
    pub fn open_chat(config: TaskConfig, options: TaskOptions, chat: Chat<'_>) -> Result<Self, TaskError> {
        Self::open_as(config, options, Some(chat))
    }

    fn open_as(config: TaskConfig, options: TaskOptions, chat: Option<Chat<'_>>) -> Result<Self, TaskError> {
        let num_fewshot = match (options.num_fewshot, config.num_fewshot) {
            (Some(given), own) if own != Some(0) => given,
            (_, own) => own.unwrap_or(0),
        };
        let wrong =
            |problem: &str| TaskError::Task { task: config.task.clone(), problem: problem.to_owned() };
        let split = config.test_split.as_deref().or(config.validation_split.as_deref());
        let split = split.ok_or_else(|| wrong("there is neither a test_split nor a validation_split"))?;
        let fewshot = &config.fewshot;
        // Without a split of their own, examples are of the first of these.
        let usual = [&config.training_split, &config.validation_split, &config.test_split];
        let usual = usual.into_iter().flatten().next();
        let examples = match (&fewshot.split, &fewshot.samples) {
            (Some(split), _) => Some(split),
            (None, Some(_)) => None,
            (None, None) => usual,
        };
        let mut names = vec![split];
        names.extend(examples.filter(|_| num_fewshot > 0).map(String::as_str));
        let splits = Splits::read(&config, &names)?;
        let rows = splits.get(split);
        let docs = rows[..options.limit.unwrap_or(usize::MAX).min(rows.len())].to_vec();
        if docs.is_empty() {
            return Err(wrong(&format!("the split {split:?} has no rows")));
        }
        let pool = match (examples, &fewshot.samples) {
            (Some(split), _) => splits.get(split),
            (None, samples) => samples.as_deref().unwrap_or_default(),
        };
        let fields = Fields { config: &config, features: docs[0].keys().cloned().collect() };
        let texts = fields.values("doc_to_text", &config.doc_to_text, &docs)?;
        let targets = fields.values("doc_to_target", &config.doc_to_target, &docs)?;
        let choices = match &config.doc_to_choice {
            Some(value) => Some(fields.choices("doc_to_choice", value, &docs)?),
            None => None,
        };
        let multiple_input = choices.is_some() && as_index(&texts[0]).is_some();
        let multiple_target = targets[0].is_array();
        let contexts = Contexts {
            fields: &fields,
            multiple_input,
            chat,
            examples: match num_fewshot {
                0 => Vec::new(),
                _ => fields.examples(fewshot, pool, multiple_input)?,
            },
        };
        let choices_of = |row: usize| choices.as_ref().map(|all| all[row].clone());
        let drawn = contexts.draw(pool, num_fewshot, &docs, options.seed)?;
        let contexts = contexts.build(&docs, &drawn, &texts, choices.as_deref())?;
        let whole = texts.into_iter().zip(targets).zip(contexts).enumerate();
        let prompts = whole.map(|(row, ((text, target), contexts))| Prompt {
            contexts,
            text,
            target,
            choices: choices_of(row),
        });
        let (prompts, n_rows) = (prompts.collect(), rows.len());
        let begun =
            config.gen_prefix.as_deref().is_some_and(|prefix| !prefix.is_empty() && !ends_with_space(prefix));
        let target_delimiter =
            if chat.is_none() || begun { config.target_delimiter.clone() } else { String::new() };
        Ok(Self {
            num_fewshot,
            n_rows,
            docs,
            prompts,
            multiple_input,
            multiple_target,
            target_delimiter,
            config,
        })
    }

    /// Number of rows that are evaluated.
    pub fn len(&self) -> usize {
        self.docs.len()
    }

    /// Whether no rows are evaluated; a task that was opened has some.
    pub fn is_empty(&self) -> bool {
        self.docs.is_empty()
    }

    pub(crate) fn row_error(&self, row: usize, problem: impl Into<String>) -> TaskError {
        TaskError::Row { task: self.config.task.clone(), row, problem: problem.into() }
    }
}

/// A whole number; Python's truth values are numbers too.
pub(crate) fn as_index(value: &Value) -> Option<i64> {
    match value {
        Value::Bool(value) => Some(i64::from(*value)),
        other => other.as_i64(),
    }
}

/// Turns the fields of rows into what a task asks for.
struct Fields<'a> {
    config: &'a TaskConfig,
    /// The names of the fields of the rows that are evaluated.
    features: Vec<String>,
}

impl Fields<'_> {
    fn render(&self, key: &'static str, template: &str, docs: &[Doc]) -> Result<Vec<String>, TaskError> {
        let failed =
            |source: TemplateError| TaskError::Template { task: self.config.task.clone(), key, source };
        // Most descriptions and prefixes are plain text.
        if !template.contains("{{") && !template.contains("{%") && !template.contains("{#") {
            return Ok(vec![template.to_owned(); docs.len()]);
        }
        jinja::render(template, docs).map_err(failed)
    }

    fn missing(&self, row: usize, key: &str, field: &str) -> TaskError {
        let problem = format!("{key} is the field {field:?}, which the row does not have");
        TaskError::Row { task: self.config.task.clone(), row, problem }
    }

    /// The value of a field in each row.
    fn column(&self, key: &'static str, field: &str, docs: &[Doc]) -> Result<Vec<Value>, TaskError> {
        let value =
            |(row, doc): (usize, &Doc)| doc.get(field).cloned().ok_or_else(|| self.missing(row, key, field));
        docs.iter().enumerate().map(value).collect()
    }

    /// `doc_to_text` or `doc_to_target` of each row.
    fn values(&self, key: &'static str, how: &Value, docs: &[Doc]) -> Result<Vec<Value>, TaskError> {
        let is_target = key.ends_with("doc_to_target");
        match how {
            Value::String(field) if self.features.contains(field) => self.column(key, field, docs),
            Value::String(template) => {
                let read = |text: String| self.literal(text, is_target);
                Ok(self.render(key, template, docs)?.into_iter().map(read).collect())
            }
            Value::Array(_) if is_target => Ok(vec![how.clone(); docs.len()]),
            Value::Number(number) if number.is_i64() => Ok(vec![how.clone(); docs.len()]),
            other => Err(TaskError::Key {
                path: self.config.path.clone(),
                key: key.to_owned(),
                problem: format!("is {other}: give a field, a Jinja template or a whole number"),
            }),
        }
    }

    /// A rendered text; the number of a choice if it consists of digits, a list if it is a target that is written as one.
    fn literal(&self, text: String, is_target: bool) -> Value {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<i64>().ok().filter(|_| is_number && self.config.doc_to_choice.is_some());
        match number {
            Some(number) => number.into(),
            None if is_target && text.len() > 1 && text.starts_with('[') && text.ends_with(']') => {
                python::literal(&text).unwrap_or(Value::String(text))
            }
            None => text.into(),
        }
    }

    /// The choices of each row.
    fn choices(&self, key: &'static str, how: &Value, docs: &[Doc]) -> Result<Vec<Vec<String>>, TaskError> {
        let wrong = |row: usize, found: &str| {
            let problem = format!("{key} gives {found}, not a list of texts");
            TaskError::Row { task: self.config.task.clone(), row, problem }
        };
        let list = |row: usize, value: &Value| -> Result<Vec<String>, TaskError> {
            let items = match value {
                Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
                Value::Object(fields) => {
                    fields.values().map(|item| item.as_str().map(str::to_owned)).collect()
                }
                _ => None,
            };
            items
                .filter(|items: &Vec<String>| !items.is_empty())
                .ok_or_else(|| wrong(row, &python::text(value)))
        };
        match how {
            Value::String(field) if self.features.contains(field) => {
                let column = self.column(key, field, docs)?;
                column.iter().enumerate().map(|(row, value)| list(row, value)).collect()
            }
            Value::String(template) => {
                let rendered = self.render(key, template, docs)?;
                let read = |(row, text): (usize, &String)| match python::literal(text) {
                    Some(value) => list(row, &value),
                    None => Err(wrong(row, text)),
                };
                rendered.iter().enumerate().map(read).collect()
            }
            constant => Ok(vec![list(0, constant)?; docs.len()]),
        }
    }

    /// A field that a row has, or a template: descriptions and prefixes.
    fn resolved(&self, key: &'static str, how: &str, docs: &[Doc]) -> Result<Vec<String>, TaskError> {
        if docs.first().is_some_and(|doc| doc.contains_key(how)) {
            return Ok(self.column(key, how, docs)?.iter().map(python::text).collect());
        }
        self.render(key, how, docs)
    }

    /// Each row of `pool` as a few-shot example.
    fn examples(
        &self,
        how: &FewshotConfig,
        pool: &[Doc],
        multiple_input: bool,
    ) -> Result<Vec<Vec<Turn>>, TaskError> {
        let texts = self.values("fewshot_config.doc_to_text", &how.doc_to_text, pool)?;
        let targets = self.values("fewshot_config.doc_to_target", &how.doc_to_target, pool)?;
        let choices = match &how.doc_to_choice {
            Some(value) => Some(self.choices("fewshot_config.doc_to_choice", value, pool)?),
            None => None,
        };
        let prefixes = match &how.gen_prefix {
            Some(prefix) => Some(self.resolved("fewshot_config.gen_prefix", prefix, pool)?),
            None => None,
        };
        let example = |row: usize| {
            let wrong = |problem: String| TaskError::Row { task: self.config.task.clone(), row, problem };
            let mut choices = choices.as_ref().map(|all| all[row].as_slice());
            let question = match (&texts[row], choices) {
                (text, Some(of)) if multiple_input => {
                    choices = None;
                    as_index(text).and_then(|at| pick(of, at)).cloned()
                }
                (Value::String(text), _) => Some(text.clone()),
                _ => None,
            };
            let question = question
                .ok_or_else(|| wrong(format!("the example's doc_to_text is {}, no text", texts[row])))?;
            let answer = match (&targets[row], choices) {
                (Value::Null, _) => None,
                (Value::String(text), _) => Some(text.clone()),
                (Value::Array(items), _) => items.first().and_then(Value::as_str).map(str::to_owned),
                (index, Some(choices)) => as_index(index).and_then(|at| pick(choices, at)).cloned(),
                _ => None,
            };
            if answer.is_none() && !targets[row].is_null() {
                return Err(wrong(format!(
                    "the example's doc_to_target is {}, no text and no choice",
                    targets[row]
                )));
            }
            let prefix = prefixes.as_ref().map(|all| all[row].as_str()).unwrap_or_default();
            Ok(turns(question, answer.as_deref().unwrap_or_default(), prefix, how))
        };
        (0..pool.len()).map(example).collect()
    }
}

/// An item by Python's index, which may count from the end.
fn pick<T>(items: &[T], at: i64) -> Option<&T> {
    let at = if at < 0 { at + items.len() as i64 } else { at };
    usize::try_from(at).ok().and_then(|at| items.get(at))
}

/// A question and its answer.
fn turns(question: String, answer: &str, prefix: &str, how: &FewshotConfig) -> Vec<Turn> {
    if answer.is_empty() {
        return asked(question, prefix, &how.target_delimiter);
    }
    let is_delimited = prefix.is_empty() || needs_space(&question, prefix);
    let between = if is_delimited { how.target_delimiter.as_str() } else { "" };
    let space = if !prefix.is_empty() && needs_space(prefix, answer) { " " } else { "" };
    let answer = Turn::new(Role::Assistant, format!("{prefix}{space}{answer}"), &*how.fewshot_delimiter);
    vec![Turn::new(Role::User, question, between), answer]
}

/// A question, and how its answer begins.
fn asked(question: String, prefix: &str, delimiter: &str) -> Vec<Turn> {
    if prefix.is_empty() {
        return vec![Turn::new(Role::User, question, "")];
    }
    let between = if needs_space(&question, prefix) { delimiter } else { "" };
    vec![Turn::new(Role::User, question, between), Turn::new(Role::Assistant, prefix, "")]
}

/// Whether a text ends with white space.
fn ends_with_space(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_space)
}

/// Whether there is white space neither at the end of the one nor at the beginning of the other.
fn needs_space(before: &str, after: &str) -> bool {
    let (last, first) = (before.chars().next_back(), after.chars().next());
    last.is_some_and(|last| !is_space(last)) && !first.is_some_and(is_space)
}

/// Makes what the model reads.
struct Contexts<'a> {
    fields: &'a Fields<'a>,
    multiple_input: bool,
    chat: Option<Chat<'a>>,
    /// Each row of the pool as an example.
    examples: Vec<Vec<Turn>>,
}

impl Contexts<'_> {
    /// The few-shot examples of each row, as rows of the pool.
    fn draw(&self, pool: &[Doc], n: usize, docs: &[Doc], seed: u64) -> Result<Vec<Vec<usize>>, TaskError> {
        let config = self.fields.config;
        if n == 0 {
            return Ok(vec![Vec::new(); docs.len()]);
        }
        // Where examples are of the rows that are evaluated, a row is no example of itself.
        let skips_own = config.fewshot.split == config.test_split;
        let too_few = |row: usize| {
            let problem =
                format!("{n} few-shot examples are asked for, but there are {} rows of them", pool.len());
            TaskError::Row { task: config.task.clone(), row, problem }
        };
        let mut random = PythonRandom::new(seed);
        let mut draw = |(row, doc): (usize, &Doc)| -> Result<Vec<usize>, TaskError> {
            let is_own = |&at: &usize| skips_own && pool[at] == *doc;
            if config.fewshot.first {
                let first: Vec<usize> = (0..pool.len()).filter(|at| !is_own(at)).take(n).collect();
                return if first.len() < n { Err(too_few(row)) } else { Ok(first) };
            }
            let wanted = if skips_own { n + 1 } else { n };
            if wanted > pool.len() {
                return Err(too_few(row));
            }
            let mut drawn = random.sample(pool.len(), wanted);
            drawn.retain(|at| !is_own(at));
            drawn.truncate(n);
            if drawn.len() < n {
                let others: Vec<usize> = (0..pool.len()).filter(|at| !is_own(at)).collect();
                if n > others.len() {
                    return Err(too_few(row));
                }
                drawn = random.sample(others.len(), n).into_iter().map(|at| others[at]).collect();
            }
            Ok(drawn)
        };
        docs.iter().enumerate().map(&mut draw).collect()
    }

    fn build(
        &self,
        docs: &[Doc],
        drawn: &[Vec<usize>],
        texts: &[Value],
        choices: Option<&[Vec<String>]>,
    ) -> Result<Vec<Vec<String>>, TaskError> {
        let config = self.fields.config;
        let descriptions = self.fields.resolved("description", &config.description, docs)?;
        let prefixes = match &config.gen_prefix {
            Some(prefix) if self.fields.features.contains(prefix) => {
                Some(self.fields.column("gen_prefix", prefix, docs)?.iter().map(python::text).collect())
            }
            Some(prefix) => Some(self.fields.render("gen_prefix", prefix, docs)?),
            None => None,
        };
        let one = |row: usize| -> Result<Vec<String>, TaskError> {
            let prefix = prefixes.as_ref().map_or("", |all: &Vec<String>| all[row].as_str());
            let described = Some(&descriptions[row]).filter(|text| !text.is_empty());
            let described = described.map(|text| Turn::new(Role::System, text.as_str(), ""));
            let examples = drawn[row].iter().flat_map(|&at| self.examples[at].iter().cloned());
            let before: Vec<Turn> = described.into_iter().chain(examples).collect();
            let prompt = |question: &String, delimiter: &str| {
                let turns = [&before[..], &asked(question.clone(), prefix, delimiter)].concat();
                match &self.chat {
                    Some(chat) => chat.text(&turns).map_err(TaskError::from),
                    None => Ok(plain(&turns)),
                }
            };
            if self.multiple_input {
                let choices = choices.map_or(&[][..], |all| all[row].as_slice());
                return choices.iter().map(|choice| prompt(choice, "")).collect();
            }
            match &texts[row] {
                // A rolling task reads the target only.
                _ if config.output_type == OutputType::LoglikelihoodRolling => Ok(vec![String::new()]),
                Value::String(question) => Ok(vec![prompt(question, &config.target_delimiter)?]),
                other => Err(TaskError::Row {
                    task: config.task.clone(),
                    row,
                    problem: format!("doc_to_text is {}, not a text", python::text(other)),
                }),
            }
        };
        (0..docs.len()).map(one).collect()
    }
}
