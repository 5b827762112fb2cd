//! `andiron evaluate --tasks`: tasks of lm-evaluation-harness.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use andiron_eval::task::{Chat, Report, ReportOptions, Task, TaskOptions, TaskReport, TaskSet};
use andiron_pipelines::DecoderPipeline;
use anyhow::Context as _;
use chrono::DateTime;
use clap::{ArgAction, Args};
use serde_json::{Map, Value, json};

use super::fingerprint::Fingerprint;
use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::lines::{note, out};
use crate::model::{self, ModelChoice, RunChoice};

/// The tasks to run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tasks")]
pub struct TaskChoice {
    /// YAML files of tasks or groups of lm-evaluation-harness, or folders of them, separated by commas
    #[arg(long, value_name = "FILE,…", value_delimiter = ',')]
    tasks: Option<Vec<PathBuf>>,
    /// Few-shot examples of each row [default: as the task says]
    #[arg(long, value_name = "N", requires = "tasks")]
    num_fewshot: Option<usize>,
    /// Give prompts to the model as conversations, by its chat template
    #[arg(long, requires = "tasks")]
    apply_chat_template: bool,
    /// Whether few-shot examples are messages of their own, or one message of the user with the question
    #[arg(long, value_name = "true|false", requires = "apply_chat_template", default_value_t = true, action = ArgAction::Set)]
    fewshot_as_multiturn: bool,
    /// Only the first rows of each task: a number, or a part below 1
    #[arg(long, value_name = "N", requires = "tasks")]
    limit: Option<f64>,
    /// Seed of the few-shot examples that are drawn, and of sampled texts
    #[arg(long, value_name = "N", default_value_t = 1234, requires = "tasks")]
    seed: u64,
    /// Samples of the bootstrap for standard errors; 0 leaves all of them out
    #[arg(long, value_name = "N", default_value_t = 100_000, requires = "tasks")]
    bootstrap_iters: usize,
    /// Folder for the results, as lm-evaluation-harness writes them: DIR/MODEL/results_TIME.json
    #[arg(long, short, value_name = "DIR", requires = "tasks")]
    output: Option<PathBuf>,
    /// Write each row with the prompt, the response and the metrics beside the results: samples_TASK_TIME.jsonl
    #[arg(long, requires = "output")]
    log_samples: bool,
}

impl TaskChoice {
    /// Whether there are tasks to run.
    pub fn is_given(&self) -> bool {
        self.tasks.is_some()
    }

    /// Refuses options of tasks where there are none.
    pub fn ensure_unused(&self) -> anyhow::Result<()> {
        let given = [
            ("--num-fewshot", self.num_fewshot.is_some()),
            ("--apply-chat-template", self.apply_chat_template),
            ("--limit", self.limit.is_some()),
            ("--output", self.output.is_some()),
            ("--log-samples", self.log_samples),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => Err(Usage(format!("{option} is an option of --tasks")).into()),
            None => Ok(()),
        }
    }

    /// Runs the tasks, prints and writes.
    pub fn run(self, choice: &ModelChoice, run: RunChoice, common: &Common) -> anyhow::Result<Ending> {
        let started = Instant::now();
        let date = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        if let Some(limit) = self.limit
            && !(limit > 0.0 && (limit < 1.0 || limit.fract() == 0.0))
        {
            return Err(
                Usage(format!("--limit {limit} is neither a number of rows nor a part below 1")).into()
            );
        }
        let set = TaskSet::open(self.tasks.as_deref().unwrap_or_default())?;
        let model = model::open_at(choice, run, common)?.decoder()?;
        let chat = match self.apply_chat_template {
            true => {
                let tokenizer = model.text.require_tokenizer()?;
                Some(Chat { tokenizer, multiturn: self.fewshot_as_multiturn })
            }
            false => None,
        };
        let open = |config, options| match chat {
            Some(chat) => Task::open_chat(config, options, chat),
            None => Task::open(config, options),
        };
        let mut tasks = Vec::new();
        for config in set.tasks {
            // A part is of all rows, which are only known when they are read.
            let whole = self.limit.filter(|&limit| limit >= 1.0).map(|limit| limit as usize);
            let options = TaskOptions { num_fewshot: self.num_fewshot, limit: whole, seed: self.seed };
            let task = match self.limit.filter(|&limit| limit < 1.0) {
                Some(part) => {
                    let n_rows = Task::open(config.clone(), options)?.n_rows;
                    let limit = Some((n_rows as f64 * part).ceil() as usize);
                    open(config, TaskOptions { limit, ..options })?
                }
                None => open(config, options)?,
            };
            tasks.push(task);
        }
        let options = ReportOptions { bootstrap: self.bootstrap_iters, seed: self.seed };
        let mut reports = Vec::new();
        for task in tasks {
            let (name, rows, began) = (task.config.task.clone(), task.len(), Instant::now());
            reports.push(TaskReport::run(task, &model, options)?);
            note!("{name}: {rows} rows in {:.1} s", began.elapsed().as_secs_f64());
        }
        let report = Report::new(reports, set.groups);
        let mut json = report.json(self.log_samples);
        let facts = Facts { choice, model: &model, date, seconds: started.elapsed().as_secs_f64() };
        json.extend(self.facts(&facts, common)?);
        if let Some(output) = &self.output {
            let written = write(output, &report, &json, self.log_samples)?;
            note!("results: {}", written.display());
        }
        match common.json {
            true => out!("{}", Value::Object(json))?,
            false => {
                out!("{}", report.table().trim_end())?;
                let hash = json.get("model_blake3").and_then(Value::as_str).unwrap_or_default();
                out!(
                    "model blake3 {hash}, Andiron {}, {}",
                    env!("CARGO_PKG_VERSION"),
                    model.bundle.precision()
                )?;
            }
        }
        Ok(Ending::Done)
    }

    /// What the results say about the model and the run.
    fn facts(&self, facts: &Facts<'_>, common: &Common) -> anyhow::Result<Map<String, Value>> {
        let name = facts.choice.path.display().to_string();
        let tokenizer = facts.model.text.require_tokenizer()?;
        let token = |text: &Option<String>| {
            json!([text, text.as_deref().and_then(|text| tokenizer.token_to_id(text))])
        };
        let special = tokenizer.special_tokens();
        let object = json!({
            "config": {
                "model": "andiron",
                "model_args": {"pretrained": name, "adapter": facts.choice.adapter.path},
                "model_dtype": facts.model.bundle.precision().to_string(),
                "device": common.device_spec()?.to_string(),
                "limit": self.limit,
                "bootstrap_iters": self.bootstrap_iters,
                "gen_kwargs": null,
                "random_seed": self.seed,
                "fewshot_seed": self.seed,
            },
            "date": facts.date,
            "tokenizer_pad_token": token(&special.pad),
            "tokenizer_eos_token": token(&special.eos),
            "tokenizer_bos_token": token(&special.bos),
            "eot_token_id": tokenizer.eos_id(),
            "max_length": facts.model.bundle.config.max_positions(),
            "model_source": "andiron",
            "model_name": name,
            "model_name_sanitized": sanitized(&name),
            "system_instruction": null,
            "fewshot_as_multiturn": self.apply_chat_template && self.fewshot_as_multiturn,
            "chat_template": match self.apply_chat_template {
                true => Some(tokenizer.chat_template_for(false)?),
                false => None,
            },
            "total_evaluation_time_seconds": facts.seconds.to_string(),
        });
        let Value::Object(mut object) = object else { return Ok(Map::new()) };
        Fingerprint::of(facts.choice)?.add_to(&mut object);
        Ok(object)
    }
}

/// What a run knows.
struct Facts<'a> {
    choice: &'a ModelChoice,
    model: &'a DecoderPipeline,
    date: f64,
    seconds: f64,
}

/// Writes the results, and the samples if wanted; gives the file of the results.
fn write(
    output: &Path,
    report: &Report,
    json: &Map<String, Value>,
    samples: bool,
) -> anyhow::Result<PathBuf> {
    let name = json.get("model_name_sanitized").and_then(Value::as_str).unwrap_or_default();
    let seconds = json.get("date").and_then(Value::as_f64).unwrap_or(0.0);
    let folder = output.join(name);
    let at = || format!("cannot write to {}", folder.display());
    std::fs::create_dir_all(&folder).with_context(at)?;
    let date = iso(seconds);
    if samples {
        for task in &report.tasks {
            let mut lines = String::new();
            for sample in task.samples() {
                lines.push_str(&sample.to_string());
                lines.push('\n');
            }
            let file = folder.join(format!("samples_{}_{date}.jsonl", task.task.config.task));
            andiron_files::replace(&file, lines.as_bytes()).with_context(at)?;
        }
    }
    let file = folder.join(format!("results_{date}.json"));
    let text = serde_json::to_string_pretty(json)?;
    andiron_files::replace(&file, text.as_bytes()).with_context(at)?;
    Ok(file)
}

/// A model's name as the name of a folder.
fn sanitized(name: &str) -> String {
    let mut out = String::new();
    let mut bad = false;
    for character in name.chars() {
        let is_bad = "\"<>:/|\\?*[]".contains(character);
        match is_bad {
            true if !bad => out.push_str("__"),
            true => {}
            false => out.push(character),
        }
        bad = is_bad;
    }
    // A folder of its own, not the parent of where results go.
    if out.chars().all(|c| c == '.') { format!("model{out}") } else { out }
}

/// A time as in `2026-01-31T23-59-59.123456`, in UTC.
fn iso(seconds: f64) -> String {
    let time = DateTime::from_timestamp_micros((seconds * 1e6) as i64).unwrap_or_default();
    time.format("%Y-%m-%dT%H-%M-%S%.6f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_in_utc() {
        assert_eq!(iso(0.0), "1970-01-01T00-00-00.000000");
        assert_eq!(iso(951_782_399.5), "2000-02-28T23-59-59.500000");
        assert_eq!(iso(1_709_164_800.0), "2024-02-29T00-00-00.000000");
        assert_eq!(iso(1_796_030_683.25), "2026-11-30T09-24-43.250000");
    }

    #[test]
    fn a_models_name_is_a_folder() {
        assert_eq!(sanitized("a/b:c"), "a__b__c");
        assert_eq!(sanitized("../x"), "..__x");
        assert_eq!(sanitized(".."), "model..");
    }
}
