//! The time in a template: `strftime_now`.

use std::fmt::Write as _;
use std::time::SystemTime;

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, NaiveDateTime, Utc};

/// `now` as Python's `datetime.strftime` writes it, in UTC and in English. A directive that is none stays as it is.
pub(super) fn strftime(now: SystemTime, format: &str) -> String {
    let now = DateTime::<Utc>::from(now).naive_utc();
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let letter =
            after.find(|c| c != '-').and_then(|at| after[at..].chars().next().map(|c| at + c.len_utf8()));
        let (directive, after) = after.split_at(letter.unwrap_or(after.len()));
        write(&now, directive, &mut out);
        rest = after;
    }
    out.push_str(rest);
    out
}

/// One directive without its percent sign.
fn write(now: &NaiveDateTime, directive: &str, out: &mut String) {
    let directive = match directive {
        // Microseconds in Python, nanoseconds here.
        "f" => "6f",
        // A time without a zone, as Python's now() gives, shows none.
        "z" | "Z" => return,
        "c" => "a %b %e %H:%M:%S %Y",
        "h" => "b",
        "x" => "m/%d/%y",
        "X" => "T",
        "r" => "I:%M:%S %p",
        directive => directive,
    };
    let spelled = format!("%{directive}");
    let items: Vec<Item<'_>> = StrftimeItems::new(&spelled).collect();
    let text = out.len();
    if items.contains(&Item::Error) || write!(out, "{}", now.format_with_items(items.iter())).is_err() {
        out.truncate(text);
        out.push_str(&spelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn times_are_written_as_strftime_does() {
        // time.strftime(format, time.gmtime(seconds)) of Python 3.
        let format = "%d %b %Y %A %j %U %W %H:%M:%S %I %p %y %-d %e %F %%";
        for (seconds, expected) in EXPECTED {
            assert_eq!(strftime(UNIX_EPOCH + Duration::from_secs(seconds), format), expected);
        }
    }

    /// Python 3.11: `datetime.utcfromtimestamp(1709164799.25).strftime(format)`.
    #[test]
    fn other_directives_too() {
        let now = UNIX_EPOCH + Duration::from_millis(1_709_164_799_250);
        for (format, expected) in [
            (
                "%c|%x|%X|%r|%D|%T|%R",
                "Wed Feb 28 23:59:59 2024|02/28/24|23:59:59|11:59:59 PM|02/28/24|23:59:59|23:59",
            ),
            ("%f %C %w %u %s %k %l %P %h%n%t%z%Z", "250000 20 3 3 1709164799 23 11 pm Feb\n\t"),
            ("%-m %-H %-I %-j %B %a", "2 23 11 59 February Wed"),
            ("100% é%", "100% é%"),
        ] {
            assert_eq!(strftime(now, format), expected, "{format}");
        }
    }

    const EXPECTED: [(u64, &str); 6] = [
        (0, "01 Jan 1970 Thursday 001 00 00 00:00:00 12 AM 70 1  1 1970-01-01 %"),
        (951_827_696, "29 Feb 2000 Tuesday 060 09 09 12:34:56 12 PM 00 29 29 2000-02-29 %"),
        (951_868_800, "01 Mar 2000 Wednesday 061 09 09 00:00:00 12 AM 00 1  1 2000-03-01 %"),
        (1_709_164_799, "28 Feb 2024 Wednesday 059 08 09 23:59:59 11 PM 24 28 28 2024-02-28 %"),
        (1_735_689_600, "01 Jan 2025 Wednesday 001 00 00 00:00:00 12 AM 25 1  1 2025-01-01 %"),
        (1_785_110_399, "26 Jul 2026 Sunday 207 30 29 23:59:59 11 PM 26 26 26 2026-07-26 %"),
    ];
}
