//! Lines of nothing but symbols.

use andiron_data::Document;
use serde::{Deserialize, Serialize};

use super::characters::{CHARACTERS, Classes, strip};
use super::lines::split_lines;
use super::{Filter, Verdict};

/// Removes lines of punctuation, such as `-----` and `* * *`. Empty lines stay; other line ends become `\n`.
///
/// Source: datatrove 0.10.1, `formatters/symbol_lines_remover.py`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SymbolLines {
    /// A line that stands for each run of removed lines; none if empty.
    pub replacement: String,
}

impl Filter for SymbolLines {
    fn apply(&self, document: &mut Document) -> Verdict {
        let mut text = String::with_capacity(document.text.len());
        let (mut in_run, mut first) = (false, true);
        for line in split_lines(&document.text) {
            let symbols = is_symbols(line);
            let kept = if !symbols {
                Some(line)
            } else if !in_run && !self.replacement.is_empty() {
                Some(&*self.replacement)
            } else {
                None
            };
            in_run = symbols;
            if let Some(kept) = kept {
                if !first {
                    text.push('\n');
                }
                first = false;
                text.push_str(kept);
            }
        }
        document.text = text;
        Verdict::Keep
    }
}

fn is_symbols(line: &str) -> bool {
    line.chars().all(|c| c == ' ' || CHARACTERS.is(c, Classes::NO_WORD)) && !strip(line).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen in datatrove 0.10.1.
    #[test]
    fn lines_of_symbols_go() {
        let apply = |replacement: &str, text: &str| {
            let mut document = Document::new("a", text);
            SymbolLines { replacement: replacement.into() }.apply(&mut document);
            document.text
        };
        assert_eq!(apply("", "a\n-----\n* * *\n\nb -\n!\n"), "a\n\nb -");
        assert_eq!(apply("~", "a\n-----\n* * *\n\nb -\n!\n"), "a\n~\n\nb -\n~");
    }
}
