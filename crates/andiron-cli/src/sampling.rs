//! How the next token is chosen, on the command line.

use andiron_models::generate::{GenerationConfig, SamplingChoice, SamplingParams};
use clap::Args;

use crate::exit::Usage;

/// How the next token is chosen, on the command line. What is not given, the model's `generation_config.json` says.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct Sampling {
    /// Below 1 the likely tokens become likelier, above 1 less so; 0 always takes the likeliest [default: what the model's
    /// files say, or 0.8; 0 if they set do_sample to false, or temperature and the like without do_sample]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Choose among this many likeliest tokens only; 0 is all [default: what the model's files say, or 40]
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Choose among the fewest likeliest tokens that together have this probability; 1 is all [default: what the model's
    /// files say, or 0.95]
    #[arg(long, value_name = "0..1", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Leave out tokens less likely than this share of the likeliest one's probability; 0 leaves none out [default: what
    /// the model's files say, or 0.05]
    #[arg(long, value_name = "0..1", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Make tokens that have occurred less likely, the more the larger; 1 is off [default: what the model's files say, or 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// The same seed gives the same text
    #[arg(long, value_name = "N", default_value_t = 1337)]
    seed: u64,
}

impl Sampling {
    /// Checks what is given.
    pub fn check(&self) -> anyhow::Result<()> {
        let given = SamplingParams::from(self.given());
        given.validate().map_err(|error| Usage(error.to_string()).into())
    }

    /// The settings for a model whose files say `files`, as far as the command line does not.
    pub fn params(&self, files: &GenerationConfig) -> SamplingParams {
        let choice = self.given().or(files.sampling()).or(SamplingChoice::LLAMA_CPP);
        SamplingParams { seed: self.seed, ..choice.into() }
    }

    /// Whether the command line asks for drawn ids.
    pub fn draws(&self) -> bool {
        let cuts = self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        self.temperature.map_or(cuts, |temperature| temperature > 0.0)
    }

    /// The settings on the command line.
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
