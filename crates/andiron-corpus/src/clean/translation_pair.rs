//! Pairs of a text and its translation.

use andiron_data::Document;
use serde::{Deserialize, Serialize};

use super::characters::{CHARACTERS, Classes, count_characters, is_space, strip};
use super::{Filter, FilterError, Removal, Verdict};

/// Removes pairs of translations whose sides cannot belong together: too different in length, equal, empty, or in another script
/// than their language has.
///
/// A pair is a document whose two sides are fields of its record, as in rows of parallel corpora (OPUS and the like):
/// `{"en": "…", "ko": "…"}`, with the names of the fields in `source` and `target`. The field that was read as the text of the
/// document is named `text`. A document without one of them goes as `missing-side`. The rules are checked in the order of the
/// fields.
///
/// Source: the rules are those of Moses' `clean-corpus-n` (Koehn et al. 2007, <https://aclanthology.org/P07-2045>) and of
/// OpusFilter's length, length ratio and character score filters (Aulamo et al. 2020,
/// <https://aclanthology.org/2020.acl-demos.20>), from which the default of `max_ratio` is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TranslationPair {
    /// The field of the source.
    pub source: String,
    /// The field of its translation.
    pub target: String,
    /// Characters of each side, at least; reason `side-too-short`.
    #[serde(default = "one")]
    pub min_characters: usize,
    /// Characters of each side, at most, 0: any number; reason `side-too-long`.
    #[serde(default)]
    pub max_characters: usize,
    /// The longer side divided by the shorter one, at most, 0: any; reason `length-ratio`.
    #[serde(default = "three")]
    pub max_ratio: f64,
    /// What that ratio counts.
    #[serde(default)]
    pub unit: LengthUnit,
    /// Whether equal sides stay; else their reason is `equal-sides`.
    #[serde(default)]
    pub allow_equal: bool,
    /// The script of the source; reason `source-script`, the score is the fraction of letters in it.
    #[serde(default)]
    pub source_script: Option<Script>,
    /// The script of the target; reason `target-script`.
    #[serde(default)]
    pub target_script: Option<Script>,
    /// Fraction of the letters that are in the script of their side, at least. Names and terms stay Latin in most languages.
    #[serde(default = "half")]
    pub min_in_script: f64,
}

fn one() -> usize {
    1
}

fn three() -> f64 {
    3.0
}

fn half() -> f64 {
    0.5
}

/// What the length of a side is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LengthUnit {
    /// Words between white space, as in Moses and OpusFilter; not for languages without spaces.
    #[default]
    Words,
    /// Characters.
    Characters,
    /// Bytes of UTF-8: a Hangul syllable or Chinese character weighs as much as three Latin letters.
    Bytes,
}

/// A group of letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Script {
    /// Latin letters.
    Latin,
    /// Cyrillic letters.
    Cyrillic,
    /// Greek letters.
    Greek,
    /// Arabic letters.
    Arabic,
    /// Hebrew letters.
    Hebrew,
    /// Devanagari letters.
    Devanagari,
    /// Thai letters.
    Thai,
    /// Hangul: Korean.
    Hangul,
    /// Chinese characters.
    Han,
    /// Hiragana, katakana and Chinese characters.
    Japanese,
}

impl Script {
    fn contains(self, letter: char) -> bool {
        match self {
            Self::Latin => {
                matches!(letter, 'A'..='Z' | 'a'..='z' | '\u{aa}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' | '\u{ff21}'..='\u{ff5a}')
            }
            Self::Cyrillic => matches!(letter, '\u{400}'..='\u{52f}' | '\u{1c80}'..='\u{1c8f}'),
            Self::Greek => matches!(letter, '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}'),
            Self::Arabic => {
                matches!(letter, '\u{600}'..='\u{6ff}' | '\u{750}'..='\u{77f}' | '\u{8a0}'..='\u{8ff}' | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}')
            }
            Self::Hebrew => matches!(letter, '\u{590}'..='\u{5ff}' | '\u{fb1d}'..='\u{fb4f}'),
            Self::Devanagari => matches!(letter, '\u{900}'..='\u{97f}'),
            Self::Thai => matches!(letter, '\u{e00}'..='\u{e7f}'),
            Self::Hangul => {
                matches!(letter, '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{a960}'..='\u{a97f}' | '\u{ac00}'..='\u{d7ff}')
            }
            Self::Han => {
                matches!(letter, '\u{3005}'..='\u{3007}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
            }
            Self::Japanese => {
                matches!(letter, '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9f}')
                    || Self::Han.contains(letter)
            }
        }
    }

    /// The fraction of the letters of a text that are in the script; 1 without a letter.
    fn share(self, text: &str) -> f64 {
        let (mut inside, mut all) = (0_usize, 0_usize);
        for letter in text.chars().filter(|&c| CHARACTERS.is(c, Classes::ALPHABETIC)) {
            all += 1;
            inside += usize::from(self.contains(letter));
        }
        if all == 0 { 1.0 } else { inside as f64 / all as f64 }
    }
}

impl TranslationPair {
    /// The published settings for two fields.
    pub fn new(source: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            target: target.into(),
            min_characters: one(),
            max_characters: 0,
            max_ratio: three(),
            unit: LengthUnit::Words,
            allow_equal: false,
            source_script: None,
            target_script: None,
            min_in_script: half(),
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// If both sides are the same field, the ratio is below 1 and not 0, or the fraction is not in 0–1.
    pub fn validate(&self) -> Result<(), FilterError> {
        let error = |problem| Err(FilterError { filter: "translation-pair", problem });
        if self.source == self.target {
            return error(format!(
                "source and target are both the field `{}`; name the two sides",
                self.source
            ));
        }
        if !(self.max_ratio == 0.0 || self.max_ratio >= 1.0) {
            return error(format!(
                "max_ratio is {}; it is the longer side by the shorter, 1 or more, or 0",
                self.max_ratio
            ));
        }
        if !(0.0..=1.0).contains(&self.min_in_script) {
            return error(format!("min_in_script is {}; it is a fraction, 0 to 1", self.min_in_script));
        }
        Ok(())
    }

    fn length(&self, text: &str) -> f64 {
        let length = match self.unit {
            LengthUnit::Words => text.split(is_space).filter(|word| !word.is_empty()).count(),
            LengthUnit::Characters => count_characters(text.as_bytes()),
            LengthUnit::Bytes => text.len(),
        };
        length as f64
    }

    fn judge(&self, source: &str, target: &str) -> Option<Removal> {
        let remove = |reason, score| Some(Removal { reason, score: Some(score) });
        let (source, target) = (strip(source), strip(target));
        let lengths = [source, target].map(|side| count_characters(side.as_bytes()));
        let (shorter, longer) = (lengths[0].min(lengths[1]), lengths[0].max(lengths[1]));
        if shorter < self.min_characters {
            return remove("side-too-short", shorter as f64);
        }
        if self.max_characters > 0 && longer > self.max_characters {
            return remove("side-too-long", longer as f64);
        }
        let lengths = [source, target].map(|side| self.length(side));
        let ratio = lengths[0].max(lengths[1]) / lengths[0].min(lengths[1]);
        if self.max_ratio > 0.0 && ratio > self.max_ratio {
            return remove("length-ratio", ratio);
        }
        if !self.allow_equal && source == target {
            return Some(Removal { reason: "equal-sides", score: None });
        }
        for (script, side, reason) in
            [(self.source_script, source, "source-script"), (self.target_script, target, "target-script")]
        {
            if let Some(share) =
                script.map(|script| script.share(side)).filter(|&share| share < self.min_in_script)
            {
                return remove(reason, share);
            }
        }
        None
    }
}

impl Filter for TranslationPair {
    fn apply(&self, document: &mut Document) -> Verdict {
        let side = |name: &str| match document.metadata.get(name) {
            Some(side) => side.as_str(),
            None => (name == "text").then_some(document.text.as_str()),
        };
        let (Some(source), Some(target)) = (side(&self.source), side(&self.target)) else {
            return Verdict::Remove(Removal { reason: "missing-side", score: None });
        };
        self.judge(source, target).map_or(Verdict::Keep, Verdict::Remove)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(pair: &TranslationPair, source: &str, target: &str) -> Option<&'static str> {
        pair.validate().unwrap();
        pair.judge(source, target).map(|removal| removal.reason)
    }

    #[test]
    fn pairs_that_cannot_belong_together_go() {
        let pair = TranslationPair {
            max_characters: 200,
            source_script: Some(Script::Latin),
            target_script: Some(Script::Hangul),
            ..TranslationPair::new("en", "ko")
        };
        assert_eq!(reason(&pair, "Opens the file.", "파일을 엽니다."), None);
        assert_eq!(reason(&pair, "Opens the file.", " "), Some("side-too-short"));
        assert_eq!(reason(&pair, &"word ".repeat(60), "단어"), Some("side-too-long"));
        assert_eq!(reason(&pair, "a b c d e f g", "가 나"), Some("length-ratio"));
        assert_eq!(reason(&pair, "Writer", "Writer"), Some("equal-sides"));
        assert_eq!(reason(&pair, "파일을 엽니다.", "Opens the file."), Some("source-script"));
        assert_eq!(reason(&pair, "Opens the file.", "Öffnet die Datei."), Some("target-script"));
        assert_eq!(reason(&pair, "=LEN(12)", "=LEN(13)"), Some("target-script"));
        assert_eq!(reason(&pair, "12", "13"), None);
    }

    #[test]
    fn sides_are_fields_of_the_metadata() {
        let mut document = Document::new("a", "");
        document.metadata.insert("en".into(), "Save".into());
        let missing = TranslationPair::new("en", "ko").apply(&mut document);
        assert_eq!(missing, Verdict::Remove(Removal { reason: "missing-side", score: None }));
        document.metadata.insert("ko".into(), "저장".into());
        assert_eq!(TranslationPair::new("en", "ko").apply(&mut document), Verdict::Keep);
        document.text = "Speichern".into();
        assert_eq!(TranslationPair::new("text", "ko").apply(&mut document), Verdict::Keep);
        assert!(TranslationPair::new("en", "en").validate().is_err());
        assert!(TranslationPair { max_ratio: 0.5, ..TranslationPair::new("en", "ko") }.validate().is_err());
    }
}
