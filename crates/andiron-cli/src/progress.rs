//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::lines::note;
use andiron_training::Evaluation;
use andiron_training::observe::{Observer, Preparation, RunStart, StepRecord, Warning};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// Interval of plain lines; shorter work prints none.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A bar with a unit and a message.
pub struct Progress {
    bar: ProgressBar,
    title: String,
    last_line: Instant,
}

impl Progress {
    /// Work of `total` units.
    pub fn new(title: &str, total: u64) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{prefix} [{bar:32}] {pos}/{len} {msg}, {eta} left")
                .expect("the template is valid")
                .progress_chars("=> ");
            ProgressBar::new(total).with_style(style).with_prefix(title.to_owned())
        } else {
            ProgressBar::hidden()
        };
        bar.set_length(total);
        Self { bar, title: title.to_owned(), last_line: Instant::now() }
    }

    /// Units done by an earlier process; not counted in the estimate of the time left.
    pub fn start_at(&mut self, done: u64) {
        self.bar.set_position(done);
        self.bar.reset_eta();
    }

    /// `done` units are done.
    pub fn set(&mut self, done: u64, message: impl FnOnce() -> String) {
        self.bar.set_position(done);
        if !self.bar.is_hidden() {
            self.bar.set_message(message());
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            note!("{}", self.plain_line(done, &message()));
        }
    }

    fn plain_line(&self, done: u64, message: &str) -> String {
        let (total, left) = (self.bar.length().unwrap_or(0), HumanDuration(self.bar.eta()));
        format!("{} {done}/{total} {message}, {left:#} left", self.title)
    }

    /// Prints a line above the bar.
    pub fn line(&self, text: &str) {
        if self.bar.is_hidden() { note!("{text}") } else { self.bar.println(text) }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Shows a training run.
#[derive(Default)]
pub struct TrainingProgress {
    progress: Option<Progress>,
    /// The file whose rows are encoded before the run begins.
    preparing: Option<PathBuf>,
    /// Whether targets are tokens.
    counts_tokens: bool,
}

/// What a step reads: rows where the data are rows, else tokens.
fn a_step(start: &RunStart) -> String {
    match start.rows_per_step {
        Some(rows) if start.unit == "pairs" => format!("{rows} pairs"),
        Some(rows) => format!("{rows} rows"),
        None => format!("{} tokens", start.tokens_per_step),
    }
}

/// Rows per second where the data are rows, and tokens per second where tokens are learnt.
fn speed(record: &StepRecord, counts_tokens: bool) -> String {
    let tokens = format!("{:.0} tokens/s", record.tokens_per_s);
    match record.rows_per_s {
        Some(rows) if counts_tokens => format!("{rows:.1} rows/s, {tokens}"),
        Some(rows) => format!("{rows:.1} rows/s"),
        None => tokens,
    }
}

impl TrainingProgress {
    fn line(&self, text: &str) {
        match &self.progress {
            Some(progress) => progress.line(text),
            None => note!("{text}"),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(progress) = &self.progress {
            progress.finish();
        }
    }
}

impl Observer for TrainingProgress {
    fn on_prepare(&mut self, preparation: &Preparation<'_>) {
        let Preparation { path, rows, bytes_done, bytes_total } = *preparation;
        if self.preparing.as_deref() != Some(path) {
            self.finish();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.progress = Some(Progress::new(&format!("encoding {name}"), bytes_total));
            self.preparing = Some(path.to_owned());
        }
        if let Some(progress) = &mut self.progress {
            progress.set(bytes_done, || format!("bytes, {rows} rows"));
        }
    }

    fn on_start(&mut self, start: &RunStart) {
        self.finish();
        let millions = start.n_parameters as f64 / 1e6;
        let what = format!("{millions:.2} M parameters, {} a step", a_step(start));
        self.counts_tokens = start.unit == "tokens";
        let mut progress = Progress::new("training", start.steps);
        match start.resumed_from {
            Some(step) => {
                progress.line(&format!("goes on after step {step}: {what}"));
                progress.start_at(step);
            }
            None => progress.line(&what),
        }
        self.progress = Some(progress);
    }

    fn on_step(&mut self, record: &StepRecord) {
        if let Some(progress) = &mut self.progress {
            let speed = speed(record, self.counts_tokens);
            progress.set(record.step, || format!("loss {:.4}, {speed}", record.loss));
        }
    }

    fn on_eval(&mut self, step: u64, evaluation: &Evaluation) {
        let mut text = format!("step {step}: validation loss {:.4}", evaluation.loss);
        for (name, value) in &evaluation.metrics {
            text.push_str(&format!(", {name} {value:.4}"));
        }
        self.line(&text);
    }

    fn on_checkpoint(&mut self, step: u64, path: &Path) {
        tracing::debug!(step, path = %path.display(), "saved a checkpoint");
    }

    fn on_warning(&mut self, warning: &Warning) {
        self.line(&format!("warning: {}", warning.with_causes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_says_how_far_it_is_and_how_long_it_takes() {
        let progress = Progress { bar: ProgressBar::hidden(), ..Progress::new("training", 0) };
        progress.bar.set_length(9);
        // Nothing was done yet, so nothing can be estimated.
        assert_eq!(progress.plain_line(0, "loss 1.5"), "training 0/9 loss 1.5, 0s left");
        progress.bar.set_position(9);
        progress.bar.finish();
        assert_eq!(progress.plain_line(9, "loss 1.5"), "training 9/9 loss 1.5, 0s left");
    }
}
