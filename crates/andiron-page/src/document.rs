//! The frame of a page.

use std::fmt::Write as _;

use crate::text::Escaped;

const STYLE: &str = include_str!("style.css");

/// Appends the head of a page and begins its body. `style` is CSS that is used besides that of all pages; no scripts run, and
/// nothing is loaded.
pub fn begin(title: &str, style: &str, out: &mut String) {
    begin_with(title, style, "", out);
}

/// As [`begin`], for a page that loads itself again every so many seconds.
pub fn begin_refreshing(title: &str, style: &str, seconds: u64, out: &mut String) {
    begin_with(title, style, &format!("<meta http-equiv=\"refresh\" content=\"{}\">\n", seconds.max(1)), out);
}

fn begin_with(title: &str, style: &str, head: &str, out: &mut String) {
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         {head}<title>{}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n<body>\n",
        Escaped(title)
    );
}

/// Appends the end of a page.
pub fn end(out: &mut String) {
    out.push_str("</body>\n</html>\n");
}
