//! Sampling options, on the command line.

use andiron_models::generate::{GenerationConfig, SamplingChoice, SamplingParams};
use clap::Args;

use crate::exit::Usage;

/// Sampling options, on the command line. `generation_config.json` is the default of each.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct Sampling {
    /// Temperature: below 1 sharpens the distribution, above 1 flattens it; 0 is greedy decoding [default:
    /// generation_config.json, else 0.8; 0 if the file sets do_sample to false, or sampling options without do_sample]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Sample from the N likeliest tokens only; 0 is off [default: generation_config.json, else 40]
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Nucleus sampling: sample from the smallest set of likeliest tokens with this total probability; 1 is off [default:
    /// generation_config.json, else 0.95]
    #[arg(long, value_name = "0..1", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Drop tokens less likely than this fraction of the likeliest token's probability; 0 is off [default:
    /// generation_config.json, else 0.05]
    #[arg(long, value_name = "0..1", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Penalize tokens that already occurred, in prompt or output; above 1 discourages repetition, 1 is off [default:
    /// generation_config.json, else 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Random seed: the same seed and options give the same text
    #[arg(long, value_name = "N", default_value_t = 1337)]
    seed: u64,
}

impl Sampling {
    /// Checks the ranges of the given values.
    pub fn check(&self) -> anyhow::Result<()> {
        let given = SamplingParams::from(self.given());
        given.validate().map_err(|error| Usage(error.to_string()).into())
    }

    /// The command line's values, then those of `files`, then llama.cpp's defaults.
    pub fn params(&self, files: &GenerationConfig) -> SamplingParams {
        let choice = self.given().or(files.sampling()).or(SamplingChoice::LLAMA_CPP);
        SamplingParams { seed: self.seed, ..choice.into() }
    }

    /// Whether the command line asks for sampling.
    pub fn draws(&self) -> bool {
        let cuts = self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        self.temperature.map_or(cuts, |temperature| temperature > 0.0)
    }

    /// The values on the command line.
    pub fn given(&self) -> SamplingChoice {
        SamplingChoice {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            ..SamplingChoice::default()
        }
    }
}
