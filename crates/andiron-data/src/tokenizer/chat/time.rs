//! The time in a template: `strftime_now`.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A time of the Gregorian calendar, in UTC.
struct Time {
    year: i64,
    /// From 0.
    month: usize,
    /// From 1.
    day: i64,
    /// From 0.
    day_of_year: i64,
    /// From Sunday, which is 0.
    weekday: i64,
    seconds: i64,
    micros: u32,
    epoch: i64,
}

impl Time {
    fn of(now: SystemTime) -> Self {
        let (epoch, micros) = match now.duration_since(UNIX_EPOCH) {
            Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(0), since.subsec_micros()),
            Err(_) => (0, 0),
        };
        let days = epoch.div_euclid(86_400);
        // Years that begin in March end with the day that leap years add. Day 0 of this count is 1 March 0.
        let count = days + 719_468;
        let (era, day_of_era) = (count.div_euclid(146_097), count.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * from_march + 2) / 153;
        let day = from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = (month_from_march + 2) % 12;
        let year = year_of_era + era * 400 + i64::from(month < 2);
        let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize];
        let day_of_year = before + day - 1 + i64::from(is_leap && month >= 2);
        Self {
            year,
            month: month as usize,
            day,
            day_of_year,
            weekday: (days + 4).rem_euclid(7),
            seconds: epoch.rem_euclid(86_400),
            micros,
            epoch,
        }
    }
}

/// `now` as `strftime` writes it, in UTC and in English.
pub(super) fn strftime(now: SystemTime, format: &str) -> String {
    let time = Time::of(now);
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut directive = rest.next();
        // glibc's: without the zeros in front.
        let unpadded = directive == Some('-');
        if unpadded {
            directive = rest.next();
        }
        match directive {
            Some(directive) => time.write(directive, unpadded, &mut out),
            None => out.push('%'),
        }
    }
    out
}

impl Time {
    fn write(&self, directive: char, unpadded: bool, out: &mut String) {
        let (hour, minute, second) = (self.seconds / 3600, self.seconds / 60 % 60, self.seconds % 60);
        let twelve = (hour + 11) % 12 + 1;
        let from_monday = (self.weekday + 6) % 7;
        let mut number = |value: i64, width: usize| {
            let width = if unpadded { 0 } else { width };
            let _ = write!(out, "{value:0width$}");
        };
        match directive {
            'd' => number(self.day, 2),
            'm' => number(self.month as i64 + 1, 2),
            'y' => number(self.year % 100, 2),
            'Y' => number(self.year, 4),
            'C' => number(self.year / 100, 2),
            'H' => number(hour, 2),
            'I' => number(twelve, 2),
            'M' => number(minute, 2),
            'S' => number(second, 2),
            'f' => number(i64::from(self.micros), 6),
            'j' => number(self.day_of_year + 1, 3),
            'w' => number(self.weekday, 1),
            'u' => number(from_monday + 1, 1),
            'U' => number((self.day_of_year + 7 - self.weekday) / 7, 2),
            'W' => number((self.day_of_year + 7 - from_monday) / 7, 2),
            's' => number(self.epoch, 1),
            'e' | 'k' | 'l' => {
                let value = [self.day, hour, twelve]
                    [usize::from(directive == 'k') + 2 * usize::from(directive == 'l')];
                let width = if unpadded { 0 } else { 2 };
                let _ = write!(out, "{value:width$}");
            }
            'a' => out.push_str(&DAYS[self.weekday as usize][..3]),
            'A' => out.push_str(DAYS[self.weekday as usize]),
            'b' | 'h' => out.push_str(&MONTHS[self.month][..3]),
            'B' => out.push_str(MONTHS[self.month]),
            'p' => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            'P' => out.push_str(if hour < 12 { "am" } else { "pm" }),
            'n' => out.push('\n'),
            't' => out.push('\t'),
            '%' => out.push('%'),
            // A time without a zone, as Python's now() gives, shows none.
            'z' | 'Z' => {}
            'F' => self.write_all("%Y-%m-%d", out),
            'D' | 'x' => self.write_all("%m/%d/%y", out),
            'T' | 'X' => self.write_all("%H:%M:%S", out),
            'R' => self.write_all("%H:%M", out),
            'r' => self.write_all("%I:%M:%S %p", out),
            'c' => self.write_all("%a %b %e %H:%M:%S %Y", out),
            other => out.extend(['%', other]),
        }
    }

    fn write_all(&self, format: &str, out: &mut String) {
        let mut rest = format.chars();
        while let Some(character) = rest.next() {
            match (character, rest.clone().next()) {
                ('%', Some(directive)) => {
                    rest.next();
                    self.write(directive, false, out);
                }
                (character, _) => out.push(character),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_written_as_strftime_does() {
        // time.strftime(format, time.gmtime(seconds)) of Python 3.
        let format = "%d %b %Y %A %j %U %W %H:%M:%S %I %p %y %-d %e %F %%";
        for (seconds, expected) in EXPECTED {
            assert_eq!(strftime(UNIX_EPOCH + Duration::from_secs(seconds), format), expected);
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
