//! Options of `predict`'s tasks.

use std::num::NonZeroUsize;

use andiron_models::encoder::Pooling;
use andiron_models::generate::{BeamOptions, EarlyStopping};
use andiron_pipelines::EncoderPipeline;
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::exit::Usage;

/// Options of encoder tasks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Encoder tasks")]
pub(super) struct Reading {
    /// fill-mask: number of candidates per mask [default: 5]; classify: number of labels, the best ones [default: all]
    #[arg(long, value_name = "N")]
    pub(super) top: Option<NonZeroUsize>,
    /// answer: maximum length of an answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(super) max_answer_tokens: usize,
    /// embed, rerank: how token vectors are pooled into one [default: `1_Pooling/config.json`, else mean]
    #[arg(long, value_enum)]
    pooling: Option<PoolingName>,
    /// embed, rerank: whether to scale vectors to length 1 [default: as in `modules.json`]
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    normalize: Option<bool>,
    /// embed: name of the model's prompt to put before each text, such as `query` [default: `default_prompt_name` of
    /// `config_sentence_transformers.json`, if any]
    #[arg(long, value_name = "NAME", conflicts_with = "prompt")]
    prompt_name: Option<String>,
    /// embed: text to put before each text, in place of the model's prompt
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
}

/// Beam search options. With one beam, decoding is greedy.
#[derive(Debug, Args)]
#[command(next_help_heading = "Beam search (translate, summarize; generate with --num-beams)")]
pub(super) struct Searching {
    /// Number of beams; 1 is no beam search: greedy decoding, or sampling in the task generate [default:
    /// generation_config.json, else 1]
    #[arg(long, value_name = "N")]
    pub(super) num_beams: Option<usize>,
    /// Exponent of the length by which a beam's log-probability is divided; above 0 favours longer sequences [default:
    /// generation_config.json, else 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    length_penalty: Option<f32>,
    /// When to end the search: `true` once there are num-beams finished sequences, `false` when a better one is unlikely, `never`
    /// when a better one is impossible [default: generation_config.json, else false]
    #[arg(long, value_name = "WHEN", value_parser = early_stopping)]
    early_stopping: Option<EarlyStopping>,
    /// Forbid repeating any n-gram of N tokens; 0 is off [default: generation_config.json, else 0]
    #[arg(long, value_name = "N")]
    no_repeat_ngram_size: Option<usize>,
    /// translate, summarize: text to put before each input, for multi-task models, such as `summarize: ` for T5
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
    /// The first token
    Cls,
    /// The mean of all tokens
    Mean,
    /// The last token
    Last,
    /// The maximum of each dimension
    Max,
}

/// Candidates per mask.
const CANDIDATES: usize = 5;

impl Reading {
    /// Number of candidates per mask.
    pub(super) fn candidates(&self) -> usize {
        self.top.map_or(CANDIDATES, NonZeroUsize::get)
    }

    /// Number of labels of a text at most.
    pub(super) fn labels(&self) -> usize {
        self.top.map_or(usize::MAX, NonZeroUsize::get)
    }

    /// The model with these pooling and prompt options.
    ///
    /// # Errors
    /// If the model has no prompt named `--prompt-name`.
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
