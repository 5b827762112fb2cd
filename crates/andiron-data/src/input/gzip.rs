//! Gzip: all members of a file.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

use super::Counted;

/// The content of a gzip file: of all its members, as `gzip` and Python's `gzip` read it.
///
/// Not `flate2`'s `MultiGzDecoder`, because that refuses zeros after the last member (padding of tapes and of some object
/// stores), by one kind of error for one zero and by another for many.
pub(super) struct Gunzip {
    /// `None` only while it changes.
    state: Option<Gunzipping>,
    /// At the end, and after an error.
    ended: bool,
}

enum Gunzipping {
    /// Before a member.
    Between(BufReader<Counted>),
    Inside(Box<GzDecoder<BufReader<Counted>>>),
}

impl Gunzip {
    pub(super) fn new(file: BufReader<Counted>) -> Self {
        Self { state: Some(Gunzipping::Between(file)), ended: false }
    }

    /// The file below.
    pub(super) fn counted(&self) -> &Counted {
        match self.state.as_ref().expect("a state between calls") {
            Gunzipping::Between(file) => file.get_ref(),
            Gunzipping::Inside(decoder) => decoder.get_ref().get_ref(),
        }
    }

    /// Reads what the current member has; `None` if there is another one to begin with.
    fn step(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let next = match self.state.take().expect("a state between calls") {
            Gunzipping::Between(mut file) => match skip_zeros(&mut file) {
                Ok(true) => (Gunzipping::Inside(Box::new(GzDecoder::new(file))), Ok(None)),
                end => (Gunzipping::Between(file), end.map(|_| Some(0))),
            },
            Gunzipping::Inside(mut decoder) => match decoder.read(buffer) {
                Ok(0) => (Gunzipping::Between(decoder.into_inner()), Ok(None)),
                read => (Gunzipping::Inside(decoder), read.map(Some)),
            },
        };
        self.state = Some(next.0);
        next.1
    }
}

impl Read for Gunzip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while !self.ended {
            match self.step(buffer) {
                Ok(None) => {}
                Ok(Some(n)) => {
                    self.ended = n == 0;
                    return Ok(n);
                }
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            }
        }
        Ok(0)
    }
}

/// Whether anything but zeros is left.
fn skip_zeros(file: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let buffer = file.fill_buf()?;
        let zeros = buffer.iter().take_while(|&&byte| byte == 0).count();
        let (found, ended) = (zeros < buffer.len(), buffer.is_empty());
        file.consume(zeros);
        if found || ended {
            return Ok(found);
        }
    }
}
