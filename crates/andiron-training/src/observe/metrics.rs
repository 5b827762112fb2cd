//! `metrics.jsonl`: one JSON object per line and step.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use andiron_files::{Operation, allow};
use serde::{Deserialize, Serialize};

use crate::files::{FileError, failed};

/// The metrics of one step.
///
/// Floats are written so that they round-trip exactly; non-finite ones are written as `null`. `tokens_per_s` and `elapsed_s`
/// depend on the machine, everything else on configuration and data only.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepRecord {
    /// Number of the step, from 1.
    pub step: u64,
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
    /// Targets trained on per second of this step.
    pub tokens_per_s: f64,
    /// Seconds since the run began, over all its processes.
    pub elapsed_s: f64,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The metrics file of a run, which has each step at most once.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Opens or creates the file and truncates it after the line of step `after`.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(path: &Path, after: u64) -> Result<Self, FileError> {
        let open = || {
            allow(Operation::Create, path)?;
            let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
            let keep = length_up_to(&file, after)?;
            file.set_len(keep)?;
            file.seek(SeekFrom::Start(keep))?;
            Ok(file)
        };
        Ok(Self { path: path.to_owned(), file: open().map_err(failed("open", path))? })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, record: &StepRecord) -> Result<(), FileError> {
        let line = serde_json::to_string(record).expect("a record is plain data") + "\n";
        self.file.write_all(line.as_bytes()).map_err(failed("write", &self.path))
    }

    /// Syncs all lines to disk.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn sync(&self) -> Result<(), FileError> {
        self.file.sync_all().map_err(failed("write", &self.path))
    }
}

/// Length of the lines up to the first that is incomplete, invalid, or of a step after `last`.
fn length_up_to(file: &File, last: u64) -> std::io::Result<u64> {
    #[derive(Deserialize)]
    struct Line {
        step: u64,
    }
    let mut reader = BufReader::new(file);
    let mut keep = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        let whole = line.ends_with(b"\n");
        match serde_json::from_slice::<Line>(&line) {
            Ok(record) if whole && record.step <= last => keep += read as u64,
            _ => return Ok(keep),
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
            loss,
            lr: 0.1,
            grad_norm: 1.5,
            tokens: 64 * step,
            skipped: false,
            valid_loss: None,
            tokens_per_s: 10.0,
            elapsed_s: 1.0,
        }
    }

    #[test]
    fn lines_after_the_step_are_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut metrics = MetricsFile::open(&path, 0).unwrap();
        (1..=5).for_each(|step| metrics.write(&record(step, 1.0)).unwrap());
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{{\"step\": 6, \"lo")).unwrap();

        let mut metrics = MetricsFile::open(&path, 5).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        metrics.write(&record(6, 1.0)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 6);

        MetricsFile::open(&path, 2).unwrap();
        let first_two: String = whole.split_inclusive('\n').take(2).collect();
        assert_eq!(fs::read_to_string(&path).unwrap(), first_two);
        MetricsFile::open(&path, 0).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
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
}
