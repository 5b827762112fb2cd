//! Runs a task: requests to the model, filters, the values of rows.

use andiron_data::Tokenizer;
use andiron_data::jinja::is_space;
use andiron_data::tokenizer::{Special, TokenizerError};
use andiron_models::generate::{GenerateOptions, SamplingChoice, SamplingParams};
use andiron_pipelines::{Continuation, DecoderPipeline, GenerateRequest};
use serde_json::{Map, Value, json};

use super::config::OutputType;
use super::error::TaskError;
use super::measure::{Metric, RowValue};
use super::prompt::{Prompt, Task, as_index};
use super::python;
use super::windows::rolling;

/// Sequences that are generated as one batch.
const GENERATE_ROWS: usize = 32;

/// A row's requests with the model's responses, after one chain of filters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) row: usize,
    pub(crate) filter: String,
    /// The arguments of each request.
    pub(crate) arguments: Vec<Vec<Value>>,
    /// The responses to each request, as often as it was repeated.
    pub(crate) responses: Vec<Vec<Value>>,
    pub(crate) filtered: Vec<Value>,
    /// Metrics by name.
    pub(crate) values: Vec<(&'static str, RowValue)>,
}

/// The requests of one row.
struct Requests {
    arguments: Vec<Vec<Value>>,
    responses: Vec<Vec<Value>>,
}

/// Runs `task`; `seed` is that of sampled texts.
pub(crate) fn run(task: &Task, model: &DecoderPipeline, seed: u64) -> Result<Vec<Sample>, TaskError> {
    let reader = Reader::new(model)?;
    let requests = match task.config.output_type {
        OutputType::MultipleChoice | OutputType::Loglikelihood => continuations(task, model, &reader)?,
        OutputType::LoglikelihoodRolling => rolling_texts(task, model, &reader)?,
        OutputType::GenerateUntil => generations(task, model, &reader, seed)?,
    };
    let mut samples = Vec::new();
    for filters in &task.config.filters {
        for (row, Requests { arguments, responses }) in requests.iter().enumerate() {
            let filter = |responses: &Vec<Value>| {
                filters.apply(responses, &task.docs[row]).map_err(|problem| {
                    task.row_error(row, format!("filter_list, {}: {problem}", filters.name))
                })
            };
            let filtered = responses.iter().map(filter).collect::<Result<Vec<_>, _>>()?;
            let values = measure(task, row, &filtered)?;
            samples.push(Sample {
                row,
                filter: filters.name.clone(),
                arguments: arguments.clone(),
                responses: responses.clone(),
                filtered,
                values,
            });
        }
    }
    Ok(samples)
}

/// Tokenizes as lm-evaluation-harness 0.4.13 does with its `hf` model.
struct Reader<'m> {
    tokenizer: &'m Tokenizer,
    /// The BOS token, or else the EOS token, from which the first token of a text is predicted, and its text.
    prefix: Option<(u32, String)>,
    end: Option<String>,
}

impl<'m> Reader<'m> {
    fn new(model: &'m DecoderPipeline) -> Result<Self, TaskError> {
        let tokenizer = model.text.require_tokenizer()?;
        let bos = tokenizer.special_tokens().bos.as_deref().and_then(|bos| tokenizer.token_to_id(bos));
        let text = |id: u32| tokenizer.decode(&[id], Special::Keep);
        let prefix = bos.or(tokenizer.eos_id()).map(|id| Ok::<_, TokenizerError>((id, text(id)?)));
        Ok(Self { tokenizer, prefix: prefix.transpose()?, end: tokenizer.eos_id().map(text).transpose()? })
    }

    /// The ids of a text, with the special tokens that the tokenizer adds, unless the text begins with the first of them.
    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match &self.prefix {
            Some((_, prefix)) if text.starts_with(prefix.as_str()) => self.tokenizer.encode_bare_prompt(text),
            _ => self.tokenizer.encode_prompt(text),
        }
    }

    /// A context and what continues it. White space at the end of the context goes to the continuation.
    fn pair(&self, context: &str, continuation: &str) -> Result<Option<Continuation>, TokenizerError> {
        if context.is_empty() {
            let mut ids = self.tokenizer.encode_bare_prompt(continuation)?;
            let Some((prefix, _)) = &self.prefix else { return Ok(None) };
            if ids.first() == Some(prefix) {
                let continuation = ids.split_off(1);
                return Ok(Some(Continuation { context: ids, continuation }));
            }
            return Ok(Some(Continuation { context: vec![*prefix], continuation: ids }));
        }
        let kept = context.trim_end_matches(is_space);
        let (context, moved) = context.split_at(kept.len());
        let mut whole = self.encode(&format!("{context}{moved}{continuation}"))?;
        let context = self.encode(context)?;
        let continuation = whole.split_off(context.len().min(whole.len()));
        Ok(Some(Continuation { context, continuation }))
    }
}

fn no_prefix(task: &Task) -> TaskError {
    TaskError::NoPrefix { task: task.config.task.clone() }
}

/// The requests of tasks that score continuations.
fn continuations(
    task: &Task,
    model: &DecoderPipeline,
    reader: &Reader<'_>,
) -> Result<Vec<Requests>, TaskError> {
    let mut pairs = Vec::new();
    for (row, prompt) in task.prompts.iter().enumerate() {
        for (context, continuation) in pairs_of(task, row, prompt)? {
            pairs.push((row, context, continuation));
        }
    }
    let mut ids = Vec::with_capacity(pairs.len());
    for (row, context, continuation) in &pairs {
        let pair = reader.pair(context, continuation)?.ok_or_else(|| no_prefix(task))?;
        if pair.continuation.is_empty() {
            return Err(task.row_error(*row, format!("the continuation {continuation:?} has no token")));
        }
        ids.push(pair);
    }
    let failed = |(at, source): (usize, _)| {
        let row = pairs.get(at).map_or(0, |(row, ..)| *row);
        TaskError::Score { task: task.config.task.clone(), row, source }
    };
    let scores = model.score_continuations(&ids).map_err(failed)?;
    let mut requests: Vec<Requests> = task.prompts.iter().map(|_| Requests::empty()).collect();
    for ((row, context, continuation), score) in pairs.into_iter().zip(scores) {
        let response = json!([score.logprob, score.is_greedy]);
        requests[row].add(vec![context.into(), continuation.into()], vec![response; task.config.repeats]);
    }
    Ok(requests)
}

/// Contexts and continuations of a row.
fn pairs_of(task: &Task, row: usize, prompt: &Prompt) -> Result<Vec<(String, String)>, TaskError> {
    let config = &task.config;
    let context = || prompt.contexts.first().cloned().unwrap_or_default();
    let target = || match &prompt.target {
        Value::String(text) => Ok(text.clone()),
        other => Err(task.row_error(row, format!("doc_to_target is {}, not a text", python::text(other)))),
    };
    if config.output_type == OutputType::Loglikelihood {
        return Ok(vec![(context(), target()?)]);
    }
    let choices = prompt.choices.as_deref().unwrap_or_default();
    let behind = |text: &str| format!("{}{text}", task.target_delimiter);
    let mut pairs: Vec<(String, String)> = match task.multiple_input {
        true => {
            let target = python::text(&prompt.target);
            prompt.contexts.iter().map(|context| (context.clone(), behind(&target))).collect()
        }
        false => choices.iter().map(|choice| (context(), behind(choice))).collect(),
    };
    if config.metrics.iter().any(|metric| metric.metric == Metric::AccMutualInfo) {
        pairs.extend(choices.iter().map(|choice| (String::new(), behind(choice))));
    }
    Ok(pairs)
}

/// The requests of tasks that score whole texts.
fn rolling_texts(
    task: &Task,
    model: &DecoderPipeline,
    reader: &Reader<'_>,
) -> Result<Vec<Requests>, TaskError> {
    let (prefix, _) = reader.prefix.as_ref().ok_or_else(|| no_prefix(task))?;
    let longest = model.bundle.config.max_positions();
    let (mut windows, mut rows, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for (row, prompt) in task.prompts.iter().enumerate() {
        let Value::String(text) = &prompt.target else {
            let found = python::text(&prompt.target);
            return Err(task.row_error(row, format!("doc_to_target is {found}, not a text")));
        };
        let of_text = rolling(&reader.encode(text)?, *prefix, longest);
        rows.extend(std::iter::repeat_n(row, of_text.len()));
        windows.extend(of_text);
        texts.push(text.clone());
    }
    let failed = |(at, source): (usize, _)| {
        let row = rows.get(at).copied().unwrap_or(0);
        TaskError::Score { task: task.config.task.clone(), row, source }
    };
    let sums = model.sum_logprobs(&windows).map_err(failed)?;
    let mut of_rows = vec![0.0; texts.len()];
    rows.iter().zip(sums).for_each(|(&row, sum)| of_rows[row] += sum);
    let request = |(text, sum): (String, f64)| Requests {
        arguments: vec![vec![text.into()]],
        responses: vec![vec![sum.into(); task.config.repeats]],
    };
    Ok(texts.into_iter().zip(of_rows).map(request).collect())
}

/// The requests of tasks that generate texts.
fn generations(
    task: &Task,
    model: &DecoderPipeline,
    reader: &Reader<'_>,
    seed: u64,
) -> Result<Vec<Requests>, TaskError> {
    let how = &task.config.generation;
    let longest = model.bundle.config.max_positions();
    let room = longest.checked_sub(how.max_gen_toks).filter(|&room| room > 0);
    let room = room.ok_or_else(|| TaskError::Task {
        task: task.config.task.clone(),
        problem: format!(
            "generation_kwargs.max_gen_toks is {}, but the model reads {longest} tokens with the prompt: lower it",
            how.max_gen_toks
        ),
    })?;
    let mut stops: Vec<String> = how.until.iter().filter(|stop| !stop.is_empty()).cloned().collect();
    stops.extend(reader.end.clone().filter(|end| !end.is_empty() && !how.until.contains(end)));
    let is_greedy = how.temperature == 0.0;
    // Greedy decoding gives the same text each time.
    let times = if is_greedy { 1 } else { task.config.repeats };
    let files = model.generation().map(|files| files.sampling()).unwrap_or_default();
    let given = SamplingChoice {
        temperature: Some(how.temperature),
        top_p: how.top_p,
        top_k: how.top_k,
        min_p: how.min_p,
        repetition_penalty: how.repetition_penalty,
        ..SamplingChoice::default()
    };
    let sampling: SamplingParams = given.or(files).into();
    let mut requests = Vec::with_capacity(task.len() * times);
    for (row, prompt) in task.prompts.iter().enumerate() {
        let mut ids = reader.encode(prompt.contexts.first().map_or("", String::as_str))?;
        ids.drain(..ids.len().saturating_sub(room));
        if ids.is_empty() {
            return Err(task.row_error(row, "the prompt is empty: give it a text"));
        }
        for time in 0..times {
            let seed = seed.wrapping_add((row * times + time) as u64);
            let options = GenerateOptions {
                sampling: SamplingParams { seed, ..sampling.clone() },
                max_new_tokens: how.max_gen_toks,
                ..GenerateOptions::default()
            };
            requests.push(GenerateRequest { prompt: ids.clone(), options, stops: Some(stops.clone()) });
        }
    }
    let arguments = Value::Object(arguments(task));
    let mut done = model.generate_batch(requests, GENERATE_ROWS).into_iter();
    let mut all = Vec::with_capacity(task.len());
    for (row, prompt) in task.prompts.iter().enumerate() {
        let mut texts = Vec::with_capacity(task.config.repeats);
        for completion in done.by_ref().take(times) {
            let failed = |source| TaskError::Generate { task: task.config.task.clone(), row, source };
            let ids = completion.map_err(failed)?.ids;
            // The continuation alone is decoded, so that a text does not depend on its prompt.
            let mut text = reader.tokenizer.decode(&ids, Special::Skip)?;
            for stop in &stops {
                if let Some(at) = text.find(stop.as_str()) {
                    text.truncate(at);
                }
            }
            texts.push(Value::from(text));
        }
        if is_greedy && let Some(text) = texts.first().cloned() {
            texts.resize(task.config.repeats, text);
        }
        let context = prompt.contexts.first().cloned().unwrap_or_default();
        all.push(Requests {
            arguments: vec![vec![context.into(), arguments.clone()]],
            responses: vec![texts],
        });
    }
    Ok(all)
}

/// The arguments of a generation as the harness writes them.
fn arguments(task: &Task) -> Map<String, Value> {
    let config = task.config.json(task.num_fewshot);
    config.get("generation_kwargs").and_then(Value::as_object).cloned().unwrap_or_default()
}

impl Requests {
    fn empty() -> Self {
        Self { arguments: Vec::new(), responses: Vec::new() }
    }

    fn add(&mut self, arguments: Vec<Value>, responses: Vec<Value>) {
        self.arguments.push(arguments);
        self.responses.push(responses);
    }
}

type Values = Vec<(&'static str, RowValue)>;

/// The metrics of a row, from its filtered responses.
fn measure(task: &Task, row: usize, filtered: &[Value]) -> Result<Values, TaskError> {
    let found = match task.config.output_type {
        OutputType::GenerateUntil => texts(task, row, filtered),
        OutputType::LoglikelihoodRolling => whole_text(task, row, filtered),
        OutputType::Loglikelihood => one_continuation(task, filtered),
        OutputType::MultipleChoice => choices(task, row, filtered),
    };
    found.map_err(|problem| task.row_error(row, problem))
}

/// The score in a response, if no filter changed it.
fn score(response: &Value) -> Result<(f64, bool), String> {
    let score = response.as_array().and_then(|pair| Some((pair.first()?.as_f64()?, pair.get(1)?.as_bool()?)));
    score.ok_or_else(|| "a filter leaves no log-likelihood: use take_first only".to_owned())
}

fn one_continuation(task: &Task, filtered: &[Value]) -> Result<Values, String> {
    let (logprob, is_greedy) = score(filtered.first().unwrap_or(&Value::Null))?;
    let value = |metric: Metric| match metric {
        Metric::Perplexity => RowValue::Number(logprob),
        _ => RowValue::Count(is_greedy.into()),
    };
    Ok(task.config.metrics.iter().map(|metric| (metric.name, value(metric.metric))).collect())
}

fn whole_text(task: &Task, row: usize, filtered: &[Value]) -> Result<Values, String> {
    let sum = filtered.first().and_then(Value::as_f64);
    let sum = sum.ok_or("a filter leaves no log-likelihood: use take_first only")?;
    let text = task.prompts[row].target.as_str().unwrap_or_default();
    let value = |metric: Metric| match metric {
        Metric::WordPerplexity => RowValue::Weighted(sum, words(text)),
        _ => RowValue::Weighted(sum, text.len() as u64),
    };
    Ok(task.config.metrics.iter().map(|metric| (metric.name, value(metric.metric))).collect())
}

/// How many parts `re.split(r"\s+", text)` gives.
fn words(text: &str) -> u64 {
    let mut count = 1;
    let mut in_space = false;
    for character in text.chars() {
        count += u64::from(is_space(character) && !in_space);
        in_space = is_space(character);
    }
    count
}

fn choices(task: &Task, row: usize, filtered: &[Value]) -> Result<Values, String> {
    let prompt = &task.prompts[row];
    let choices = prompt.choices.as_deref().unwrap_or_default();
    let scores = filtered.iter().map(score).collect::<Result<Vec<_>, _>>()?;
    let (own, free) = scores.split_at(choices.len().min(scores.len()));
    let logprobs: Vec<f64> = own.iter().map(|(logprob, _)| *logprob).collect();
    let per = |length: &dyn Fn(&str) -> usize| {
        let divided = logprobs.iter().zip(choices).map(|(logprob, choice)| logprob / length(choice) as f64);
        best(divided)
    };
    let gold = gold(task, prompt, choices);
    let predicted = best(logprobs.iter().copied());
    let is_right = |choice: usize| RowValue::Number(if gold.contains(&(choice as i64)) { 1.0 } else { 0.0 });
    // The right class as the task has it; -100 where it is none of the choices.
    let label = match gold.as_slice() {
        _ if task.multiple_target => Value::from(gold.clone()),
        [gold] => (*gold).into(),
        _ => (-100).into(),
    };
    let value = |metric: Metric| match metric {
        Metric::Acc => is_right(predicted),
        Metric::AccNorm => is_right(per(&|choice| choice.chars().count())),
        Metric::AccBytes => is_right(per(&str::len)),
        Metric::AccMutualInfo => {
            is_right(best(logprobs.iter().zip(free).map(|(logprob, (alone, _))| logprob - alone)))
        }
        Metric::ExactMatch => {
            let is_greedy = |&gold: &i64| {
                usize::try_from(gold).ok().and_then(|gold| own.get(gold)).is_some_and(|(_, greedy)| *greedy)
            };
            RowValue::Count(gold.iter().any(is_greedy).into())
        }
        Metric::BrierScore => {
            let largest = logprobs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exponents: Vec<f64> = logprobs.iter().map(|logprob| (logprob - largest).exp()).collect();
            let sum: f64 = exponents.iter().sum();
            RowValue::Probabilities(label.clone(), exponents.iter().map(|exponent| exponent / sum).collect())
        }
        _ => RowValue::Labels(label.clone(), predicted),
    };
    Ok(task.config.metrics.iter().map(|metric| (metric.name, value(metric.metric))).collect())
}

/// The right choices of a row, by number.
fn gold(task: &Task, prompt: &Prompt, choices: &[String]) -> Vec<i64> {
    let gold = if task.multiple_input { &prompt.text } else { &prompt.target };
    let within = |at: i64| if at < choices.len() as i64 { at } else { -100 };
    match gold {
        Value::Array(items) => items.iter().filter_map(as_index).map(within).collect(),
        Value::String(text) => {
            vec![choices.iter().position(|choice| choice == text).map_or(-100, |at| at as i64)]
        }
        other => vec![as_index(other).map_or(-100, within)],
    }
}

/// The first of the largest values, as NumPy's `argmax` has it: NaN is the largest.
fn best(values: impl Iterator<Item = f64>) -> usize {
    let (mut at, mut largest) = (0, f64::NEG_INFINITY);
    for (index, value) in values.enumerate() {
        if value.is_nan() {
            return index;
        }
        if value > largest {
            (at, largest) = (index, value);
        }
    }
    at
}

fn texts(task: &Task, row: usize, filtered: &[Value]) -> Result<Values, String> {
    let prompt = &task.prompts[row];
    let result = match filtered.first() {
        Some(Value::Array(_)) | None => {
            return Err("the filters leave a list: end each chain with take_first".to_owned());
        }
        Some(result) => python::text(result),
    };
    let gold: Vec<String> = match (&prompt.target, &prompt.choices) {
        (target, Some(choices)) => {
            let at = as_index(target).and_then(|at| usize::try_from(at).ok()).and_then(|at| choices.get(at));
            vec![at.cloned().ok_or_else(|| format!("doc_to_target is {}, no choice", python::text(target)))?]
        }
        (Value::Array(items), None) => items.iter().map(python::text).collect(),
        (target, None) => vec![python::text(target)],
    };
    let mut values = Vec::new();
    for metric in &task.config.metrics {
        let value = match (metric.metric, gold.as_slice()) {
            (Metric::ExactMatch, gold) => {
                let shown = metric.matching.shown(&result)?;
                let mut is_match = false;
                for gold in gold {
                    is_match |= metric.matching.shown(gold)? == shown;
                }
                RowValue::Number(if is_match { 1.0 } else { 0.0 })
            }
            (_, [gold]) if !task.multiple_target => RowValue::Texts(gold.clone(), result.clone()),
            _ => return Err(format!("{} is of one right text, not of a list: use exact_match", metric.name)),
        };
        values.push((metric.name, value));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_as_by_the_harness() {
        // len(re.split(r"\s+", text)) of Python 3.11.
        for (text, n) in
            [("", 1), ("one", 1), ("one two", 2), (" one  two\n", 4), ("\u{1f}", 2), ("가 나", 2)]
        {
            assert_eq!(words(text), n, "{text:?}");
        }
    }

    #[test]
    fn the_first_of_equal_choices_is_chosen() {
        assert_eq!(best([-2.0, -1.0, -1.0].into_iter()), 1);
        assert_eq!(best([-2.0, f64::NAN].into_iter()), 1);
        assert_eq!(best([f64::NEG_INFINITY; 2].into_iter()), 0);
    }
}
