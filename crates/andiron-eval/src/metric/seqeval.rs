//! Precision, recall and F1 of labelled spans, as seqeval computes them.
//!
//! Values are those of seqeval 1.2.2. Tags are written `B-PER`, `I-PER`, `O` and so on. The default reads spans as
//! `conlleval` does: an `I-` after another type, or after nothing, begins a span too. The strict mode reads IOB2, where
//! only `B-` does.

use std::collections::BTreeMap;

use super::classification::ClassCounts;

/// How tags become spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TagScheme {
    /// Any tags, as in `conlleval`; seqeval's default.
    #[default]
    Lenient,
    /// `B-`, `I-` and `O` only; a span begins at `B-`: seqeval's `mode="strict", scheme=IOB2`.
    StrictIob2,
}

/// A labelled span of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span<'a> {
    /// The type; `_` for tags without one.
    pub label: &'a str,
    /// The first token.
    pub start: usize,
    /// The token after the last one.
    pub end: usize,
}

/// Why tags cannot be compared.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TagError {
    /// A tag that is empty.
    #[error("tag {index} is empty")]
    Empty {
        /// Position of the tag, from 0.
        index: usize,
    },
    /// A tag that is not of the scheme.
    #[error("tag {index} is {tag:?}: IOB2 has tags that begin with B, I and O only")]
    NotIob2 {
        /// Position of the tag, from 0.
        index: usize,
        /// The tag.
        tag: String,
    },
    /// The prediction and the labels are not of the same length.
    #[error("{predicted} tags are predicted where {expected} are expected")]
    Lengths {
        /// Predicted tags.
        predicted: usize,
        /// Tags of the labels.
        expected: usize,
    },
}

/// The spans of a sentence's tags.
///
/// # Errors
/// If a tag is empty, or not of the scheme.
///
/// # Example
/// ```
/// use andiron_eval::metric::seqeval::{TagScheme, spans};
/// let tags = ["I-PER", "I-PER", "I-LOC", "O", "B-LOC"];
/// let found = spans(&tags, TagScheme::Lenient)?;
/// assert_eq!(found.iter().map(|span| (span.label, span.start, span.end)).collect::<Vec<_>>(),
///     [("PER", 0, 2), ("LOC", 2, 3), ("LOC", 4, 5)]);
/// assert_eq!(spans(&tags, TagScheme::StrictIob2)?.len(), 1);
/// # Ok::<(), andiron_eval::metric::seqeval::TagError>(())
/// ```
pub fn spans<S: AsRef<str>>(tags: &[S], scheme: TagScheme) -> Result<Vec<Span<'_>>, TagError> {
    match scheme {
        TagScheme::Lenient => lenient(tags),
        TagScheme::StrictIob2 => iob2(tags),
    }
}

/// Counts of spans by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanCounts(BTreeMap<String, ClassCounts>);

impl SpanCounts {
    /// Adds a sentence.
    ///
    /// # Errors
    /// If the lengths differ, a tag is empty, or a tag is not of the scheme.
    pub fn add<S: AsRef<str>>(
        &mut self,
        predicted: &[S],
        labels: &[S],
        scheme: TagScheme,
    ) -> Result<(), TagError> {
        if predicted.len() != labels.len() {
            return Err(TagError::Lengths { predicted: predicted.len(), expected: labels.len() });
        }
        let (mut predicted, mut expected) = (spans(predicted, scheme)?, spans(labels, scheme)?);
        predicted.sort_unstable();
        expected.sort_unstable();
        for span in &predicted {
            let class = self.class(span.label);
            class.predicted += 1;
            class.correct += u64::from(expected.binary_search(span).is_ok());
        }
        for span in &expected {
            self.class(span.label).support += 1;
        }
        Ok(())
    }

    /// Adds counts of other sentences.
    pub fn merge(&mut self, other: &Self) {
        for (label, counts) in &other.0 {
            let class = self.class(label);
            class.correct += counts.correct;
            class.predicted += counts.predicted;
            class.support += counts.support;
        }
    }

    /// Types and their counts, by name.
    pub fn classes(&self) -> impl Iterator<Item = (&str, ClassCounts)> {
        self.0.iter().map(|(label, counts)| (label.as_str(), *counts))
    }

    fn class(&mut self, label: &str) -> &mut ClassCounts {
        if !self.0.contains_key(label) {
            self.0.insert(label.to_owned(), ClassCounts::default());
        }
        self.0.get_mut(label).expect("it was inserted")
    }
}

/// The first character of a tag, and the rest.
fn split(tag: &str, index: usize) -> Result<(char, &str), TagError> {
    let mut chars = tag.chars();
    let first = chars.next().ok_or(TagError::Empty { index })?;
    Ok((first, chars.as_str()))
}

fn or_none(label: &str) -> &str {
    if label.is_empty() { "_" } else { label }
}

fn lenient<S: AsRef<str>>(tags: &[S]) -> Result<Vec<Span<'_>>, TagError> {
    let mut found = Vec::new();
    let (mut previous, mut label, mut start) = ('O', "", 0);
    for index in 0..=tags.len() {
        let (prefix, rest) = match tags.get(index) {
            Some(tag) => split(tag.as_ref(), index)?,
            // A span ends at the end of its sentence.
            None => ('O', ""),
        };
        let next = or_none(rest.split_once('-').map_or(rest, |(_, label)| label));
        let inside = |tag: char| !matches!(tag, 'O' | '.');
        let changed = label != next;
        let ends = matches!(previous, 'E' | 'S')
            || matches!(previous, 'B' | 'I') && matches!(prefix, 'B' | 'S' | 'O')
            || inside(previous) && changed;
        let begins = matches!(prefix, 'B' | 'S')
            || matches!(previous, 'E' | 'S' | 'O') && matches!(prefix, 'E' | 'I')
            || inside(prefix) && changed;
        if ends {
            found.push(Span { label, start, end: index });
        }
        if begins {
            start = index;
        }
        (previous, label) = (prefix, next);
    }
    Ok(found)
}

fn iob2<S: AsRef<str>>(tags: &[S]) -> Result<Vec<Span<'_>>, TagError> {
    let mut found: Vec<Span> = Vec::new();
    let mut open = false;
    for (index, tag) in tags.iter().enumerate() {
        let (prefix, rest) = split(tag.as_ref(), index)?;
        let label = or_none(rest.trim_matches('-'));
        match (prefix, found.last_mut()) {
            ('B', _) => {
                found.push(Span { label, start: index, end: index + 1 });
                open = true;
            }
            ('I', Some(span)) if open && span.label == label => span.end = index + 1,
            ('I' | 'O', _) => open = false,
            _ => return Err(TagError::NotIob2 { index, tag: tag.as_ref().to_owned() }),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_cannot_be_compared_are_named() {
        let mut counts = SpanCounts::default();
        let error = counts.add(&["O", "E-PER"], &["O", "O"], TagScheme::StrictIob2).unwrap_err();
        assert_eq!(error, TagError::NotIob2 { index: 1, tag: "E-PER".to_owned() });
        assert_eq!(
            counts.add(&["", "O"], &["O", "O"], TagScheme::Lenient),
            Err(TagError::Empty { index: 0 })
        );
        let error = counts.add(&["O"], &["O", "O"], TagScheme::Lenient).unwrap_err();
        assert_eq!(error.to_string(), "1 tags are predicted where 2 are expected");
        assert_eq!(counts, SpanCounts::default());
    }
}
