//! `andiron prepare trace`: the documents behind a training step.

use std::path::PathBuf;

use andiron_data::loader::SeenDocument;
use andiron_data::tokenizer::{Special, Tokenizer};
use andiron_training::{SeenInBatch, TrainConfig, documents_of_step};
use clap::Args;
use serde_json::json;

use crate::exit::Ending;
use crate::flags::Common;
use crate::lines::out;

/// List the documents that a step of a training run has seen, and where they are
///
/// Nothing is trained: which documents they are follows from the run's configuration and its data.
#[derive(Debug, Args)]
pub struct Trace {
    /// Directory of the run
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// The step, counted from 1 as in metrics.jsonl
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    step: u64,
    /// Show the text that the step read, too
    #[arg(long)]
    text: bool,
}

impl Trace {
    /// Lists them.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let file = self.run.join("config.toml");
        let mut config = TrainConfig::load(&file, &[])?;
        // The run may have been moved since.
        config.run.output = self.run.clone();
        let seen = documents_of_step(&config, self.step, &common.open_device()?)?;
        let tokenizer = match (self.text, &config.data.tokenizer) {
            (true, Some(tokenizer)) => Some(Tokenizer::load(tokenizer)?),
            (true, None) => anyhow::bail!("{} names no data.tokenizer to show the text with", file.display()),
            (false, _) => None,
        };
        let text = |ids: &[u32]| -> anyhow::Result<Option<String>> {
            Ok(tokenizer.as_ref().map(|tokenizer| tokenizer.decode(ids, Special::Keep)).transpose()?)
        };
        if common.json {
            let place = |SeenInBatch { batch, document }: &SeenInBatch| {
                let mut place = json!({
                    "batch": batch, "row": document.row, "id": document.id, "index": document.index,
                    "tokens": [document.tokens.start, document.tokens.end], "offset": document.offset,
                });
                if let Some(text) = text(&document.ids)? {
                    place["text"] = json!(text);
                }
                anyhow::Ok(place)
            };
            let documents = seen.iter().map(place).collect::<anyhow::Result<Vec<_>>>()?;
            out!("{}", json!({ "step": self.step, "data": config.data.train, "documents": documents }))?;
            return Ok(Ending::Done);
        }
        out!("step {} of {}, from {}", self.step, self.run.display(), config.data.train.display())?;
        for SeenInBatch { batch, document } in &seen {
            let SeenDocument { row, id, tokens, offset, ids, .. } = document;
            let end = offset + ids.len() as u64;
            out!(
                "batch {batch} row {row}  tokens {}..{}  {id}, its {offset}..{end}",
                tokens.start,
                tokens.end
            )?;
            if let Some(text) = text(ids)? {
                text.lines().try_for_each(|line| out!("    {line}"))?;
            }
        }
        Ok(Ending::Done)
    }
}
