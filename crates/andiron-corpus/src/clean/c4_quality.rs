//! C4's rules of quality.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, MatchKind};
use andiron_data::Document;
use serde::{Deserialize, Serialize};

use super::characters::{CHARACTERS, Classes, count_characters, is_space, strip};
use super::lines::split_lines;
use super::words::WordSplit;
use super::{Filter, FilterError, Removal, Verdict};

/// Keeps the lines of a document that look like sentences, and removes documents with too few of them, with placeholder text
/// or with code.
///
/// A line goes if a word is too long, if it does not end in `.`, `?`, `!`, `"` or `'` or ends in `...`, if it has too few words,
/// or if it speaks of JavaScript, cookies or terms of use. A document goes if a line that is left has `lorem ipsum` or `{`,
/// reasons `lorem-ipsum` and `curly-bracket`, or if too few sentences are left, reason `too-few-sentences`. The lines that stay
/// are joined by `\n`. By [`sentences`](C4Unit::Sentences), all of this holds of sentences instead, which are joined by a space.
///
/// Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", section
/// 2.2, <https://jmlr.org/papers/v21/20-074.html>; decisions as in datatrove 0.10.1, `filters/c4_filters.py`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct C4Quality {
    /// Whether citations such as `[12]`, `[edit]` and `[citation needed]` are cut out.
    pub remove_citations: bool,
    /// Whether lines without a final punctuation mark go.
    pub require_terminal_punctuation: bool,
    /// Sentences in the lines that are left, at least; 0: any number.
    pub min_sentences: usize,
    /// Words in a line, separated by white space, at least.
    pub min_words_per_line: usize,
    /// Characters in the longest word of a line, at most; 0: any number.
    pub max_word_length: usize,
    /// Whether documents with `lorem ipsum` go.
    pub remove_lorem_ipsum: bool,
    /// Whether lines with `javascript` go.
    pub remove_javascript: bool,
    /// Whether documents with `{` go.
    pub remove_curly_brackets: bool,
    /// Whether lines about cookies, privacy policies and terms of use go.
    pub remove_policies: bool,
    /// How sentences are found.
    pub words: WordSplit,
    /// What is kept or goes: lines, as in C4, or sentences.
    pub by: C4Unit,
}

/// What [`C4Quality`] looks at one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum C4Unit {
    /// Lines.
    #[default]
    Lines,
    /// Sentences, also those that go over several lines: datatrove's `split_paragraph=False`.
    Sentences,
}

impl Default for C4Quality {
    fn default() -> Self {
        Self {
            remove_citations: true,
            require_terminal_punctuation: true,
            min_sentences: 5,
            min_words_per_line: 3,
            max_word_length: 1000,
            remove_lorem_ipsum: true,
            remove_javascript: true,
            remove_curly_brackets: true,
            remove_policies: true,
            words: WordSplit::English,
            by: C4Unit::Lines,
        }
    }
}

/// What is looked for in a line, in the order of [`Found`].
const PHRASES: [&str; 9] = [
    "lorem ipsum",
    "javascript",
    "{",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
];

/// A [`C4Quality`] that is ready to run.
pub(super) struct C4QualityFilter {
    settings: C4Quality,
    phrases: AhoCorasick,
}

impl C4QualityFilter {
    pub(super) fn new(settings: C4Quality) -> Result<Self, FilterError> {
        let phrases = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(PHRASES)
            .map_err(|error| FilterError { filter: "c4-quality", problem: error.to_string() })?;
        Ok(Self { settings, phrases })
    }
}

impl Filter for C4QualityFilter {
    fn apply(&self, document: &mut Document) -> Verdict {
        let mut left = Left { text: String::with_capacity(document.text.len()), lines: 0, sentences: 0 };
        let text = &document.text;
        let removed = match self.settings.by {
            C4Unit::Lines => split_lines(text).find_map(|line| self.take(line, &mut left)),
            C4Unit::Sentences => {
                let mut removed = None;
                self.settings.words.for_each_sentence(text, |sentence| {
                    if removed.is_none() && !strip(sentence).is_empty() {
                        removed = self.take(sentence, &mut left);
                    }
                });
                removed
            }
        };
        if let Some(reason) = removed {
            return Verdict::Remove(Removal { reason, score: None });
        }
        let Left { text: kept, sentences, .. } = left;
        if sentences < self.settings.min_sentences {
            return Verdict::Remove(Removal { reason: "too-few-sentences", score: Some(sentences as f64) });
        }
        let stripped = strip(&kept);
        document.text = if stripped.len() == kept.len() { kept } else { stripped.to_owned() };
        Verdict::Keep
    }
}

enum Line<'t> {
    Keep(Cow<'t, str>),
    Remove,
    RemoveDocument(&'static str),
}

/// What is left of a document.
struct Left {
    text: String,
    lines: usize,
    sentences: usize,
}

impl C4QualityFilter {
    /// Takes a line or sentence into what is left, unless it goes. Says why the document goes, if it does.
    fn take(&self, line: &str, left: &mut Left) -> Option<&'static str> {
        match self.judge(line) {
            Line::Keep(line) => {
                let (between, sentences) = match self.settings.by {
                    C4Unit::Lines if self.settings.min_sentences == 0 => ('\n', 0),
                    C4Unit::Lines => ('\n', self.settings.words.count_sentences(&line)),
                    C4Unit::Sentences => (' ', 1),
                };
                if left.lines > 0 {
                    left.text.push(between);
                }
                left.lines += 1;
                left.sentences += sentences;
                left.text.push_str(&line);
                None
            }
            Line::Remove => None,
            Line::RemoveDocument(reason) => Some(reason),
        }
    }

    fn judge<'t>(&self, line: &'t str) -> Line<'t> {
        let settings = &self.settings;
        let line = strip(line);
        let (words, longest) = count_words(line, settings.max_word_length);
        if settings.max_word_length > 0 && longest > settings.max_word_length {
            return Line::Remove;
        }
        let line = if settings.remove_citations { without_citations(line) } else { Cow::Borrowed(line) };
        if settings.require_terminal_punctuation
            && (!line.ends_with(['.', '?', '!', '"', '\'']) || line.ends_with("..."))
        {
            return Line::Remove;
        }
        if words < settings.min_words_per_line {
            return Line::Remove;
        }
        let found = self.find(&line);
        if settings.remove_lorem_ipsum && found.lorem_ipsum {
            return Line::RemoveDocument("lorem-ipsum");
        }
        if settings.remove_javascript && found.javascript {
            return Line::Remove;
        }
        if settings.remove_curly_brackets && found.curly_bracket {
            return Line::RemoveDocument("curly-bracket");
        }
        if settings.remove_policies && found.policy {
            return Line::Remove;
        }
        Line::Keep(line)
    }

    fn find(&self, line: &str) -> Found {
        let mut found = Found::default();
        // `K`, the kelvin sign, is the one character beyond ASCII whose lower case is a letter of the phrases.
        let kelvin = line.contains('\u{212a}').then(|| line.replace('\u{212a}', "k"));
        for phrase in self.phrases.find_overlapping_iter(kelvin.as_deref().unwrap_or(line)) {
            match phrase.pattern().as_usize() {
                0 => found.lorem_ipsum = true,
                1 => found.javascript = true,
                2 => found.curly_bracket = true,
                _ => found.policy = true,
            }
        }
        found
    }
}

#[derive(Default)]
struct Found {
    lorem_ipsum: bool,
    javascript: bool,
    curly_bracket: bool,
    policy: bool,
}

/// Words between white space, and the characters of the longest, which is exact where it is above `bound`.
fn count_words(line: &str, bound: usize) -> (usize, usize) {
    let (mut words, mut longest) = (0, 0);
    for word in line.split(is_space).filter(|word| !word.is_empty()) {
        words += 1;
        if word.len() > bound {
            longest = longest.max(count_characters(word.as_bytes()));
        }
    }
    (words, longest)
}

/// The line without `[`, digits, `]`; `[edit]`; `[citation needed]`.
fn without_citations(line: &str) -> Cow<'_, str> {
    let mut kept: Option<String> = None;
    let mut from = 0;
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'[', &line.as_bytes()[at..]) {
        let open = at + found;
        let rest = &line[open + 1..];
        let digits = rest.trim_start_matches(|c: char| CHARACTERS.is(c, Classes::DIGIT));
        let length = if digits.starts_with(']') {
            Some(rest.len() - digits.len() + 2)
        } else {
            ["edit]", "citation needed]"]
                .into_iter()
                .find(|end| rest.starts_with(end))
                .map(|end| end.len() + 1)
        };
        match length {
            Some(length) => {
                kept.get_or_insert_default().push_str(&line[from..open]);
                at = open + length;
                from = at;
            }
            // The digits were looked at; none of them begins another citation.
            None => at = open + 1 + (rest.len() - digits.len()),
        }
    }
    match kept {
        None => Cow::Borrowed(line),
        Some(mut kept) => {
            kept.push_str(&line[from..]);
            Cow::Owned(kept)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that is left, or the reason.
    fn apply(text: &str) -> Result<String, &'static str> {
        let mut document = Document::new("a", text);
        match C4QualityFilter::new(C4Quality::default()).unwrap().apply(&mut document) {
            Verdict::Keep => Ok(document.text),
            Verdict::Remove(removal) => Err(removal.reason),
        }
    }

    // Every verdict was seen in datatrove 0.10.1 with spaCy 3.8.18.
    #[test]
    fn lines_and_documents_go_as_in_datatrove() {
        let lines = "This is a line of text.\n".repeat(5);
        assert_eq!(apply(&lines).as_deref(), Ok(lines.trim()));
        assert_eq!(apply(&lines[24..]), Err("too-few-sentences"));
        assert_eq!(
            apply("One. Two! Three?\r\nOne. Two! Three?").as_deref(),
            Ok("One. Two! Three?\nOne. Two! Three?")
        );
        let others = [
            "No mark here",
            "Too few.",
            "And so on...",
            "See [12] this[edit] now[citation needed].",
            "We use JavaScript here.",
            "We use cookies on this site.",
            &("x".repeat(1001) + " is a word."),
        ];
        assert_eq!(apply(&(lines.clone() + &others.join("\n"))), Ok(lines.clone() + "See  this now."));
        assert_eq!(apply(&(lines.clone() + "This has Lorem Ipsum in it.")), Err("lorem-ipsum"));
        assert_eq!(apply(&(lines.clone() + "This has a { in it.")), Err("curly-bracket"));
    }

    // The text that is left was seen in datatrove 0.10.1 with `split_paragraph=False`.
    #[test]
    fn sentences_are_looked_at_instead_of_lines() {
        let settings = C4Quality { by: C4Unit::Sentences, min_sentences: 2, ..C4Quality::default() };
        let mut document = Document::new(
            "a",
            "This goes over\ntwo lines.  Short one. We use JavaScript here. The last one stays! No mark here",
        );
        let verdict = C4QualityFilter::new(settings).unwrap().apply(&mut document);
        assert_eq!(
            (verdict, &*document.text),
            (Verdict::Keep, "This goes over\ntwo lines. The last one stays!")
        );
    }

    #[test]
    fn citations_are_cut_out() {
        assert_eq!(without_citations("a[1] b[] [x] [12 [٣][edit]"), "a b [x] [12 ");
        assert!(matches!(without_citations("none [here"), Cow::Borrowed(_)));
    }
}
