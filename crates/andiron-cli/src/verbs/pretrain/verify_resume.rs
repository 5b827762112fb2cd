//! `--verify-resume N`: whether stopping and resuming changes a run.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use andiron_training::checkpoint::steps_in;
use andiron_training::{Requests, ResumeCheck, TrainConfig};
use anyhow::Context as _;
use serde_json::json;

use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::lines::{note, out};
use crate::progress::Progress;
use crate::stop;

/// Time between two looks at a process.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Trains `steps` steps in one process, and again in two that divide them; compares, and says what it found.
///
/// Processes of their own share nothing but files, and leave no memory behind.
pub fn verify(config: &TrainConfig, steps: u64, common: &Common) -> anyhow::Result<Ending> {
    if steps < 2 {
        return Err(Usage("--verify-resume needs at least 2 steps, to stop between them".to_owned()).into());
    }
    let requests = stop::on_signal()?;
    let check = ResumeCheck::begin(config)?;
    note!("verifying in {}, which is removed; the run itself is not started", check.directory().display());
    let straight = check.straight();
    let process = Process { check: &check, requests: &requests, common };
    if !process.train(&straight, "in one go", steps)? {
        return Ok(Ending::Interrupted);
    }
    // A run may be shorter.
    let steps = check.reached()?;
    anyhow::ensure!(steps >= 2, "the run has one step: there is none to stop before");
    let (stopped, half) = (check.stopped(), steps / 2);
    for (what, step) in [("to the stop", half), ("resumed", steps)] {
        if !process.train(&stopped, what, step)? {
            return Ok(Ending::Interrupted);
        }
    }
    let difference = check.first_difference(steps)?;
    drop(check);
    if common.json {
        let difference = difference.as_ref().map(
            |found| json!({ "place": found.place, "straight": found.straight, "resumed": found.resumed }),
        );
        let exact = difference.is_none();
        out!(
            "{}",
            json!({ "exact": exact, "steps": steps, "stopped_after": half, "difference": difference })
        )?;
    } else if difference.is_none() {
        out!(
            "Resuming is exact: {steps} steps in one go, and {steps} steps with a stop after step {half}, have the same losses \
             and gradient norms, and end with the same weights and the same state of the optimizer, bit for bit."
        )?;
    }
    match difference {
        None => Ok(Ending::Done),
        Some(found) => anyhow::bail!(
            "resuming is not exact: of {steps} steps in one go, and {steps} with a stop after step {half}, the first difference \
             is that {found}"
        ),
    }
}

/// How the processes are started.
struct Process<'a> {
    check: &'a ResumeCheck,
    requests: &'a Requests,
    common: &'a Common,
}

impl Process<'_> {
    /// Trains to `step` in a process of its own; false if a signal ended it.
    fn train(&self, config: &TrainConfig, what: &str, step: u64) -> anyhow::Result<bool> {
        let directory = self.check.directory();
        let (toml, log) = (directory.join("config.toml"), directory.join("process.log"));
        andiron_files::replace(&toml, config.to_toml().as_bytes())
            .with_context(|| format!("cannot write {}", toml.display()))?;
        let heard = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.arg("pretrain").arg(&toml).args(["--stop-after", &step.to_string()]);
        command.args(["--device", &self.common.device_spec()?.to_string()]);
        command.args(["--threads", &self.common.threads().to_string()]);
        if self.common.no_memory_check {
            command.arg("--no-memory-check");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(heard);
        let mut process = command.spawn().context("cannot start a process that trains")?;
        let mut progress = Progress::new(what, step);
        let ended = loop {
            if let Some(ended) = process.try_wait().context("cannot wait for the process that trains")? {
                break ended;
            }
            if self.requests.is_stopped() {
                // What it writes is thrown away.
                let _ = process.kill();
                let _ = process.wait();
                progress.finish();
                return Ok(false);
            }
            progress.set(steps_logged(&config.run.output), String::new);
            sleep(LOOK_EVERY);
        };
        progress.finish();
        let reached = steps_in(&config.run.output)?.last().copied().unwrap_or(0);
        let as_asked = ended.success() || ended.code() == Some(crate::exit::INTERRUPTED.into());
        if self.requests.is_stopped() {
            return Ok(false);
        }
        anyhow::ensure!(
            as_asked && reached > 0,
            "the run {what} did not reach step {step}: {}",
            last_words(&log)
        );
        Ok(true)
    }
}

/// Number of steps in the metrics of a run.
fn steps_logged(run: &Path) -> u64 {
    let text = fs::read(run.join("metrics.jsonl")).unwrap_or_default();
    text.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// What a process said last on standard error.
fn last_words(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    match text.split("error: ").nth(1) {
        Some(error) => error.trim().to_owned(),
        None => text.trim().to_owned(),
    }
}
