//! The content of a text file: decompressed if it is gzip, without a byte order mark.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;

use crate::files::{self, without_mark};

const BUFFER: usize = 1 << 16;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The content of a file, read from its beginning to its end.
///
/// Whether it is compressed is told by its first bytes, not by its name: no text begins as gzip does.
pub(crate) struct Input {
    content: Content,
}

enum Content {
    Plain(BufReader<Counted>),
    Gzip(BufReader<Gunzip>),
}

/// A file that counts the bytes read from it.
struct Counted {
    file: Box<dyn Read + Send>,
    bytes: u64,
}

impl Input {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::of(Box::new(files::open(path)?))
    }

    /// The content of what `file` reads, such as standard input.
    pub(crate) fn of(file: Box<dyn Read + Send>) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(BUFFER, Counted { file, bytes: 0 });
        let is_gzip = file.fill_buf()?.starts_with(&GZIP);
        let content = if is_gzip {
            Content::Gzip(BufReader::with_capacity(BUFFER, Gunzip::new(file)))
        } else {
            Content::Plain(file)
        };
        let mut input = Self { content };
        let start = input.fill_buf()?;
        let mark = start.len() - without_mark(start).len();
        input.consume(mark);
        Ok(input)
    }

    /// Bytes read from the file so far, compressed if it is: for progress.
    pub(crate) fn bytes_read(&self) -> u64 {
        match &self.content {
            Content::Plain(file) => file.get_ref().bytes,
            Content::Gzip(content) => content.get_ref().bytes_read(),
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.content {
            Content::Plain(file) => file.read(buffer),
            Content::Gzip(content) => content.read(buffer),
        }
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match &mut self.content {
            Content::Plain(file) => file.fill_buf(),
            Content::Gzip(content) => content.fill_buf(),
        }
    }

    fn consume(&mut self, bytes: usize) {
        match &mut self.content {
            Content::Plain(file) => file.consume(bytes),
            Content::Gzip(content) => content.consume(bytes),
        }
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

/// The content of a gzip file: of all its members, as `gzip` and Python's `gzip` read it.
///
/// Not `flate2`'s `MultiGzDecoder`, because that refuses zeros after the last member (padding of tapes and of some object
/// stores), by one kind of error for one zero and by another for many.
struct Gunzip {
    /// `None` at the end and after an error.
    state: Option<Gunzipping>,
    bytes_read: u64,
}

enum Gunzipping {
    /// Before a member.
    Between(BufReader<Counted>),
    Inside(Box<GzDecoder<BufReader<Counted>>>),
}

impl Gunzip {
    fn new(file: BufReader<Counted>) -> Self {
        Self { state: Some(Gunzipping::Between(file)), bytes_read: 0 }
    }

    fn bytes_read(&self) -> u64 {
        match &self.state {
            Some(Gunzipping::Between(file)) => file.get_ref().bytes,
            Some(Gunzipping::Inside(decoder)) => decoder.get_ref().get_ref().bytes,
            None => self.bytes_read,
        }
    }
}

impl Read for Gunzip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(state) = self.state.take() {
            let mut decoder = match state {
                Gunzipping::Inside(decoder) => decoder,
                Gunzipping::Between(mut file) => {
                    if !skip_zeros(&mut file)? {
                        self.bytes_read = file.get_ref().bytes;
                        return Ok(0);
                    }
                    Box::new(GzDecoder::new(file))
                }
            };
            let n = decoder.read(buffer)?;
            if n > 0 {
                self.state = Some(Gunzipping::Inside(decoder));
                return Ok(n);
            }
            self.state = Some(Gunzipping::Between(decoder.into_inner()));
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn read(content: &[u8]) -> io::Result<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, content).unwrap();
        let mut input = Input::open(&path)?;
        let mut text = String::new();
        input.read_to_string(&mut text)?;
        assert_eq!(input.bytes_read(), content.len() as u64);
        Ok(text)
    }

    #[test]
    fn plain_files_and_gzip_files_have_the_same_content() {
        assert_eq!(read(b"a\n").unwrap(), "a\n");
        assert_eq!(read(&gzip(b"a\n")).unwrap(), "a\n");
        assert_eq!(read(b"").unwrap(), "");
        assert_eq!(read(&gzip(b"")).unwrap(), "");
        assert_eq!(read(&gzip("ab".repeat(200_000).as_bytes())).unwrap().len(), 400_000);
    }

    #[test]
    fn a_byte_order_mark_is_no_content() {
        assert_eq!(read("\u{feff}a".as_bytes()).unwrap(), "a");
        assert_eq!(read(&gzip("\u{feff}a".as_bytes())).unwrap(), "a");
        assert_eq!(read("a\u{feff}".as_bytes()).unwrap(), "a\u{feff}");
    }

    // As Python's gzip (3.11) reads them.
    #[test]
    fn members_follow_each_other_and_zeros_pad_them() {
        let (a, b, nothing) = (gzip(b"a"), gzip(b"b"), gzip(b""));
        assert_eq!(read(&[&a[..], &b, &nothing, &a].concat()).unwrap(), "aba");
        for zeros in [1, 7, 512, 100_000] {
            assert_eq!(read(&[&a[..], &vec![0; zeros]].concat()).unwrap(), "a");
            assert_eq!(read(&[&a[..], &vec![0; zeros], &b].concat()).unwrap(), "ab");
        }
    }

    #[test]
    fn damaged_gzip_files_are_errors() {
        let whole = gzip(b"some text");
        for end in 3..whole.len() {
            assert!(read(&whole[..end]).is_err(), "cut at {end}");
        }
        assert!(read(&[&whole[..], b"garbage"].concat()).is_err());
        let mut wrong = whole.clone();
        wrong[15] ^= 4;
        assert!(read(&wrong).is_err());
    }
}
