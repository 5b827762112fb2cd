//! Beam search.

use std::cmp::Ordering;

use andiron_kernels::{Isa, logits};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::processors::{Place, Processors, Rules, Scores, remove_invalid_values};
use super::sampler::non_finite;
use super::{BatchedLm, GenerateError, SamplingError, SamplingParams, log_sum_exp};

/// Score of an unused beam: lower than any sequence's, and finite.
const NOTHING: f32 = -1e9;

/// When a beam search ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum EarlyStopping {
    /// `true`: as soon as there are `num_beams` finished sequences.
    Yes,
    /// `false`: when no running beam is likely to improve, judged at its present length.
    #[default]
    No,
    /// `"never"`: when no running beam can improve, at any length.
    Never,
}

impl TryFrom<Value> for EarlyStopping {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Bool(true) => Ok(Self::Yes),
            Value::Bool(false) => Ok(Self::No),
            Value::String(word) if word == "never" => Ok(Self::Never),
            other => Err(format!("early_stopping is {other}: expected true, false or \"never\"")),
        }
    }
}

impl From<EarlyStopping> for Value {
    fn from(stopping: EarlyStopping) -> Self {
        match stopping {
            EarlyStopping::Yes => Self::Bool(true),
            EarlyStopping::No => Self::Bool(false),
            EarlyStopping::Never => Self::String("never".to_owned()),
        }
    }
}

/// Settings of a [`beam_search`], in Hugging Face's names.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamOptions {
    /// Number of beams.
    pub num_beams: usize,
    /// Number of returned sequences; at most `num_beams`.
    pub num_return_sequences: usize,
    /// Maximum number of ids to generate; the model's context ends a sequence earlier.
    pub max_new_tokens: usize,
    /// Minimum number of ids to generate: stop ids are masked until then.
    pub min_new_tokens: usize,
    /// Ids that end a sequence; included in it.
    pub stop_ids: Vec<u32>,
    /// The sum of a sequence's log-probabilities is divided by its length to this power: above 0 favours long ones.
    pub length_penalty: f32,
    /// When the search ends.
    pub early_stopping: EarlyStopping,
    /// Size of n-grams that may not repeat; 0 is off.
    pub no_repeat_ngram_size: usize,
    /// Repetition penalty: factor on the log-probabilities of ids that occurred; 1 is off.
    pub repetition_penalty: f32,
    /// Whether log-probabilities are renormalized after logits processing.
    pub renormalize: bool,
    /// Number of beam groups (diverse beam search): each is penalized for the choices of the groups before it.
    /// Divides `num_beams`.
    pub num_beam_groups: usize,
    /// Subtracted from the log-probability of an id for each beam of an earlier group that chose it at the same step.
    pub diversity_penalty: f32,
}

impl Default for BeamOptions {
    /// 4 beams, one returned sequence, at most 64 ids.
    fn default() -> Self {
        Self {
            num_beams: 4,
            num_return_sequences: 1,
            max_new_tokens: 64,
            min_new_tokens: 0,
            stop_ids: Vec::new(),
            length_penalty: 1.0,
            early_stopping: EarlyStopping::No,
            no_repeat_ngram_size: 0,
            repetition_penalty: 1.0,
            renormalize: false,
            num_beam_groups: 1,
            diversity_penalty: 0.0,
        }
    }
}

impl BeamOptions {
    /// Maximum number of beams: memory grows with it.
    const MAX_BEAMS: usize = 1024;

    /// Checks the range of every field.
    ///
    /// # Errors
    /// [`SamplingError::Parameter`] naming the first field out of its range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let check = |name, value: f32, wanted, holds: bool| match holds {
            true => Ok(()),
            false => Err(SamplingError::Parameter { name, value, wanted }),
        };
        let (beams, returned, groups) = (self.num_beams, self.num_return_sequences, self.num_beam_groups);
        check("num_beams", beams as f32, "between 1 and 1024", (1..=Self::MAX_BEAMS).contains(&beams))?;
        check(
            "num_return_sequences",
            returned as f32,
            "between 1 and num_beams",
            (1..=beams).contains(&returned),
        )?;
        let divides = groups > 0 && beams.is_multiple_of(groups);
        check("num_beam_groups", groups as f32, "a divisor of num_beams", divides)?;
        let finite = "a finite number";
        check("length_penalty", self.length_penalty, finite, self.length_penalty.is_finite())?;
        check("diversity_penalty", self.diversity_penalty, finite, self.diversity_penalty.is_finite())?;
        let penalty = self.repetition_penalty;
        check("repetition_penalty", penalty, "a finite number above 0", penalty.is_finite() && penalty > 0.0)
    }
}

/// A sequence found by a beam search.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// Generated ids, a stop id included.
    pub ids: Vec<u32>,
    /// Sum of log-probabilities divided by length to the power of the length penalty.
    pub score: f32,
}

/// The best continuations of `prompt`, best first.
///
/// Sequences, scores and their order equal those of `generate` with these settings. With groups, each group searches
/// separately, and the best of all are returned.
///
/// Source: `_beam_search` of Hugging Face transformers 5; for groups Vijayakumar et al. 2016, "Diverse Beam Search",
/// <https://arxiv.org/abs/1610.02424>.
///
/// # Errors
/// [`GenerateError::EmptyPrompt`], [`GenerateError::PromptTooLong`], [`GenerateError::IdOutsideVocabulary`] for ids
/// of the prompt or stop ids, [`GenerateError::Sampling`] for settings out of range or non-finite logits.
pub fn beam_search<M: BatchedLm>(
    model: &M,
    prompt: &[u32],
    options: &BeamOptions,
) -> Result<Vec<Hypothesis>, GenerateError> {
    beam_search_while(model, prompt, options, || true)
}

/// The same while `goes_on`, which is asked before each step; nothing if it says no.
///
/// # Errors
/// As [`beam_search`].
pub fn beam_search_while<M: BatchedLm>(
    model: &M,
    prompt: &[u32],
    options: &BeamOptions,
    goes_on: impl FnMut() -> bool,
) -> Result<Vec<Hypothesis>, GenerateError> {
    let mut found = beam_search_batch(model, &[prompt], options, goes_on)?;
    Ok(found.remove(0)?)
}

/// [`beam_search_while`] for several prompts, whose beams are one batch: the result of each, in their order. Each gets what it would
/// get alone; on backends that are not batch-invariant up to rounding. Logits that are not finite are an error of their prompt only.
///
/// # Errors
/// As [`beam_search`], if the options or any of the prompts do not fit the model.
pub fn beam_search_batch<M: BatchedLm>(
    model: &M,
    prompts: &[&[u32]],
    options: &BeamOptions,
    mut goes_on: impl FnMut() -> bool,
) -> Result<Vec<Result<Vec<Hypothesis>, SamplingError>>, GenerateError> {
    let vocab_size = model.vocab_size();
    options.validate()?;
    check_ids("stop_ids", &options.stop_ids, vocab_size)?;
    for prompt in prompts {
        check_prompt(prompt, options, (vocab_size, model.context_len()))?;
    }
    if options.max_new_tokens == 0 {
        let nothing = vec![Hypothesis { ids: Vec::new(), score: 0.0 }; options.num_return_sequences];
        return Ok(vec![Ok(nothing); prompts.len()]);
    }
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    let number = |(number, &prompt): (usize, &&[u32])| Search::new(model, number, prompt, options);
    let mut searches: Vec<Search<'_>> = prompts.iter().enumerate().map(number).collect();
    let (mut state, mut logits) = model.prefill(prompts);
    // A prompt was prefilled once for all its beams.
    let mut rows_each = 1;
    // Numbers of the searches whose beams the model holds.
    let mut running: Vec<usize> = (0..searches.len()).collect();
    while !running.is_empty() {
        if !goes_on() {
            return Ok(vec![Ok(Vec::new()); prompts.len()]);
        }
        let (mut kept, mut rows, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        for (at, logits_v) in logits.chunks_exact_mut(rows_each * vocab_size).enumerate() {
            let search = &mut searches[running[at]];
            match rows_each {
                1 => search.advance(&mut logits_v.repeat(options.num_beams)),
                _ => search.advance(logits_v),
            }
            if search.is_over() {
                continue;
            }
            kept.push(running[at]);
            rows.extend(search.parents().map(|parent| at * rows_each + parent.min(rows_each - 1)));
            ids.extend(search.groups.iter().flat_map(|group| &group.running).map(Beam::last));
        }
        running = kept;
        if !running.is_empty() {
            logits = model.decode_step(&mut state, &rows, &ids);
            rows_each = options.num_beams;
        }
    }
    Ok(searches.into_iter().map(Search::finish).collect())
}

fn check_ids(what: &'static str, ids: &[u32], vocab_size: usize) -> Result<(), GenerateError> {
    match ids.iter().find(|&&id| id as usize >= vocab_size) {
        Some(&id) => Err(GenerateError::IdOutsideVocabulary { what, id, vocab_size }),
        None => Ok(()),
    }
}

fn check_prompt(
    prompt: &[u32],
    options: &BeamOptions,
    (vocab_size, context): (usize, usize),
) -> Result<(), GenerateError> {
    check_ids("prompt", prompt, vocab_size)?;
    let wanted = options.max_new_tokens.min(1);
    match prompt.len() {
        0 => Err(GenerateError::EmptyPrompt),
        len if len + wanted > context => Err(GenerateError::PromptTooLong { prompt: len, wanted, context }),
        _ => Ok(()),
    }
}

/// The search for the continuations of one prompt.
struct Search<'a> {
    step: Step<'a>,
    groups: Vec<Group>,
    failure: Option<SamplingError>,
}

impl<'a> Search<'a> {
    fn new<M: BatchedLm>(model: &M, number: usize, prompt: &[u32], options: &'a BeamOptions) -> Self {
        let longest = model.context_len().min(prompt.len().saturating_add(options.max_new_tokens));
        let params = SamplingParams {
            repetition_penalty: options.repetition_penalty,
            no_repeat_ngram_size: options.no_repeat_ngram_size,
            ..SamplingParams::default()
        };
        let rules = Rules {
            files: model.generation_config(),
            source: model.source(number).unwrap_or(prompt),
            prompt_len: prompt.len(),
            stop_ids: &options.stop_ids,
            min_new_tokens: options.min_new_tokens,
            longest,
        };
        let step = Step {
            options,
            processors: Processors::new(&params, rules),
            vocab_size: model.vocab_size(),
            prompt_len: prompt.len(),
            longest,
            len: prompt.len(),
        };
        let width = options.num_beams / options.num_beam_groups;
        Self { step, groups: vec![Group::new(prompt, width); options.num_beam_groups], failure: None }
    }

    /// Extends the beams by an id, given the logits of each.
    fn advance(&mut self, logits: &mut [f32]) {
        let Self { step, groups, failure } = self;
        let mut chosen = Vec::new();
        let rows = logits.len() / groups.len();
        for (group, logits) in groups.iter_mut().zip(logits.chunks_exact_mut(rows)) {
            if group.done {
                continue;
            }
            if let Err(error) = step.advance(group, logits, &chosen) {
                *failure = Some(error);
                return;
            }
            chosen.extend(group.running.iter().map(Beam::last));
        }
        step.len += 1;
    }

    fn is_over(&self) -> bool {
        self.failure.is_some()
            || self.step.len >= self.step.longest
            || self.groups.iter().all(|group| group.done)
    }

    /// The beam that each beam continues, counted over all groups.
    fn parents(&self) -> impl Iterator<Item = usize> {
        self.groups.iter().enumerate().flat_map(|(number, group)| {
            let width = group.running.len();
            group.running.iter().map(move |beam| number * width + beam.parent)
        })
    }

    fn finish(self) -> Result<Vec<Hypothesis>, SamplingError> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        let mut found: Vec<Hypothesis> = self.groups.into_iter().flat_map(|group| group.finished).collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(self.step.options.num_return_sequences);
        for hypothesis in &mut found {
            hypothesis.ids.drain(..self.step.prompt_len);
        }
        Ok(found)
    }
}

/// A group of competing beams.
#[derive(Clone, Debug)]
struct Group {
    /// Running beams, as many as the group's width.
    running: Vec<Beam>,
    /// Finished sequences, best first, prompt included; at most the group's width.
    finished: Vec<Hypothesis>,
    done: bool,
}

#[derive(Clone, Debug)]
struct Beam {
    /// Prompt and generated ids.
    ids: Vec<u32>,
    /// Sum of the generated ids' log-probabilities.
    score: f32,
    /// Index of its parent beam.
    parent: usize,
}

impl Beam {
    fn last(&self) -> u32 {
        *self.ids.last().expect("a prompt has at least one id")
    }
}

impl Group {
    /// Only the first beam starts with score 0: otherwise all would find the same sequences.
    fn new(prompt: &[u32], width: usize) -> Self {
        let beam = |number: usize| Beam {
            ids: prompt.to_vec(),
            score: if number == 0 { 0.0 } else { NOTHING },
            parent: number,
        };
        Self { running: (0..width).map(beam).collect(), finished: Vec::new(), done: false }
    }
}

/// One step of a search that extends sequences of `len` ids.
struct Step<'a> {
    options: &'a BeamOptions,
    processors: Processors,
    vocab_size: usize,
    prompt_len: usize,
    longest: usize,
    len: usize,
}

impl Step<'_> {
    /// Extends the beams of a group, given the logits of each and the ids chosen by earlier groups.
    fn advance(&self, group: &mut Group, logits: &mut [f32], chosen: &[u32]) -> Result<(), SamplingError> {
        let options = self.options;
        let (width, vocab_size) = (group.running.len(), self.vocab_size);
        for (beam, scores_v) in group.running.iter().zip(logits.chunks_exact_mut(vocab_size)) {
            self.log_probabilities(&beam.ids, scores_v, chosen)?;
            scores_v.iter_mut().for_each(|score| *score += beam.score);
        }
        // Enough candidates that the beams can continue when all the best have ended.
        let kept = width * (1 + options.stop_ids.len().max(1));
        let candidates: Vec<Candidate> = greatest(logits, kept)
            .into_iter()
            .map(|(at, score)| {
                let (parent, id) = (at / vocab_size, (at % vocab_size) as u32);
                let ends = self.len + 1 >= self.longest || options.stop_ids.contains(&id);
                Candidate { parent, id, score, ends }
            })
            .collect();
        let all_end = candidates.iter().all(|candidate| candidate.ends);

        let full = group.finished.len() == width && options.early_stopping == EarlyStopping::Yes;
        if !full {
            let divisor = self.divisor(self.len + 1);
            for candidate in candidates.iter().take(width).filter(|candidate| candidate.ends) {
                let ids = candidate.ids(group);
                group.finished.push(Hypothesis { ids, score: candidate.score / divisor });
            }
            group.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
            group.finished.truncate(width);
        }

        let mut going_on: Vec<(f32, &Candidate)> = candidates
            .iter()
            .map(|candidate| (candidate.score + if candidate.ends { NOTHING } else { 0.0 }, candidate))
            .collect();
        going_on.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let beam = |&(score, candidate): &(f32, &Candidate)| Beam {
            ids: candidate.ids(group),
            score,
            parent: candidate.parent,
        };
        group.running = going_on.iter().take(width).map(beam).collect();
        group.done = all_end || !self.can_improve(group);
        Ok(())
    }

    /// Log-probabilities after logits processing by the options and the generation config.
    fn log_probabilities(
        &self,
        ids: &[u32],
        scores_v: &mut [f32],
        chosen: &[u32],
    ) -> Result<(), SamplingError> {
        if self.processors.remove_invalid_values {
            remove_invalid_values(scores_v);
        }
        if logits::largest(Isa::best(), scores_v).is_none() {
            return Err(non_finite(scores_v));
        }
        let options = self.options;
        normalize(scores_v);
        let at = Place { ids, prompt_len: self.prompt_len };
        self.processors.process(at, &mut Scores::new(scores_v, &[]));
        chosen.iter().for_each(|&id| scores_v[id as usize] -= options.diversity_penalty);
        if options.renormalize {
            normalize(scores_v);
        }
        Ok(())
    }

    /// Length normalization of scores at `len` ids.
    fn divisor(&self, len: usize) -> f32 {
        ((len - self.prompt_len) as f64).powf(self.options.length_penalty.into()) as f32
    }

    /// Whether a running beam can still enter the finished ones.
    fn can_improve(&self, group: &Group) -> bool {
        let complete = group.finished.len() == group.running.len();
        if complete && self.options.early_stopping == EarlyStopping::Yes {
            return false;
        }
        let at_best = match self.options.early_stopping {
            EarlyStopping::Never if self.options.length_penalty > 0.0 => self.longest,
            _ => self.len + 1,
        };
        let worst =
            if complete { group.finished.last().map_or(NOTHING, |found| found.score) } else { NOTHING };
        group.running[0].score / self.divisor(at_best) > worst
    }
}

/// A beam extended by one id.
struct Candidate {
    parent: usize,
    id: u32,
    score: f32,
    ends: bool,
}

impl Candidate {
    fn ids(&self, group: &Group) -> Vec<u32> {
        [group.running[self.parent].ids.as_slice(), &[self.id]].concat()
    }
}

/// Renormalizes log-probabilities, unless all are minus infinity.
fn normalize(scores_v: &mut [f32]) {
    let log_sum = log_sum_exp(scores_v);
    if log_sum != f32::NEG_INFINITY {
        scores_v.iter_mut().for_each(|score| *score -= log_sum);
    }
}

/// The `k` largest values with their indices, largest first, lower index first among equals.
fn greatest(values: &[f32], k: usize) -> Vec<(usize, f32)> {
    const CHUNK: usize = 64;
    let order = |a: &(usize, f32), b: &(usize, f32)| -> Ordering { b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)) };
    let mut best: Vec<(usize, f32)> = Vec::with_capacity(2 * k);
    let mut floor = f32::NEG_INFINITY;
    for (number, chunk) in values.chunks(CHUNK).enumerate() {
        // All of a chunk at once, which compilers turn into vector instructions. Few chunks have one of the best.
        if best.len() >= k && !chunk.iter().fold(false, |any, &value| any | (value > floor)) {
            continue;
        }
        for (at, &value) in (number * CHUNK..).zip(chunk) {
            // Indices ascend, so a later equal never displaces an earlier one.
            if best.len() < k || value > floor {
                best.push((at, value));
                if best.len() == 2 * k {
                    best.select_nth_unstable_by(k - 1, order);
                    best.truncate(k);
                    floor = best[k - 1].1;
                }
            }
        }
    }
    best.sort_unstable_by(order);
    best.truncate(k);
    best
}
