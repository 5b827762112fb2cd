//! `andiron predict`: rows of JSON in, rows of JSON out.

mod answer;
mod classify;
mod embed;
mod fill_mask;
mod generate;
mod guard;
mod options;
pub(super) mod output;
mod rerank;
mod rows;
mod score;
mod token_classify;
mod write;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use andiron_models::encoder::EncoderHead;
use andiron_models::generate::{BeamOptions, GenerationConfig};
use andiron_models::{AnyBundle, AnyConfig, Family, ModelFiles};
use andiron_pipelines::{EncoderPipeline, Pipeline, RewriteOptions};
use clap::{Args, ValueEnum};
use options::{Reading, Searching};
use rows::{Answer, Keep, Kept};

use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::grammar::{self, ConstraintArgs};
use crate::model::{self, ModelChoice, PromptChoice, RunChoice};
use crate::sampling::Sampling;
use crate::verbs::generate::MAX_TOKENS;

/// Run a model over a JSONL file: generate, score, embed, classify, rerank, translate and more
///
/// Writes one output row per input row, in order, and copies the field `id` if there is one. A row that fails gets an `error` in its
/// place; the other rows are still processed, and the exit code is 1.
#[derive(Debug, Args)]
pub struct Predict {
    #[command(flatten)]
    model: ModelChoice,
    /// What to compute, and from which fields of a row [default: the task of the model's head]
    #[arg(long, value_enum)]
    task: Option<Task>,
    /// Input JSONL file; `-` is standard input
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Output JSONL file; `-` is standard output. A file appears when it is complete; until then, and after a failure, the rows
    /// so far are beside it in `.NAME.partial`
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Field of the input rows to copy to the output, such as the right label; `label=category` copies the field `category` as
    /// `label`. Repeat the option for several. Other fields that the task does not read are then ignored; without the
    /// option they are errors
    #[arg(long, value_name = "FIELD")]
    keep: Vec<Kept>,
    /// Maximum number of new tokens for a row without `max_tokens` [default: generation_config.json, else 256]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// translate and summarize; generate with a decoder and without beams: rows decoded as one batch. More is faster and takes more
    /// memory. Encoders and score batch rows of equal length by themselves; the other tasks run row by row
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    batch_size: NonZeroUsize,
    #[command(flatten)]
    prompts: PromptChoice,
    #[command(flatten)]
    run: RunChoice,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    constraint: ConstraintArgs,
    #[command(flatten)]
    searching: Searching,
    #[command(flatten)]
    reading: Reading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Task {
    /// `{"text"}` or `{"ids"}`; for an encoder-decoder `{"source","target"}` or `{"source_ids","target_ids"}`:
    /// log-probability of each token, given the tokens before it
    Score,
    /// `{"prompt"}` or `{"prompt_ids"}`: continue the prompt; a row may set `max_tokens`, `seed`, `stop`, and one of `choice`,
    /// `regex` and `json_schema`
    Generate,
    /// `{"text"}` with mask tokens, or `{"ids","mask_positions"}`: likeliest tokens for each mask
    FillMask,
    /// `{"text"}` or `{"ids"}`: an embedding vector; the model's prompt, if it has one, is put before a text
    Embed,
    /// `{"text"}`, optionally with `"text_pair"`, or `{"ids","type_ids"}`: labels with probabilities, best first. A model with one
    /// label gives the sigmoid of its logit, or the logit itself if `problem_type` is `regression`
    Classify,
    /// `{"text"}` or `{"ids"}`: labelled spans, such as named entities
    TokenClassify,
    /// `{"question","context"}` or `{"ids","type_ids"}`: the span of the context that answers the question
    Answer,
    /// `{"query","documents":[…]}`: relevance score of each document, best first
    Rerank,
    /// `{"text"}` or `{"ids"}`: a translation; a row may set `max_tokens`
    Translate,
    /// `{"text"}` or `{"ids"}`: a summary; a row may set `max_tokens`
    Summarize,
}

impl Predict {
    /// Runs the task.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let (task, model) = self.open(common)?;
        let keep = Keep { fields: self.keep, reads: task.reads() };
        rows::answer_file(&*model, &keep, &self.input, &self.output)
    }
}

impl Predict {
    fn open(&self, common: &Common) -> anyhow::Result<(Task, Box<dyn Answer>)> {
        self.sampling.check()?;
        let grammar = self.constraint.grammar()?;
        let mut files = None;
        let task = match self.task {
            Some(task) => task,
            None => {
                let files = files.insert(ModelFiles::open(&self.model.path)?);
                match self.model.adapter.model_config()? {
                    Some(config) => default_task(&config),
                    None => default_task(&files.config()?.config),
                }
            }
        };
        let searches = self.searching.num_beams.is_some_and(|n| n > 1);
        if grammar.is_some() && (task != Task::Generate || searches) {
            let message = "a choice, regex or JSON schema needs the task generate without beams";
            return Err(Usage(message.to_owned()).into());
        }
        let holds = grammar.is_some();
        let files = files.map_or_else(|| ModelFiles::open(&self.model.path), Ok)?;
        let opened = model::open_files(files, &self.model.adapter, self.run, common)?;
        let opened = opened.with_control_tokens(self.prompts.control_tokens());
        let constraint = grammar::constraint(&opened.text, grammar)?;
        let defaults = |files: &GenerationConfig| generate::GenerateDefaults {
            sampling: self.sampling.params(files),
            max_tokens: self.max_tokens,
            constraint,
        };
        // Without --num-beams, the files' beam search is used, unless sampling or a grammar is asked for.
        let by_files = self.searching.num_beams.is_none() && !holds && !self.sampling.draws();
        let searches = searches || by_files && opened.generation().is_some_and(GenerationConfig::searches);
        let model: Box<dyn Answer> = match task {
            Task::Score if opened.bundle.family() == Family::EncoderDecoder => {
                let model = opened.encoder_decoder()?;
                model.text.target_tokenizer()?;
                Box::new(score::ScoreTarget { model })
            }
            Task::Score => Box::new(score::Score { model: opened.decoder()? }),
            Task::Translate | Task::Summarize => {
                let model = opened.encoder_decoder()?;
                let options = self.beam_options(&model.bundle.generation)?;
                let sampling = write::drawn(&model.bundle.generation, &self.sampling, &options)?;
                let prefix = self.searching.prefix.clone();
                let options = RewriteOptions { beams: options, sampling, prefix };
                let (summarizes, batch_size) = (task == Task::Summarize, self.batch_size);
                Box::new(write::Write { model, options, summarizes, batch_size })
            }
            Task::Generate if opened.bundle.family() == Family::EncoderDecoder => {
                let model = opened.encoder_decoder()?;
                match searches {
                    true => {
                        let options = self.beam_options(&model.bundle.generation)?;
                        Box::new(write::Search { model, options })
                    }
                    false => {
                        let defaults = defaults(&model.bundle.generation);
                        Box::new(write::Draw { model, defaults })
                    }
                }
            }
            Task::Generate if searches => {
                let model = opened.decoder()?;
                let options = self.beam_options(&model.bundle.generation)?;
                Box::new(generate::Search { model, options, max_tokens: self.max_tokens })
            }
            Task::Generate => {
                let model = opened.decoder()?;
                let defaults = defaults(&model.bundle.generation);
                Box::new(generate::Generate { model, defaults, batch_size: self.batch_size })
            }
            Task::FillMask => {
                let model = opened.encoder()?;
                ensure_head(&model, task, |head| head == EncoderHead::MaskedLm)?;
                Box::new(fill_mask::FillMask { model, top: self.reading.candidates() })
            }
            Task::Embed => {
                let model = self.reading.embedder(opened.encoder()?)?;
                Box::new(embed::Embed { model })
            }
            Task::Classify => match opened.bundle {
                AnyBundle::Classifier(bundle) => {
                    let model = Pipeline { bundle, text: opened.text };
                    Box::new(classify::Classify { model, top: self.reading.labels() })
                }
                _ => {
                    let model = opened.encoder()?;
                    ensure_head(&model, task, |head| matches!(head, EncoderHead::Classify { .. }))?;
                    Box::new(classify::Classify { model, top: self.reading.labels() })
                }
            },
            Task::TokenClassify => {
                let model = opened.encoder()?;
                ensure_head(&model, task, |head| head == EncoderHead::TokenClassify)?;
                Box::new(token_classify::TokenClassify { model })
            }
            Task::Answer => {
                let model = opened.encoder()?;
                ensure_head(&model, task, |head| head == EncoderHead::Span)?;
                Box::new(answer::FindAnswer { model, max_tokens: self.reading.max_answer_tokens })
            }
            Task::Rerank => {
                let model = opened.encoder()?;
                let labels = model.bundle.config.labels().len();
                let classifies = matches!(model.bundle.config.head(), EncoderHead::Classify { .. });
                anyhow::ensure!(
                    !classifies || labels == 1,
                    "a model that reranks has one label; this one has {labels}"
                );
                let model = self.reading.embedder(model)?;
                Box::new(rerank::Rerank { model })
            }
        };
        Ok((task, model))
    }

    /// Beam search options: the command line's, then those of `files`.
    fn beam_options(&self, files: &GenerationConfig) -> anyhow::Result<BeamOptions> {
        let mut options = files.beam_options();
        if files.length_limit().is_none() {
            options.max_new_tokens = MAX_TOKENS;
        }
        let penalty = self.sampling.given().repetition_penalty;
        options.repetition_penalty = penalty.unwrap_or(options.repetition_penalty);
        self.searching.apply(&mut options, self.max_tokens)?;
        Ok(options)
    }
}

impl Task {
    /// The fields of a row that it reads.
    fn reads(self) -> &'static [&'static str] {
        match self {
            Self::Score => &["text", "ids", "source", "target", "source_ids", "target_ids"],
            Self::Generate => {
                &["prompt", "prompt_ids", "max_tokens", "seed", "stop", "choice", "regex", "json_schema"]
            }
            Self::FillMask => &["text", "ids", "type_ids", "mask_positions"],
            Self::Embed | Self::TokenClassify => &["text", "ids", "type_ids"],
            Self::Classify => &["text", "text_pair", "ids", "type_ids"],
            Self::Answer => &["question", "context", "ids", "type_ids"],
            Self::Rerank => &["query", "documents"],
            Self::Translate | Self::Summarize => &["text", "ids", "max_tokens"],
        }
    }
}

/// The task of the class in `config.json`.
fn default_task(config: &AnyConfig) -> Task {
    match config {
        AnyConfig::Decoder(_) => Task::Generate,
        AnyConfig::Classifier(_) => Task::Classify,
        AnyConfig::Encoder(config) => match config.head() {
            EncoderHead::None => Task::Embed,
            EncoderHead::MaskedLm => Task::FillMask,
            EncoderHead::Classify { .. } => Task::Classify,
            EncoderHead::TokenClassify => Task::TokenClassify,
            EncoderHead::Span => Task::Answer,
        },
        AnyConfig::EncoderDecoder(config) if config.model_type() == "bart" => Task::Summarize,
        AnyConfig::EncoderDecoder(_) => Task::Translate,
    }
}

fn ensure_head(
    model: &EncoderPipeline,
    task: Task,
    fits: impl Fn(EncoderHead) -> bool,
) -> anyhow::Result<()> {
    let config = &model.bundle.config;
    let name = task.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    anyhow::ensure!(
        fits(config.head()),
        "the task {name} needs a model with a head for it; this one is a {}: fine-tune it for the task first, or leave \
         --task out to do what it was made for",
        config.class_name()
    );
    Ok(())
}
