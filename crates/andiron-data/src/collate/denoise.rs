//! Denoising: a whole text is predicted from a damaged one.
//!
//! Source: Lewis et al. 2019, "BART: Denoising Sequence-to-Sequence Pre-training", <https://arxiv.org/abs/1910.13461>. Where the
//! paper leaves it open: spans do not overlap and stand at any token, all arrangements being equally likely, and spans without
//! a token insert a mask. (The authors' code lets spans begin at words and run into each other.)

use std::sync::Arc;

use super::noise::{MOST_MEAN, choose, poisson, shuffled};
use super::{Around, CollateRecords, CollateWindows, Sample, Seq2Seq};
use crate::batch::{HostBatch, Labels, Sequences};
use crate::records::{Record, RecordSize, columns};
use crate::seed::Seed;

/// Collates windows or records for BART's pretraining objective: sentences are put in random order, spans are replaced by mask tokens,
/// and the target is the text as it was.
///
/// # Example
/// ```
/// use andiron_data::collate::{Around, CollateWindows as _, Denoise, Sample, Seq2Seq, TextInfilling};
/// use andiron_data::Seed;
/// let collator = Denoise {
///     columns: 12,
///     around: Around { before: vec![0], after: vec![2] },
///     infilling: TextInfilling::bart(50_264),
///     sentence_ends: None,
///     decoder: Seq2Seq { decoder_start: 2, pad: 1 },
/// };
/// let window = Sample { data: (10..20).collect(), seed: Seed::new(1) };
/// let batch = collator.collate(&[window]);
/// assert_eq!(batch.token_labels().unwrap().ids, [0, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 2]);
/// assert!(batch.inputs.ids.contains(&50_264));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Denoise {
    /// Positions in a row, special tokens included. Records are padded to the longest instead, but none is longer.
    pub columns: usize,
    /// Special tokens around a text. Records have none of their own.
    pub around: Around,
    /// Which spans are removed.
    pub infilling: TextInfilling,
    /// For each id, whether it ends a sentence ([`Tokenizer::sentence_ends`](crate::Tokenizer::sentence_ends)): sentences are
    /// permuted. `None` keeps their order.
    pub sentence_ends: Option<Arc<[bool]>>,
    /// Start id and padding id.
    pub decoder: Seq2Seq,
}

/// Spans of a text of which each becomes one mask token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextInfilling {
    /// Share of the tokens that are removed: 0.3 in BART.
    pub share: f32,
    /// Mean of the Poisson distribution of span lengths: 3 in BART. A span may be empty, and then inserts a mask.
    pub mean_length: f32,
    /// The mask token.
    pub mask_id: u32,
}

impl TextInfilling {
    /// BART's.
    pub fn bart(mask_id: u32) -> Self {
        Self { share: 0.3, mean_length: 3.0, mask_id }
    }

    /// The ids with spans replaced by the mask token. Exactly `share` of them are removed, rounded up.
    pub fn apply(&self, ids: &[u32], seed: Seed) -> Vec<u32> {
        let lengths = self.span_lengths(ids.len(), seed.at(0));
        let removed: usize = lengths.iter().sum();
        let kept = ids.len() - removed;
        let mut infilled = Vec::with_capacity(kept + lengths.len());
        let (mut lengths, mut rest) = (lengths.iter(), ids);
        for is_span in choose(seed.at(1), lengths.len(), kept + lengths.len()) {
            if let (true, Some(&length)) = (is_span, lengths.as_slice().first()) {
                lengths.next();
                infilled.push(self.mask_id);
                rest = &rest[length..];
            } else {
                infilled.push(rest[0]);
                rest = &rest[1..];
            }
        }
        infilled
    }

    /// Lengths of spans that together have the budget of tokens; at most as many spans as there are tokens.
    fn span_lengths(&self, n: usize, seed: Seed) -> Vec<usize> {
        let budget = ((n as f32 * self.share.clamp(0.0, 1.0)).ceil() as usize).min(n);
        let mean = f64::from(self.mean_length.clamp(0.0, MOST_MEAN));
        let mut lengths = Vec::new();
        let mut left = budget;
        for at in 0..n as u64 {
            if left == 0 {
                break;
            }
            let length = poisson(f64::from(seed.uniform(at)), mean).min(left);
            left -= length;
            lengths.push(length);
        }
        // Only with a mean far below 1 is anything left.
        if let Some(last) = lengths.last_mut() {
            *last += left;
        }
        lengths
    }
}

impl Denoise {
    /// The damaged text.
    fn damaged(&self, ids: &[u32], seed: Seed) -> Vec<u32> {
        let permuted = match &self.sentence_ends {
            Some(ends) => permuted(ids, ends, seed.at(0)),
            None => ids.to_vec(),
        };
        self.infilling.apply(&permuted, seed.at(1))
    }

    /// A damaged text and the text, each with the special tokens around it.
    fn pair(&self, ids: &[u32], seed: Seed) -> (Vec<u32>, Vec<u32>) {
        let mut damaged = self.damaged(ids, seed);
        // Masks that are inserted can make a text longer than it was.
        damaged.truncate(self.window());
        (self.around.framed(&damaged), self.around.framed(ids))
    }
}

/// The sentences of a text in random order. One ends with the last of several consecutive ends, such as `?` and `!`.
fn permuted(ids: &[u32], ends: &[bool], seed: Seed) -> Vec<u32> {
    let ends_at = |at: usize| ends.get(ids[at] as usize).copied().unwrap_or(false);
    let mut sentences = Vec::new();
    let mut start = 0;
    for end in 1..=ids.len() {
        if end == ids.len() || (ends_at(end - 1) && !ends_at(end)) {
            sentences.push(&ids[start..end]);
            start = end;
        }
    }
    shuffled(seed, sentences.len()).into_iter().flat_map(|at| sentences[at].iter().copied()).collect()
}

impl CollateWindows for Denoise {
    fn window(&self) -> usize {
        self.columns.saturating_sub(self.around.len())
    }

    fn collate(&self, windows: &[Sample<Vec<u32>>]) -> HostBatch {
        let (inputs, targets): (Vec<_>, Vec<_>) =
            windows.iter().map(|window| self.pair(&window.data, window.seed)).unzip();
        let (decoder_inputs, labels) = self.decoder.decoder_side_of(&targets, self.columns);
        HostBatch {
            inputs: Sequences::padded_to(&inputs, self.columns, self.decoder.pad),
            decoder_inputs: Some(decoder_inputs),
            labels: Labels::Tokens(labels),
        }
    }
}

impl CollateRecords for Denoise {
    fn collate(&self, records: &[Sample<Record<'_>>]) -> HostBatch {
        let texts = records.iter().map(|record| {
            let ids = record.data.ids(columns::IDS);
            self.pair(&ids[..ids.len().min(CollateWindows::window(self))], record.seed)
        });
        let (inputs, targets): (Vec<_>, Vec<_>) = texts.unzip();
        let (decoder_inputs, labels) = self.decoder.decoder_side(&targets);
        HostBatch {
            inputs: Sequences::padded(&inputs, self.decoder.pad),
            decoder_inputs: Some(decoder_inputs),
            labels: Labels::Tokens(labels),
        }
    }

    /// The text with the special tokens around it. Masks that are inserted rarely make a text longer than it was.
    fn size(&self, record: &Record<'_>) -> RecordSize {
        let text = record.ids(columns::IDS).len().min(CollateWindows::window(self));
        RecordSize { rows: 1, columns: (text + self.around.len()) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collate::testing::{of_ids, samples};

    const MASK: u32 = 999;
    const STOP: u32 = 7;

    fn bart(sentences: bool) -> Denoise {
        let ends: Vec<bool> = (0..10).map(|id| id == STOP).collect();
        Denoise {
            columns: 22,
            around: Around { before: vec![0], after: vec![2] },
            infilling: TextInfilling::bart(MASK),
            sentence_ends: sentences.then(|| ends.into()),
            decoder: Seq2Seq { decoder_start: 2, pad: 1 },
        }
    }

    /// Whether `infilled` becomes `text` when each mask is replaced by some ids, possibly none.
    fn fits(infilled: &[u32], text: &[u32]) -> bool {
        let mut rest = text;
        infilled.iter().filter(|id| **id != MASK).all(|id| match rest.iter().position(|other| other == id) {
            Some(at) => {
                rest = &rest[at + 1..];
                true
            }
            None => false,
        })
    }

    #[test]
    fn three_tenths_are_removed_in_spans_of_three() {
        let text: Vec<u32> = (1000..3000).collect();
        let (mut masks, mut inserted, mut first) = (0, 0, 0);
        for seed in 0..200 {
            let infilled = TextInfilling::bart(MASK).apply(&text, Seed::new(seed));
            let n = infilled.iter().filter(|id| **id == MASK).count();
            assert_eq!(infilled.len() - n, 1400);
            masks += n;
            inserted += infilled.windows(3).filter(|of| of[1] == MASK && of[0] + 1 == of[2]).count();
            first += usize::from(infilled[0] == MASK);
        }
        // 600 tokens in spans of mean length 3, of which 5 % are empty.
        assert!((39_300..40_700).contains(&masks), "{masks}");
        // Those alone between two kept tokens: 1 in 20, times (1400 / 1600)^2.
        assert!((1300..1800).contains(&inserted), "{inserted}");
        // A span is as likely at the beginning as anywhere: 200 of 1600.
        assert!((12..42).contains(&first), "{first}");
    }

    #[test]
    fn rows_have_the_text_as_their_target() {
        let text: Vec<u32> = (100..120).collect();
        let batch =
            CollateWindows::collate(&bart(false), &samples([text.clone(), text[..5].to_vec(), Vec::new()]));
        let labels = batch.token_labels().unwrap();
        assert_eq!(labels.ids[..22], [&[0][..], &text, &[2]].concat());
        assert_eq!(batch.predicted().ids[..3], [2, 0, 100]);
        assert_eq!(labels.weights.iter().filter(|weight| **weight == 1.0).count(), 22 + 7);
        assert_eq!(batch.inputs.lengths.as_ref().unwrap()[2], 0);
        let length = batch.inputs.lengths.as_ref().unwrap()[0];
        assert_eq!((batch.inputs.ids[0], batch.inputs.ids[length - 1]), (0, 2));
    }

    #[test]
    fn records_are_damaged_like_windows_and_padded_to_the_longest() {
        let texts = [(100..110).collect::<Vec<u32>>(), (200..204).collect()];
        let windows = CollateWindows::collate(&bart(false), &samples(texts.clone()));
        let batch = CollateRecords::collate(&bart(false), &samples(texts.each_ref().map(|ids| of_ids(ids))));
        let own = |batch: &HostBatch, row: usize| {
            batch.inputs.row(row)[..batch.inputs.lengths.as_ref().unwrap()[row]].to_vec()
        };
        assert!((0..2).all(|row| own(&batch, row) == own(&windows, row)));
        assert_eq!((batch.predicted().columns, batch.n_targets()), (12, windows.n_targets()));
        assert_eq!(batch.token_labels().unwrap().ids[12..], [0, 200, 201, 202, 203, 2, 1, 1, 1, 1, 1, 1]);
        let longest = bart(false).columns - 2;
        let long = CollateRecords::collate(&bart(false), &samples([of_ids(&[5; 40])]));
        assert_eq!(long.n_targets(), longest + 2);
    }

    #[test]
    fn sentences_change_places() {
        let text = [1, 1, STOP, STOP, 2, STOP, 3];
        let ends: Vec<bool> = (0..10).map(|id| id == STOP).collect();
        let mut seen = std::collections::HashMap::new();
        for seed in 0..600 {
            *seen.entry(permuted(&text, &ends, Seed::new(seed))).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(
            seen.contains_key(&vec![3, 2, STOP, 1, 1, STOP, STOP]) && seen.values().all(|n| *n > 60),
            "{seen:?}"
        );
        assert_eq!(permuted(&[], &ends, Seed::new(0)), [0; 0]);
        assert!(bart(true).damaged(&text, Seed::new(0)).len() <= 14);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn what_is_kept_is_in_order_and_the_rest_is_masked(
            n in 0usize..80, share in 0.0f32..1.0, mean_length in 0.0f32..9.0, seed: u64,
        ) {
            let text: Vec<u32> = (1000..).take(n).collect();
            let infilled = TextInfilling { share, mean_length, mask_id: MASK }.apply(&text, Seed::new(seed));
            let masks = infilled.iter().filter(|id| **id == MASK).count();
            prop_assert!(fits(&infilled, &text) && masks <= n);
            let removed = (n as f32 * share).ceil() as usize;
            prop_assert_eq!(infilled.len() - masks, n - removed.min(n));
        }
    }
}
