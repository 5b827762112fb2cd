//! Unicode normal forms: one way to write a character.

use andiron_data::Document;
use serde::{Deserialize, Serialize};
use unicode_normalization::{
    IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfd_quick, is_nfkc_quick, is_nfkd_quick,
};

use super::{Filter, Verdict};

/// Brings the text into a normal form. It grows at most eighteenfold in characters.
///
/// Source: Unicode Standard Annex #15, <https://www.unicode.org/reports/tr15/>.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnicodeNormalForm {
    /// The form.
    pub form: NormalForm,
}

/// A Unicode normal form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormalForm {
    /// Composed: `e` and its accent are one character. Texts look the same.
    #[default]
    Nfc,
    /// Decomposed: letter, then accents; Hangul as jamo.
    Nfd,
    /// Composed, and what only looks different becomes the same: `ﬁ` is `fi`, `①` is `1`, `Ａ` is `A`, `²` is `2`.
    Nfkc,
    /// The same, decomposed.
    Nfkd,
}

impl NormalForm {
    /// The text in this form; `None` if it is in it.
    pub fn apply(self, text: &str) -> Option<String> {
        if text.is_ascii() {
            return None;
        }
        let is_normal = match self {
            Self::Nfc => is_nfc_quick(text.chars()),
            Self::Nfd => is_nfd_quick(text.chars()),
            Self::Nfkc => is_nfkc_quick(text.chars()),
            Self::Nfkd => is_nfkd_quick(text.chars()),
        };
        if is_normal == IsNormalized::Yes {
            return None;
        }
        let mut normal = String::with_capacity(text.len());
        match self {
            Self::Nfc => normal.extend(text.nfc()),
            Self::Nfd => normal.extend(text.nfd()),
            Self::Nfkc => normal.extend(text.nfkc()),
            Self::Nfkd => normal.extend(text.nfkd()),
        }
        Some(normal)
    }
}

impl Filter for UnicodeNormalForm {
    fn apply(&self, document: &mut Document) -> Verdict {
        if let Some(normal) = self.form.apply(&document.text) {
            document.text = normal;
        }
        Verdict::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The forms that Python 3.11's unicodedata.normalize gives.
    #[test]
    fn forms_are_those_of_unicode() {
        let text = "e\u{301} ﬁ ① Ａ ² 각";
        assert_eq!(NormalForm::Nfc.apply(text).unwrap(), "é ﬁ ① Ａ ² 각");
        assert_eq!(NormalForm::Nfd.apply("é각").unwrap(), "e\u{301}\u{1100}\u{1161}\u{11a8}");
        assert_eq!(NormalForm::Nfkc.apply(text).unwrap(), "é fi 1 A 2 각");
        assert_eq!(NormalForm::Nfkd.apply("é²").unwrap(), "e\u{301}2");
        assert_eq!(NormalForm::Nfkc.apply("plain"), None);
        assert_eq!(NormalForm::Nfc.apply("é 각"), None);
    }
}
