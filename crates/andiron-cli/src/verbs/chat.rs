//! `andiron chat`: talk with a model.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use andiron_data::tokenizer::Message;
use andiron_models::generate::GenerateOptions;
use andiron_pipelines::{Conversation, DecoderPipeline};
use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::exit::Ending;
use crate::flags::Common;
use crate::grammar::{self, ConstraintArgs};
use crate::lines::{note, out};
use crate::model::{self, RunChoice, warn_of_beams};
use crate::sampling::Sampling;

/// Longest line that somebody says, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// Talk with a model that has a chat template
///
/// Each line is one message; the answer appears as it is made. `/reset` begins anew, `/exit` or the end of the input
/// ends. With `--json`, each answer is an object on a line of its own: `content`, `ids`, `finish_reason` and
/// `sum_logprob`.
#[derive(Debug, Args)]
pub struct Chat {
    /// Model directory, or a GGUF file
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Say this, print the answer and end; may be given several times
    #[arg(long, value_name = "TEXT")]
    message: Vec<String>,
    /// Most tokens of an answer; the end of the model's context ends it earlier [default: what the model's files say, or 512]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Speculative decoding by prompt lookup: verify up to so many tokens in one step, taken from where the latest words
    /// occurred earlier in the text; the answer stays the same, and comes sooner where it repeats what was said
    #[arg(long, value_name = "N", default_value_t = 0)]
    prompt_lookup: usize,
    #[command(flatten)]
    run: RunChoice,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    constraint: ConstraintArgs,
}

impl Chat {
    /// Does it.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.sampling.check()?;
        let grammar = self.constraint.grammar()?;
        let model = model::open_at(&self.model, self.run, common)?.decoder()?;
        warn_of_beams(&model.bundle.generation);
        let options = GenerateOptions {
            sampling: self.sampling.params(&model.bundle.generation),
            prompt_lookup: self.prompt_lookup,
            constraint: grammar::constraint(&model.text, grammar)?,
            ..GenerateOptions::default()
        };
        let opening: Vec<Message> =
            self.system.into_iter().map(|system| Message::new("system", system)).collect();
        // A model that cannot chat says so before anybody has typed a word.
        model.check_chat(&opening)?;
        let mut conversation = Conversation::new(opening.clone(), options, self.max_tokens);
        if !self.message.is_empty() {
            for message in self.message {
                turn(&model, &mut conversation, message, common.json)?;
            }
            return Ok(Ending::Done);
        }
        let somebody = io::stdin().is_terminal() && io::stderr().is_terminal();
        if somebody {
            note!("Say something. /reset begins anew, /exit ends.");
        }
        loop {
            if somebody {
                let _ = write!(io::stderr(), "> ").and_then(|()| io::stderr().flush());
            }
            let Some(line) = read_line()? else { break };
            match line.trim() {
                "" => {}
                "/exit" => break,
                "/reset" => conversation.reset(opening.clone()),
                message => turn(&model, &mut conversation, message.to_owned(), common.json)?,
            }
        }
        Ok(Ending::Done)
    }
}

/// One turn: the answer appears as it is made.
fn turn(
    model: &DecoderPipeline,
    conversation: &mut Conversation,
    message: String,
    json: bool,
) -> anyhow::Result<()> {
    let mut out = io::stdout();
    let done = model.reply(conversation, message, |piece| {
        if !json {
            // If standard output is closed or full, the line below says so.
            let _ = write!(out, "{piece}").and_then(|()| out.flush());
        }
    })?;
    if json {
        out!(
            "{}",
            json!({ "content": done.text, "ids": done.ids, "finish_reason": done.finish_reason.as_str(),
                    "sum_logprob": done.sum_logprob })
        )?;
    } else {
        out!("")?;
    }
    Ok(())
}

fn read_line() -> anyhow::Result<Option<String>> {
    let mut line = String::new();
    let mut input = io::Read::take(io::stdin().lock(), MAX_LINE + 1);
    let len = input.read_line(&mut line).context("cannot read standard input as text")?;
    anyhow::ensure!(len as u64 <= MAX_LINE, "a message has at most {MAX_LINE} bytes");
    Ok((len > 0).then_some(line))
}
