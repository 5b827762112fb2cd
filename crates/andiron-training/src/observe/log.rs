//! `log.jsonl`: the warnings and the samples of a run, one JSON object per line.
//!
//! The file is only added to. Where a run was resumed or rolled back, a line says so: samples of later steps before it are void.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::append::AppendFile;
use super::report::{Sample, Samples, Warnings};
use crate::files::{self, FileError};

/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// Longest text that is written, in characters.
const MAX_TEXT: usize = 20_000;

/// The log of a run; there is no file before the first entry.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: Option<AppendFile>,
}

#[derive(Default, Serialize, Deserialize)]
struct Entry {
    step: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sample: Option<String>,
    /// Whether the run went on after the step for a second time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    again: bool,
}

impl LogFile {
    /// Opens the log of a run that goes on after step `after`, and adds what it says to `warnings` and `samples`.
    pub(super) fn open(
        path: &Path,
        after: u64,
        warnings: &mut Warnings,
        samples: &mut Samples,
    ) -> Result<Self, FileError> {
        let mut log = Self::closed(path);
        if files::is_there(path)? {
            log.file = Some(AppendFile::open(path, |file| read(file, warnings, samples))?);
            log.go_on_after(after, samples)?;
        }
        Ok(log)
    }

    /// The log at `path`, which is opened for the next entry.
    pub(super) fn closed(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None }
    }

    /// The run goes on after step `after`: later samples are void.
    pub(super) fn go_on_after(&mut self, after: u64, samples: &mut Samples) -> Result<(), FileError> {
        samples.truncate(after);
        match self.file {
            Some(_) => self.append(&Entry { step: after, again: true, ..Entry::default() }),
            None => Ok(()),
        }
    }

    /// Adds a warning.
    pub(super) fn warning(&mut self, step: u64, text: &str) -> Result<(), FileError> {
        self.append(&Entry { step, warning: Some(shortened(text)), ..Entry::default() })
    }

    /// Adds a sample.
    pub(super) fn sample(&mut self, sample: &Sample) -> Result<(), FileError> {
        let (prompt, text) = (shortened(&sample.prompt), shortened(&sample.text));
        self.append(&Entry {
            step: sample.step,
            prompt: Some(prompt),
            sample: Some(text),
            ..Entry::default()
        })
    }

    fn append(&mut self, entry: &Entry) -> Result<(), FileError> {
        let line = serde_json::to_string(entry).expect("an entry is plain data") + "\n";
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let whole = |file: &mut File| read(file, &mut Warnings::default(), &mut Samples::default());
                self.file.insert(AppendFile::open(&self.path, whole)?)
            }
        };
        file.append(line.as_bytes())
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// Reads the entries; returns the length of the whole lines. Lines that are not understood are passed over.
fn read(file: &mut File, warnings: &mut Warnings, samples: &mut Samples) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut length, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Ok(length);
        }
        length += read as u64;
        let Ok(entry) = serde_json::from_slice::<Entry>(&line) else { continue };
        if entry.again {
            samples.truncate(entry.step);
        }
        if let Some(text) = entry.warning {
            warnings.push(entry.step, text);
        }
        if let Some(text) = entry.sample {
            samples.push(Sample { step: entry.step, prompt: entry.prompt.unwrap_or_default(), text });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(path: &Path, after: u64) -> (LogFile, Warnings, Samples) {
        let (mut warnings, mut samples) = (Warnings::default(), Samples::default());
        let log = LogFile::open(path, after, &mut warnings, &mut samples).unwrap();
        (log, warnings, samples)
    }

    fn sample(step: u64, text: &str) -> Sample {
        Sample { step, prompt: "a".to_owned(), text: text.to_owned() }
    }

    fn samples(all: &[Sample]) -> Samples {
        let mut samples = Samples::default();
        all.iter().for_each(|sample| samples.push(sample.clone()));
        samples
    }

    #[test]
    fn warnings_stay_and_samples_of_later_steps_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let (mut log, ..) = open(&path, 0);
        assert!(!path.exists());
        log.sample(&sample(5, "b\nc")).unwrap();
        log.warning(7, "step 7 was skipped").unwrap();
        log.sample(&sample(10, "d")).unwrap();
        fs::write(&path, [&fs::read(&path).unwrap()[..], b"not JSON\n{\"step\": 11, \"warn"].concat())
            .unwrap();

        let (mut log, warnings, kept) = open(&path, 6);
        let mut expected = Warnings::default();
        expected.push(7, "step 7 was skipped".to_owned());
        assert_eq!((warnings, kept), (expected.clone(), samples(&[sample(5, "b\nc")])));
        log.sample(&sample(10, "other")).unwrap();

        // The next process sees that the first sample of step 10 is void.
        let (_, warnings, kept) = open(&path, 12);
        assert_eq!((warnings, kept), (expected, samples(&[sample(5, "b\nc"), sample(10, "other")])));
    }

    #[test]
    fn a_rollback_makes_samples_void() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let (mut log, ..) = open(&path, 0);
        let mut kept = samples(&[sample(5, "b"), sample(10, "c")]);
        log.sample(&sample(5, "b")).unwrap();
        log.sample(&sample(10, "c")).unwrap();
        log.go_on_after(5, &mut kept).unwrap();
        assert_eq!(kept, samples(&[sample(5, "b")]));
        assert_eq!(open(&path, 20).2, kept);
    }

    #[test]
    fn long_texts_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let (mut log, ..) = open(&path, 0);
        log.sample(&sample(1, &"\u{1}".repeat(1 << 20))).unwrap();
        log.sample(&sample(2, "b")).unwrap();
        assert!(fs::metadata(&path).unwrap().len() < MAX_LINE);
        assert_eq!(open(&path, 2).2, samples(&[sample(1, &"\u{1}".repeat(MAX_TEXT)), sample(2, "b")]));
    }
}
