//! From a row of logits to an id.

use andiron_kernels::random::Seed;

use super::likelihood::{likelier_first, log_sum_exp};
use super::repeats::{for_each_continuation, for_each_repeat};
use super::{SamplingError, SamplingParams};

/// The id drawn, and how likely the model itself held it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled {
    /// The id.
    pub id: u32,
    /// Natural-log probability of `id` under the model's own distribution: temperature 1, no bias, no penalty, no cut,
    /// as OpenAI reports it.
    pub logprob: f32,
}

/// Draws ids by the chain what may come at all → bias → repetition penalty → presence and frequency penalties → DRY → no repeated n-grams →
/// top-n-sigma → temperature → top-k → top-p → min-p → typical-p → draw.
///
/// Stateless: the random number is a function of the seed and of the position in the sequence, the penalties of the
/// ids passed in. The kept ids are laid out by id, not by likelihood, before the draw, so that two backends which differ
/// in the last bit of nearly equal logits draw the same id.
///
/// Source: the filters follow `RepetitionPenaltyLogitsProcessor`, `TemperatureLogitsWarper`, `TopKLogitsWarper`,
/// `TopPLogitsWarper`, `MinPLogitsWarper`, `TypicalLogitsWarper` and `NoRepeatNGramLogitsProcessor` of Hugging Face transformers (ties at the k-th logit are all kept); the penalties
/// count generated ids only, as OpenAI documents. Holtzman et al. 2020, "The Curious Case of Neural Text
/// Degeneration", <https://arxiv.org/abs/1904.09751> (top-p); Nguyen et al. 2024, "Turning Up the Heat",
/// <https://arxiv.org/abs/2407.01082> (min-p); Keskar et al. 2019, "CTRL", <https://arxiv.org/abs/1909.05858>
/// (repetition penalty); Meister et al. 2022, "Locally Typical Sampling", <https://arxiv.org/abs/2202.00666>; Tang et
/// al. 2024, "Top-nσ", <https://arxiv.org/abs/2411.07641>.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    seed: Seed,
}

impl Sampler {
    /// A sampler with these settings.
    ///
    /// # Errors
    /// As [`SamplingParams::validate`].
    pub fn new(params: SamplingParams) -> Result<Self, SamplingError> {
        params.validate()?;
        let seed = Seed::new(params.seed);
        Ok(Self { params, seed })
    }

    /// The settings.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// Draws the id that follows `prompt` and `generated`.
    ///
    /// `logits` is written to on the way and restored before the return. Greedy decoding without bias and penalties
    /// only reads it; top-k and top-p select without sorting the vocabulary. Ids of `prompt` and `generated` outside the
    /// row are ignored by the penalties.
    ///
    /// # Errors
    /// [`SamplingError::NonFinite`] for NaN or positive infinity in `logits`, [`SamplingError::NoCandidate`] if no logit is
    /// above minus infinity, [`SamplingError::BiasOutsideVocabulary`].
    pub fn sample(
        &self,
        logits: &mut [f32],
        prompt: &[u32],
        generated: &[u32],
    ) -> Result<Sampled, SamplingError> {
        self.sample_without(&[], logits, prompt, generated)
    }

    /// [`sample`](Self::sample) where the ids `banned` must not come.
    pub(super) fn sample_without(
        &self,
        banned: &[u32],
        logits: &mut [f32],
        prompt: &[u32],
        generated: &[u32],
    ) -> Result<Sampled, SamplingError> {
        let likeliest = argmax(logits)?;
        let log_sum = log_sum_exp(logits);
        let vocab_size = logits.len();
        if let Some(&(id, _)) = self.params.logit_bias.iter().find(|(id, _)| *id as usize >= vocab_size) {
            return Err(SamplingError::BiasOutsideVocabulary { id, vocab_size });
        }
        let mut edits = Edits { logits, undo: Vec::new() };
        for &id in banned {
            edits.apply(id, |_| f32::NEG_INFINITY);
        }
        self.adjust(&mut edits, prompt, generated);
        let likeliest = if edits.undo.is_empty() { Ok(likeliest) } else { argmax(edits.logits) };
        let id = likeliest.map(|likeliest| match self.params.temperature {
            0.0 => likeliest,
            _ => {
                let position = (prompt.len() + generated.len()) as u64;
                draw(&self.keep(edits.logits, edits.logits[likeliest as usize]), self.uniform(position))
            }
        });
        edits.revert();
        let id = id?;
        Ok(Sampled { id, logprob: logits[id as usize] - log_sum })
    }

    /// Bias and penalties.
    fn adjust(&self, edits: &mut Edits<'_>, prompt: &[u32], generated: &[u32]) {
        let params = &self.params;
        for &(id, bias) in &params.logit_bias {
            edits.apply(id, |logit| logit + bias);
        }
        if params.repetition_penalty != 1.0 {
            let penalty = params.repetition_penalty;
            for_each_counted([prompt, generated].concat(), |id, _| {
                edits.apply(id, |logit| if logit < 0.0 { logit * penalty } else { logit / penalty });
            });
        }
        if params.presence_penalty != 0.0 || params.frequency_penalty != 0.0 {
            for_each_counted(generated.to_vec(), |id, count| {
                let penalty = params.presence_penalty + params.frequency_penalty * count as f32;
                edits.apply(id, |logit| logit - penalty);
            });
        }
        if params.dry_multiplier > 0.0 {
            let said = [prompt, generated].concat();
            for_each_continuation(&said, &params.dry_sequence_breakers, |id, len| {
                if let Some(beyond) = len.checked_sub(params.dry_allowed_length) {
                    let penalty = params.dry_multiplier * params.dry_base.powf(beyond as f32);
                    edits.apply(id, |logit| logit - penalty.min(f32::MAX));
                }
            });
        }
        // What is forced to come may repeat.
        if params.no_repeat_ngram_size > 0 && edits.possible().nth(1).is_some() {
            let said = [prompt, generated].concat();
            for_each_repeat(&said, params.no_repeat_ngram_size, |id| edits.apply(id, |_| f32::NEG_INFINITY));
        }
    }

    /// Temperature and the three filters: what may be drawn, in ascending order of ids.
    fn keep(&self, logits: &[f32], largest: f32) -> Vec<Candidate> {
        let params = &self.params;
        let mut floor = match params.top_k {
            0 => f32::NEG_INFINITY,
            k => kth_largest(logits, k),
        };
        if params.top_n_sigma > 0.0 {
            floor = floor.max(largest - params.top_n_sigma * deviation(logits));
        }
        let weigh = |logit: f32| ((logit - largest) / params.temperature).exp();
        let mut kept: Vec<Candidate> = logits
            .iter()
            .enumerate()
            .filter(|&(_, &logit)| logit >= floor && logit > f32::NEG_INFINITY)
            .map(|(id, &logit)| (id as u32, weigh(logit)))
            .collect();
        if params.top_p < 1.0 {
            nucleus(&mut kept, f64::from(params.top_p));
            kept.sort_unstable_by_key(|&(id, _)| id);
        }
        // The likeliest id has weight 1, so this is the ratio of the two probabilities, and never empties the set.
        kept.retain(|&(_, weight)| weight >= params.min_p);
        if params.typical_p < 1.0 {
            typical(&mut kept, f64::from(params.typical_p));
        }
        kept
    }

    /// A number in `[0, 1)` with 53 random bits; the 24 of an f32 are too coarse for the tail of a large vocabulary.
    fn uniform(&self, position: u64) -> f64 {
        (self.seed.bits(position) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// An id and its unnormalised probability; the likeliest id has weight 1.
type Candidate = (u32, f32);

/// A row of logits being changed, with what is needed to change it back.
struct Edits<'a> {
    logits: &'a mut [f32],
    undo: Vec<(u32, f32)>,
}

impl Edits<'_> {
    fn apply(&mut self, id: u32, edit: impl FnOnce(f32) -> f32) {
        if let Some(logit) = self.logits.get_mut(id as usize)
            && *logit > f32::NEG_INFINITY
        {
            self.undo.push((id, *logit));
            let edited = edit(*logit);
            // An extreme but valid setting saturates; only a ban removes an id altogether.
            *logit = if edited == f32::NEG_INFINITY { edited } else { edited.clamp(f32::MIN, f32::MAX) };
        }
    }

    /// The logits of ids that may come.
    fn possible(&self) -> impl Iterator<Item = f32> {
        self.logits.iter().copied().filter(|&logit| logit > f32::NEG_INFINITY)
    }

    fn revert(&mut self) {
        for (id, logit) in self.undo.drain(..).rev() {
            self.logits[id as usize] = logit;
        }
    }
}

/// The lowest id of those with the largest logit.
fn argmax(logits: &[f32]) -> Result<u32, SamplingError> {
    let mut best = (0, f32::NEG_INFINITY);
    let mut strange = false;
    for (id, &logit) in logits.iter().enumerate() {
        strange |= logit.is_nan() || logit == f32::INFINITY;
        if logit > best.1 {
            best = (id as u32, logit);
        }
    }
    if strange {
        let strange = |logit: f32| logit.is_nan() || logit == f32::INFINITY;
        let found = logits.iter().copied().enumerate().find(|&(_, logit)| strange(logit));
        let (id, value) = found.expect("one was seen above");
        return Err(SamplingError::NonFinite { id, value });
    }
    match best.1 {
        f32::NEG_INFINITY => Err(SamplingError::NoCandidate { vocab_size: logits.len() }),
        _ => Ok(best.0),
    }
}

/// Calls `visit` with each distinct id and how often it occurs.
fn for_each_counted(mut ids: Vec<u32>, mut visit: impl FnMut(u32, usize)) {
    ids.sort_unstable();
    ids.chunk_by(|a, b| a == b).for_each(|run| visit(run[0], run.len()));
}

/// The `k`-th largest of `values`; minus infinity if there are not that many. Reads the row once, keeps `2 k` values.
fn kth_largest(values: &[f32], k: usize) -> f32 {
    if k >= values.len() {
        return f32::NEG_INFINITY;
    }
    let mut best: Vec<f32> = Vec::with_capacity(2 * k);
    let mut floor = f32::NEG_INFINITY;
    for &value in values {
        if value > floor {
            best.push(value);
            if best.len() == 2 * k {
                floor = *best.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
                best.truncate(k);
            }
        }
    }
    match best.len() < k {
        true => f32::NEG_INFINITY,
        false => *best.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1,
    }
}

/// Cuts `kept` to the smallest set of likeliest candidates whose share of the mass is at least `top_p`, at least one.
///
/// Sorts the likeliest 64, then twice as many, and so on: a peaked distribution never sorts more.
fn nucleus(kept: &mut Vec<Candidate>, top_p: f64) {
    let target = top_p * kept.iter().map(|&(_, weight)| f64::from(weight)).sum::<f64>();
    let mut mass = 0.0;
    let mut sorted = 0;
    let mut block = 64;
    while sorted < kept.len() {
        let rest = &mut kept[sorted..];
        let take = block.min(rest.len());
        if take < rest.len() {
            rest.select_nth_unstable_by(take, likelier_first);
        }
        rest[..take].sort_unstable_by(likelier_first);
        for (index, &(_, weight)) in rest[..take].iter().enumerate() {
            if mass >= target && sorted + index > 0 {
                kept.truncate(sorted + index);
                return;
            }
            mass += f64::from(weight);
        }
        sorted += take;
        block *= 2;
    }
}

/// Cuts `kept` to the candidates whose surprise is nearest to the expected one, the fewest whose share of the mass is
/// at least `typical_p`, in the order in which they were.
fn typical(kept: &mut Vec<Candidate>, typical_p: f64) {
    let total: f64 = kept.iter().map(|&(_, weight)| f64::from(weight)).sum();
    let surprise = |weight: f32| -(f64::from(weight) / total).ln();
    let possible = kept.iter().filter(|(_, weight)| *weight > 0.0);
    let expected: f64 = possible.map(|&(_, weight)| f64::from(weight) / total * surprise(weight)).sum();
    let distance = |weight: f32| (surprise(weight) - expected).abs();
    let mut nearest: Vec<f32> = kept.iter().map(|&(_, weight)| weight).collect();
    nearest.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)));
    let mut mass = 0.0;
    let furthest = nearest.iter().find(|&&weight| {
        mass += f64::from(weight) / total;
        mass >= typical_p
    });
    let Some(limit) = furthest.map(|&weight| distance(weight)) else { return };
    kept.retain(|&(_, weight)| distance(weight) <= limit);
}

/// Standard deviation of the logits above minus infinity.
fn deviation(logits: &[f32]) -> f32 {
    let finite = || logits.iter().filter(|logit| logit.is_finite()).map(|&logit| f64::from(logit));
    let n = finite().count().max(1) as f64;
    let mean = finite().sum::<f64>() / n;
    (finite().map(|logit| (logit - mean).powi(2)).sum::<f64>() / n).sqrt() as f32
}

/// The candidate at the share `uniform` of the total weight.
fn draw(kept: &[Candidate], uniform: f64) -> u32 {
    let total: f64 = kept.iter().map(|&(_, weight)| f64::from(weight)).sum();
    let mut left = uniform * total;
    let mut last = None;
    for &(id, weight) in kept.iter().filter(|(_, weight)| *weight > 0.0) {
        left -= f64::from(weight);
        last = Some(id);
        if left < 0.0 {
            break;
        }
    }
    last.expect("the likeliest id is always kept and has weight 1")
}

#[cfg(test)]
mod tests;
