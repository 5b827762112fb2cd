//! `andiron predict`: rows of JSON in, rows of JSON out.

mod answer;
mod classify;
mod embed;
mod fill_mask;
mod generate;
mod guard;
mod options;
mod output;
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
use rows::Answer;

use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::grammar::{self, ConstraintArgs};
use crate::model::{self, PromptChoice, RunChoice};
use crate::sampling::Sampling;
use crate::verbs::generate::MAX_TOKENS;

/// Answer rows of a JSONL file
///
/// One output row for each input row, in order, with the input's `id` if it has one. A row that cannot be answered gives
/// an `error` in its place; the others still run, and the exit code is 1.
#[derive(Debug, Args)]
pub struct Predict {
    /// Model directory, or a GGUF file
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What to do with each row, and which fields it has; by default what the model was made for
    #[arg(long, value_enum)]
    task: Option<Task>,
    /// JSONL file to read; `-` is standard input
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// JSONL file to write; `-` is standard output. A file appears when all rows are answered; until then, and after a
    /// failure, what there is so far is beside it, in `.NAME.partial`
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Most tokens to generate for a row that does not set `max_tokens`; by default what the model's files say, or 256
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// generate: continue so many rows together, which takes little longer than one; other tasks read rows of
    /// equal lengths together by themselves
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
    /// `{"text"}` or `{"ids"}`, of an encoder-decoder `{"source","target"}` or `{"source_ids","target_ids"}`:
    /// log-probability of each token given all before it
    Score,
    /// `{"prompt"}` or `{"prompt_ids"}`: continue it; a row may set `max_tokens`, `seed` and `stop`, and `choice`, `regex`
    /// or `json_schema`
    Generate,
    /// `{"text"}` with the mask token in it, or `{"ids","mask_positions"}`: what may be hidden there
    FillMask,
    /// `{"text"}` or `{"ids"}`: one vector for it; a text is read after the model's prompt, if it has one
    Embed,
    /// `{"text"}`, perhaps with `"text_pair"`, or `{"ids","type_ids"}`: its labels, best first, with their probabilities; a
    /// single label has the sigmoid of its output, or the output itself if `problem_type` is `regression`
    Classify,
    /// `{"text"}` or `{"ids"}`: stretches of it with a label, such as names
    TokenClassify,
    /// `{"question","context"}` or `{"ids","type_ids"}`: where the answer stands
    Answer,
    /// `{"query","documents":[…]}`: how well each document fits, best first
    Rerank,
    /// `{"text"}` or `{"ids"}`: the same in another language; a row may set `max_tokens`
    Translate,
    /// `{"text"}` or `{"ids"}`: the same in fewer words; a row may set `max_tokens`
    Summarize,
}

impl Predict {
    /// Does it.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let model = self.open(common)?;
        rows::answer_file(&*model, &self.input, &self.output)
    }
}

impl Predict {
    fn open(&self, common: &Common) -> anyhow::Result<Box<dyn Answer>> {
        self.sampling.check()?;
        let grammar = self.constraint.grammar()?;
        let mut files = None;
        let task = match self.task {
            Some(task) => task,
            None => default_task(files.insert(ModelFiles::open(&self.model)?))?,
        };
        let searches = self.searching.num_beams.is_some_and(|n| n > 1);
        if grammar.is_some() && (task != Task::Generate || searches) {
            let message = "a choice, regex or JSON schema needs the task generate without beams";
            return Err(Usage(message.to_owned()).into());
        }
        let holds = grammar.is_some();
        let files = files.map_or_else(|| ModelFiles::open(&self.model), Ok)?;
        let opened = model::open_files(files, self.run, common)?;
        let opened = opened.with_control_tokens(self.prompts.control_tokens());
        let constraint = grammar::constraint(&opened.text, grammar)?;
        let defaults = |files: &GenerationConfig| generate::GenerateDefaults {
            sampling: self.sampling.params(files),
            max_tokens: self.max_tokens,
            constraint,
        };
        // Where the command line does not say, a search that the files ask for is made, unless ids are to be drawn or held to a
        // grammar.
        let by_files = self.searching.num_beams.is_none() && !holds && !self.sampling.draws();
        let searches = searches || by_files && opened.generation().is_some_and(GenerationConfig::searches);
        Ok(match task {
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
                Box::new(write::Write { model, options, summarizes: task == Task::Summarize })
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
                Box::new(fill_mask::FillMask { model, top: self.reading.top })
            }
            Task::Embed => {
                let model = self.reading.embedder(opened.encoder()?)?;
                Box::new(embed::Embed { model })
            }
            Task::Classify => match opened.bundle {
                AnyBundle::Classifier(bundle) => {
                    let model = Pipeline { bundle, text: opened.text };
                    Box::new(classify::Classify { model })
                }
                _ => {
                    let model = opened.encoder()?;
                    ensure_head(&model, task, |head| matches!(head, EncoderHead::Classify { .. }))?;
                    Box::new(classify::Classify { model })
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
        })
    }

    /// How a model whose files say `files` searches, as far as the command line does not say.
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

/// What the class in `config.json` was made for.
fn default_task(files: &ModelFiles) -> anyhow::Result<Task> {
    Ok(match &files.config()?.config {
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
    })
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
