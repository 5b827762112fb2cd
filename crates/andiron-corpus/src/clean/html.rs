//! HTML to text.

use std::borrow::Cow;

use andiron_data::Document;
use html2text::config;
use html2text::render::TrivialDecorator;
use serde::{Deserialize, Serialize};

use super::{Filter, Removal, Verdict};

/// Turns HTML into the text that a browser would show: paragraphs as lines, entities decoded; tags, scripts, styles and the head
/// are left out, and so are drawings (`svg`). Boilerplate such as menus stays: it is for the rules of lines and quality to remove.
///
/// The work is bounded: documents of more than `max_bytes` go as `html-too-long`, those of more than `max_depth` tags within each
/// other as `html-too-deep` (a browser stops at 512), those that cannot be rendered as `html-unreadable`.
///
/// Source: the crate html2text 0.17, with html5ever, the parser of Servo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HtmlToText {
    /// Which documents are HTML.
    pub documents: HtmlDocuments,
    /// Bytes of a document, at most.
    pub max_bytes: usize,
    /// Tags within each other, at most.
    pub max_depth: usize,
}

/// Which documents are taken as HTML.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HtmlDocuments {
    /// Those that begin with `<!doctype html` or have `<html`, `<head` or `<body` within their first 1,024 bytes.
    #[default]
    Detected,
    /// All.
    All,
}

impl Default for HtmlToText {
    fn default() -> Self {
        Self { documents: HtmlDocuments::Detected, max_bytes: 16 << 20, max_depth: 512 }
    }
}

/// Columns of a line, at most: a paragraph is one line unless it is longer.
const WIDTH: usize = 1 << 20;

impl Filter for HtmlToText {
    fn apply(&self, document: &mut Document) -> Verdict {
        let html = &document.text;
        if self.documents == HtmlDocuments::Detected && !looks_like_html(html) {
            return Verdict::Keep;
        }
        let remove = |reason, score: usize| Verdict::Remove(Removal { reason, score: Some(score as f64) });
        if html.len() > self.max_bytes {
            return remove("html-too-long", html.len());
        }
        // Their elements close themselves, which others cannot: a diagram of a thousand lines is not a thousand levels deep.
        let html = without_drawings(html);
        let depth = depth(html.as_bytes());
        if depth > self.max_depth {
            return remove("html-too-deep", depth);
        }
        let rendered = config::with_decorator(TrivialDecorator::new())
            .raw_mode(true)
            .string_from_read(html.as_bytes(), WIDTH);
        match rendered {
            Ok(text) => {
                document.text = tidy(&text);
                Verdict::Keep
            }
            Err(_) => Verdict::Remove(Removal { reason: "html-unreadable", score: None }),
        }
    }
}

fn looks_like_html(text: &str) -> bool {
    let start = &text.as_bytes()[..text.len().min(1024)];
    let start = start.to_ascii_lowercase();
    let has = |tag: &[u8]| memchr::memmem::find(&start, tag).is_some();
    start.trim_ascii_start().starts_with(b"<!doctype html") || has(b"<html") || has(b"<head") || has(b"<body")
}

/// Without what is between `<svg` and its end tag. What has no end stays.
fn without_drawings(html: &str) -> Cow<'_, str> {
    const NAME: &[u8] = b"svg";
    let bytes = html.as_bytes();
    let is_named = |at: usize| {
        let name = bytes.get(at..at + NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME));
        name && bytes.get(at + NAME.len()).is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-')
    };
    let end_of_tag =
        |at: usize| memchr::memchr(b'>', &bytes[at..]).map_or(bytes.len(), |length| at + length + 1);
    let mut text = String::new();
    let (mut kept, mut start, mut depth) = (0, 0, 0_usize);
    for at in memchr::memchr_iter(b'<', bytes) {
        if is_named(at + 1) {
            let end = end_of_tag(at);
            let closes_itself = bytes[..end].ends_with(b"/>");
            if depth == 0 {
                start = at;
            }
            depth += usize::from(!closes_itself);
        } else if depth > 0 && bytes.get(at + 1) == Some(&b'/') && is_named(at + 2) {
            depth -= 1;
            if depth == 0 {
                text.push_str(&html[kept..start]);
                kept = end_of_tag(at);
            }
        }
    }
    if kept == 0 {
        return Cow::Borrowed(html);
    }
    text.push_str(&html[kept..]);
    Cow::Owned(text)
}

/// Without white space at the ends of lines, and with one blank line at most between paragraphs.
fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    let mut blank = true;
    for line in text.lines() {
        let line = line.trim_end();
        if line.is_empty() && blank {
            continue;
        }
        blank = line.is_empty();
        tidy.push_str(line);
        tidy.push('\n');
    }
    tidy.truncate(tidy.trim_end().len());
    tidy
}

/// Elements that have no end tag, or whose end tag is often left out.
const OPEN_ENDED: &[&[u8]] = &[
    b"area", b"base", b"br", b"col", b"dd", b"dt", b"embed", b"hr", b"img", b"input", b"li", b"link",
    b"meta", b"option", b"p", b"param", b"source", b"td", b"th", b"tr", b"track", b"wbr",
];

/// How many start tags there are within each other, at most, by a count of tags.
fn depth(html: &[u8]) -> usize {
    let (mut depth, mut most) = (0_usize, 0);
    for at in memchr::memchr_iter(b'<', html) {
        let rest = &html[at + 1..];
        let (end_tag, rest) = match rest {
            [b'/', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let length = rest.iter().take(16).take_while(|byte| byte.is_ascii_alphanumeric()).count();
        let name = &rest[..length];
        if name.is_empty() || OPEN_ENDED.iter().any(|open| name.eq_ignore_ascii_case(open)) {
            continue;
        }
        if end_tag {
            depth = depth.saturating_sub(1);
        } else {
            depth += 1;
            most = most.max(depth);
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(html: &str) -> (Verdict, String) {
        let mut document = Document::new("a", html);
        let verdict = HtmlToText::default().apply(&mut document);
        (verdict, document.text)
    }

    #[test]
    fn drawings_are_left_out_and_their_lines_are_no_depth() {
        let lines = "<path d='M0 0'/>".repeat(1000);
        let page =
            format!("<body>a<SVG width=1><g>{lines}<svg><text>x</text></svg></g></svg>b<svg/>c</body>");
        assert_eq!(text(&page), (Verdict::Keep, "abc".to_owned()));
        assert_eq!(without_drawings("<p><svg><path/>é"), "<p><svg><path/>é");
        assert_eq!(without_drawings("<svg-x>a</svg-x><svg>é</svg"), "<svg-x>a</svg-x>");
    }

    #[test]
    fn a_page_becomes_its_text() {
        let page = "<!DOCTYPE html><html><head><title>T</title><style>p{}</style></head><body><script>x()</script>\
            <h1>Caf&eacute; &amp; bar</h1><p>One <b>bold</b> <a href=\"/x\">link</a>.<br>Two.<p>Three&nbsp;four.</p>\
            <ul><li>a<li>b</ul><table><tr><td>1<td>2</table><img alt=\"no\"></body></html>";
        let (verdict, text) = text(page);
        assert_eq!(verdict, Verdict::Keep);
        assert_eq!(text, "Café & bar\n\nOne bold link.\nTwo.\n\nThree\u{a0}four.\na\nb\n\n1\n2");
    }

    #[test]
    fn other_text_stays() {
        let code = "if a < b { return <T>::new(); } // <p>";
        assert_eq!(text(code), (Verdict::Keep, code.to_owned()));
    }

    #[test]
    fn work_is_bounded() {
        let deep = format!("<html>{}", "<div>".repeat(600));
        assert_eq!(text(&deep).0, Verdict::Remove(Removal { reason: "html-too-deep", score: Some(601.0) }));
        let long = format!("<html>{}", "<p>word ".repeat(3 << 20));
        assert!(matches!(text(&long).0, Verdict::Remove(Removal { reason: "html-too-long", .. })));
        let flat = format!("<html>{}", "<p>word</p><br><li>x".repeat(10_000));
        assert_eq!(text(&flat).0, Verdict::Keep);
    }
}
