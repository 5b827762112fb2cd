//! A file that several readers share, each at a place of its own.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use andiron_files::ReadFile;
use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

/// A file whose parts are read in any order.
pub(super) struct SharedFile {
    shared: BytesRead,
    length: u64,
}

/// What is known of a shared file: how much of it was read, and whether the system failed to.
#[derive(Clone)]
pub(super) struct BytesRead(Arc<Mutex<State>>);

struct State {
    file: ReadFile,
    bytes: u64,
    length: u64,
    failure: Option<io::Error>,
}

/// A reader from a place on.
pub(super) struct Part {
    shared: BytesRead,
    at: u64,
}

impl SharedFile {
    pub(super) fn new(file: ReadFile) -> io::Result<(Self, BytesRead)> {
        let length = file.metadata()?.len();
        let shared = BytesRead(Arc::new(Mutex::new(State { file, bytes: 0, length, failure: None })));
        Ok((Self { shared: shared.clone(), length }, shared))
    }
}

impl BytesRead {
    /// Bytes read so far, at most the length of the file.
    pub(super) fn count(&self) -> u64 {
        let state = self.state();
        state.bytes.min(state.length)
    }

    /// Why the system could not read the file, if it could not.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.state().failure.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.shared.state();
        let read = state.file.seek(SeekFrom::Start(self.at)).and_then(|_| state.file.read(buffer));
        match read {
            Ok(n) => {
                state.bytes += n as u64;
                self.at += n as u64;
                Ok(n)
            }
            Err(error) => {
                state.failure = Some(io::Error::new(error.kind(), error.to_string()));
                Err(error)
            }
        }
    }
}

impl Length for SharedFile {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for SharedFile {
    type T = BufReader<Part>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        if start > self.length {
            return Err(ParquetError::EOF(format!("a part begins at byte {start} of {}", self.length)));
        }
        Ok(BufReader::new(Part { shared: self.shared.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        // Before anything is allocated.
        let is_inside = start.checked_add(length as u64).is_some_and(|end| end <= self.length);
        if !is_inside {
            return Err(ParquetError::EOF(format!(
                "a part of {length} bytes begins at byte {start} of {}",
                self.length
            )));
        }
        let mut bytes = vec![0; length];
        Part { shared: self.shared.clone(), at: start }.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}
