//! `andiron generate`: continue a prompt.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use andiron_models::generate::{GenerateOptions, WhenFull};
use clap::Args;
use serde_json::json;

use crate::exit::Ending;
use crate::flags::Common;
use crate::text::{Sampling, TextModel};

/// Continue a prompt
#[derive(Debug, Args)]
pub struct Generate {
    /// Model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The text to continue; `-` reads it from standard input
    prompt: String,
    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on past the model's context, remembering only the latest part
    #[arg(long)]
    slide: bool,
    #[command(flatten)]
    sampling: Sampling,
}

impl Generate {
    /// Does it.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let model = TextModel::open(&self.model, &common.open_device()?)?;
        let mut prompt = self.prompt;
        if prompt == "-" {
            prompt.clear();
            std::io::stdin().read_to_string(&mut prompt)?;
        }
        let options = GenerateOptions {
            sampling: self.sampling.params()?,
            max_new_tokens: self.max_tokens,
            when_full: if self.slide { WhenFull::Slide } else { WhenFull::Stop },
            ..GenerateOptions::default()
        };
        let ids = model.encode_prompt(&prompt)?;
        if common.json {
            let done = model.generate(&ids, options, &self.stop, |_| ())?;
            println!(
                "{}",
                json!({ "text": done.text, "ids": done.ids, "finish_reason": finish(&done),
                        "sum_logprob": done.sum_logprob })
            );
            return Ok(Ending::Done);
        }
        let mut out = std::io::stdout();
        write!(out, "{prompt}")?;
        model.generate(&ids, options, &self.stop, |piece| {
            // A closed pipe ends the program at the next line; there is nobody to tell.
            let _ = write!(out, "{piece}").and_then(|()| out.flush());
        })?;
        println!();
        Ok(Ending::Done)
    }
}

/// The reason in OpenAI's words.
pub fn finish(completion: &crate::text::Completion) -> &'static str {
    match completion.finish_reason {
        andiron_models::generate::FinishReason::Stop => "stop",
        andiron_models::generate::FinishReason::Length => "length",
    }
}
