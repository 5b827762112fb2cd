//! Sampling parameters.

use serde::{Deserialize, Serialize};

/// Parameters of a [`Sampler`](super::Sampler), applied in the order of the fields (`logit_bias` first).
///
/// The default samples from the model's own distribution. Names and meaning are those of Hugging Face's `generate`;
/// of OpenAI's completions API for the presence and frequency penalties and the bias; of llama.cpp for DRY and
/// top-n-sigma.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingParams {
    /// Logit bias: pairs of id and bias, applied first. An id given twice gets the sum.
    pub logit_bias: Vec<(u32, f32)>,
    /// Repetition penalty: divides the positive and multiplies the negative logits of all ids in prompt and generated
    /// text; 1 is off.
    pub repetition_penalty: f32,
    /// Presence penalty: subtracted once from the logit of each id generated so far; 0 is off.
    pub presence_penalty: f32,
    /// Frequency penalty: subtracted from the logit of an id once per occurrence in the generated ids; 0 is off.
    pub frequency_penalty: f32,
    /// DRY penalty: `dry_multiplier · dry_base ^ (length − dry_allowed_length)` is subtracted from the logit of an id
    /// that would continue a repeat of `length` ids in prompt and generated text; 0 is off.
    pub dry_multiplier: f32,
    /// See `dry_multiplier`.
    pub dry_base: f32,
    /// Shorter repeats are not penalised.
    pub dry_allowed_length: usize,
    /// Ids that end a repeat, such as line breaks.
    pub dry_sequence_breakers: Vec<u32>,
    /// Size of n-grams that may not repeat in prompt and generated text; 0 is off.
    pub no_repeat_ngram_size: usize,
    /// Top-n-sigma: keeps ids whose logit is at most this many standard deviations of all logits below the largest; 0
    /// is off.
    pub top_n_sigma: f32,
    /// Temperature: divides the logits. 0 is greedy (the lowest id among equals), 1 is the model's own distribution.
    pub temperature: f32,
    /// Top-k: keeps ids whose logit is at least the k-th largest; 0 is off.
    pub top_k: usize,
    /// Top-p: keeps the smallest set of likeliest ids with at least this mass, at least one; 1 is off.
    pub top_p: f32,
    /// Min-p: keeps ids with at least this share of the likeliest id's probability; 0 is off.
    pub min_p: f32,
    /// Typical-p: keeps the ids whose surprisal is nearest to the entropy, the fewest with at least this mass; 1 is
    /// off.
    pub typical_p: f32,
    /// Epsilon cutoff: keeps ids with at least this probability, at least one; 0 is off.
    pub epsilon_cutoff: f32,
    /// Eta cutoff: keeps ids with at least the probability `min(eta, sqrt(eta) · exp(−entropy))`, at least one; 0 is
    /// off.
    pub eta_cutoff: f32,
    /// Seed: the same seed, position and logits give the same id.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            logit_bias: Vec::new(),
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_sequence_breakers: Vec::new(),
            no_repeat_ngram_size: 0,
            top_n_sigma: 0.0,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            epsilon_cutoff: 0.0,
            eta_cutoff: 0.0,
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// Greedy decoding.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks the range of every field.
    ///
    /// # Errors
    /// [`SamplingError::Parameter`] naming the first field out of its range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let check = |name, value: f32, wanted, holds: bool| match holds {
            true => Ok(()),
            false => Err(SamplingError::Parameter { name, value, wanted }),
        };
        let finite = "a finite number";
        check(
            "temperature",
            self.temperature,
            "a finite number, at least 0",
            at_least_zero(self.temperature),
        )?;
        check("top_p", self.top_p, "between 0 and 1", (0.0..=1.0).contains(&self.top_p))?;
        check("typical_p", self.typical_p, "between 0 and 1", (0.0..=1.0).contains(&self.typical_p))?;
        for (name, value) in [("epsilon_cutoff", self.epsilon_cutoff), ("eta_cutoff", self.eta_cutoff)] {
            check(name, value, "at least 0 and less than 1", (0.0..1.0).contains(&value))?;
        }
        for (name, value) in [("top_n_sigma", self.top_n_sigma), ("dry_multiplier", self.dry_multiplier)] {
            check(name, value, "a finite number, at least 0", at_least_zero(value))?;
        }
        let base = self.dry_base;
        check("dry_base", base, "a finite number, at least 1", base.is_finite() && base >= 1.0)?;
        check("min_p", self.min_p, "between 0 and 1", (0.0..=1.0).contains(&self.min_p))?;
        check(
            "repetition_penalty",
            self.repetition_penalty,
            "a finite number above 0",
            self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0,
        )?;
        check("presence_penalty", self.presence_penalty, finite, self.presence_penalty.is_finite())?;
        check("frequency_penalty", self.frequency_penalty, finite, self.frequency_penalty.is_finite())?;
        self.logit_bias.iter().try_for_each(|&(_, bias)| check("logit_bias", bias, finite, bias.is_finite()))
    }
}

fn at_least_zero(value: f32) -> bool {
    value.is_finite() && value >= 0.0
}

/// Errors of sampling.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplingError {
    /// A parameter is out of range.
    #[error("{name}: {value} is not {wanted}")]
    Parameter {
        /// Field of [`SamplingParams`].
        name: &'static str,
        /// The value found.
        value: f32,
        /// The values allowed.
        wanted: &'static str,
    },
    /// The bias names an id outside the vocabulary.
    #[error("logit_bias: id {id} is outside the vocabulary of {vocab_size} ids")]
    BiasOutsideVocabulary {
        /// The id given.
        id: u32,
        /// Length of the row of logits.
        vocab_size: usize,
    },
    /// The model returned a non-finite logit; its weights or its precision are broken.
    #[error(
        "logits: the model gave {value} for id {id}, so nothing can be drawn; check the weights and the precision"
    )]
    NonFinite {
        /// Position in the row.
        id: usize,
        /// NaN or positive infinity.
        value: f32,
    },
    /// The row is empty, or every logit in it is minus infinity.
    #[error("logits: none of {vocab_size} ids is possible")]
    NoCandidate {
        /// Length of the row of logits.
        vocab_size: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(edit: impl FnOnce(&mut SamplingParams), message: &str) {
        let mut params = SamplingParams::default();
        edit(&mut params);
        assert_eq!(params.validate().expect_err("must be refused").to_string(), message);
    }

    #[test]
    fn the_default_and_the_edges_are_valid() {
        assert_eq!(SamplingParams::default().validate(), Ok(()));
        assert_eq!(SamplingParams::greedy().validate(), Ok(()));
        assert_eq!(SamplingParams { top_p: 0.0, min_p: 1.0, ..SamplingParams::default() }.validate(), Ok(()));
    }

    #[test]
    fn each_number_out_of_range_is_named() {
        check_refused(|p| p.temperature = -0.5, "temperature: -0.5 is not a finite number, at least 0");
        check_refused(|p| p.temperature = f32::NAN, "temperature: NaN is not a finite number, at least 0");
        check_refused(|p| p.top_p = 1.5, "top_p: 1.5 is not between 0 and 1");
        check_refused(|p| p.min_p = f32::NAN, "min_p: NaN is not between 0 and 1");
        check_refused(|p| p.typical_p = -0.1, "typical_p: -0.1 is not between 0 and 1");
        check_refused(|p| p.epsilon_cutoff = 1.0, "epsilon_cutoff: 1 is not at least 0 and less than 1");
        check_refused(|p| p.eta_cutoff = f32::NAN, "eta_cutoff: NaN is not at least 0 and less than 1");
        check_refused(|p| p.top_n_sigma = -1.0, "top_n_sigma: -1 is not a finite number, at least 0");
        check_refused(
            |p| p.dry_multiplier = f32::NAN,
            "dry_multiplier: NaN is not a finite number, at least 0",
        );
        check_refused(|p| p.dry_base = 0.5, "dry_base: 0.5 is not a finite number, at least 1");
        check_refused(|p| p.repetition_penalty = 0.0, "repetition_penalty: 0 is not a finite number above 0");
        check_refused(|p| p.presence_penalty = f32::INFINITY, "presence_penalty: inf is not a finite number");
        check_refused(|p| p.frequency_penalty = f32::NAN, "frequency_penalty: NaN is not a finite number");
        check_refused(|p| p.logit_bias = vec![(1, f32::NAN)], "logit_bias: NaN is not a finite number");
    }
}
