//! `andiron prepare --task R --of N`, `prepare status` and `prepare merge`: a pipeline in several processes.

use std::path::PathBuf;

use andiron_corpus::prepare::{
    Existing, PrepareConfig, PrepareStatus, Task, TaskReport, TaskWork, merge, merge_documents, prepare_task,
    status,
};
use clap::Args;

use super::{shown, tell};
use crate::exit::Ending;
use crate::flags::Common;
use crate::lines::out;

/// Show how far a pipeline is: its tasks and stages
#[derive(Debug, Args)]
pub struct Status {
    /// Output directory of the pipeline
    output: PathBuf,
}

/// Complete a pipeline whose tasks are done: deduplicate, train the tokenizer, encode
#[derive(Debug, Args)]
pub struct Merge {
    /// Output directory of the pipeline
    output: PathBuf,
    /// Replace an output directory made from other inputs or settings
    #[arg(long)]
    replace: bool,
    /// Stop when the documents and the tokenizer are there. Then run each task again, which encodes its share, and merge once more
    #[arg(long)]
    leave_encoding: bool,
}

/// Does the share of a task and reports.
pub fn run_task(config: &PrepareConfig, task: Task, common: &Common) -> anyhow::Result<Ending> {
    let report = shown(Existing::Refuse, common, |options, show| prepare_task(config, options, task, show))?;
    if common.json {
        out!("{}", serde_json::to_string(&report)?)?;
        return Ok(Ending::Done);
    }
    let TaskReport { task, work, parts, of_parts, documents } = report;
    let did = match work {
        TaskWork::Filter => "filtered",
        TaskWork::Encode => "encoded",
    };
    out!("task {} of {}: {did} {parts} of {of_parts} parts", task.number, task.of)?;
    match work {
        TaskWork::Filter => out!("documents  {} read, {} kept", documents.read, documents.kept)?,
        TaskWork::Encode => out!("documents  {}", documents.kept)?,
    }
    Ok(Ending::Done)
}

impl Status {
    /// Reports.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        tell_status(status(&self.output)?, common)
    }
}

/// Shows how far a pipeline is.
fn tell_status(status: PrepareStatus, common: &Common) -> anyhow::Result<Ending> {
    if common.json {
        out!("{}", serde_json::to_string(&status)?)?;
        return Ok(Ending::Done);
    }
    let PrepareStatus {
        output,
        complete,
        parts,
        filtered,
        tasks,
        documents,
        tokenizer,
        encoded,
        encoding_tasks,
    } = status;
    if complete {
        out!("{} is complete", output.display())?;
        return Ok(Ending::Done);
    }
    let is_done = |done: bool| if done { "done" } else { "to do" };
    out!("filter     {filtered} of {parts} parts")?;
    tell_tasks(&tasks)?;
    out!("documents  {}", is_done(documents))?;
    out!("tokenizer  {}", is_done(tokenizer))?;
    out!("shards     {encoded} of {parts} parts")?;
    tell_tasks(&encoding_tasks)?;
    Ok(Ending::Done)
}

/// Lists the tasks that are complete.
fn tell_tasks(tasks: &[Task]) -> anyhow::Result<()> {
    if let Some(first) = tasks.first() {
        let names: Vec<String> = tasks.iter().map(|task| task.number.to_string()).collect();
        out!("tasks      {} of {} complete: {}", tasks.len(), first.of, names.join(", "))?;
    }
    Ok(())
}

impl Merge {
    /// Merges and reports.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let existing = if self.replace { Existing::Replace } else { Existing::Refuse };
        if self.leave_encoding {
            let status =
                shown(existing, common, |options, show| merge_documents(&self.output, options, show))?;
            return tell_status(status, common);
        }
        let report = shown(existing, common, |options, show| merge(&self.output, options, show))?;
        tell(&report, &self.output, common)
    }
}
