//! Fill in the middle: documents rearranged so that a causal model learns to write what stands between two parts of a text.
//!
//! Source: Bavarian et al. 2022, "Efficient Training of Language Models to Fill in the Middle",
//! <https://arxiv.org/abs/2207.14255>.

use super::{Causal, CollateWindows, Sample};
use crate::batch::HostBatch;
use crate::seed::Seed;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// How documents are rearranged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FillInTheMiddle {
    /// The control tokens.
    pub tokens: MiddleTokens,
    /// Share of the documents that are rearranged; 0.5 is usual.
    pub rate: f32,
    /// Share of those whose suffix comes first; 0.5 is usual.
    pub suffix_first: f32,
}

/// Collates windows for next-token prediction, with some of their documents rearranged to fill in the middle.
///
/// # Example
/// ```
/// use andiron_data::collate::{Causal, CausalInTheMiddle, CollateWindows as _, FillInTheMiddle, MiddleTokens, Sample};
/// use andiron_data::Seed;
/// let tokens = MiddleTokens { prefix: 1, middle: 2, suffix: 3 };
/// let transform = FillInTheMiddle { tokens, rate: 1.0, suffix_first: 0.0 };
/// let collator = CausalInTheMiddle { causal: Causal { columns: 8, pad: 0 }, transform, end: 0 };
/// let batch = collator.collate(&[Sample { data: vec![10, 11, 12, 13], seed: Seed::new(1) }]);
/// assert_eq!((batch.inputs.ids[0], batch.n_targets()), (1, 6));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CausalInTheMiddle {
    /// Positions in a row, and the padding id.
    pub causal: Causal,
    /// How documents are rearranged.
    pub transform: FillInTheMiddle,
    /// The id that ends a document.
    pub end: u32,
}

/// The control tokens of the three parts ([`Tokenizer::middle_tokens`](crate::Tokenizer::middle_tokens)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MiddleTokens {
    /// Before the prefix.
    pub prefix: u32,
    /// Before the middle.
    pub middle: u32,
    /// Before the suffix.
    pub suffix: u32,
}

/// The order of a document's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MiddleOrder {
    /// Prefix, suffix, middle (PSM): `<prefix> … <suffix> … <middle> …`.
    PrefixFirst,
    /// Suffix, prefix, middle (SPM): `<prefix> <suffix> … <middle> … …`. The middle follows the prefix without a token between
    /// them, as in the paper's joint training.
    SuffixFirst,
}

impl MiddleTokens {
    /// The parts of a document in an order.
    pub fn arrange(&self, [prefix, middle, suffix]: [&[u32]; 3], order: MiddleOrder) -> Vec<u32> {
        let Self { prefix: before_prefix, middle: before_middle, suffix: before_suffix } = *self;
        match order {
            MiddleOrder::PrefixFirst => {
                [&[before_prefix], prefix, &[before_suffix], suffix, &[before_middle], middle].concat()
            }
            MiddleOrder::SuffixFirst => {
                [&[before_prefix, before_suffix], suffix, &[before_middle], prefix, middle].concat()
            }
        }
    }
}

impl FillInTheMiddle {
    /// Two cuts, each uniform in `0..=n`, that divide a text of `n` pieces, and the order of its parts. `None` if it stays as
    /// it is.
    fn cuts(&self, n: usize, seed: Seed) -> Option<([usize; 2], MiddleOrder)> {
        if n == 0 || seed.uniform(0) >= self.rate {
            return None;
        }
        let mut cuts = [1, 2].map(|draw| seed.below(draw, n as u64 + 1) as usize);
        cuts.sort_unstable();
        let suffix_first = seed.uniform(3) < self.suffix_first;
        Some((cuts, if suffix_first { MiddleOrder::SuffixFirst } else { MiddleOrder::PrefixFirst }))
    }

    /// A document's ids, cut between tokens and rearranged, or as they are.
    pub fn rearrange(&self, ids: &[u32], seed: Seed) -> Vec<u32> {
        match self.cuts(ids.len(), seed) {
            Some(([from, to], order)) => {
                self.tokens.arrange([&ids[..from], &ids[from..to], &ids[to..]], order)
            }
            None => ids.to_vec(),
        }
    }

    /// The ids of a document, cut between characters and rearranged, or as they are.
    ///
    /// As in the paper, each part is encoded by itself: a model that is later asked in the middle of a word has seen such
    /// texts.
    ///
    /// # Errors
    /// As for [`Tokenizer::encode`].
    pub fn encode(&self, tokenizer: &Tokenizer, text: &str, seed: Seed) -> Result<Vec<u32>, TokenizerError> {
        let Some((cuts, order)) = self.cuts(text.chars().count(), seed) else {
            return tokenizer.encode(text);
        };
        let byte = |cut: usize| text.char_indices().nth(cut).map_or(text.len(), |(at, _)| at);
        let [from, to] = cuts.map(byte);
        let encode = |part: &str| tokenizer.encode(part);
        let (prefix, middle, suffix) =
            (encode(&text[..from])?, encode(&text[from..to])?, encode(&text[to..])?);
        Ok(self.tokens.arrange([&prefix, &middle, &suffix], order))
    }
}

impl CollateWindows for CausalInTheMiddle {
    fn window(&self) -> usize {
        self.causal.window()
    }

    fn stride(&self) -> usize {
        self.causal.stride()
    }

    /// The documents, or parts of documents, of each window are rearranged one by one. The control tokens make a window longer:
    /// what exceeds it is cut off.
    fn collate(&self, windows: &[Sample<Vec<u32>>]) -> HostBatch {
        let rows: Vec<Vec<u32>> = windows
            .iter()
            .map(|Sample { data, seed }| {
                let mut row = Vec::with_capacity(data.len());
                for (number, document) in (0..).zip(data.split_inclusive(|&id| id == self.end)) {
                    let text = document.strip_suffix(&[self.end]).unwrap_or(document);
                    row.extend(self.transform.rearrange(text, seed.at(number)));
                    row.extend_from_slice(&document[text.len()..]);
                }
                row.truncate(self.window());
                row
            })
            .collect();
        self.causal.batch(&rows)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collate::testing::samples;
    use crate::tokenizer::{Special, SpecialTokens, train_chars};

    const TOKENS: MiddleTokens = MiddleTokens { prefix: 1, middle: 2, suffix: 3 };

    fn transform(rate: f32, suffix_first: f32) -> FillInTheMiddle {
        FillInTheMiddle { tokens: TOKENS, rate, suffix_first }
    }

    fn collator(rate: f32) -> CausalInTheMiddle {
        CausalInTheMiddle { causal: Causal { columns: 15, pad: 9 }, transform: transform(rate, 0.5), end: 0 }
    }

    /// The text that was rearranged.
    fn restored(ids: &[u32]) -> Vec<u32> {
        let at = |token: u32| ids.iter().position(|&id| id == token);
        let (Some(prefix), Some(middle), Some(suffix)) = (at(1), at(2), at(3)) else { return ids.to_vec() };
        let [first, second] = [&ids[suffix + 1..middle], &ids[middle + 1..]];
        [&ids[prefix + 1..suffix], second, first].concat()
    }

    #[test]
    fn parts_stand_in_both_orders() {
        let parts = [&[10, 11][..], &[12], &[13, 14]];
        assert_eq!(TOKENS.arrange(parts, MiddleOrder::PrefixFirst), [1, 10, 11, 3, 13, 14, 2, 12]);
        assert_eq!(TOKENS.arrange(parts, MiddleOrder::SuffixFirst), [1, 3, 13, 14, 2, 10, 11, 12]);
    }

    #[test]
    fn documents_of_a_window_are_rearranged_one_by_one() {
        let window = [10, 11, 0, 12, 13, 14, 0, 15, 16, 17];
        let batch = collator(1.0).collate(&samples([window.to_vec(), Vec::new()]));
        let labels = &batch.token_labels().unwrap().ids[..15];
        let row: Vec<u32> = std::iter::once(batch.inputs.ids[0]).chain(labels.iter().copied()).collect();
        let documents: Vec<Vec<u32>> = row.split(|&id| id == 0).map(restored).collect();
        assert_eq!(documents[..2], [vec![10, 11], vec![12, 13, 14]]);
        assert_eq!(row.len(), 16);
        let unchanged = collator(0.0).collate(&samples([window.to_vec(), Vec::new()]));
        assert_eq!(unchanged, Causal { columns: 15, pad: 9 }.batch(&[&window[..], &[]]));
    }

    #[test]
    fn rates_are_kept() {
        let cuts = (0..10_000).map(|seed| transform(0.3, 0.25).cuts(50, Seed::new(seed)));
        let found: Vec<_> = cuts.flatten().collect();
        assert!((2800..3200).contains(&found.len()), "{}", found.len());
        let first = found.iter().filter(|(_, order)| *order == MiddleOrder::SuffixFirst).count();
        assert!((600..900).contains(&first), "{first}");
        // Mean of the smaller and of the larger of two uniform numbers.
        let mean = |which: usize| {
            found.iter().map(|(cuts, _)| cuts[which]).sum::<usize>() as f64 / found.len() as f64
        };
        assert!((mean(0) - 50.0 / 3.0).abs() < 1.0 && (mean(1) - 100.0 / 3.0).abs() < 1.0);
    }

    #[test]
    fn characters_of_a_text_are_divided_too() {
        let text = "fn né() { 1 }";
        let special = SpecialTokens {
            additional: ["<fim_prefix>", "<fim_middle>", "<fim_suffix>"].map(str::to_owned).to_vec(),
            ..SpecialTokens::default()
        };
        let tokenizer = train_chars([text], &special).unwrap();
        let tokens = tokenizer.middle_tokens().unwrap();
        assert_eq!(tokenizer.id_to_token(tokens.middle).as_deref(), Some("<fim_middle>"));
        let transform = FillInTheMiddle { tokens, rate: 1.0, suffix_first: 0.0 };
        for seed in 0..20 {
            let ids = transform.encode(&tokenizer, text, Seed::new(seed)).unwrap();
            let spelled = tokenizer.decode(&ids, Special::Keep).unwrap();
            let (prefix, rest) =
                spelled.strip_prefix("<fim_prefix>").unwrap().split_once("<fim_suffix>").unwrap();
            let (suffix, middle) = rest.split_once("<fim_middle>").unwrap();
            assert_eq!([prefix, middle, suffix].concat(), text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn parts_are_reassembled(ids in prop::collection::vec(10u32..99, 0..30), seed: u64, rate in 0.0f32..1.0) {
            prop_assert_eq!(restored(&transform(rate, 0.5).rearrange(&ids, Seed::new(seed))), ids);
        }
    }
}
