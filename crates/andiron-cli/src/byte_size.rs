//! Sizes in bytes, as people write them.

use std::str::FromStr;

/// A number of bytes: `1500000`, `512MiB`, `2GB`, `1.5g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub usize);

/// Units by their first letter; with `iB`, or alone, they are powers of 1024, with `B` powers of 1000.
const UNITS: [(char, u32); 4] = [('k', 1), ('m', 2), ('g', 3), ('t', 4)];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused =
            || format!("{text:?} is not a size: write bytes, or a number with KiB, MiB, GiB, KB, MB or GB");
        let lower = text.trim().to_ascii_lowercase();
        let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
        let (number, unit) = (&lower[..end], lower[end..].trim_start());
        let number: f64 = number.parse().map_err(|_| refused())?;
        let mut letters = unit.chars();
        let scale = match letters.next() {
            None | Some('b') if letters.as_str().is_empty() => 1.0,
            first => {
                let power = UNITS.iter().find(|(letter, _)| Some(*letter) == first).ok_or_else(refused)?.1;
                let base: f64 = match letters.as_str() {
                    "" | "ib" => 1024.0,
                    "b" => 1000.0,
                    _ => return Err(refused()),
                };
                base.powi(power as i32)
            }
        };
        let bytes = number * scale;
        // 2⁵³: every whole number below it is exact.
        match (1.0..9e15).contains(&bytes) {
            true => Ok(Self(bytes as usize)),
            false => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [
            ("1", 1),
            ("1500000", 1_500_000),
            ("512MiB", 512 << 20),
            ("2GB", 2_000_000_000),
            ("1.5g", 3 << 29),
            ("4 KiB", 4096),
            ("7B", 7),
            ("1tb", 1_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "0", "1.2.3", "12 apples", "1MiBs", "1e9", "99999999999t", "k"] {
            let refused = text.parse::<ByteSize>().unwrap_err();
            assert!(refused.contains("is not a size"), "{text}: {refused}");
        }
    }
}
