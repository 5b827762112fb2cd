//! A bound on what a compressed file expands to.

use std::io::{self, Read};

use super::Decoder;

/// How many times its size a compressed file expands to, unless another bound is set. Text compresses five times, lists of
/// similar rows fifty times.
pub const DEFAULT_EXPANSION: u64 = 200;
/// What may be read of any file, in bytes: few repeated bytes compress without limit.
const ALWAYS: u64 = 64 << 20;

/// What is wrong with a compressed file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// It cannot be decompressed.
    #[error("it is compressed, and cannot be decompressed: {0}")]
    Content(io::Error),
    /// It is a decompression bomb.
    #[error(
        "its content is over {max_expansion} times as long as the file; raise `max_expansion` if this is meant"
    )]
    Expansion {
        /// The bound.
        max_expansion: u64,
    },
}

/// Whether the content of a file, and not the system, is why it cannot be read.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Damage>())
}

/// What a decoder gives, up to a multiple of what it reads. Its errors tell damage from failures of the system.
pub(super) struct Bounded {
    decoder: Decoder,
    max_expansion: u64,
    given: u64,
}

impl Bounded {
    pub(super) fn new(decoder: Decoder, max_expansion: u64) -> Self {
        Self { decoder, max_expansion, given: 0 }
    }

    /// Bytes read from the file so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.decoder.bytes_read()
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.decoder.read(buffer).map_err(|error| match self.decoder.system_failed() {
            true => error,
            false => io::Error::new(error.kind(), Damage::Content(error)),
        })?;
        self.given += n as u64;
        let most = self.bytes_read().saturating_mul(self.max_expansion).max(ALWAYS);
        if self.given > most {
            let damage = Damage::Expansion { max_expansion: self.max_expansion };
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, damage));
        }
        Ok(n)
    }
}
