//! `andiron generate`: continue a prompt.

use std::io::{self, Read as _, Write as _};

use andiron_models::generate::{GenerateOptions, WhenFull};
use andiron_pipelines::{Completion, GenerateRequest};
use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use crate::exit::Ending;
use crate::flags::Common;
use crate::grammar::{self, ConstraintArgs};
use crate::lines::out;
use crate::model::{self, ModelChoice, PromptChoice, RunChoice, warn_of_beams};
use crate::sampling::Sampling;

/// The default of `--max-tokens`.
pub const MAX_TOKENS: usize = 256;

/// Continue a prompt
///
/// Streams the text. With `--json`, prints one object at the end: `text`, `ids`, `finish_reason` and `sum_logprob`. The model's
/// `generation_config.json` applies, for example `suppress_tokens`, `bad_words_ids` and `stop_strings`.
#[derive(Debug, Args)]
pub struct Generate {
    #[command(flatten)]
    model: ModelChoice,
    /// The prompt; `-` reads all of standard input, line ends included
    prompt: String,
    /// Maximum number of new tokens; the text also ends where the model's context is full [default: generation_config.json,
    /// else 256]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Stop string: the text ends before it; repeat the option for several [default: stop_strings of generation_config.json]
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// When the context is full, drop the oldest tokens and continue, instead of stopping
    #[arg(long)]
    slide: bool,
    /// Speculative decoding by prompt lookup: draft up to N tokens from an earlier occurrence of the latest tokens, and verify
    /// them in one step. Speeds up repetitive text; the output is unchanged. 0 is off
    #[arg(long, value_name = "N", default_value_t = 0)]
    prompt_lookup: usize,
    #[command(flatten)]
    prompts: PromptChoice,
    #[command(flatten)]
    run: RunChoice,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    constraint: ConstraintArgs,
}

impl Generate {
    /// Generates and prints.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.sampling.check()?;
        let grammar = self.constraint.grammar()?;
        let model = model::open_at(&self.model, self.run, common)?
            .decoder()?
            .with_control_tokens(self.prompts.control_tokens());
        warn_of_beams(&model.bundle.generation);
        let mut prompt = self.prompt;
        if prompt == "-" {
            prompt.clear();
            io::stdin().read_to_string(&mut prompt).context("cannot read the prompt from standard input")?;
        }
        let ids = model.prompt_ids(&prompt.as_str().into())?;
        let files = &model.bundle.generation;
        let options = GenerateOptions {
            sampling: self.sampling.params(files),
            max_new_tokens: self.max_tokens.or(files.max_new(ids.len())).unwrap_or(MAX_TOKENS),
            prompt_lookup: self.prompt_lookup,
            when_full: if self.slide { WhenFull::Slide } else { WhenFull::Stop },
            constraint: grammar::constraint(&model.text, grammar)?,
            ..GenerateOptions::default()
        };
        let request =
            GenerateRequest { prompt: ids, options, stops: (!self.stop.is_empty()).then_some(self.stop) };
        if common.json {
            out!("{}", object(model.generate(request, |_| ())?))?;
            return Ok(Ending::Done);
        }
        let mut out = io::stdout();
        // Shown with the first piece: a prompt that cannot be continued leaves only its error.
        let mut lead = Some(prompt.as_str());
        model.generate(request, |piece| {
            let lead = lead.take().unwrap_or_default();
            // If standard output is closed or full, the line below says so.
            let _ = write!(out, "{lead}{piece}").and_then(|()| out.flush());
        })?;
        out!("{}", lead.unwrap_or_default())?;
        Ok(Ending::Done)
    }
}

/// A completion as an object.
pub fn object(done: Completion) -> Value {
    json!({ "text": done.text, "ids": done.ids, "finish_reason": done.finish_reason.as_str(),
            "sum_logprob": done.sum_logprob })
}
