//! `andiron evaluate --rows`: the validation of an objective.

use std::fs;
use std::path::PathBuf;

use andiron_core::Precision;
use andiron_training::config::{QuickRun, TrainConfig};
use andiron_training::validate;
use clap::Args;
use serde_json::{Map, Value};

use super::fingerprint::Fingerprint;
use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::lines::out;
use crate::model::ModelChoice;

/// The rows to measure.
#[derive(Debug, Args)]
#[command(next_help_heading = "Rows")]
pub struct RowsChoice {
    /// File of rows (JSONL, JSON, CSV, TSV, also .gz) to measure a fine-tuned model on, as `finetune --valid` does
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// The objective that the model was fine-tuned for, such as classify [default: that of the run whose directory the model, or
    /// the adapter, is in]
    #[arg(long, value_name = "KIND", requires = "rows")]
    objective: Option<String>,
}

impl RowsChoice {
    /// Whether there are rows to measure.
    pub fn is_given(&self) -> bool {
        self.rows.is_some()
    }

    /// Measures and prints.
    pub fn run(self, choice: &ModelChoice, common: &Common) -> anyhow::Result<Ending> {
        let Some(rows) = self.rows else {
            return Err(Usage("--rows is missing: name the file of rows".to_owned()).into());
        };
        let folder = Scratch::new()?;
        let config = match self.objective {
            Some(objective) => {
                let quick = QuickRun {
                    held_out: None,
                    model: choice.path.clone(),
                    objective,
                    train: rows.clone(),
                    valid: Some(rows),
                    output: folder.0.clone(),
                    lora_rank: None,
                };
                quick.config(Precision::F32)?
            }
            None => of_run(choice)?.to_measure(&choice.path, &rows, &folder.0),
        };
        let evaluation = validate(&config, choice.adapter.path.as_deref(), &common.open_device()?)?;
        let fingerprint = Fingerprint::of(choice)?;
        let object = serde_json::to_value(&evaluation)?;
        if common.json {
            let mut object = object.as_object().cloned().unwrap_or_else(Map::new);
            fingerprint.add_to(&mut object);
            out!("{}", Value::Object(object))?;
            return Ok(Ending::Done);
        }
        out!("loss        {:.4} over {} {}", evaluation.loss, evaluation.n_targets, evaluation.unit)?;
        for (name, value) in &evaluation.metrics {
            out!("{name:<11} {value:.4}")?;
        }
        if let Some(hash) = &fingerprint.adapter {
            out!("adapter     blake3 {hash}")?;
        }
        out!("model       blake3 {}, Andiron {}", fingerprint.model, env!("CARGO_PKG_VERSION"))?;
        Ok(Ending::Done)
    }
}

/// The configuration of the run that trained the model, or its adapter: of the directory that it is in, or that its checkpoint
/// is in.
fn of_run(choice: &ModelChoice) -> anyhow::Result<TrainConfig> {
    let trained = choice.adapter.path.as_ref().unwrap_or(&choice.path);
    let above = trained.canonicalize().ok().and_then(|dir| Some(dir.parent()?.to_owned()));
    let run = above.map(|dir| match (dir.join("manifest.json").is_file(), dir.parent()) {
        (true, Some(run)) => run.join("config.toml"),
        _ => dir.join("config.toml"),
    });
    match run.filter(|path| path.is_file()) {
        Some(path) => Ok(TrainConfig::load(&path, &[])?),
        None => {
            let trained = trained.display();
            let text = format!(
                "--objective is missing: {trained} is not in the directory of a run, which would tell it"
            );
            Err(Usage(text).into())
        }
    }
}

/// A folder for encoded rows, which is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("andiron-evaluate-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is small, and in a folder for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}
