//! Masked language modeling: some tokens are hidden, and those are predicted.
//!
//! Source: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers", <https://arxiv.org/abs/1810.04805>;
//! whole words as in `transformers`: one draw decides for all tokens of a word.

use std::sync::Arc;

use super::{Around, CollateRecords, CollateWindows, Sample, inputs};
use crate::batch::{HostBatch, Sequences, TokenLabels};
use crate::records::{Record, columns};
use crate::seed::Seed;

/// Collates windows or records for masked language modeling.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use andiron_data::collate::{Around, Masked, Masking};
/// use andiron_data::Seed;
/// let never: Arc<[bool]> = [true, true, true, true].into();
/// let masking = Masking { probability: 0.5, ..Masking::bert(3, 100, never) };
/// let (masked, weights) = masking.apply(&[50, 51, 52, 53], Seed::new(5));
/// for ((id, masked), weight) in (50..54).zip(masked).zip(weights) {
///     assert!(id == masked || weight == 1.0);
/// }
/// let around = Around { before: vec![1], after: vec![2] };
/// let collator = Masked { columns: 8, around, pad: 0, masking };
/// assert_eq!(andiron_data::collate::CollateWindows::window(&collator), 6);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Masked {
    /// Positions in a row of a window, special tokens included. Records are padded to the longest instead.
    pub columns: usize,
    /// Special tokens around a window. Records have theirs already.
    pub around: Around,
    /// The padding id.
    pub pad: u32,
    /// Which tokens are masked.
    pub masking: Masking,
}

/// Which tokens are masked, and what takes their place.
#[derive(Clone, Debug, PartialEq)]
pub struct Masking {
    /// Probability that a token, or a word, is masked: 0.15 in BERT.
    pub probability: f32,
    /// Share of the masked tokens that become [`mask_id`](Self::mask_id): 0.8 in BERT.
    pub mask_share: f32,
    /// Share that become a random token: 0.1 in BERT. The rest stays as it is.
    pub random_share: f32,
    /// The mask token.
    pub mask_id: u32,
    /// Random tokens are drawn from `0..vocab_size`, special tokens included, as in `transformers`.
    pub vocab_size: u32,
    /// For each id, whether it is a special token, which is never masked
    /// ([`Tokenizer::never_masked`](crate::Tokenizer::never_masked)). Ids beyond the table are not.
    pub never: Arc<[bool]>,
    /// For each id, whether it begins a word ([`Tokenizer::word_starts`](crate::Tokenizer::word_starts)): whole words are
    /// masked. `None` masks tokens one by one.
    ///
    /// `transformers` masks whole words with a `mask_share` of 1 only, and takes words to end at white space: `sat.` is one
    /// word there, while in BERT's vocabulary `.` begins a word of its own.
    pub word_starts: Option<Arc<[bool]>>,
}

/// Streams of a row.
const CHOICE: u64 = 0;
const KIND: u64 = 1;
const TOKEN: u64 = 2;

impl Masking {
    /// BERT's masking: 15 %, of which 80 % become the mask token and 10 % a random one.
    pub fn bert(mask_id: u32, vocab_size: u32, never: Arc<[bool]>) -> Self {
        Self {
            probability: 0.15,
            mask_share: 0.8,
            random_share: 0.1,
            mask_id,
            vocab_size,
            never,
            word_starts: None,
        }
    }

    /// The ids with some tokens replaced, and a weight for each position: 1 if its token is to be predicted, else 0.
    ///
    /// No token may be masked at all, as in `transformers`.
    pub fn apply(&self, ids: &[u32], seed: Seed) -> (Vec<u32>, Vec<f32>) {
        let is_in = |table: &[bool], id: u32| table.get(id as usize).copied().unwrap_or(false);
        let (choice, kind, token) = (seed.at(CHOICE), seed.at(KIND), seed.at(TOKEN));
        let mut masked = ids.to_vec();
        let mut weights = vec![0.0; ids.len()];
        let mut word: Option<bool> = None;
        for (at, &id) in ids.iter().enumerate() {
            if is_in(&self.never, id) {
                word = None;
                continue;
            }
            let begins = self.word_starts.as_deref().is_none_or(|starts| is_in(starts, id));
            let chosen = match word {
                Some(chosen) if !begins => chosen,
                _ => choice.uniform(at as u64) < self.probability,
            };
            word = Some(chosen);
            if !chosen {
                continue;
            }
            weights[at] = 1.0;
            let draw = kind.uniform(at as u64);
            if draw < self.mask_share {
                masked[at] = self.mask_id;
            } else if draw < self.mask_share + self.random_share {
                masked[at] = token.below(at as u64, u64::from(self.vocab_size.max(1))) as u32;
            }
        }
        (masked, weights)
    }
}

impl Masked {
    /// The rows, and for each its masked form with its weights.
    fn batch(&self, inputs: Sequences, rows: &[(Vec<u32>, Vec<f32>, Vec<u32>)]) -> HostBatch {
        let labels: Vec<_> = rows.iter().map(|(_, weights, targets)| (targets, weights)).collect();
        let TokenLabels { ids, weights } = TokenLabels::padded_to(&labels, inputs.columns, self.pad);
        let masked: Vec<&[u32]> = rows.iter().map(|(masked, ..)| masked.as_slice()).collect();
        let masked = Sequences::padded_to(&masked, inputs.columns, self.pad);
        HostBatch::tokens(Sequences { ids: masked.ids, ..inputs }, ids, weights)
    }
}

impl CollateWindows for Masked {
    fn window(&self) -> usize {
        self.columns.saturating_sub(self.around.len())
    }

    fn collate(&self, windows: &[Sample<Vec<u32>>]) -> HostBatch {
        let rows: Vec<_> = windows
            .iter()
            .map(|Sample { data, seed }| {
                let (masked, weights) = self.masking.apply(data, *seed);
                let framed = self.around.framed(data);
                let mut all = vec![0.0; framed.len()];
                if let Some(own) =
                    all.get_mut(self.around.before.len()..).and_then(|all| all.get_mut(..data.len()))
                {
                    own.copy_from_slice(&weights);
                }
                (self.around.framed(&masked), all, framed)
            })
            .collect();
        let framed: Vec<&[u32]> = rows.iter().map(|(.., framed)| framed.as_slice()).collect();
        self.batch(Sequences::padded_to(&framed, self.columns, self.pad), &rows)
    }
}

impl CollateRecords for Masked {
    fn collate(&self, records: &[Sample<Record<'_>>]) -> HostBatch {
        let rows: Vec<_> = records
            .iter()
            .map(|Sample { data, seed }| {
                let ids = data.ids(columns::IDS);
                let (masked, weights) = self.masking.apply(ids, *seed);
                (masked, weights, ids.to_vec())
            })
            .collect();
        self.batch(inputs(records, self.pad), &rows)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collate::testing::{of_ids, samples};

    const PAD: u32 = 0;
    const CLS: u32 = 1;
    const SEP: u32 = 2;
    const MASK: u32 = 3;
    const UNK: u32 = 4;

    /// `[PAD] [CLS] [SEP] [MASK]` are special; even ids from 10 on begin words.
    fn masking(probability: f32) -> Masking {
        let never: Vec<bool> = (0..100).map(|id| id < UNK).collect();
        Masking { probability, ..Masking::bert(MASK, 100, never.into()) }
    }

    fn masked(columns: usize, masking: Masking) -> Masked {
        Masked { columns, around: Around { before: vec![CLS], after: vec![SEP] }, pad: PAD, masking }
    }

    #[test]
    fn windows_are_framed_and_padded() {
        let all = Masking { mask_share: 1.0, ..masking(1.0) };
        let batch = CollateWindows::collate(&masked(5, all), &samples([vec![10, UNK, 12], vec![13], vec![]]));
        assert_eq!(batch.inputs.ids, [[1, 3, 3, 3, 2], [1, 3, 2, 0, 0], [0; 5]].concat());
        assert_eq!(batch.inputs.lengths, Some(vec![5, 3, 0]));
        let labels = batch.token_labels().unwrap();
        assert_eq!(labels.ids, [[1, 10, 4, 12, 2], [1, 13, 2, 0, 0], [0; 5]].concat());
        assert_eq!(labels.weights, [[0.0, 1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0], [0.0; 5]].concat());
    }

    // What `DataCollatorForLanguageModeling` of transformers 5.24.0 gives for two records with `mlm_probability` and
    // `mask_replace_prob` of 1 and the `special_tokens_mask` of the tokenizer's call: `[UNK]` is masked, special tokens and
    // padding are not.
    #[test]
    fn special_tokens_are_never_masked_but_unknown_ones_are() {
        let all = Masking { mask_share: 1.0, ..masking(1.0) };
        let first = of_ids(&[1, 10, 4, 2]).with_ids(columns::TYPE_IDS, vec![0, 0, 0, 1]);
        let batch = CollateRecords::collate(&masked(0, all), &samples([first, of_ids(&[1, 11, 2])]));
        assert_eq!(batch.inputs.ids, [1, 3, 3, 2, 1, 3, 2, 0]);
        assert_eq!(batch.inputs.type_ids, Some(vec![0, 0, 0, 1, 0, 0, 0, 0]));
        assert_eq!(batch.inputs.lengths, Some(vec![4, 3]));
        assert_eq!(batch.token_labels().unwrap().weights, [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        assert_eq!(batch.token_labels().unwrap().ids, [1, 10, 4, 2, 1, 11, 2, 0]);
    }

    #[test]
    fn shares_are_those_of_the_paper() {
        let masking = masking(0.15);
        let ids: Vec<u32> = (0..100_000).map(|at| 50 + at % 7).collect();
        let (masked, weights) = masking.apply(&ids, Seed::new(9));
        let chosen: Vec<usize> = (0..ids.len()).filter(|&at| weights[at] > 0.0).collect();
        let share = |n: usize| n as f64 / chosen.len() as f64;
        assert!((chosen.len() as f64 / ids.len() as f64 - 0.15).abs() < 0.004);
        assert!((share(chosen.iter().filter(|&&at| masked[at] == MASK).count()) - 0.801).abs() < 0.012);
        // A random token is one of 100, so that 1 % are the mask token and 1 % the same as before.
        assert!((share(chosen.iter().filter(|&&at| masked[at] == ids[at]).count()) - 0.101).abs() < 0.01);
        let random = chosen.iter().map(|&at| masked[at]).filter(|&id| id != MASK);
        assert!(random.clone().any(|id| id < UNK) && random.clone().all(|id| id < 100));
    }

    #[test]
    fn words_are_masked_as_a_whole() {
        let starts: Arc<[bool]> = (0..100).map(|id| id >= 10 && id % 2 == 0).collect();
        let masking = Masking { word_starts: Some(starts), ..masking(0.4) };
        // The first word lacks its beginning, and a special token ends a word.
        let ids = [11, 11, 12, 13, 13, 14, SEP, 15, 15];
        let words = [0..2, 2..5, 5..6, 7..9];
        let mut seen = [0; 4];
        for seed in 0..200 {
            let (_, weights) = masking.apply(&ids, Seed::new(seed));
            for (word, seen) in words.clone().into_iter().zip(&mut seen) {
                let of_word = &weights[word];
                assert!(of_word.iter().all(|weight| *weight == of_word[0]), "{weights:?}");
                *seen += usize::from(of_word[0] > 0.0);
            }
            assert_eq!(weights[6], 0.0);
        }
        assert!(seen.iter().all(|n| (50..110).contains(n)), "{seen:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_changed_is_predicted(
            ids in prop::collection::vec(0u32..60, 0..50), seed: u64, probability in 0.0f32..1.0,
        ) {
            let masking = masking(probability);
            let (masked, weights) = masking.apply(&ids, Seed::new(seed));
            prop_assert_eq!((masked.len(), weights.len()), (ids.len(), ids.len()));
            for ((id, masked), weight) in ids.iter().zip(&masked).zip(&weights) {
                prop_assert!(id == masked || *weight == 1.0);
                prop_assert!(*id >= UNK || *weight == 0.0);
            }
            prop_assert_eq!(masking.apply(&ids, Seed::new(seed)), (masked, weights));
        }
    }
}
