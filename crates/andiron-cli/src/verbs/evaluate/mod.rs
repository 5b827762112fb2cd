//! `andiron evaluate`: loss and perplexity on a text, tasks of lm-evaluation-harness, and validation on rows.

mod compare;
mod fingerprint;
mod rows;
mod tasks;
mod text;

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::model::{AdapterChoice, ModelChoice, RunChoice};

/// Measure a model: loss on a text, tasks of lm-evaluation-harness, or validation on rows
///
/// With --text or --data, the loss and perplexity of a decoder: the text is split into disjoint windows of the context length; every
/// token but the first counts once. The last window counts only its new tokens, with a full context before them, as in
/// lm-evaluation-harness.
///
/// With --tasks, tasks as lm-evaluation-harness 0.4.13 runs them with its hf model, read from its own YAML files over local data.
///
/// With --rows, the metrics that `finetune` shows of its validation data. With --compare, whether two results of tasks differ by more than
/// chance.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["text", "data", "tasks", "rows", "compare"]))]
pub struct Evaluate {
    /// Model directory in the Hugging Face layout, or a GGUF file
    #[arg(long, value_name = "DIR", required_unless_present = "compare")]
    model: Option<PathBuf>,
    #[command(flatten)]
    adapter: AdapterChoice,
    #[command(flatten)]
    held_out: text::HeldOut,
    /// Two results to compare row by row: folders of --output that have samples
    #[arg(long, value_names = ["A", "B"], num_args = 2)]
    compare: Option<Vec<PathBuf>>,
    #[command(flatten)]
    run: RunChoice,
    #[command(flatten)]
    tasks: tasks::TaskChoice,
    #[command(flatten)]
    rows: rows::RowsChoice,
}

impl Evaluate {
    /// Measures and prints.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        if !self.tasks.is_given() {
            self.tasks.ensure_unused()?;
        }
        if let Some([first, second]) = self.compare.as_deref() {
            return compare::run(first, second, common);
        }
        let Some(path) = self.model else {
            return Err(Usage("--model is missing: name the model to measure".to_owned()).into());
        };
        let model = ModelChoice { path, adapter: self.adapter };
        if self.tasks.is_given() {
            return self.tasks.run(&model, self.run, common);
        }
        if self.rows.is_given() {
            return self.rows.run(&model, common);
        }
        self.held_out.run(&model, self.run, common)
    }
}
