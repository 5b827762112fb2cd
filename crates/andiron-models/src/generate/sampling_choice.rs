//! Optional sampling parameters.

use super::SamplingParams;

/// Sampling parameters, each `None` if unset. See [`SamplingParams`] for their meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingChoice {
    /// Temperature; 0 is greedy.
    pub temperature: Option<f32>,
    /// Top-k.
    pub top_k: Option<usize>,
    /// Top-p.
    pub top_p: Option<f32>,
    /// Min-p.
    pub min_p: Option<f32>,
    /// Typical-p.
    pub typical_p: Option<f32>,
    /// Epsilon cutoff.
    pub epsilon_cutoff: Option<f32>,
    /// Eta cutoff.
    pub eta_cutoff: Option<f32>,
    /// Repetition penalty.
    pub repetition_penalty: Option<f32>,
    /// Size of n-grams that may not repeat.
    pub no_repeat_ngram_size: Option<usize>,
}

impl SamplingChoice {
    /// llama.cpp's defaults: temperature 0.8, top-k 40, top-p 0.95, min-p 0.05.
    pub const LLAMA_CPP: Self = Self {
        temperature: Some(0.8),
        top_k: Some(40),
        top_p: Some(0.95),
        min_p: Some(0.05),
        typical_p: None,
        epsilon_cutoff: None,
        eta_cutoff: None,
        repetition_penalty: None,
        no_repeat_ngram_size: None,
    };

    /// These parameters, with unset ones taken from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            temperature: self.temperature.or(other.temperature),
            top_k: self.top_k.or(other.top_k),
            top_p: self.top_p.or(other.top_p),
            min_p: self.min_p.or(other.min_p),
            typical_p: self.typical_p.or(other.typical_p),
            epsilon_cutoff: self.epsilon_cutoff.or(other.epsilon_cutoff),
            eta_cutoff: self.eta_cutoff.or(other.eta_cutoff),
            repetition_penalty: self.repetition_penalty.or(other.repetition_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.or(other.no_repeat_ngram_size),
        }
    }
}

impl From<SamplingChoice> for SamplingParams {
    /// Unset parameters are [`SamplingParams`]' defaults: the model's own distribution.
    fn from(choice: SamplingChoice) -> Self {
        let default = Self::default();
        Self {
            temperature: choice.temperature.unwrap_or(default.temperature),
            top_k: choice.top_k.unwrap_or(default.top_k),
            top_p: choice.top_p.unwrap_or(default.top_p),
            min_p: choice.min_p.unwrap_or(default.min_p),
            typical_p: choice.typical_p.unwrap_or(default.typical_p),
            epsilon_cutoff: choice.epsilon_cutoff.unwrap_or(default.epsilon_cutoff),
            eta_cutoff: choice.eta_cutoff.unwrap_or(default.eta_cutoff),
            repetition_penalty: choice.repetition_penalty.unwrap_or(default.repetition_penalty),
            no_repeat_ngram_size: choice.no_repeat_ngram_size.unwrap_or(default.no_repeat_ngram_size),
            ..default
        }
    }
}
