//! N-grams that may not repeat.

use std::collections::HashMap;

use super::super::repeats::for_each_repeat;
use super::{LogitsProcessor, Place, Scores};

/// Masks ids that would repeat an n-gram of the prompt and the generated ids.
///
/// Source: `NoRepeatNGramLogitsProcessor` of Hugging Face transformers.
#[derive(Debug)]
pub(super) struct NoRepeatNGram(usize);

impl NoRepeatNGram {
    pub(super) fn new(size: usize) -> Option<Self> {
        (size > 0).then_some(Self(size))
    }
}

impl LogitsProcessor for NoRepeatNGram {
    fn process(&self, at: Place<'_>, scores: &mut Scores<'_>) {
        // The only id that a grammar allows may repeat.
        if !scores.leaves_no_choice() {
            for_each_repeat(at.ids, self.0, |id| scores.mask(id));
        }
    }
}

/// Masks ids that would complete an n-gram of the source.
///
/// Source: `EncoderNoRepeatNGramLogitsProcessor` of Hugging Face transformers.
#[derive(Debug)]
pub(super) struct EncoderNoRepeatNGram {
    before: usize,
    /// For each (n − 1)-gram of the source, the ids that follow it.
    next: HashMap<Vec<u32>, Vec<u32>>,
}

impl EncoderNoRepeatNGram {
    pub(super) fn new(size: Option<usize>, source: &[u32]) -> Option<Self> {
        let size = size.filter(|&size| size > 0)?;
        let before = size - 1;
        let mut next: HashMap<Vec<u32>, Vec<u32>> = HashMap::new();
        for gram in source.windows(size) {
            next.entry(gram[..before].to_vec()).or_default().push(gram[before]);
        }
        Some(Self { before, next })
    }
}

impl LogitsProcessor for EncoderNoRepeatNGram {
    fn process(&self, at: Place<'_>, scores: &mut Scores<'_>) {
        let Some(start) = at.ids.len().checked_sub(self.before) else { return };
        for &id in self.next.get(&at.ids[start..]).into_iter().flatten() {
            scores.mask(id);
        }
    }
}
