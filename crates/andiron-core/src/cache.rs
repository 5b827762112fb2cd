//! Keys and values of past positions, kept so that decoding computes each position once.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::Rows;
use crate::device::is_cpu;

/// The keys and values of some sequences, for every layer: a value that belongs to its caller.
///
/// Each row is a sequence of its own, of any length, in blocks of positions: it grows without moving, and rows and caches
/// share the blocks that they have in common, such as a prompt that is continued in several ways. So cloning is cheap and
/// gives an independent continuation of the same past, and caches can be [joined](Self::join) for a pass that all their
/// rows go through together, and [split](Self::split) again.
///
/// Source: Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention",
/// <https://arxiv.org/abs/2309.06180>; here a block belongs to whoever holds it, so that there is no pool to run out of.
#[derive(Clone, Debug)]
pub struct KvCache {
    n_layers: usize,
    max_len: usize,
    rows: Vec<Row>,
}

/// One sequence.
#[derive(Clone, Debug)]
struct Row {
    len: usize,
    /// Of each layer the blocks, `[2, block length, heads, head width]`: keys, then values.
    layers: Vec<Vec<Tensor<4>>>,
}

/// The keys and values that queries may look at.
#[allow(clippy::large_enum_variant)] // Handed from one call to the next, never kept.
#[derive(Clone, Debug)]
pub enum Past {
    /// All of them, as long as every row: `[batch, positions, heads, head width]` each.
    Whole {
        /// The keys.
        keys_bshk: Tensor<4>,
        /// The values.
        values_bshk: Tensor<4>,
    },
    /// Blocks of a [`KvCache`].
    Blocks(Blocks),
}

/// The blocks of one layer of a [`KvCache`], once the positions of a pass were added.
#[derive(Clone, Debug)]
pub struct Blocks {
    pub(crate) rows: Vec<BlockedRow>,
}

/// What one row looks at.
#[derive(Clone, Debug)]
pub(crate) struct BlockedRow {
    /// `[2, block length, heads, head width]` each.
    pub(crate) blocks: Vec<Tensor<4>>,
    /// Positions that count, new ones included.
    pub(crate) keys: usize,
    /// Positions that are new.
    pub(crate) new: usize,
}

impl KvCache {
    /// An empty cache for `n_layers` layers, of which every row will hold at most `max_len` positions. It has as many rows as
    /// the first pass.
    pub fn new(n_layers: usize, max_len: usize) -> Self {
        Self { n_layers, max_len, rows: Vec::new() }
    }

    /// Keeps these rows, in this order; one may be kept several times, to be continued in several ways.
    ///
    /// # Panics
    /// If an index is not below the number of rows.
    pub fn select(&mut self, rows: &[usize]) {
        if rows.iter().copied().eq(0..self.rows.len()) {
            return;
        }
        self.rows = rows.iter().map(|&row| self.rows[row].clone()).collect();
    }

    /// The rows of several caches of one model, one after the other.
    ///
    /// # Panics
    /// If there is none, or they are of models of different depths.
    pub fn join(caches: impl IntoIterator<Item = Self>) -> Self {
        let joined = caches.into_iter().reduce(|mut joined, cache| {
            assert_eq!(joined.n_layers, cache.n_layers, "caches of models of different depths");
            joined.max_len = joined.max_len.min(cache.max_len);
            joined.rows.extend(cache.rows);
            joined
        });
        joined.expect("caches to join")
    }

    /// A cache for each row.
    pub fn split(self) -> Vec<Self> {
        let Self { n_layers, max_len, rows } = self;
        rows.into_iter().map(|row| Self { n_layers, max_len, rows: vec![row] }).collect()
    }

    /// Positions that the longest row holds.
    pub fn len(&self) -> usize {
        self.rows.iter().map(|row| row.len).max().unwrap_or(0)
    }

    /// Positions that each row holds; empty before the first pass.
    pub fn lens(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.rows.iter().map(|row| row.len)
    }

    /// Whether nothing was computed yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions that still fit every row.
    pub fn room(&self) -> usize {
        self.max_len - self.len()
    }

    /// Writes the keys and values of new positions behind those of their rows and returns all of them. Which columns are a
    /// row's own is said by `new`; `None` is all of them.
    ///
    /// Every layer appends the same positions; the cache moves on when the model calls [`Forward::advance`] after its last
    /// layer.
    ///
    /// # Shape
    /// `[batch, columns, heads, head width]` each.
    ///
    /// # Panics
    /// If `layer` does not exist, the shapes differ, or the positions do not fit.
    ///
    /// [`Forward::advance`]: crate::Forward::advance
    pub(crate) fn append(
        &mut self,
        layer: usize,
        (keys_bshk, values_bshk): (Tensor<4>, Tensor<4>),
        new: Option<&Rows>,
    ) -> Past {
        assert_eq!(keys_bshk.dims(), values_bshk.dims(), "keys and values have one shape");
        let [batch, columns, h, k] = keys_bshk.dims();
        if self.is_empty() {
            self.rows.resize(batch, Row { len: 0, layers: vec![Vec::new(); self.n_layers] });
        }
        assert_eq!(
            batch,
            self.rows.len(),
            "new positions of {batch} rows, over a cache of {}",
            self.rows.len()
        );
        let block_len = block_len(&keys_bshk.device());
        let begins = self.is_empty();
        let mut rows = Vec::with_capacity(batch);
        for (r, row) in self.rows.iter_mut().enumerate() {
            let new = columns_of(new, r, columns);
            let keys = row.len + new;
            assert!(
                keys <= self.max_len,
                "{new} positions do not fit: {} of {} are used",
                row.len,
                self.max_len
            );
            let blocks = &mut row.layers[layer];
            // What stands behind the row was taken back, or is of a pass that was not finished.
            blocks.truncate(row.len.div_ceil(block_len));
            let mut column = 0;
            while column < new {
                let at = (row.len + column) % block_len;
                if at == 0 {
                    blocks.push(Tensor::empty([2, block_len, h, k], &keys_bshk.device()));
                }
                let n = (block_len - at).min(new - column);
                // Taken out, so that a block that nobody shares is written in place.
                let mut block = blocks.pop().expect("a block with room");
                for (part, x_bshk) in [&keys_bshk, &values_bshk].into_iter().enumerate() {
                    let own = x_bshk.clone().slice([r..r + 1, column..column + n, 0..h, 0..k]);
                    block = block.slice_assign([part..part + 1, at..at + n, 0..h, 0..k], own);
                }
                blocks.push(block);
                column += n;
            }
            if !begins {
                rows.push(BlockedRow { blocks: blocks.clone(), keys, new });
            }
        }
        match begins {
            true => Past::Whole { keys_bshk, values_bshk },
            false => Past::Blocks(Blocks { rows }),
        }
    }

    /// Forgets all but the first `len` positions of each row.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn truncate(&mut self, len: usize) {
        for row in &mut self.rows {
            assert!(len <= row.len, "a row of {} positions has no {len}", row.len);
            row.len = len;
        }
    }

    /// Counts the positions of a pass as computed, once all layers have appended them.
    pub(crate) fn advance(&mut self, columns: usize, new: Option<&Rows>) {
        for (r, row) in self.rows.iter_mut().enumerate() {
            row.len += columns_of(new, r, columns);
        }
    }
}

/// How many of the columns of a pass belong to a row.
pub(crate) fn columns_of(rows: Option<&Rows>, row: usize, columns: usize) -> usize {
    rows.map_or(columns, |rows| rows.spans()[row].end.min(columns))
}

/// Positions of a block: enough that few are touched, and few enough that the last one wastes little. Elsewhere than on
/// this machine's processor a pass gathers the blocks, which costs by their number.
fn block_len(device: &Device) -> usize {
    if is_cpu(device) { 64 } else { 512 }
}

/// What an encoder leaves to a decoder: for each of the decoder's layers the keys and values of its cross-attention.
///
/// Computed once for a source, however many tokens are then decoded. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Memory {
    layers: Vec<(Tensor<4>, Tensor<4>)>,
    rows: Option<Rows>,
}

impl Memory {
    /// From keys and values of each layer, `[batch, source, heads, head width]` each, and the encoder's rows.
    pub fn new(layers: Vec<(Tensor<4>, Tensor<4>)>, rows: Option<Rows>) -> Self {
        Self { layers, rows }
    }

    /// How many sources it is of.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |(keys_bshk, _)| keys_bshk.dims()[0])
    }

    /// Whether it is of none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which columns of the source belong to each row; `None` if all do.
    pub fn rows(&self) -> Option<&Rows> {
        self.rows.as_ref()
    }

    /// Keeps these rows of the batch, in this order; one may be kept several times.
    ///
    /// # Panics
    /// If an index is not below the size of the batch.
    pub fn select(&mut self, rows: &[usize]) {
        let layers = std::mem::take(&mut self.layers);
        let kept =
            layers.into_iter().map(|(keys, values)| (select_rows(keys, rows), select_rows(values, rows)));
        self.layers = kept.collect();
        self.rows = self.rows.take().map(|spans| spans.select(rows));
    }

    /// Keys and values.
    pub(crate) fn layer(&self, layer: usize) -> (Tensor<4>, Tensor<4>) {
        self.layers[layer].clone()
    }
}

fn select_rows(x_bshk: Tensor<4>, rows: &[usize]) -> Tensor<4> {
    let ids: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [rows.len()]), &x_bshk.device());
    x_bshk.select(0, ids)
}
