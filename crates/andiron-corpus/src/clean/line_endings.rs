//! Line endings: the same text on every system.

use std::borrow::Cow;

use andiron_data::Document;
use serde::{Deserialize, Serialize};

use super::{Filter, Verdict};

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

impl Filter for LineEndings {
    fn apply(&self, document: &mut Document) -> Verdict {
        if let Cow::Owned(text) = LineEndings::apply(*self, &document.text) {
            document.text = text;
        }
        Verdict::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_lines_end_in_one_byte() {
        assert_eq!(LineEndings::apply(LineEndings::Unix, "a\r\nb\rc\n\r\n"), "a\nb\nc\n\n");
        assert_eq!(LineEndings::apply(LineEndings::Keep, "a\r\n"), "a\r\n");
    }
}
