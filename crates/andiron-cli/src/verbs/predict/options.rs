//! What rows can be answered with, on the command line.

use andiron_models::encoder::Pooling;
use andiron_models::generate::{BeamOptions, EarlyStopping};
use andiron_pipelines::EncoderPipeline;
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::exit::Usage;

/// What encoders can be told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reading")]
pub(super) struct Reading {
    /// fill-mask: how many guesses to show for each mask
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(super) top: usize,
    /// answer: longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(super) max_answer_tokens: usize,
    /// embed: which tokens make the vector; by default what `1_Pooling/config.json` says, or their mean
    #[arg(long, value_enum)]
    pooling: Option<PoolingName>,
    /// embed: whether to scale vectors to length 1; by default what `modules.json` says
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    normalize: Option<bool>,
    /// embed: put the model's prompt of this name before each text, such as `query`; by default the one that
    /// `config_sentence_transformers.json` names, if any
    #[arg(long, value_name = "NAME", conflicts_with = "prompt")]
    prompt_name: Option<String>,
    /// embed: put this text before each text, in the place of the model's own prompt
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
}

/// How targets are searched for; without beams the likeliest token is taken each time.
#[derive(Debug, Args)]
#[command(next_help_heading = "Searching (translate, summarize; generate with --num-beams)")]
pub(super) struct Searching {
    /// Follow so many sequences at once; by default what the model's files say, or 1
    #[arg(long, value_name = "N")]
    pub(super) num_beams: Option<usize>,
    /// Divide a sequence's log-probability by its length to this power: above 0 favours long ones
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    length_penalty: Option<f32>,
    /// When to end: `true` with enough finished sequences, `false` when better ones are unlikely, `never` when they are
    /// impossible
    #[arg(long, value_name = "WHEN", value_parser = early_stopping)]
    early_stopping: Option<EarlyStopping>,
    /// Never say the same sequence of so many tokens twice; 0 is no such rule
    #[arg(long, value_name = "N")]
    no_repeat_ngram_size: Option<usize>,
    /// Put this before each text, for models that do several tasks, such as `summarize: `
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) prefix: String,
}

impl Searching {
    pub(super) fn apply(&self, options: &mut BeamOptions, max_tokens: Option<usize>) -> anyhow::Result<()> {
        options.num_return_sequences = 1;
        options.num_beams = self.num_beams.unwrap_or(options.num_beams);
        options.length_penalty = self.length_penalty.unwrap_or(options.length_penalty);
        options.early_stopping = self.early_stopping.unwrap_or(options.early_stopping);
        options.no_repeat_ngram_size = self.no_repeat_ngram_size.unwrap_or(options.no_repeat_ngram_size);
        options.max_new_tokens = max_tokens.unwrap_or(options.max_new_tokens);
        options.validate().map_err(|error| Usage(error.to_string()).into())
    }
}

fn early_stopping(text: &str) -> Result<EarlyStopping, String> {
    let value = match text.parse() {
        Ok(flag) => Value::Bool(flag),
        Err(_) => Value::String(text.to_owned()),
    };
    EarlyStopping::try_from(value)
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PoolingName {
    /// The first token's
    Cls,
    /// The mean of all
    Mean,
    /// The last token's
    Last,
    /// The greatest value of each dimension
    Max,
}

impl Reading {
    /// The model, told how to make one vector of many.
    ///
    /// # Errors
    /// If a prompt is asked for that the model has not.
    pub(super) fn embedder(&self, mut model: EncoderPipeline) -> anyhow::Result<EncoderPipeline> {
        let mut pipeline = model.bundle.embedding.unwrap_or_default();
        if self.pooling.is_some() {
            pipeline.appended.clear();
        }
        pipeline.pooling = self.pooling.map_or(pipeline.pooling, |name| match name {
            PoolingName::Cls => Pooling::Cls,
            PoolingName::Mean => Pooling::Mean,
            PoolingName::Last => Pooling::Last,
            PoolingName::Max => Pooling::Max,
        });
        pipeline.normalize = self.normalize.unwrap_or(pipeline.normalize);
        if let Some(prompt) = &self.prompt {
            pipeline.prompts.by_name = [(String::new(), prompt.clone())].into();
            pipeline.prompts.default = Some(String::new());
        }
        if let Some(name) = &self.prompt_name {
            if pipeline.prompts.named(name).is_none() {
                let names: Vec<&str> = pipeline.prompts.by_name.keys().map(String::as_str).collect();
                let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                return Err(Usage(format!("--prompt-name {name}: the model's prompts are: {there}")).into());
            }
            pipeline.prompts.default = Some(name.clone());
        }
        model.bundle.embedding = Some(pipeline);
        Ok(model)
    }
}
