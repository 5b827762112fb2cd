//! `metrics.jsonl`: one JSON object per line and step.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::append::AppendFile;
use crate::files::FileError;

/// The name of the file in the directory of a run.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// Bytes of it that are searched.
const MAX_METRICS: u64 = 1 << 32;

/// Longest line that is read, in bytes. A longer one counts as damage: reading stops there.
const MAX_LINE: u64 = 1 << 20;

/// The metrics of one step.
///
/// Floats are written so that they round-trip exactly; non-finite ones are written as `null`. `tokens_per_s`, `rows_per_s`,
/// `step_s`, `data_wait_s` and `elapsed_s` depend on the machine, everything else on configuration and data only.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepRecord {
    /// Number of the step, from 1.
    pub step: u64,
    /// The first of its micro-batches, among all of the run from 0. After a rollback they are not those that the step's number
    /// says.
    pub first_batch: u64,
    /// Mean loss per target before the update, in nats.
    pub loss: f32,
    /// Learning rate.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Targets trained on since the run began.
    pub tokens: u64,
    /// Whether the update was skipped because loss or gradients were not finite.
    #[serde(skip_serializing_if = "is_false")]
    pub skipped: bool,
    /// Validation loss after the step, if it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_loss: Option<f64>,
    /// Further metrics of the validation after the step, by name, such as `accuracy`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub valid_metrics: BTreeMap<String, f64>,
    /// Targets trained on per second of this step.
    pub tokens_per_s: f64,
    /// Rows trained on per second of this step, if the data are rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_per_s: Option<f64>,
    /// Seconds of this step, without validation and checkpoint.
    pub step_s: f64,
    /// Seconds of it that the step waited for its batches.
    pub data_wait_s: f64,
    /// Seconds since the run began, over all its processes.
    pub elapsed_s: f64,
}

impl StepRecord {
    /// Share of the step's time that it waited for data.
    pub fn data_wait(&self) -> f64 {
        self.data_wait_s / self.step_s
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The metrics file of a run, which has each step at most once.
#[derive(Debug)]
pub struct MetricsFile {
    file: AppendFile,
}

impl MetricsFile {
    /// Opens or creates the file, truncates it after the line of step `after`, and passes the records that stay to `keep`.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(path: &Path, after: u64, keep: &mut dyn FnMut(StepRecord)) -> Result<Self, FileError> {
        Ok(Self { file: AppendFile::open(path, |file| read_up_to(file, after, keep))? })
    }

    /// The first micro-batch of a step, if the file in `directory` names it.
    pub(crate) fn first_batch_of(directory: &Path, step: u64) -> Option<u64> {
        let lines = BufReader::new(File::open(directory.join(METRICS)).ok()?);
        let mut found = None;
        for line in lines.take(MAX_METRICS).split(b'\n') {
            match serde_json::from_slice::<Line>(&line.ok()?) {
                Ok(line) if line.step == step => found = line.first_batch,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        found
    }

    /// Adds a line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, record: &StepRecord) -> Result<(), FileError> {
        let line = serde_json::to_string(record).expect("a record is plain data") + "\n";
        self.file.append(line.as_bytes())
    }

    /// Syncs all lines to disk.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn sync(&self) -> Result<(), FileError> {
        self.file.sync()
    }
}

/// A line as it is read: `null` stands for a float that was not finite.
#[derive(Deserialize)]
struct Line {
    step: u64,
    first_batch: Option<u64>,
    loss: Option<f32>,
    lr: Option<f64>,
    grad_norm: Option<f64>,
    #[serde(default)]
    tokens: u64,
    #[serde(default)]
    skipped: bool,
    valid_loss: Option<f64>,
    #[serde(default)]
    valid_metrics: BTreeMap<String, Option<f64>>,
    tokens_per_s: Option<f64>,
    rows_per_s: Option<f64>,
    step_s: Option<f64>,
    data_wait_s: Option<f64>,
    elapsed_s: Option<f64>,
}

impl From<Line> for StepRecord {
    fn from(line: Line) -> Self {
        let float = |value: Option<f64>| value.unwrap_or(f64::NAN);
        Self {
            step: line.step,
            first_batch: line.first_batch.unwrap_or_default(),
            loss: line.loss.unwrap_or(f32::NAN),
            lr: float(line.lr),
            grad_norm: float(line.grad_norm),
            tokens: line.tokens,
            skipped: line.skipped,
            valid_loss: line.valid_loss,
            valid_metrics: line.valid_metrics.into_iter().map(|(name, value)| (name, float(value))).collect(),
            tokens_per_s: float(line.tokens_per_s),
            rows_per_s: line.rows_per_s,
            step_s: float(line.step_s),
            data_wait_s: float(line.data_wait_s),
            elapsed_s: float(line.elapsed_s),
        }
    }
}

/// Length of the lines up to the first that is incomplete, invalid, or of a step after `last`; each is passed to `keep`.
fn read_up_to(file: &mut File, last: u64, keep: &mut dyn FnMut(StepRecord)) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let mut length = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Ok(length);
        }
        match serde_json::from_slice::<Line>(&line) {
            Ok(record) if record.step <= last => {
                length += read as u64;
                keep(record.into());
            }
            _ => return Ok(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn record(step: u64, loss: f32) -> StepRecord {
        StepRecord {
            step,
            first_batch: 2 * step,
            loss,
            lr: 0.1,
            grad_norm: 1.5,
            tokens: 64 * step,
            skipped: false,
            valid_loss: None,
            valid_metrics: BTreeMap::new(),
            tokens_per_s: 10.0,
            rows_per_s: None,
            step_s: 0.5,
            data_wait_s: 0.001,
            elapsed_s: 1.0,
        }
    }

    /// Opens the file after a step; also the records that stay.
    fn open(path: &Path, after: u64) -> (MetricsFile, Vec<StepRecord>) {
        let mut kept = Vec::new();
        let file = MetricsFile::open(path, after, &mut |record| kept.push(record)).unwrap();
        (file, kept)
    }

    #[test]
    fn lines_after_the_step_are_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let (mut metrics, _) = open(&path, 0);
        (1..=5).for_each(|step| metrics.write(&record(step, 1.0)).unwrap());
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{{\"step\": 6, \"lo")).unwrap();

        let (mut metrics, kept) = open(&path, 5);
        assert_eq!(kept, (1..=5).map(|step| record(step, 1.0)).collect::<Vec<_>>());
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        metrics.write(&record(6, 1.0)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 6);

        assert_eq!(open(&path, 2).1.len(), 2);
        let first_two: String = whole.split_inclusive('\n').take(2).collect();
        assert_eq!(fs::read_to_string(&path).unwrap(), first_two);
        assert_eq!(open(&path, 0).1, []);
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_line_without_an_end_is_not_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let (mut metrics, _) = open(&path, 0);
        metrics.write(&record(1, 1.0)).unwrap();
        let whole = fs::read(&path).unwrap();
        let endless = vec![b' '; MAX_LINE as usize + 1];
        fs::write(&path, [&whole[..], &endless, b"{\"step\":2}\n"].concat()).unwrap();
        assert_eq!(open(&path, 9).1, [record(1, 1.0)]);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn a_loss_reads_back_bit_for_bit() {
        for loss in [0.1f32, 1.0 / 3.0, 4.174_387_5, f32::MIN_POSITIVE, f32::MAX] {
            let line = serde_json::to_string(&record(1, loss)).unwrap();
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!((value["loss"].as_f64().unwrap() as f32).to_bits(), loss.to_bits());
        }
        assert!(serde_json::to_string(&record(1, f32::NAN)).unwrap().contains(r#""loss":null"#));
    }

    #[test]
    fn records_read_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let (mut metrics, _) = open(&path, 0);
        let measured = StepRecord {
            valid_loss: Some(0.25),
            rows_per_s: Some(2.5),
            valid_metrics: [("accuracy".to_owned(), 0.5), ("spearman".to_owned(), f64::NAN)].into(),
            ..record(1, 0.1)
        };
        let skipped =
            StepRecord { skipped: true, grad_norm: f64::INFINITY, valid_loss: None, ..record(2, f32::NAN) };
        metrics.write(&measured).unwrap();
        metrics.write(&skipped).unwrap();
        let (_, kept) = open(&path, 2);
        assert_eq!((kept[0].loss, kept[0].valid_loss), (0.1, Some(0.25)));
        assert_eq!(kept[0].valid_metrics["accuracy"], 0.5);
        assert!(kept[0].valid_metrics["spearman"].is_nan());
        assert!(kept[1].skipped && kept[1].loss.is_nan() && kept[1].grad_norm.is_nan());
        assert_eq!((kept[0].rows_per_s, kept[1].rows_per_s), (Some(2.5), None));
        assert_eq!((kept[0].step_s, kept[0].data_wait()), (0.5, 0.002));
        assert_eq!((kept[1].lr, kept[1].tokens, kept[1].elapsed_s), (0.1, 128, 1.0));
    }
}
