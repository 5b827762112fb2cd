//! What a forward pass is told beside its input: the past, who sees whom, and where randomness comes from.

use std::ops::Range;

use andiron_kernels::random::Seed;
use burn::tensor::{Device, Int, Tensor};

use crate::cache::{KeysValues, columns_of};
use crate::ops::Dropout;
use crate::{KvCache, PaddingMask, ids, ops};

/// The context of one forward pass.
///
/// There is one forward per layer; training, prefill and decoding differ only by this argument.
///
/// | use | cache | dropout |
/// |---|---|---|
/// | training | none | a seed that is new for every step |
/// | evaluation | none | none |
/// | prefill, decoding | the sequence's own | none |
///
/// Rows of different lengths are told by [`Forward::with_padding_mask`]; without it every column of every row counts.
#[derive(Debug, Default)]
pub struct Forward<'a> {
    cache: Option<&'a mut KvCache>,
    dropout: Option<Seed>,
    draws: u64,
    rows: Option<PaddingMask>,
}

impl<'a> Forward<'a> {
    /// Whole sequences, no randomness: evaluation.
    pub fn evaluation() -> Self {
        Self::default()
    }

    /// Whole sequences with dropout drawn from `seed`, which must differ from step to step.
    pub fn training(seed: Seed) -> Self {
        Self { dropout: Some(seed), ..Self::default() }
    }

    /// Sequences that continue what the rows of `cache` hold.
    pub fn cached(cache: &'a mut KvCache) -> Self {
        Self { cache: Some(cache), ..Self::default() }
    }

    /// The same pass over rows of different lengths: padding is seen by nobody, and positions count from each row's
    /// first own column. Over a cache the rows begin in column 0, where each goes on with its own sequence.
    ///
    /// # Panics
    /// If a row over a cache has padding before it.
    pub fn with_padding_mask(self, rows: PaddingMask) -> Self {
        let padded = rows.spans().iter().any(|span| span.start > 0);
        assert!(self.cache.is_none() || !padded, "rows over a cache begin in the first column");
        Self { rows: Some(rows), ..self }
    }

    /// Which columns belong to each row; `None` if all do.
    pub fn padding_mask(&self) -> Option<&PaddingMask> {
        self.rows.as_ref()
    }

    /// How many positions the longest row of the cache holds.
    pub fn start(&self) -> usize {
        self.cache.as_ref().map_or(0, |cache| cache.len())
    }

    /// One more than the last position of any row.
    pub fn end(&self, columns: usize) -> usize {
        match &self.cache {
            Some(cache) if !cache.is_empty() => {
                let ends = cache.lens().enumerate();
                ends.map(|(row, len)| len + columns_of(self.padding_mask(), row, columns)).max().unwrap_or(0)
            }
            // Padding before a row takes no position.
            _ => {
                let spans = self.padding_mask().into_iter().flat_map(PaddingMask::spans);
                columns.saturating_sub(spans.map(|span| span.start).min().unwrap_or(0))
            }
        }
    }

    /// Whether the columns stand at the same positions in all rows.
    pub(crate) fn rows_agree(&self) -> bool {
        match &self.cache {
            Some(cache) => self.rows.is_none() && cache.lens().all(|len| len == cache.len()),
            None => self.padding_mask().into_iter().flat_map(PaddingMask::spans).all(|span| span.start == 0),
        }
    }

    /// Position in its own row of each of `columns` new tokens; padding stands where the nearest token of its row does. One
    /// list if all rows agree.
    pub fn positions(&self, columns: usize) -> Vec<Vec<usize>> {
        let start = self.start();
        match (&self.cache, &self.rows) {
            _ if self.rows_agree() => vec![(start..start + columns).collect()],
            (Some(cache), rows) if !cache.is_empty() => {
                let of = |(row, len): (usize, usize)| {
                    let last = (len + columns_of(rows.as_ref(), row, columns)).saturating_sub(1);
                    (len..len + columns).map(|position| position.min(last)).collect()
                };
                cache.lens().enumerate().map(of).collect()
            }
            (_, Some(rows)) => {
                let of = |span: &Range<usize>| {
                    let last = span.len().min(columns).saturating_sub(1);
                    (0..columns).map(|column| column.saturating_sub(span.start).min(last)).collect()
                };
                rows.spans().iter().map(of).collect()
            }
            (_, None) => vec![(0..columns).collect()],
        }
    }

    /// The same as a tensor, `[batch or 1, columns]`, each position moved up by `offset`.
    pub fn position_ids(&self, columns: usize, offset: usize, device: &Device) -> Tensor<2, Int> {
        let positions = self.positions(columns);
        let shape = [positions.len(), columns];
        let moved: Vec<u32> =
            positions.into_iter().flatten().map(|position| (position + offset) as u32).collect();
        ids::upload(&moved, shape, device)
    }

    /// All keys and values that layer `layer` may attend to, given those of the new positions.
    ///
    /// # Shape
    /// `[batch, new positions, heads, head width]` each.
    pub fn keys_values(&mut self, layer: usize, keys_bshk: Tensor<4>, values_bshk: Tensor<4>) -> KeysValues {
        match self.cache.as_mut() {
            Some(cache) => cache.append(layer, (keys_bshk, values_bshk), self.rows.as_ref()),
            None => KeysValues::Whole { keys_bshk, values_bshk },
        }
    }

    /// Records that all layers have computed so many columns of new positions.
    pub fn advance(&mut self, columns: usize) {
        if let Some(cache) = self.cache.as_mut() {
            cache.advance(columns, self.rows.as_ref());
        }
    }

    /// Zeroes a share `probability` of the elements and scales the others, while training; otherwise `x`.
    ///
    /// Each call in a pass draws its own mask, in call order, so a pass is a function of its seed.
    ///
    /// # Panics
    /// If `probability` is not in `0..1`.
    pub fn dropout<const D: usize>(&mut self, x: Tensor<D>, probability: f32) -> Tensor<D> {
        match self.draw_dropout(probability) {
            Some(Dropout { probability, seed }) => ops::dropout(x, probability, seed),
            None => x,
        }
    }

    /// The next mask of the pass, as for [`Forward::dropout`]; `None` if nothing is dropped.
    ///
    /// # Panics
    /// If `probability` is not in `0..1`.
    pub(crate) fn draw_dropout(&mut self, probability: f32) -> Option<Dropout> {
        assert!((0.0..1.0).contains(&probability), "dropout probability {probability} is not in 0..1");
        let seed = self.dropout.filter(|_| probability > 0.0)?.at(self.draws);
        self.draws += 1;
        Some(Dropout { probability, seed })
    }

    /// Whether there is a past to continue, be it an empty one.
    pub(crate) fn is_cached(&self) -> bool {
        self.cache.is_some()
    }

    /// Whether [`Forward::dropout`] with this probability changes anything.
    pub fn drops(&self, probability: f32) -> bool {
        self.dropout.is_some() && probability > 0.0
    }
}
