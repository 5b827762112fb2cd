//! Text in, text out: a decoder with its tokenizer, and one generation from prompt to finish reason.

use andiron_data::tokenizer::{Special, StopMatcher, StreamDecoder, Tokenizer};
use andiron_models::generate::{Decoding, FinishReason, GenerateOptions, NextToken, SamplingParams};
use anyhow::Context as _;
use clap::Args;

use crate::exit::Usage;
use crate::model::TextModel;

/// What one generation gave.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The text up to a stop string; empty without a tokenizer.
    pub text: String,
    /// The generated ids, a stop id included.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Sum of the ids' natural-log probabilities.
    pub sum_logprob: f64,
}

impl TextModel {
    /// The ids of a prompt, with what the tokenizer puts in front of every text, as Llama's does; an empty one becomes the id that begins or ends a text, if the model has such an id.
    pub fn encode_prompt(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let ids = self.tokenizer()?.encode_framed(text)?;
        if !ids.is_empty() {
            return Ok(ids);
        }
        let sizes = self.bundle.config.sizes();
        let first = sizes.bos_token_id.or(sizes.eos_token_id);
        Ok(vec![
            first.context("the prompt is empty and the model has no id that begins a text: give a prompt")?,
        ])
    }

    /// Generates from `prompt`, calling `show` with each piece of text as soon as it is certain.
    pub fn generate(
        &self,
        prompt: &[u32],
        mut options: GenerateOptions,
        stops: &[String],
        show: impl FnMut(&str),
    ) -> anyhow::Result<Completion> {
        options.stop_ids.extend(self.bundle.generation.eos_token_id.as_slice());
        complete(&self.bundle, self.tokenizer.as_ref(), prompt, options, stops, show)
    }
}

/// Generates from `prompt`, calling `show` with each piece of text as soon as it is certain.
pub fn complete<M: NextToken>(
    model: &M,
    tokenizer: Option<&Tokenizer>,
    prompt: &[u32],
    options: GenerateOptions,
    stops: &[String],
    mut show: impl FnMut(&str),
) -> anyhow::Result<Completion> {
    anyhow::ensure!(
        stops.is_empty() || tokenizer.is_some(),
        "a stop string needs a tokenizer and the model directory has no tokenizer.json"
    );
    let stop_ids = options.stop_ids.clone();
    let mut decoding = Decoding::new(model, prompt, options)?;
    let mut stream = tokenizer.map(|tokenizer| StreamDecoder::new(tokenizer, Special::Skip));
    let mut matcher = StopMatcher::new(stops.iter().cloned())?;
    let mut text = String::new();
    let mut add = |piece: &str, text: &mut String| {
        show(piece);
        text.push_str(piece);
    };
    let mut sum_logprob = 0.0;
    let mut stopped = false;
    while let Some(token) = decoding.next_token(model)? {
        sum_logprob += f64::from(token.logprob);
        let Some(stream) = &mut stream else { continue };
        if !stop_ids.contains(&token.id) {
            let output = matcher.push(&stream.push(token.id)?);
            add(&output.text, &mut text);
            if output.stopped.is_some() {
                stopped = true;
                break;
            }
        }
    }
    if let (Some(stream), false) = (stream, stopped) {
        let output = matcher.push(&stream.finish()?);
        add(&output.text, &mut text);
        stopped = output.stopped.is_some();
        if !stopped {
            add(&matcher.finish(), &mut text);
        }
    }
    let finish_reason = match decoding.finish_reason() {
        Some(reason) if !stopped => reason,
        _ => FinishReason::Stop,
    };
    Ok(Completion { text, ids: decoding.generated().to_vec(), finish_reason, sum_logprob })
}

/// How the next token is chosen, on the command line.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct Sampling {
    /// Below 1 the likely tokens become likelier, above 1 less so; 0 always takes the likeliest
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true)]
    temperature: f32,
    /// Choose among this many likeliest tokens only; 0 is all
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: usize,
    /// Choose among the fewest likeliest tokens that together have this probability; 1 is all
    #[arg(long, value_name = "0..1", default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f32,
    /// Leave out tokens less likely than this share of the likeliest one's probability; 0 leaves none out
    #[arg(long, value_name = "0..1", default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,
    /// Make tokens that have occurred less likely, the more the larger; 1 is off
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    repetition_penalty: f32,
    /// The same seed gives the same text
    #[arg(long, value_name = "N", default_value_t = 1337)]
    seed: u64,
}

impl Sampling {
    /// The settings, checked.
    pub fn params(&self) -> anyhow::Result<SamplingParams> {
        let params = SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            ..SamplingParams::default()
        };
        params.validate().map_err(|error| Usage(error.to_string()))?;
        Ok(params)
    }
}
