//! Line endings: the same text on every system.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// How line endings are normalized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineEndings {
    /// They are kept.
    #[default]
    Keep,
    /// `\r\n` and a lone `\r` become `\n`.
    Unix,
}

impl LineEndings {
    /// The text with its line endings normalized.
    pub fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Unix if text.contains('\r') => Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")),
            _ => Cow::Borrowed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_lines_end_in_one_byte() {
        assert_eq!(LineEndings::Unix.apply("a\r\nb\rc\n\r\n"), "a\nb\nc\n\n");
        assert_eq!(LineEndings::Keep.apply("a\r\n"), "a\r\n");
    }
}
