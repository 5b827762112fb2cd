//! Numbers, durations and times as a reader wants them, and text that is safe inside HTML.

use std::fmt;
use std::time::SystemTime;

use chrono::DateTime;

/// Text for an element's content or a quoted attribute.
///
/// Control characters, which HTML does not allow, become visible symbols.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(c)?,
                '\0'..='\u{1f}' => {
                    f.write_char(char::from_u32(0x2400 + c as u32).unwrap_or(char::REPLACEMENT_CHARACTER))?
                }
                '\u{7f}'..='\u{9f}' => f.write_char(char::REPLACEMENT_CHARACTER)?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The beginning of `text`, of at most `limit` characters.
pub fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A measured value with four significant digits: `3.214`, `0.0512`, `1.2e-5`, `12 340`.
pub fn value(value: f64) -> String {
    if !value.is_finite() {
        return "not finite".to_owned();
    }
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e6).contains(&size) {
        scientific(value, 2)
    } else {
        let digits = 3 - size.log10().floor() as i32;
        let rounded = format!("{value:.*}", digits.max(0) as usize);
        if size >= 1e4 { grouped(value.abs().round() as u64, value < 0.0) } else { rounded }
    }
}

/// `1.25e-4`, without zeros at the end of the mantissa.
fn scientific(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => {
            format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// A count with its thousands apart: `1 234 567`, by narrow spaces that do not break.
pub fn count(count: u64) -> String {
    grouped(count, false)
}

fn grouped(number: u64, negative: bool) -> String {
    let digits = number.to_string();
    let mut text = String::from(if negative { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digits.len() > 4 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A large number with three digits and a unit: `12.3k`, `1.50M`; for tick labels and sizes.
pub fn short(number: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")];
    match UNITS.iter().find(|(size, _)| number.abs() >= size * 0.9995) {
        Some((size, unit)) => {
            let mantissa = number / size;
            let digits = if mantissa.abs() >= 99.95 {
                0
            } else if mantissa.abs() >= 9.995 {
                1
            } else {
                2
            };
            let text = format!("{mantissa:.digits$}");
            let text =
                if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
            format!("{text}{unit}")
        }
        None => value(number),
    }
}

/// The label of a tick on an axis whose ticks are `step` apart.
pub fn tick(number: f64, step: f64) -> String {
    if number.abs() < step * 1e-6 {
        return "0".to_owned();
    }
    let decimals = (-(step * 1.000_001).log10().floor()).max(0.0) as usize;
    if decimals > 3 || number.abs() >= 1e15 {
        let digits = (number.abs() / step).log10().round().max(0.0) as usize;
        scientific(number, digits.min(6))
    } else if decimals == 0 && number.abs() >= 10_000.0 {
        short(number)
    } else {
        format!("{number:.decimals$}")
    }
}

/// `0.1`, `1`, `1000`, `1e5`.
pub fn power_of_ten(number: f64) -> String {
    if (1e-3..=1e3).contains(&number) { format!("{number}") } else { scientific(number, 0) }
}

/// A length of time: `42 s`, `3 min 05 s`, `7 h 12 min`, `3 d 4 h`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".to_owned();
    }
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", count(s / 86_400), s % 86_400 / 3600),
    }
}

/// `2026-11-30 03:36:13 UTC`; empty for a time that no calendar has.
pub fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let time = i64::try_from(seconds).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    time.map(|time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(
            Escaped("<script>\"a\" & 'b'</script>").to_string(),
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt;"
        );
        assert_eq!(Escaped("a\0b\x1bc\u{7f}\r\n\td\u{9f}").to_string(), "a␀b␛c\u{fffd}␍\n\td\u{fffd}");
    }

    #[test]
    fn text_is_shortened_between_characters() {
        assert_eq!(shortened("größer", 4), "größ…");
        assert_eq!(shortened("größer", 6), "größer");
    }

    #[test]
    fn values_have_four_digits() {
        let cases = [
            (3.214_159, "3.214"),
            (0.051_234, "0.05123"),
            (123.456, "123.5"),
            (9999.6, "10000"),
            (12_345.6, "12\u{202f}346"),
            (1.25e-4, "1.25e-4"),
            (3e-10, "3e-10"),
            (2.5e9, "2.5e9"),
            (-1.5, "-1.500"),
            (0.0, "0"),
        ];
        for (number, expected) in cases {
            assert_eq!(value(number), expected);
        }
        assert_eq!(value(f64::NAN), "not finite");
    }

    #[test]
    fn counts_are_grouped_and_large_numbers_short() {
        assert_eq!(count(1234), "1234");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        let cases =
            [(999.0, "999.0"), (1000.0, "1k"), (12_345.0, "12.3k"), (999_999.0, "1M"), (1.5e9, "1.5B")];
        for (number, expected) in cases {
            assert_eq!(short(number), expected);
        }
        assert_eq!(short(123_456.0), "123k");
    }

    #[test]
    fn ticks_have_the_digits_that_tell_them_apart() {
        let cases = [
            (0.0, 0.5, "0"),
            (1.5, 0.5, "1.5"),
            (2.0, 0.5, "2.0"),
            (-0.25, 0.05, "-0.25"),
            (2000.0, 500.0, "2000"),
            (10_000.0, 5000.0, "10k"),
            (2_500_000.0, 500_000.0, "2.5M"),
            (2e-4, 2e-4, "2e-4"),
            (1.2e-3, 2e-4, "1.2e-3"),
            (0.003, 0.001, "0.003"),
        ];
        for (number, step, expected) in cases {
            assert_eq!(tick(number, step), expected, "{number} {step}");
        }
    }

    #[test]
    fn durations_have_two_units() {
        let cases = [
            (0.4, "0 s"),
            (59.6, "1 min 00 s"),
            (185.0, "3 min 05 s"),
            (25_920.0, "7 h 12 min"),
            (273_600.0, "3 d 4 h"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected);
        }
        assert_eq!(duration(f64::INFINITY), "unknown");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        // By `date --utc --date=@SECONDS`, GNU coreutils 9.1.
        let cases = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_796_010_573, "2026-11-30 03:49:33 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
