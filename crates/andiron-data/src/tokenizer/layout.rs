//! The layouts in which a directory can store a tokenizer, and the files of each.

use std::path::Path;

use andiron_files::is_there;

use super::files::{CONFIG, SPECIAL, TEMPLATE, TOKENIZER};
use super::marian::{SOURCE, TARGET, VOCABULARY};
use super::vocab_files::{ADDED, MERGES, PAIRS, WORDS};
use super::{Tokenizer, TokenizerError};

/// How a directory stores a tokenizer. If it has the files of several layouts, the first one here is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `tokenizer.json`.
    Json,
    /// Marian: a vocabulary and two SentencePiece models.
    Marian,
    /// BERT: `vocab.txt`.
    Words,
    /// Byte-level BPE: `vocab.json` and `merges.txt`.
    Merges,
}

impl Layout {
    /// The layout of a directory; `None` if no layout has all its files there.
    pub(super) fn of(dir: &Path) -> Result<Option<Self>, TokenizerError> {
        for layout in [Self::Json, Self::Marian, Self::Words, Self::Merges] {
            if layout.is_in(dir)? {
                return Ok(Some(layout));
            }
        }
        Ok(None)
    }

    fn is_in(self, dir: &Path) -> Result<bool, TokenizerError> {
        for name in self.files() {
            if !has_file(dir, name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The files that must be there.
    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Json => &[TOKENIZER],
            Self::Marian => &[VOCABULARY, SOURCE, TARGET],
            Self::Words => &[WORDS],
            Self::Merges => &[PAIRS, MERGES],
        }
    }
}

fn has_file(dir: &Path, name: &str) -> Result<bool, TokenizerError> {
    let path = dir.join(name);
    is_there(&path).map_err(|source| TokenizerError::Read { path, source })
}

impl Tokenizer {
    /// Names of the files in which a tokenizer and its settings are stored. A directory has some of them.
    pub const FILES: &[&str] =
        &[TOKENIZER, VOCABULARY, SOURCE, TARGET, WORDS, MERGES, ADDED, CONFIG, SPECIAL, TEMPLATE];

    /// The files of `dir` that define its tokenizer's ids: `tokenizer.json`, or else those of Marian, BERT or byte-level BPE.
    /// If there is no tokenizer, `tokenizer.json` alone, so that reading it reports what is missing.
    ///
    /// # Errors
    /// [`TokenizerError::Read`] if it cannot be determined whether a file exists.
    pub fn vocabulary_files(dir: &Path) -> Result<Vec<&'static str>, TokenizerError> {
        let layout = Layout::of(dir)?.unwrap_or(Layout::Json);
        let mut files = layout.files().to_vec();
        if matches!(layout, Layout::Words | Layout::Merges) && has_file(dir, ADDED)? {
            files.push(ADDED);
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files: &[&str], expected: Option<Layout>, vocabulary: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        for name in files {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(Layout::of(dir.path()).unwrap(), expected);
        assert_eq!(Tokenizer::is_in(dir.path()), expected.is_some());
        assert_eq!(Tokenizer::vocabulary_files(dir.path()).unwrap(), vocabulary);
        assert!(vocabulary.iter().all(|name| Tokenizer::FILES.contains(name)));
    }

    #[test]
    fn a_directory_has_the_first_layout_whose_files_are_there() {
        check(Tokenizer::FILES, Some(Layout::Json), &["tokenizer.json"]);
        let marian = ["vocab.json", "source.spm", "target.spm"];
        check(&marian, Some(Layout::Marian), &marian);
        check(&["vocab.txt", "added_tokens.json"], Some(Layout::Words), &["vocab.txt", "added_tokens.json"]);
        check(&["merges.txt", "vocab.json"], Some(Layout::Merges), &["vocab.json", "merges.txt"]);
    }

    #[test]
    fn half_a_tokenizer_is_none() {
        for files in [&["vocab.json", "source.spm"][..], &["merges.txt"], &["tokenizer_config.json"], &[]] {
            check(files, None, &["tokenizer.json"]);
        }
    }
}
