//! Words that a document must not have.

use std::path::PathBuf;

use aho_corasick::{AhoCorasick, MatchKind};
use andiron_data::Document;
use serde::{Deserialize, Serialize};

use super::characters::{CHARACTERS, Classes};
use super::{Filter, FilterError, Removal, Verdict, read_list};

/// Removes documents with a word or phrase of a list; reason `blocked-word`, the score is the number of times that listed words
/// occur. Upper and lower case are the same.
///
/// No list comes with Andiron; C4 used the "List of Dirty, Naughty, Obscene and Otherwise Bad Words".
///
/// Source: Raffel et al. 2020 (C4), section 2.2, <https://jmlr.org/papers/v21/20-074.html>; decisions as in datatrove 0.10.1,
/// `C4BadWordsFilter`, without its random share of documents that are kept, and with one list for all languages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WordBlocklist {
    /// The words.
    pub words: Vec<String>,
    /// Files of further words, one a line; lines that begin with `#` are comments.
    pub files: Vec<PathBuf>,
    /// Whether a word counts only between characters that are no letters, digits or `_`. Off for Chinese, Japanese and Thai,
    /// which have no spaces.
    pub whole_words: bool,
    /// Occurrences that are allowed.
    pub max_occurrences: usize,
}

impl Default for WordBlocklist {
    fn default() -> Self {
        Self { words: Vec::new(), files: Vec::new(), whole_words: true, max_occurrences: 0 }
    }
}

/// A [`WordBlocklist`] that is ready to run.
pub(super) struct WordBlocklistFilter {
    words: AhoCorasick,
    whole_words: bool,
    max_occurrences: usize,
}

impl WordBlocklistFilter {
    pub(super) fn new(settings: &WordBlocklist) -> Result<Self, FilterError> {
        const NAME: &str = "word-blocklist";
        let mut words = read_list(NAME, &settings.words, &settings.files)?;
        for word in &mut words {
            *word = word.to_lowercase();
        }
        words.sort_unstable();
        words.dedup();
        if words.is_empty() {
            return Err(FilterError { filter: NAME, problem: "no words; give `words` or `files`".into() });
        }
        let words = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(&words)
            .map_err(|error| FilterError { filter: NAME, problem: error.to_string() })?;
        Ok(Self { words, whole_words: settings.whole_words, max_occurrences: settings.max_occurrences })
    }
}

impl Filter for WordBlocklistFilter {
    fn apply(&self, document: &mut Document) -> Verdict {
        let text = document.text.to_lowercase();
        let in_word = |c: Option<char>| c.is_some_and(|c| CHARACTERS.is(c, Classes::WORD));
        let found = self.words.find_overlapping_iter(&text).filter(|found| {
            !self.whole_words
                || !in_word(text[..found.start()].chars().next_back())
                    && !in_word(text[found.end()..].chars().next())
        });
        let count = found.count();
        if count > self.max_occurrences {
            return Verdict::Remove(Removal { reason: "blocked-word", score: Some(count as f64) });
        }
        Verdict::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(settings: &WordBlocklist, text: &str) -> Option<f64> {
        match WordBlocklistFilter::new(settings).unwrap().apply(&mut Document::new("a", text)) {
            Verdict::Keep => None,
            Verdict::Remove(removal) => removal.score,
        }
    }

    #[test]
    fn listed_words_remove_a_document() {
        let list = WordBlocklist { words: vec!["Spam".into(), "buy now".into()], ..WordBlocklist::default() };
        assert_eq!(removed(&list, "No spam, please: SPAM!"), Some(2.0));
        assert_eq!(removed(&list, "spammer, antispam, spam_, spam2"), None);
        assert_eq!(removed(&list, "You can buy now."), Some(1.0));
        assert_eq!(removed(&WordBlocklist { whole_words: false, ..list.clone() }, "spammer"), Some(1.0));
        assert_eq!(removed(&WordBlocklist { max_occurrences: 1, ..list }, "spam"), None);
    }

    #[test]
    fn lists_come_from_files_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("words.txt");
        std::fs::write(&path, "# a comment\nspam\r\n\n").unwrap();
        let list = |path| WordBlocklist { files: vec![path], ..WordBlocklist::default() };
        assert_eq!(removed(&list(path), "# a comment, spam"), Some(1.0));
        let message =
            WordBlocklistFilter::new(&list(directory.path().join("none.txt"))).err().unwrap().to_string();
        assert!(
            message.starts_with("filter word-blocklist: cannot read ") && message.contains("none.txt"),
            "{message}"
        );
        assert!(WordBlocklistFilter::new(&WordBlocklist::default()).is_err());
    }
}
