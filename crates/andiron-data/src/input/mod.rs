//! The content of a file: decompressed if it is gzip or Zstandard, without a byte order mark.

mod bounded;
mod gzip;

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use zstd::stream::read::Decoder as Unzstd;

use crate::files::{self, without_mark};
use bounded::Bounded;
use gzip::Gunzip;

pub(crate) use bounded::is_damage;
pub use bounded::{DEFAULT_EXPANSION, Damage};

const BUFFER: usize = 1 << 16;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What follows the first byte of a skippable frame, which is 0x50 to 0x5f.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// The content of a file, read from its beginning to its end.
///
/// Whether it is compressed is told by its first bytes, not by its name: no text begins as these formats do.
pub(crate) struct Input {
    content: Content,
}

enum Content {
    Plain(BufReader<Counted>),
    Compressed(BufReader<Bounded>),
}

/// A file that counts the bytes read from it.
struct Counted {
    file: Box<dyn Read + Send>,
    bytes: u64,
    /// Whether the system could not read it, which is no damage of its content.
    failed: bool,
}

/// What decompresses a file.
enum Decoder {
    Gzip(Gunzip),
    /// All frames, those to be skipped too. Its window is at most 128 MiB, the library's own limit.
    Zstd(Box<Unzstd<'static, BufReader<Counted>>>),
}

impl Input {
    /// The content of a file that expands at most `max_expansion` times.
    pub(crate) fn open(path: &Path, max_expansion: u64) -> io::Result<Self> {
        Self::of(Box::new(files::open(path)?), max_expansion)
    }

    /// The content of what `file` reads, such as standard input.
    pub(crate) fn of(file: Box<dyn Read + Send>, max_expansion: u64) -> io::Result<Self> {
        let counted = Counted { file, bytes: 0, failed: false };
        let mut file = BufReader::with_capacity(BUFFER, counted);
        let start = file.fill_buf()?;
        let is_zstd = start.starts_with(&ZSTD)
            || start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == ZSTD_SKIPPABLE;
        let content = if start.starts_with(&GZIP) {
            Content::compressed(Decoder::Gzip(Gunzip::new(file)), max_expansion)
        } else if is_zstd {
            let decoder = Unzstd::with_buffer(file)?;
            Content::compressed(Decoder::Zstd(Box::new(decoder)), max_expansion)
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
            Content::Compressed(content) => content.get_ref().bytes_read(),
        }
    }
}

impl Content {
    fn compressed(decoder: Decoder, max_expansion: u64) -> Self {
        Self::Compressed(BufReader::with_capacity(BUFFER, Bounded::new(decoder, max_expansion)))
    }
}

impl Decoder {
    fn bytes_read(&self) -> u64 {
        match self {
            Self::Gzip(decoder) => decoder.counted().bytes,
            Self::Zstd(decoder) => decoder.get_ref().get_ref().bytes,
        }
    }

    fn system_failed(&self) -> bool {
        match self {
            Self::Gzip(decoder) => decoder.counted().failed,
            Self::Zstd(decoder) => decoder.get_ref().get_ref().failed,
        }
    }
}

impl Read for Decoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.content {
            Content::Plain(file) => file.read(buffer),
            Content::Compressed(content) => content.read(buffer),
        }
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match &mut self.content {
            Content::Plain(file) => file.fill_buf(),
            Content::Compressed(content) => content.fill_buf(),
        }
    }

    fn consume(&mut self, bytes: usize) {
        match &mut self.content {
            Content::Plain(file) => file.consume(bytes),
            Content::Compressed(content) => content.consume(bytes),
        }
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer);
        self.failed = read.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        let n = read?;
        self.bytes += n as u64;
        Ok(n)
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
        let mut input = Input::open(&path, DEFAULT_EXPANSION)?;
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

    pub(crate) fn zstd(content: &[u8]) -> Vec<u8> {
        zstd::encode_all(content, 3).unwrap()
    }

    /// A frame to be skipped, of four bytes.
    const SKIPPABLE: &[u8] = b"\x53\x2a\x4d\x18\x04\0\0\0abcd";

    // Python's zstandard 0.25.0 reads the first frame only, and none if one to be skipped is before it.
    #[test]
    fn frames_follow_each_other_and_some_are_skipped() {
        let (a, b, nothing) = (zstd(b"a"), zstd(b"b"), zstd(b""));
        assert_eq!(read(&a).unwrap(), "a");
        assert_eq!(read(&nothing).unwrap(), "");
        assert_eq!(read(SKIPPABLE).unwrap(), "");
        assert_eq!(
            read(&[SKIPPABLE, &a[..], SKIPPABLE, &b, &nothing, &a, SKIPPABLE].concat()).unwrap(),
            "aba"
        );
        assert_eq!(read(&zstd("\u{feff}a".as_bytes())).unwrap(), "a");
        assert_eq!(read(&zstd("ab".repeat(200_000).as_bytes())).unwrap().len(), 400_000);
    }

    #[test]
    fn damaged_zstd_files_are_errors() {
        // With a checksum, which the program `zstd` writes and this library does not by itself.
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(b"some text").unwrap();
        let whole = encoder.finish().unwrap();
        assert_eq!(read(&whole).unwrap(), "some text");
        for end in 4..whole.len() {
            assert!(is_damage(&read(&whole[..end]).unwrap_err()), "cut at {end}");
        }
        assert!(read(&[&whole[..], b"garbage"].concat()).is_err());
        let mut wrong = whole.clone();
        wrong[12] ^= 4;
        assert!(read(&wrong).is_err());
    }

    #[test]
    fn what_expands_too_much_is_an_error() {
        let zeros = vec![b' '; 80 << 20];
        for (name, bomb) in [("gzip", gzip(&zeros)), ("zstd", zstd(&zeros))] {
            let mut input = Input::of(Box::new(io::Cursor::new(bomb.clone())), 100).unwrap();
            let error = io::copy(&mut input, &mut io::sink()).unwrap_err();
            assert!(is_damage(&error), "{name}");
            let said =
                "its content is over 100 times as long as the file; raise `max_expansion` if this is meant";
            assert_eq!(error.to_string(), said);
            let mut input = Input::of(Box::new(io::Cursor::new(bomb)), 100_000).unwrap();
            assert_eq!(io::copy(&mut input, &mut io::sink()).unwrap(), 80 << 20);
        }
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
            assert!(is_damage(&read(&whole[..end]).unwrap_err()), "cut at {end}");
        }
        assert!(read(&[&whole[..], b"garbage"].concat()).is_err());
        let mut wrong = whole.clone();
        wrong[15] ^= 4;
        assert!(read(&wrong).is_err());
    }
}
