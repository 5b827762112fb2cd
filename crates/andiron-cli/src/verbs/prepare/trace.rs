//! `andiron prepare trace`: the documents behind a training step.

use std::path::PathBuf;

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
}

impl Trace {
    /// Lists them.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let config = TrainConfig::load(&self.run.join("config.toml"), &[])?;
        let seen = documents_of_step(&config, self.step, &common.open_device()?)?;
        if common.json {
            let place = |SeenInBatch { batch, document }: &SeenInBatch| {
                json!({
                    "batch": batch, "row": document.row, "id": document.id, "index": document.index,
                    "tokens": [document.tokens.start, document.tokens.end],
                })
            };
            let documents: Vec<_> = seen.iter().map(place).collect();
            out!("{}", json!({ "step": self.step, "data": config.data.train, "documents": documents }))?;
            return Ok(Ending::Done);
        }
        out!("step {} of {}, from {}", self.step, self.run.display(), config.data.train.display())?;
        for SeenInBatch { batch, document } in &seen {
            let (row, id, tokens) = (document.row, &document.id, &document.tokens);
            out!("batch {batch} row {row}  tokens {}..{}  {id}", tokens.start, tokens.end)?;
        }
        Ok(Ending::Done)
    }
}
