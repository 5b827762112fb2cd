//! Span corruption: spans of a text are replaced by sentinels, and the target lists them.
//!
//! Source: Raffel et al. 2019, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
//! <https://arxiv.org/abs/1910.10683>, and `random_spans_noise_mask` of the published code.

use super::noise::choose;
use super::{CollateWindows, Sample, Seq2Seq};
use crate::batch::{HostBatch, Labels, Sequences};
use crate::seed::Seed;

/// Collates windows for T5's pretraining objective.
///
/// Rows are full: a window has as many ids as make `columns` inputs when the spans are removed and the sentinels and the end
/// token are added, 568 for 512.
///
/// # Example
/// ```
/// use andiron_data::collate::{CollateWindows, NoiseSpans, Sample, Sentinels, Seq2Seq, SpanCorruption};
/// use andiron_data::Seed;
/// let (sentinels, decoder) = (Sentinels { first: 32_099, count: 100 }, Seq2Seq { decoder_start: 0, pad: 0 });
/// let collator = SpanCorruption::new(512, NoiseSpans::default(), sentinels, 1, decoder)?;
/// assert_eq!((collator.window(), collator.target_columns()), (568, 114));
/// # Ok::<(), andiron_data::collate::SpanCorruptionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpanCorruption {
    columns: usize,
    window: usize,
    noise: NoiseSpans,
    sentinels: Sentinels,
    end: u32,
    decoder: Seq2Seq,
}

/// How much of a text is noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseSpans {
    /// Share of the tokens that are removed: 0.15 in T5.
    pub density: f32,
    /// Mean length of a removed span: 3 in T5.
    pub mean_length: f32,
}

impl Default for NoiseSpans {
    /// T5's.
    fn default() -> Self {
        Self { density: 0.15, mean_length: 3.0 }
    }
}

impl NoiseSpans {
    /// Tokens of noise, and spans into which they are divided, in a text of `n` tokens, at least two; both are at least 1 and
    /// leave at least a token before each span.
    fn counts(self, n: usize) -> [usize; 2] {
        // To the nearest even number at a half, and in f32, as in the published code.
        let round = |x: f32| x.round_ties_even() as usize;
        let noise = round(n as f32 * self.density).clamp(1, n - 1);
        let spans = round(noise as f32 / self.mean_length).clamp(1, noise.min(n - noise));
        [noise, spans]
    }

    /// Lengths of inputs and targets for a text of `n` tokens, with a sentinel for each span and an end token.
    fn lengths(self, n: usize) -> [usize; 2] {
        let [noise, spans] = self.counts(n);
        [n - noise + spans + 1, noise + spans + 1]
    }

    /// Lengths of the kept and of the removed spans in turn, beginning with a kept one. All divisions into these numbers of
    /// spans are equally likely.
    fn draw(self, n: usize, seed: Seed) -> Vec<[usize; 2]> {
        let [noise, spans] = self.counts(n);
        let kept = segments(n - noise, spans, seed.at(0));
        kept.into_iter()
            .zip(segments(noise, spans, seed.at(1)))
            .map(|(kept, removed)| [kept, removed])
            .collect()
    }
}

/// `n` as a sum of `parts` numbers above 0.
fn segments(n: usize, parts: usize, seed: Seed) -> Vec<usize> {
    let mut lengths = vec![1];
    for begins in choose(seed, parts - 1, n - 1) {
        match lengths.last_mut() {
            Some(last) if !begins => *last += 1,
            _ => lengths.push(1),
        }
    }
    lengths
}

/// Tokens that stand for removed spans: the first for the first span, and so on
/// ([`Tokenizer::sentinels`](crate::Tokenizer::sentinels)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sentinels {
    /// The id of the first, `<extra_id_0>`. The next ones descend from it.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

/// Why span corruption is impossible with some settings.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SpanCorruptionError {
    /// The share of noise is not a share.
    #[error("noise density {density} is not above 0 and at most 0.5")]
    Density {
        /// The share.
        density: f32,
    },
    /// The mean length of a span is too short.
    #[error("mean span length {length} is not at least 1")]
    Length {
        /// The length.
        length: f32,
    },
    /// A row has no room for a text, a sentinel and the end token.
    #[error("{columns} input positions are too few for span corruption; at least 3 are needed")]
    Columns {
        /// Positions in a row.
        columns: usize,
    },
    /// There are more spans than sentinels.
    #[error(
        "rows of {columns} positions have {spans} removed spans, but there are only {sentinels} sentinel tokens: use shorter rows, or longer spans"
    )]
    Sentinels {
        /// Positions in a row.
        columns: usize,
        /// Spans in it.
        spans: usize,
        /// Sentinels of the vocabulary.
        sentinels: u32,
    },
}

impl SpanCorruption {
    /// Rows of `columns` inputs that end with the id `end`.
    ///
    /// # Errors
    /// If there are too few sentinels, or a number is out of range.
    pub fn new(
        columns: usize,
        noise: NoiseSpans,
        sentinels: Sentinels,
        end: u32,
        decoder: Seq2Seq,
    ) -> Result<Self, SpanCorruptionError> {
        let NoiseSpans { density, mean_length } = noise;
        if !(density > 0.0 && density <= 0.5) {
            return Err(SpanCorruptionError::Density { density });
        }
        if !(mean_length >= 1.0 && mean_length.is_finite()) {
            return Err(SpanCorruptionError::Length { length: mean_length });
        }
        if columns < 3 {
            return Err(SpanCorruptionError::Columns { columns });
        }
        let mut window = columns - 1;
        while noise.lengths(window + 1)[0] <= columns {
            window += 1;
        }
        let spans = noise.counts(window)[1];
        if spans > sentinels.count as usize || sentinels.first < sentinels.count.saturating_sub(1) {
            return Err(SpanCorruptionError::Sentinels { columns, spans, sentinels: sentinels.count });
        }
        Ok(Self { columns, window, noise, sentinels, end, decoder })
    }

    /// Positions of a target.
    pub fn target_columns(&self) -> usize {
        self.noise.lengths(self.window)[1]
    }

    /// A window's inputs and target: the kept text with a sentinel in the place of each removed span, and each sentinel with
    /// the span that it stands for. Both end with the end token; there is nothing of an empty window.
    ///
    /// # Panics
    /// If the window is longer than [`CollateWindows::window`].
    pub fn corrupt(&self, ids: &[u32], seed: Seed) -> [Vec<u32>; 2] {
        assert!(ids.len() <= self.window, "{} ids in a window of {}", ids.len(), self.window);
        if ids.is_empty() {
            return [Vec::new(), Vec::new()];
        }
        let (mut inputs, mut target) = (Vec::new(), Vec::new());
        let mut rest = ids;
        for (span, [kept, removed]) in (0..).zip(self.noise.draw(ids.len().max(2), seed)) {
            // A text of one token is divided like one of two, and is kept.
            let (kept, after) = rest.split_at(kept.min(rest.len()));
            let (removed, after) = after.split_at(removed.min(after.len()));
            rest = after;
            inputs.extend_from_slice(kept);
            if removed.is_empty() {
                continue;
            }
            let sentinel = self.sentinels.first - span;
            inputs.push(sentinel);
            target.push(sentinel);
            target.extend_from_slice(removed);
        }
        inputs.push(self.end);
        target.push(self.end);
        [inputs, target]
    }
}

impl CollateWindows for SpanCorruption {
    fn window(&self) -> usize {
        self.window
    }

    fn collate(&self, windows: &[Sample<Vec<u32>>]) -> HostBatch {
        let rows = windows.iter().map(|window| self.corrupt(&window.data, window.seed));
        let (inputs, targets): (Vec<_>, Vec<_>) = rows.map(|[inputs, target]| (inputs, target)).unzip();
        let (decoder_inputs, labels) = self.decoder.decoder_side_of(&targets, self.target_columns());
        HostBatch {
            inputs: Sequences::padded_to(&inputs, self.columns, self.decoder.pad),
            decoder_inputs: Some(decoder_inputs),
            labels: Labels::Tokens(labels),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collate::testing::samples;

    const END: u32 = 1;
    const SENTINELS: Sentinels = Sentinels { first: 32_099, count: 100 };

    fn t5(columns: usize, density: f32, mean_length: f32) -> SpanCorruption {
        let noise = NoiseSpans { density, mean_length };
        SpanCorruption::new(columns, noise, SENTINELS, END, Seq2Seq { decoder_start: 0, pad: 0 }).unwrap()
    }

    /// The text that inputs and target were made of.
    fn restored([inputs, target]: &[Vec<u32>; 2]) -> Vec<u32> {
        let is_sentinel = |id: &u32| (32_000..=32_099).contains(id);
        let mut spans = target.split(is_sentinel);
        let before = spans.next().unwrap();
        assert!(before.is_empty() || before == [END], "{target:?}");
        let mut spans: Vec<&[u32]> = spans.collect();
        if let Some(last) = spans.last_mut() {
            *last = last.strip_suffix(&[END]).unwrap();
        }
        let order: Vec<&u32> = target.iter().filter(|id| is_sentinel(id)).collect();
        assert!(order.iter().zip((0..=32_099).rev()).all(|(found, wanted)| **found == wanted));
        assert_eq!(order, inputs.iter().filter(|id| is_sentinel(id)).collect::<Vec<_>>());
        let mut text: Vec<u32> = Vec::new();
        let mut spans = spans.into_iter();
        for id in inputs.strip_suffix(&[END]).unwrap() {
            if is_sentinel(id) { text.extend(spans.next().unwrap()) } else { text.push(*id) }
        }
        text
    }

    // `random_spans_helper` of t5 0.9.4.
    #[test]
    fn windows_are_those_that_fill_the_inputs() {
        for (columns, density, length, window, target) in HELPER {
            let collator = t5(columns, density, length);
            assert_eq!(
                (collator.window(), collator.target_columns()),
                (window, target),
                "{columns} {density}"
            );
        }
    }

    const HELPER: [(usize, f32, f32, usize, usize); 6] = [
        (512, 0.15, 3.0, 568, 114),
        (128, 0.15, 3.0, 141, 29),
        (256, 0.15, 3.0, 284, 58),
        (1024, 0.15, 3.0, 1137, 229),
        (512, 0.15, 8.0, 588, 100),
        (64, 0.3, 4.0, 82, 32),
    ];

    #[test]
    fn rows_are_full_and_targets_shifted() {
        let collator = t5(64, 0.15, 3.0);
        let window: Vec<u32> = (100..).take(collator.window()).collect();
        let batch = collator.collate(&samples([window.clone(), window[..9].to_vec(), Vec::new()]));
        assert_eq!((batch.inputs.rows, batch.inputs.columns), (3, 64));
        let lengths = batch.inputs.lengths.as_ref().unwrap();
        assert_eq!((lengths[0], lengths[2]), (64, 0));
        let decoder = batch.predicted();
        assert_eq!((decoder.columns, &decoder.lengths), (collator.target_columns(), &None));
        let labels = batch.token_labels().unwrap();
        let n = collator.target_columns();
        assert_eq!((decoder.ids[0], labels.ids[0], labels.ids[n - 1]), (0, 32_099, END));
        assert_eq!(decoder.ids[1..n], labels.ids[..n - 1]);
        assert!(labels.weights[..n].iter().all(|weight| *weight == 1.0));
        assert!(labels.weights[2 * n..].iter().all(|weight| *weight == 0.0));
        // The last ids are noise, as in the published code.
        let [inputs, _] = collator.corrupt(&window, Seed::new(3));
        assert!(inputs[inputs.len() - 2] > 32_000);
    }

    #[test]
    fn a_text_of_one_token_is_kept() {
        assert_eq!(t5(64, 0.15, 3.0).corrupt(&[7], Seed::new(0)), [vec![7, END], vec![END]]);
        assert_eq!(
            t5(64, 0.15, 3.0).corrupt(&[7, 8], Seed::new(0)),
            [vec![7, 32_099, END], vec![32_099, 8, END]]
        );
    }

    #[test]
    fn every_division_is_as_likely_as_another() {
        let mut counts = std::collections::HashMap::new();
        for seed in 0..6000 {
            *counts.entry(segments(5, 3, Seed::new(seed))).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|n| (850..1150).contains(n)), "{counts:?}");
    }

    #[test]
    fn impossible_settings_are_errors() {
        let new = |columns, density, mean_length| {
            let noise = NoiseSpans { density, mean_length };
            SpanCorruption::new(
                columns,
                noise,
                Sentinels { count: 10, ..SENTINELS },
                END,
                Seq2Seq { decoder_start: 0, pad: 0 },
            )
        };
        let error = new(512, 0.15, 3.0).unwrap_err();
        assert_eq!(error, SpanCorruptionError::Sentinels { columns: 512, spans: 28, sentinels: 10 });
        assert!(matches!(new(2, 0.15, 3.0), Err(SpanCorruptionError::Columns { columns: 2 })));
        assert!(matches!(new(64, f32::NAN, 3.0), Err(SpanCorruptionError::Density { .. })));
        assert!(matches!(new(64, 0.15, 0.0), Err(SpanCorruptionError::Length { .. })));
        assert!(new(64, 0.15, 3.0).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn inputs_and_target_together_are_the_text(
            columns in 3usize..130, density in 0.01f32..0.5, mean_length in 1.0f32..9.0, n in 0usize..400, seed: u64,
        ) {
            let noise = NoiseSpans { density, mean_length };
            let collator = SpanCorruption::new(columns, noise, SENTINELS, END, Seq2Seq { decoder_start: 0, pad: 0 });
            prop_assume!(collator.is_ok());
            let collator = collator.unwrap();
            let n = n.min(collator.window());
            let text: Vec<u32> = (100..).take(n).collect();
            let corrupted = collator.corrupt(&text, Seed::new(seed));
            prop_assert!(corrupted[0].len() <= columns && corrupted[1].len() <= collator.target_columns());
            if n > 0 {
                prop_assert_eq!(restored(&corrupted), text);
            }
        }
    }
}
