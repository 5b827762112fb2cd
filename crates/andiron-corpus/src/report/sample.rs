//! A few of many: the same ones whatever the order in which they come.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Characters of a text that are kept.
pub(super) const MAX_TEXT: usize = 800;

/// A document that was removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// The step that removed it.
    pub step: String,
    /// Why.
    pub reason: String,
    /// The document's id.
    pub id: String,
    /// The number that the rule looked at, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// The document of which it is a duplicate, or whatever else there is to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The beginning of its text.
    pub text: String,
}

/// For each step and reason a few documents, drawn by the hash of their ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Samples {
    per_reason: usize,
    drawn: BTreeMap<String, BTreeMap<String, BTreeMap<u64, Example>>>,
}

impl Samples {
    /// At most so many for each reason.
    pub fn new(per_reason: usize) -> Self {
        Self { per_reason, drawn: BTreeMap::new() }
    }

    /// Offers a document that was removed; of its text the beginning is kept.
    pub fn add(&mut self, example: Example) {
        let hash = blake3::hash(example.id.as_bytes());
        let rank = hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        self.draw(rank, example);
    }

    /// Adds the documents that others drew.
    pub fn merge(&mut self, other: Self) {
        let reasons = other.drawn.into_values().flat_map(BTreeMap::into_values);
        reasons.flatten().for_each(|(rank, example)| self.draw(rank, example));
    }

    /// The documents, by step and reason.
    pub fn into_examples(self) -> Vec<Example> {
        let reasons = self.drawn.into_values().flat_map(BTreeMap::into_values);
        reasons.flat_map(BTreeMap::into_values).collect()
    }

    fn draw(&mut self, rank: u64, mut example: Example) {
        let reasons = self.drawn.entry(example.step.clone()).or_default();
        let drawn = reasons.entry(example.reason.clone()).or_default();
        if drawn.len() >= self.per_reason && drawn.last_key_value().is_none_or(|(last, _)| rank > *last) {
            return;
        }
        if let Some((end, _)) = example.text.char_indices().nth(MAX_TEXT) {
            example.text.truncate(end);
            example.text.push('…');
        }
        // Of two documents of one id, which no order tells apart, the text does.
        match drawn.entry(rank) {
            std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(example)),
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                if example.text < entry.get().text {
                    entry.insert(example);
                }
            }
        }
        if drawn.len() > self.per_reason {
            drawn.pop_last();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(id: u32) -> Example {
        let reason = if id.is_multiple_of(3) { "short" } else { "long" };
        Example {
            step: "length".into(),
            reason: reason.into(),
            id: id.to_string(),
            text: "ä".repeat(id as usize),
            ..Example::default()
        }
    }

    #[test]
    fn the_sample_depends_neither_on_order_nor_on_division() {
        let sample = |ids: &mut dyn Iterator<Item = u32>| {
            let mut samples = Samples::new(3);
            ids.for_each(|id| samples.add(example(id)));
            samples
        };
        let one = sample(&mut (0..1000));
        let mut other = sample(&mut (0..500).rev());
        other.merge(sample(&mut (500..1000)));
        assert_eq!(other, one);
        let examples = one.into_examples();
        assert_eq!(examples.len(), 6);
        assert_eq!(examples.iter().filter(|example| example.reason == "short").count(), 3);
        assert!(examples.iter().all(|example| example.text.chars().count() <= MAX_TEXT + 1));
    }
}
