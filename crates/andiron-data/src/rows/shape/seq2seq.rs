//! A text and what it becomes: translations, summaries.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Shape, first_text};
use crate::rows::{Row, RowError};

/// Rows with a source and a target text. In `{"translation": {"en": …, "es": …}}` they are `translation.en` and
/// `translation.es`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seq2SeqFields {
    /// The text that is read.
    pub source: String,
    /// The text that is written.
    pub target: String,
}

/// A text and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTarget {
    /// The text that is read.
    pub source: String,
    /// The text that is written.
    pub target: String,
}

impl Default for Seq2SeqFields {
    fn default() -> Self {
        Self { source: "source".into(), target: "target".into() }
    }
}

impl Shape for Seq2SeqFields {
    type Example = SourceTarget;

    fn read(&self, row: &Row) -> Result<SourceTarget, RowError> {
        let [source, target] = [&self.source, &self.target].map(|field| row.some_text(field));
        Ok(SourceTarget { source: source?.to_owned(), target: target?.to_owned() })
    }

    /// Of two languages, the first in the row is the source.
    fn guess(row: &Row) -> Option<Self> {
        const PAIRS: [(&[&str], &[&str]); 3] = [
            (&["source"], &["target"]),
            (&["document", "article", "dialogue", "text"], &["summary", "highlights"]),
            (&["input", "input_text"], &["output", "target", "target_text"]),
        ];
        if let Some(Value::Object(languages)) = row.find("translation") {
            let languages = languages.keys().map(|language| format!("translation.{language}")).collect();
            return pair(languages);
        }
        let named = PAIRS.iter().find_map(|(source, target)| {
            Some(Self { source: first_text(row, source)?, target: first_text(row, target)? })
        });
        let is_text = |name: &&str| row.find(name).is_some_and(Value::is_string);
        let languages = row.names().filter(|name| LANGUAGES.contains(name)).filter(is_text);
        named.or_else(|| pair(languages.map(str::to_owned).collect()))
    }
}

fn pair(names: Vec<String>) -> Option<Seq2SeqFields> {
    let [source, target] = <[String; 2]>::try_from(names).ok()?;
    Some(Seq2SeqFields { source, target })
}

/// Codes of languages that are names of columns: ISO 639-1, without `id`, which names rows more often than Indonesian.
const LANGUAGES: [&str; 60] = [
    "af", "ar", "az", "be", "bg", "bn", "bs", "ca", "cs", "cy", "da", "de", "el", "en", "eo", "es", "et",
    "eu", "fa", "fi", "fr", "ga", "gl", "gu", "he", "hi", "hr", "hu", "hy", "is", "it", "ja", "ka", "kk",
    "ko", "la", "lt", "lv", "mk", "mn", "ms", "mt", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sq",
    "sr", "sv", "sw", "ta", "th", "tr", "uk", "vi", "zh",
];
