//! Sampling of an id from a row of logits.

use andiron_kernels::random::Seed;
use andiron_kernels::{Isa, logits};

use super::likelihood::{likelier_first, log_sum_exp};
use super::processors::{Place, Processors, Rules, Scores, remove_invalid_values};
use super::{SamplingError, SamplingParams};

/// A sampled id and its log-probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled {
    /// The id.
    pub id: u32,
    /// Natural-log probability of `id` under the model's own distribution: temperature 1, no bias, no penalty, no
    /// truncation, as OpenAI reports it; 0 for an id that the generation config forces.
    pub logprob: f32,
}

/// Samples ids. Logits are processed in this order: grammar mask → bias → repetition penalty → presence and frequency
/// penalties → DRY → no repeated n-grams → rules of the generation config → top-n-sigma → temperature → top-k → top-p
/// → min-p → typical-p → epsilon cutoff → eta cutoff → sample.
///
/// This is the order of Hugging Face transformers: truncation sees the distribution after temperature. In llama.cpp
/// temperature comes last.
///
/// Stateless: the random number is a function of seed and position, the penalties of the ids passed in. Kept ids are
/// ordered by id, not by likelihood, before sampling, so that two backends that differ in the last bit of nearly
/// equal logits sample the same id.
///
/// Source: the filters follow `TemperatureLogitsWarper`, `TopKLogitsWarper`, `TopPLogitsWarper`, `MinPLogitsWarper`,
/// `TypicalLogitsWarper`, `EpsilonLogitsWarper` and `EtaLogitsWarper` of Hugging Face transformers (ties at the k-th logit are all kept). Holtzman et al. 2020, "The Curious
/// Case of Neural Text Degeneration", <https://arxiv.org/abs/1904.09751> (top-p); Nguyen et al. 2024, "Turning Up the
/// Heat", <https://arxiv.org/abs/2407.01082> (min-p); Meister et al. 2022, "Locally Typical Sampling",
/// <https://arxiv.org/abs/2202.00666>; Tang et al. 2024, "Top-nσ", <https://arxiv.org/abs/2411.07641>; Hewitt et al. 2022, "Truncation
/// Sampling as Language Model Desmoothing", <https://arxiv.org/abs/2210.15191> (epsilon and eta).
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    processors: Processors,
    seed: Seed,
}

impl Sampler {
    /// A sampler with these parameters.
    ///
    /// # Errors
    /// As [`SamplingParams::validate`].
    pub fn new(params: SamplingParams) -> Result<Self, SamplingError> {
        Self::within(params, Rules::default())
    }

    /// A sampler that also applies rules.
    pub(super) fn within(params: SamplingParams, rules: Rules<'_>) -> Result<Self, SamplingError> {
        params.validate()?;
        let seed = Seed::new(params.seed);
        Ok(Self { processors: Processors::new(&params, rules), params, seed })
    }

    /// The sampling parameters.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// Samples the id after `prompt` and `generated`.
    ///
    /// `logits` is modified and restored before return; greedy decoding without bias and penalties only reads it.
    /// Top-k and top-p select without sorting the vocabulary. Penalties ignore ids outside the row.
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
        let ids = [prompt, generated].concat();
        self.sample_at(Place { ids: &ids, prompt_len: prompt.len() }, &[], logits)
    }

    /// [`sample`](Self::sample) with the ids `banned` masked.
    pub(super) fn sample_at(
        &self,
        at: Place<'_>,
        banned: &[u32],
        logits: &mut [f32],
    ) -> Result<Sampled, SamplingError> {
        if self.processors.remove_invalid_values {
            remove_invalid_values(logits);
        }
        let likeliest = argmax(logits)?;
        let log_sum = log_sum_exp(logits);
        let vocab_size = logits.len();
        if let Some(&(id, _)) = self.params.logit_bias.iter().find(|(id, _)| *id as usize >= vocab_size) {
            return Err(SamplingError::BiasOutsideVocabulary { id, vocab_size });
        }
        let mut scores = Scores::new(logits, banned);
        self.processors.process(at, &mut scores);
        let likeliest = if scores.is_untouched() { Ok(likeliest) } else { argmax(scores.row()) };
        let id = likeliest.map(|likeliest| match self.params.temperature {
            0.0 => likeliest,
            _ => {
                let row = scores.row();
                draw(&self.keep(row, row[likeliest as usize]), self.uniform(at.ids.len() as u64))
            }
        });
        let forced = scores.is_forced();
        scores.revert();
        let id = id?;
        let logprob = if forced { 0.0 } else { logits[id as usize] - log_sum };
        Ok(Sampled { id, logprob })
    }

    /// Temperature and truncation: the remaining candidates in ascending order of ids.
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
        if params.epsilon_cutoff > 0.0 {
            cut_below(&mut kept, params.epsilon_cutoff.into());
        }
        if params.eta_cutoff > 0.0 {
            let epsilon = f64::from(params.eta_cutoff);
            let least = epsilon.min(epsilon.sqrt() * (-entropy(&kept)).exp());
            cut_below(&mut kept, least);
        }
        kept
    }

    /// A uniform random value in `[0, 1)` with 53 bits; the 24 of an f32 are too coarse for the tail of a large
    /// vocabulary.
    fn uniform(&self, position: u64) -> f64 {
        (self.seed.bits(position) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// An id and its unnormalised probability; the likeliest id has weight 1.
type Candidate = (u32, f32);

/// The id with the largest logit, the lowest among equals.
fn argmax(logits: &[f32]) -> Result<u32, SamplingError> {
    match logits::largest(Isa::best(), logits) {
        Some(f32::NEG_INFINITY) => Err(SamplingError::NoCandidate { vocab_size: logits.len() }),
        Some(largest) => Ok(first(logits, |logit| logit == largest).0),
        None => Err(non_finite(logits)),
    }
}

/// The error of the first NaN or infinity.
pub(super) fn non_finite(logits: &[f32]) -> SamplingError {
    let (id, value) = first(logits, |logit| logit.is_nan() || logit == f32::INFINITY);
    SamplingError::NonFinite { id: id as usize, value }
}

/// The first logit that is `wanted`, and its id.
fn first(logits: &[f32], wanted: impl Fn(f32) -> bool) -> (u32, f32) {
    const CHUNK: usize = 64;
    // All of a chunk at once, which compilers turn into vector instructions.
    let any = |chunk: &[f32]| chunk.iter().fold(false, |any, &logit| any | wanted(logit));
    let chunk = logits.chunks(CHUNK).position(any).unwrap_or(0);
    let rest = logits.iter().copied().enumerate().skip(chunk * CHUNK);
    let found = { rest }.find(|&(_, logit)| wanted(logit)).expect("one was seen");
    (found.0 as u32, found.1)
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

/// Top-p: cuts `kept` to the smallest set of likeliest candidates with a mass of at least `top_p`, at least one.
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

/// Typical-p: cuts `kept` to the candidates whose surprisal is nearest to the entropy, the fewest with a mass of at
/// least `typical_p`, in their original order.
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

/// Cuts `kept` to candidates of at least this probability; the likeliest always stay.
fn cut_below(kept: &mut Vec<Candidate>, least: f64) {
    let total: f64 = kept.iter().map(|&(_, weight)| f64::from(weight)).sum();
    let largest = kept.iter().map(|&(_, weight)| weight).fold(0.0, f32::max);
    kept.retain(|&(_, weight)| weight >= largest || f64::from(weight) / total >= least);
}

/// The entropy of the candidates, in nats.
fn entropy(kept: &[Candidate]) -> f64 {
    let total: f64 = kept.iter().map(|&(_, weight)| f64::from(weight)).sum();
    let shares = kept.iter().map(|&(_, weight)| f64::from(weight) / total).filter(|&share| share > 0.0);
    -shares.map(|share| share * share.ln()).sum::<f64>()
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
