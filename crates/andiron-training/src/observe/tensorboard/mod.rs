//! TensorBoard event files: scalars that TensorBoard, and whatever reads its files, shows as curves.
//!
//! Each process of a run writes a file of its own; readers go through them in the order of their names. Steps that a process
//! does again, after a crash or a rollback, are not shown twice: a `SessionLog` event with the status START makes readers drop
//! everything from its step on.

mod event;
mod record;
#[cfg(test)]
pub(crate) mod testing;

use std::path::Path;
use std::time::SystemTime;

use self::event::What;
use super::append::AppendFile;
use crate::files::{self, FileError};

const PREFIX: &str = "events.out.tfevents.";
const WRITER: &str = "andiron";

/// The event file of one process of a run.
#[derive(Debug)]
pub struct EventFile {
    file: AppendFile,
    event: Vec<u8>,
    record: Vec<u8>,
}

impl EventFile {
    /// Creates the directory, and a file in it that is read after all others there. Readers drop what the others say of steps
    /// after `after`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(directory: &Path, after: u64) -> Result<Self, FileError> {
        files::make_directory(directory)?;
        let name = next_name(&files::list(directory)?, seconds(SystemTime::now()) as u64);
        let file = AppendFile::open(&directory.join(name), |_| Ok(0))?;
        let mut created = Self { file, event: Vec::new(), record: Vec::new() };
        created.write(0, What::FileVersion)?;
        created.restart(after)?;
        Ok(created)
    }

    /// Readers drop what was written of steps after `after`: the run was rolled back to it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn restart(&mut self, after: u64) -> Result<(), FileError> {
        // Readers drop the step of the event too, so it is the first that comes again.
        self.write(after + 1, What::SessionStart)
    }

    /// Adds a value of a step.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn scalar(&mut self, step: u64, tag: &str, value: f32) -> Result<(), FileError> {
        self.scalars(step, &[(tag, value)])
    }

    /// Adds several values of a step, by tag, as one record.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f32)]) -> Result<(), FileError> {
        self.write(step, What::Scalars(scalars))
    }

    /// Syncs everything to disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn sync(&self) -> Result<(), FileError> {
        self.file.sync()
    }

    fn write(&mut self, step: u64, what: What<'_>) -> Result<(), FileError> {
        self.event.clear();
        self.record.clear();
        event::write(&mut self.event, seconds(SystemTime::now()), step, what);
        record::write(&mut self.record, &self.event);
        self.file.append(&self.record)
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The name of a new file beside those of `names`: `events.out.tfevents.SECONDS.andiron.NUMBER`.
///
/// Readers sort by name. Neither two processes in one second nor a clock that was set back may bring a newer file before an
/// older one, so the seconds never decrease and the number always grows.
fn next_name(names: &[String], now_s: u64) -> String {
    let parse = |name: &String| {
        let (seconds, rest) = name.strip_prefix(PREFIX)?.split_once('.')?;
        let number = rest.strip_prefix(WRITER).and_then(|rest| rest.strip_prefix('.')?.parse().ok());
        Some((seconds.parse::<u64>().ok()?, number.unwrap_or(0u64)))
    };
    let last = names.iter().filter_map(parse).reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)));
    let (seconds, number) = last.unwrap_or_default();
    format!("{PREFIX}{:010}.{WRITER}.{:06}", now_s.max(seconds), number.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use andiron_files::fault::{Fault, with_fault};

    use super::testing::read;
    use super::*;

    #[test]
    fn steps_done_again_are_shown_once() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("tensorboard");
        let mut events = EventFile::create(&directory, 0).unwrap();
        for step in 1..=5 {
            events.scalars(step, &[("train/loss", step as f32), ("train/lr", 0.1)]).unwrap();
        }
        drop(events);
        // The process died after step 5; its checkpoint was of step 3.
        let mut events = EventFile::create(&directory, 3).unwrap();
        for step in 4..=6 {
            events.scalar(step, "train/loss", 10.0 * step as f32).unwrap();
        }
        let expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0), (6, 60.0)];
        assert_eq!(read(&directory, "train/loss"), expected);
        events.restart(4).unwrap();
        events.scalar(5, "train/loss", 0.5).unwrap();
        events.sync().unwrap();
        let expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 0.5)];
        assert_eq!(read(&directory, "train/loss"), expected);
        assert_eq!(read(&directory, "train/lr"), [(1, 0.1), (2, 0.1), (3, 0.1)]);
        assert_eq!(files::list(&directory).unwrap().len(), 2);
    }

    #[test]
    fn a_newer_file_is_sorted_after_every_older_one() {
        let mut names = Vec::new();
        for now in [1000, 1000, 999, 5, 2_000_000_000, 1_999_999_999] {
            let name = next_name(&names, now);
            assert!(names.iter().all(|older| *older < name), "{name} after {names:?}");
            names.push(name);
        }
        assert_eq!(names[0], "events.out.tfevents.0000001000.andiron.000001");
        // A file of another program.
        let other = vec!["events.out.tfevents.3000000000.host.123.0".to_owned(), "x".to_owned()];
        assert_eq!(next_name(&other, 7), "events.out.tfevents.3000000000.andiron.000001");
    }

    #[test]
    fn a_value_that_could_not_be_written_leaves_the_file_readable() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(dir.path(), 0).unwrap();
        events.scalar(1, "x", 1.0).unwrap();
        let (failed, _) = with_fault(Fault::once(0, 28), || events.scalar(2, "x", 2.0));
        assert!(failed.unwrap_err().to_string().contains("tfevents"));
        events.scalar(3, "x", 3.0).unwrap();
        assert_eq!(read(dir.path(), "x"), [(1, 1.0), (3, 3.0)]);
    }
}
