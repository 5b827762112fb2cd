//! Web pages: their character sets, and the content of HTTP responses.

use std::io::{Cursor, Read};

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::RecordFault;
use crate::input::{DEFAULT_EXPANSION, Input};

/// The content type of web pages.
pub(super) const HTML: &str = "text/html";
/// Where the declaration of a page's character set must be, in bytes from its start, by the HTML standard.
const DECLARED_WITHIN: usize = 1024;

/// Where else a text may declare its character set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Declared {
    /// In a `<meta>` element.
    InMeta,
    /// Nowhere.
    Nowhere,
}

/// The text of a page: in the character set of its byte order mark, else `charset`, else the one that it declares, else UTF-8.
///
/// As in browsers, bytes that mean nothing in a declared character set become U+FFFD.
///
/// # Errors
/// If none is declared, and it is not UTF-8: a wrong guess would be a text of wrong letters.
pub(super) fn decode(
    bytes: Vec<u8>,
    charset: Option<&str>,
    declared: Declared,
) -> Result<String, RecordFault> {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) if !declares_other(charset, &text) => return Ok(without_mark(text)),
        Ok(text) => text.into_bytes(),
        Err(error) => error.into_bytes(),
    };
    let of_label = |label: &str| Encoding::for_label(label.trim().as_bytes());
    let encoding = charset.and_then(of_label).or_else(|| {
        let start = &bytes[..bytes.len().min(DECLARED_WITHIN)];
        let label = (declared == Declared::InMeta).then(|| meta_charset(start)).flatten()?;
        // By the standard: a page whose declaration can be read is in no UTF-16.
        of_label(&label).map(|found| if [UTF_16BE, UTF_16LE].contains(&found) { UTF_8 } else { found })
    });
    let encoding = encoding.or_else(|| Encoding::for_bom(&bytes).map(|(found, _)| found));
    match encoding {
        Some(encoding) => Ok(encoding.decode(&bytes).0.into_owned()),
        None => {
            let error = std::str::from_utf8(&bytes).err();
            Err(RecordFault::Utf8 { offset: error.map_or(0, |error| error.valid_up_to()) })
        }
    }
}

/// Whether valid UTF-8 is declared as something that it cannot be by chance: ISO-2022-JP and the like are ASCII bytes.
fn declares_other(charset: Option<&str>, text: &str) -> bool {
    let encoding = charset.and_then(|label| Encoding::for_label(label.trim().as_bytes()));
    text.is_ascii() && encoding.is_some_and(|encoding| !encoding.is_ascii_compatible())
}

fn without_mark(mut text: String) -> String {
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    text
}

/// The character set in the first `charset=` of a page.
fn meta_charset(start: &[u8]) -> Option<String> {
    let start = start.to_ascii_lowercase();
    let find = |word: &[u8], from: usize| {
        start[from..].windows(word.len()).position(|at| at == word).map(|at| from + at + word.len())
    };
    let mut from = find(b"<meta", 0)?;
    loop {
        from = find(b"charset", from)?;
        let rest = start[from..].trim_ascii_start();
        let Some(rest) = rest.strip_prefix(b"=") else { continue };
        let rest = rest.trim_ascii_start();
        let rest = rest.strip_prefix(b"\"").or_else(|| rest.strip_prefix(b"'")).unwrap_or(rest);
        let end = rest.iter().position(|byte| b"\"'>; \t\r\n/".contains(byte)).unwrap_or(rest.len());
        return Some(String::from_utf8_lossy(&rest[..end]).into_owned());
    }
}

/// A response as it came over the wire.
pub(super) struct Response {
    /// The status, such as 200.
    pub(super) status: u16,
    /// What is between the headers and the end, decoded.
    pub(super) body: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl Response {
    /// Parses a response. `None` if it is none.
    ///
    /// # Errors
    /// If its body is compressed in a way that is not known, or expands to more than `limit` bytes.
    pub(super) fn parse(bytes: &[u8], limit: u64) -> Result<Option<Self>, RecordFault> {
        let Some((head, body)) = split_head(bytes) else { return Ok(None) };
        let head = String::from_utf8_lossy(head);
        let mut lines = head.lines();
        let status = lines.next().filter(|line| line.starts_with("HTTP/"));
        let status = status.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok());
        let Some(status) = status else { return Ok(None) };
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut response = Self { status, body: Vec::new(), headers };
        let chunked = response.header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
        // Archives may keep the header of a body whose chunks they have joined.
        let body = chunked.then(|| unchunked(body)).flatten().unwrap_or_else(|| body.to_vec());
        response.body = response.decoded(body, limit)?;
        Ok(Some(response))
    }

    /// The value of a header, whose name is in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn decoded(&self, body: Vec<u8>, limit: u64) -> Result<Vec<u8>, RecordFault> {
        let encoding = self.header("content-encoding").unwrap_or_default().to_ascii_lowercase();
        match encoding.as_str() {
            "" | "identity" | "utf-8" => return Ok(body),
            // Told by the first bytes: archives may also keep this header of what they have decoded.
            "gzip" | "x-gzip" | "zstd" => {}
            _ if std::str::from_utf8(&body).is_ok() => return Ok(body),
            _ => return Err(RecordFault::ContentEncoding { encoding }),
        }
        let mut decoded = Vec::new();
        Input::of(Box::new(Cursor::new(body)), DEFAULT_EXPANSION)
            .and_then(|input| input.take(limit.saturating_add(1)).read_to_end(&mut decoded))
            .map_err(|_| RecordFault::ContentEncoding { encoding })?;
        if decoded.len() as u64 > limit {
            return Err(RecordFault::TooLong { limit });
        }
        Ok(decoded)
    }
}

/// A content type without parameters, in lower case, and its `charset`.
pub(super) fn content_type(header: &str) -> (String, Option<&str>) {
    let mut parts = header.split(';');
    let mime = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches(['"', '\'']))
    });
    (mime, charset)
}

/// What comes before and after the first empty line.
fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut start = 0;
    while let Some(at) = bytes[start..].iter().position(|&byte| byte == b'\n') {
        let line = &bytes[start..start + at];
        let next = start + at + 1;
        if line.is_empty() || line == b"\r" {
            return Some((&bytes[..start], &bytes[next..]));
        }
        start = next;
    }
    None
}

/// The content of chunks; `None` if there are none.
fn unchunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::with_capacity(bytes.len());
    loop {
        let Some(end) = bytes.iter().take(64).position(|&byte| byte == b'\n') else {
            return (!content.is_empty() && bytes.len() < 64).then_some(content);
        };
        let size = std::str::from_utf8(&bytes[..end]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        bytes = &bytes[end + 1..];
        if size == 0 {
            return Some(content);
        }
        // A body that was cut off is taken as far as it goes.
        content.extend_from_slice(&bytes[..size.min(bytes.len())]);
        let rest = bytes.get(size..).unwrap_or_default();
        if rest.is_empty() {
            return Some(content);
        }
        bytes = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n"))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::tests::gzip;

    #[track_caller]
    fn check(bytes: &[u8], charset: Option<&str>, text: &str) {
        assert_eq!(decode(bytes.to_vec(), charset, Declared::InMeta).unwrap(), text);
    }

    #[test]
    fn pages_are_in_the_character_set_that_they_declare() {
        let euc_kr = b"\xc7\xd1\xb1\xb9";
        check(euc_kr, Some("euc-kr"), "한국");
        for meta in [
            "<meta charset=euc-kr>",
            "<META CHARSET = 'EUC-KR' />",
            "<meta http-equiv=Content-Type content=\"text/html; charset=ks_c_5601-1987\">",
            "<meta name=charset><meta charset=\"windows-949\">",
        ] {
            check(&[meta.as_bytes(), euc_kr].concat(), None, &format!("{meta}한국"));
        }
        // What is valid UTF-8 is taken for it, whatever is declared.
        check("<meta charset=euc-kr>한국".as_bytes(), None, "<meta charset=euc-kr>한국");
        check("\u{feff}é".as_bytes(), Some("windows-1252"), "é");
        check(b"\xe9", Some("latin1"), "é");
        check(b"\xff\xfea\0\xe9\0", None, "aé");
        check(b"\x1b$B$\"\x1b(B", Some("iso-2022-jp"), "あ");
        let fault = decode(b"ab\xe9".to_vec(), None, Declared::InMeta).unwrap_err();
        assert!(matches!(fault, RecordFault::Utf8 { offset: 2 }));
        assert!(decode(b"<meta charset=latin1>\xe9".to_vec(), None, Declared::Nowhere).is_err());
    }

    #[test]
    fn bodies_are_decoded() {
        let parse = |bytes: &[u8]| Response::parse(bytes, 100);
        let body = |bytes: &[u8]| parse(bytes).unwrap().unwrap().body;
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nx\r\n\r\ny"), b"x\r\n\r\ny");
        assert_eq!(body(b"HTTP/1.0 404\n\nx"), b"x");
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(body(chunked), b"abc0123456789");
        assert_eq!(body(&chunked[..chunked.len() - 15]), b"abc01");
        assert_eq!(body(&chunked[..chunked.len() - 18]), b"abc");
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n<p>"), b"<p>");
        let head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n".as_slice();
        assert_eq!(body(&[head, &gzip(b"abc")].concat()), b"abc");
        assert_eq!(body(&[head, b"abc"].concat()), b"abc");
        assert!(matches!(
            parse(&[head, &gzip(&[b'a'; 101])].concat()),
            Err(RecordFault::TooLong { limit: 100 })
        ));
        let brotli = b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n\xff".as_slice();
        assert!(matches!(parse(brotli), Err(RecordFault::ContentEncoding { .. })));
        assert!(parse(b"GET / HTTP/1.1\r\n\r\n").unwrap().is_none());
        assert!(parse(b"HTTP/1.1 200 OK\r\n").unwrap().is_none());
    }

    #[test]
    fn content_types_have_parameters() {
        assert_eq!(content_type("Text/HTML; q=1; Charset=\"utf-8\""), ("text/html".into(), Some("utf-8")));
        assert_eq!(content_type(""), (String::new(), None));
    }
}
