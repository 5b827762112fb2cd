//! `andiron chat`: chat with a model.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use andiron_data::tokenizer::Message;
use andiron_models::generate::{GenerateError, GenerateOptions};
use andiron_pipelines::{CompletionError, Conversation, DecoderPipeline};
use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::exit::Ending;
use crate::flags::Common;
use crate::grammar::{self, ConstraintArgs};
use crate::lines::{note, out};
use crate::model::{self, ModelChoice, RunChoice, warn_of_beams};
use crate::sampling::Sampling;

/// Longest message, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// Chat with a model that has a chat template
///
/// Each line of input is one user message; the answer is streamed. `/reset` starts a new conversation; `/exit` or the end of the
/// input ends. With `--json`, each answer is an object on its own line: `content`, `ids`, `finish_reason` and `sum_logprob`. The
/// model's `generation_config.json` applies, `stop_strings` included.
#[derive(Debug, Args)]
pub struct Chat {
    #[command(flatten)]
    model: ModelChoice,
    /// System message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Send this message, print the answer and exit; repeat the option for several turns
    #[arg(long, value_name = "TEXT")]
    message: Vec<String>,
    /// Maximum number of tokens in an answer; it also ends where the model's context is full [default: generation_config.json,
    /// else 512]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Speculative decoding by prompt lookup: draft up to N tokens from an earlier occurrence of the latest tokens, and verify
    /// them in one step. Speeds up answers that repeat the conversation; the output is unchanged. 0 is off
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
    /// Chats until the end of the input.
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
        // A model that cannot chat fails before the user has typed a word.
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
                message => match turn(&model, &mut conversation, message.to_owned(), common.json) {
                    // Whoever types can go on: the conversation is as it was before the message.
                    Err(error) if somebody => note!("error: {error:#}"),
                    done => done?,
                },
            }
        }
        Ok(Ending::Done)
    }
}

/// One turn, streamed.
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
    });
    let done = done.map_err(|error| match error {
        CompletionError::Generate(GenerateError::PromptTooLong { prompt, context, .. }) => anyhow::anyhow!(
            "the conversation has {prompt} tokens, the model's context {context}: start a new one (/reset), or allow \
             shorter answers (--max-tokens)"
        ),
        error => error.into(),
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
