//! Text in, text out: a decoder with its tokenizer, and one generation from prompt to finish reason.

use std::ops::ControlFlow;

use andiron_data::tokenizer::{Special, StopMatcher, StreamDecoder, Tokenizer};
use andiron_models::generate::{
    Decoding, FinishReason, GenerateError, GenerateOptions, Generated, GenerationConfig, NextToken,
    SamplingChoice, SamplingParams, Token, generate_batch,
};
use anyhow::Context as _;
use clap::Args;

use crate::exit::Usage;
use crate::model::TextModel;

/// What is to be generated.
#[derive(Clone, Debug)]
pub struct Request {
    /// The ids to continue.
    pub prompt: Vec<u32>,
    /// How.
    pub options: GenerateOptions,
    /// Strings before which the text ends.
    pub stops: Vec<String>,
}

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
    /// The ids of a prompt, with what the tokenizer puts in front of every text, as Llama's does; an empty one becomes
    /// the id that begins or ends a text, if the model has such an id.
    pub fn encode_prompt(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let ids = self.tokenizer()?.encode_prompt(text)?;
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
        let text = Text::after(prompt, self.tokenizer.as_ref(), options.stop_ids.clone(), stops)?;
        complete(&self.bundle, prompt, options, text, show)
    }

    /// Generates from several prompts together, each with its own options and stop strings.
    pub fn generate_all(&self, requests: Vec<Request>) -> Vec<anyhow::Result<Completion>> {
        let text = |request: &mut Request| {
            let stop_ids = &mut request.options.stop_ids;
            stop_ids.extend(self.bundle.generation.eos_token_id.as_slice());
            Text::after(&request.prompt, self.tokenizer.as_ref(), stop_ids.clone(), &request.stops)
        };
        // A text that cannot begin, or in which the tokenizer fails, is that request's error only.
        let (mut texts, mut prompts) = (Vec::new(), Vec::new());
        for mut request in requests {
            texts.push(text(&mut request));
            prompts.push((request.prompt, request.options));
        }
        let done = generate_batch(&self.bundle, prompts, |row, token| {
            let pushed = texts[row].as_mut().map(|text| text.push(token, |_| ()));
            match pushed {
                Ok(Ok(flow)) => flow,
                Ok(Err(error)) => {
                    texts[row] = Err(error);
                    ControlFlow::Break(())
                }
                Err(_) => ControlFlow::Break(()),
            }
        });
        let finish = |(text, done): (anyhow::Result<Text>, Result<Generated, GenerateError>)| {
            let Generated { tokens, finish_reason } = done?;
            text?.finish(tokens.iter().map(|token| token.id).collect(), Some(finish_reason), |_| ())
        };
        texts.into_iter().zip(done).map(finish).collect()
    }
}

/// Generates from `prompt`, calling `show` with each piece of `text` as soon as it is certain.
pub fn complete<M: NextToken>(
    model: &M,
    prompt: &[u32],
    options: GenerateOptions,
    mut text: Text,
    mut show: impl FnMut(&str),
) -> anyhow::Result<Completion> {
    let mut decoding = Decoding::new(model, prompt, options)?;
    while let Some(token) = decoding.next_token(model)? {
        if text.push(&token, &mut show)?.is_break() {
            break;
        }
    }
    text.finish(decoding.generated().to_vec(), decoding.finish_reason(), show)
}

/// The text that `ids` add to that of `prompt`; empty without a tokenizer.
pub fn continuation(tokenizer: Option<&Tokenizer>, prompt: &[u32], ids: &[u32]) -> anyhow::Result<String> {
    let Some(tokenizer) = tokenizer else { return Ok(String::new()) };
    let mut stream = StreamDecoder::after(tokenizer, Special::Skip, prompt)?;
    let pieces = ids.iter().map(|&id| stream.push(id)).collect::<Result<String, _>>()?;
    Ok(pieces + &stream.finish()?)
}

/// A text as its tokens come.
pub struct Text {
    stream: Option<StreamDecoder>,
    matcher: StopMatcher,
    stop_ids: Vec<u32>,
    text: String,
    sum_logprob: f64,
    stopped: bool,
}

impl Text {
    /// A text that continues that of `prompt`, which may be empty, up to a stop id or one of `stops`.
    pub fn after(
        prompt: &[u32],
        tokenizer: Option<&Tokenizer>,
        stop_ids: Vec<u32>,
        stops: &[String],
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(
            stops.is_empty() || tokenizer.is_some(),
            "a stop string needs a tokenizer, which the model directory does not have"
        );
        let stream = tokenizer.map(|tokenizer| StreamDecoder::after(tokenizer, Special::Skip, prompt));
        Ok(Self {
            stream: stream.transpose()?,
            matcher: StopMatcher::new(stops.iter().cloned())?,
            stop_ids,
            text: String::new(),
            sum_logprob: 0.0,
            stopped: false,
        })
    }

    /// Takes the next token, and says whether a stop string has come.
    fn push(&mut self, token: &Token, show: impl FnMut(&str)) -> anyhow::Result<ControlFlow<()>> {
        self.sum_logprob += f64::from(token.logprob);
        if let Some(stream) = &mut self.stream
            && !self.stop_ids.contains(&token.id)
        {
            let piece = stream.push(token.id)?;
            self.add(&piece, show);
        }
        Ok(if self.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn add(&mut self, piece: &str, mut show: impl FnMut(&str)) {
        let output = self.matcher.push(piece);
        show(&output.text);
        self.text.push_str(&output.text);
        self.stopped |= output.stopped.is_some();
    }

    fn finish(
        mut self,
        ids: Vec<u32>,
        reason: Option<FinishReason>,
        mut show: impl FnMut(&str),
    ) -> anyhow::Result<Completion> {
        if let (Some(stream), false) = (self.stream.take(), self.stopped) {
            self.add(&stream.finish()?, &mut show);
            if !self.stopped {
                let rest = self.matcher.finish();
                show(&rest);
                self.text.push_str(&rest);
            }
        }
        let finish_reason = match reason {
            Some(reason) if !self.stopped => reason,
            _ => FinishReason::Stop,
        };
        Ok(Completion { text: self.text, ids, finish_reason, sum_logprob: self.sum_logprob })
    }
}

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
