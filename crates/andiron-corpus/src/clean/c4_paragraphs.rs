//! mC4's rule of paragraphs.

use andiron_data::Document;
use serde::{Deserialize, Serialize};

use super::characters::count_characters;
use super::{Filter, Removal, Verdict};

/// Removes documents without enough long lines; reason `too-few-paragraphs`, the score is the number of long lines.
///
/// Source: Xue et al. 2021, "mT5: A massively multilingual pre-trained text-to-text transformer", section 3.1,
/// <https://arxiv.org/abs/2010.11934>; decisions as in datatrove 0.10.1, `C4ParagraphFilter`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct C4Paragraphs {
    /// Long lines, at least.
    pub min_paragraphs: usize,
    /// Characters of a long line, at least.
    pub min_length: usize,
}

impl Default for C4Paragraphs {
    fn default() -> Self {
        Self { min_paragraphs: 3, min_length: 200 }
    }
}

impl Filter for C4Paragraphs {
    fn apply(&self, document: &mut Document) -> Verdict {
        let lines = document.text.split('\n');
        let long = lines.filter(|line| {
            line.len() >= self.min_length && count_characters(line.as_bytes()) >= self.min_length
        });
        let long = long.count();
        if long < self.min_paragraphs {
            return Verdict::Remove(Removal { reason: "too-few-paragraphs", score: Some(long as f64) });
        }
        Verdict::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen in datatrove 0.10.1.
    #[test]
    fn three_long_lines_are_needed() {
        let verdict = |text: String| C4Paragraphs::default().apply(&mut Document::new("a", text));
        let long = "é".repeat(200);
        assert_eq!(verdict([long.as_str(); 3].join("\n")), Verdict::Keep);
        let short = format!("{long}\n{long}\n{}", "é".repeat(199));
        assert_eq!(
            verdict(short),
            Verdict::Remove(Removal { reason: "too-few-paragraphs", score: Some(2.0) })
        );
    }
}
