//! The KV cache: keys and values of past positions, so that decoding computes each position once.

mod block;

use std::ops::Range;

use burn::tensor::{Device, Tensor};

use crate::device::is_cpu;
use crate::ops::with_elements;
use crate::{KernelChoice, PaddingMask, ids, kernel_choice};
pub use block::KvCacheDtype;
pub(crate) use block::{Block, HostColumns};

/// The keys and values of a batch of sequences, for every layer; a value owned by its caller.
///
/// Each row is one sequence of any length, stored in blocks of positions. It grows without being moved, and rows and caches
/// share common blocks, such as those of a prompt with several continuations. So a clone is cheap and continues the same
/// context independently. Caches can be [joined](Self::join) to decode their rows as one batch, and [split](Self::split)
/// again.
///
/// Keys and values are stored in f32, or in bf16 if [chosen](Self::with_dtype). A position takes
/// `2 · layers · KV heads · head width` elements.
///
/// Source: Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention",
/// <https://arxiv.org/abs/2309.06180>; here blocks are reference-counted, without a fixed pool.
#[derive(Clone, Debug)]
pub struct KvCache {
    n_layers: usize,
    max_len: usize,
    dtype: KvCacheDtype,
    rows: Vec<Row>,
}

/// One sequence.
#[derive(Clone, Debug)]
struct Row {
    len: usize,
    /// The blocks of each layer.
    layers: Vec<Vec<Block>>,
}

/// The keys and values that queries attend to.
#[allow(clippy::large_enum_variant)] // Handed from one call to the next, never kept.
#[derive(Clone, Debug)]
pub enum KeysValues {
    /// Tensors, `[batch, positions, heads, head width]` each; all rows have the same length.
    Whole {
        /// The keys.
        keys_bshk: Tensor<4>,
        /// The values.
        values_bshk: Tensor<4>,
    },
    /// Blocks of a [`KvCache`].
    Blocks(Blocks),
}

/// The blocks of one layer of a [`KvCache`], with the new positions of a pass appended.
#[derive(Clone, Debug)]
pub struct Blocks {
    pub(crate) rows: Vec<BlockedRow>,
}

/// The context of one row.
#[derive(Clone, Debug)]
pub(crate) struct BlockedRow {
    /// Its keys and values.
    pub(crate) blocks: Vec<Block>,
    /// Positions, new ones included.
    pub(crate) keys: usize,
    /// New positions.
    pub(crate) new: usize,
}

impl KvCache {
    /// An empty cache for `n_layers` layers and at most `max_len` positions per row. The first pass sets the number of
    /// rows.
    pub fn new(n_layers: usize, max_len: usize) -> Self {
        Self { n_layers, max_len, dtype: KvCacheDtype::F32, rows: Vec::new() }
    }

    /// The same cache with keys and values in `dtype`.
    ///
    /// # Panics
    /// If the cache is not empty.
    #[must_use]
    pub fn with_dtype(self, dtype: KvCacheDtype) -> Self {
        assert!(self.is_empty(), "the element type of a cache is chosen before it is filled");
        Self { dtype, ..self }
    }

    /// Element type of keys and values.
    pub fn dtype(&self) -> KvCacheDtype {
        self.dtype
    }

    /// Bytes of the blocks of all rows; a shared block counts once per row.
    pub fn n_bytes(&self) -> usize {
        self.rows.iter().flat_map(|row| row.layers.iter().flatten()).map(Block::n_bytes).sum()
    }

    /// Keeps these rows, in this order. A row may be repeated, for several continuations (beam search).
    ///
    /// # Panics
    /// If an index is not below the number of rows.
    pub fn select(&mut self, rows: &[usize]) {
        if rows.iter().copied().eq(0..self.rows.len()) {
            return;
        }
        self.rows = rows.iter().map(|&row| self.rows[row].clone()).collect();
    }

    /// The rows of several caches of one model, concatenated.
    ///
    /// # Panics
    /// If there is no cache, or they differ in the number of layers or the element type.
    pub fn join(caches: impl IntoIterator<Item = Self>) -> Self {
        let joined = caches.into_iter().reduce(|mut joined, cache| {
            assert_eq!(joined.n_layers, cache.n_layers, "caches of models of different depths");
            assert_eq!(joined.dtype, cache.dtype, "caches in different element types");
            joined.max_len = joined.max_len.min(cache.max_len);
            joined.rows.extend(cache.rows);
            joined
        });
        joined.expect("caches to join")
    }

    /// The same with one row, which is empty if there was none: a sequence that has not begun, to [join](Self::join) others.
    #[must_use]
    pub fn into_row(mut self) -> Self {
        if self.rows.is_empty() {
            self.rows = vec![Row { len: 0, layers: vec![Vec::new(); self.n_layers] }];
        }
        self
    }

    /// One cache per row.
    pub fn split(self) -> Vec<Self> {
        let Self { n_layers, max_len, dtype, rows } = self;
        rows.into_iter().map(|row| Self { n_layers, max_len, dtype, rows: vec![row] }).collect()
    }

    /// Positions per block of a cache on `device`.
    pub fn block_len(device: &Device) -> usize {
        if is_cpu(device) { HOST_BLOCK } else { DEVICE_BLOCK }
    }

    /// Block `index` of the only row, of all layers, as a cache of its own. The elements are shared.
    ///
    /// # Panics
    /// If there is not one row, or the block is not full.
    #[must_use]
    pub fn block(&self, index: usize) -> Self {
        let [row] = self.rows.as_slice() else { panic!("a block of one row, not of {}", self.rows.len()) };
        let layers: Vec<Vec<Block>> = row.layers.iter().map(|blocks| vec![blocks[index].clone()]).collect();
        let len = layers.first().map_or(0, |blocks| blocks[0].dims()[0]);
        assert!((index + 1) * len <= row.len, "block {index} of {} positions is not full", row.len);
        Self { rows: vec![Row { len, layers }], ..*self }
    }

    /// Appends a [`block`](Self::block) to the only row, or to an empty cache. The elements are shared.
    ///
    /// # Panics
    /// If there are several rows, the row does not end with a full block, or the positions do not fit.
    pub fn append_block(&mut self, block: &Self) {
        let [added] = block.rows.as_slice() else {
            panic!("a block of one row, not of {}", block.rows.len())
        };
        if self.is_empty() {
            self.rows = vec![Row { len: 0, layers: vec![Vec::new(); self.n_layers] }];
        }
        let [row] = self.rows.as_mut_slice() else { panic!("a block is appended to one row") };
        assert_eq!(row.len % added.len, 0, "a block begins behind full ones");
        assert!(
            row.len + added.len <= self.max_len,
            "{} positions do not fit: {} are used",
            added.len,
            row.len
        );
        for (blocks, added_blocks) in row.layers.iter_mut().zip(&added.layers) {
            blocks.truncate(row.len / added.len);
            blocks.extend_from_slice(added_blocks);
        }
        row.len += added.len;
    }

    /// Length of the longest row, in positions.
    pub fn len(&self) -> usize {
        self.rows.iter().map(|row| row.len).max().unwrap_or(0)
    }

    /// Length of each row, in positions; no rows before the first pass.
    pub fn lens(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.rows.iter().map(|row| row.len)
    }

    /// Whether no row has a position.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions that still fit every row.
    pub fn room(&self) -> usize {
        self.max_len - self.len()
    }

    /// Appends the keys and values of new positions to their rows and returns the whole context. `new` holds the columns of
    /// each row; `None` is all columns.
    ///
    /// Every layer appends the same positions; the length grows when the model calls [`Forward::advance`] after its last
    /// layer.
    ///
    /// # Shape
    /// `[batch, columns, heads, head width]` each.
    ///
    /// # Panics
    /// If `layer` does not exist, the shapes or devices differ, or the positions do not fit.
    ///
    /// [`Forward::advance`]: crate::Forward::advance
    pub(crate) fn append(
        &mut self,
        layer: usize,
        (keys_bshk, values_bshk): (Tensor<4>, Tensor<4>),
        new: Option<&PaddingMask>,
    ) -> KeysValues {
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
        let (begins, dtype) = (self.is_empty(), self.dtype);
        let mut rows = Vec::with_capacity(batch);
        let on_host = with_elements([&keys_bshk, &values_bshk], |[keys, values]| {
            for (r, row) in self.rows.iter_mut().enumerate() {
                let len = row.len;
                let own = r * columns * h * k..(r + 1) * columns * h * k;
                let (keys, values) = (&keys[own.clone()], &values[own]);
                let added = HostColumns { keys, values, heads: h };
                let new = columns_of(new, r, columns);
                let blocks = row.room_for(layer, (new, self.max_len), HOST_BLOCK, || {
                    Block::on_host(dtype, HOST_BLOCK, [h, k])
                });
                for (block, at, some) in pieces(len, new, HOST_BLOCK) {
                    blocks[block].write(at, some, added);
                }
                rows.push(BlockedRow { blocks: blocks.clone(), keys: len + new, new });
            }
        });
        if on_host.is_none() {
            let device = keys_bshk.device();
            let block_len = Self::block_len(&device);
            for (r, row) in self.rows.iter_mut().enumerate() {
                let len = row.len;
                let new = columns_of(new, r, columns);
                let blocks = row.room_for(layer, (new, self.max_len), block_len, || {
                    Block::Tensor(Tensor::empty([2, block_len, h, k], &device))
                });
                for (block, at, some) in pieces(len, new, block_len) {
                    // Moved out, so that an unshared block is written in place.
                    let nothing = Block::on_host(dtype, 0, [0, 0]);
                    let Block::Tensor(mut x) = std::mem::replace(&mut blocks[block], nothing) else {
                        panic!("a cache in this process's memory is continued elsewhere")
                    };
                    for (part, x_bshk) in [&keys_bshk, &values_bshk].into_iter().enumerate() {
                        let own = x_bshk.clone().slice([r..r + 1, some.clone(), 0..h, 0..k]);
                        let at = [part..part + 1, at..at + some.len(), 0..h, 0..k];
                        x = x.slice_assign(at, own);
                    }
                    blocks[block] = Block::Tensor(x);
                }
                rows.push(BlockedRow { blocks: blocks.clone(), keys: len + new, new });
            }
        }
        // The first chunk of a prompt must be attended to as the others are, unless its kernels are free.
        let is_free = on_host.is_none() || kernel_choice::current() == KernelChoice::Fastest;
        match begins && is_free {
            true => KeysValues::Whole { keys_bshk, values_bshk },
            false => KeysValues::Blocks(Blocks { rows }),
        }
    }

    /// Truncates each row to its first `len` positions.
    ///
    /// # Panics
    /// If a row is shorter.
    pub fn truncate(&mut self, len: usize) {
        for row in &mut self.rows {
            assert!(len <= row.len, "a row of {} positions has no {len}", row.len);
            row.len = len;
        }
    }

    /// Counts the positions of a pass as computed, once all layers have appended them.
    pub(crate) fn advance(&mut self, columns: usize, new: Option<&PaddingMask>) {
        for (r, row) in self.rows.iter_mut().enumerate() {
            row.len += columns_of(new, r, columns);
        }
    }
}

/// How many of the columns of a pass belong to a row.
pub(crate) fn columns_of(rows: Option<&PaddingMask>, row: usize, columns: usize) -> usize {
    rows.map_or(columns, |rows| rows.spans()[row].end.min(columns))
}

impl Row {
    /// The blocks of a layer, with room for `new` more positions.
    ///
    /// # Panics
    /// If the row would be longer than `max_len`.
    fn room_for(
        &mut self,
        layer: usize,
        (new, max_len): (usize, usize),
        block_len: usize,
        block: impl Fn() -> Block,
    ) -> &mut Vec<Block> {
        let len = self.len + new;
        assert!(len <= max_len, "{new} positions do not fit: {} of {max_len} are used", self.len);
        let blocks = &mut self.layers[layer];
        // Blocks beyond the row's length are left from a truncation or an unfinished pass.
        blocks.truncate(self.len.div_ceil(block_len));
        blocks.resize_with(len.div_ceil(block_len), block);
        blocks
    }
}

/// Splits `new` positions after position `len` by block: index of the block, offset in it, and the new columns it takes.
fn pieces(len: usize, new: usize, block_len: usize) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
    let mut column = 0;
    std::iter::from_fn(move || {
        let at = (len + column) % block_len;
        let n = (block_len - at).min(new - column);
        let piece = ((len + column) / block_len, at, column..column + n);
        column += n;
        (n > 0).then_some(piece)
    })
}

/// Positions per block in host memory: large enough for few blocks, small enough to waste little of the last one.
const HOST_BLOCK: usize = 64;
/// Positions per block on other devices, where each pass gathers the blocks at a cost per block.
const DEVICE_BLOCK: usize = 512;

/// Cross-attention keys and values of every decoder layer, projected from the encoder's output.
///
/// Computed once per source and reused by every decode step. A clone is cheap.
#[derive(Clone, Debug)]
pub struct CrossAttentionCache {
    layers: Vec<(Tensor<4>, Tensor<4>)>,
    /// Index of the first of them.
    first: usize,
    rows: Option<PaddingMask>,
}

impl CrossAttentionCache {
    /// From keys and values of each layer, `[batch, source, heads, head width]` each, and the encoder's rows.
    pub fn new(layers: Vec<(Tensor<4>, Tensor<4>)>, rows: Option<PaddingMask>) -> Self {
        Self { layers, first: 0, rows }
    }

    /// The same for one layer only, which keeps its index.
    ///
    /// # Panics
    /// If there is no such layer.
    #[must_use]
    pub fn only(&self, layer: usize) -> Self {
        Self { layers: vec![self.layer(layer)], first: layer, rows: self.rows.clone() }
    }

    pub(crate) fn map_layers(
        mut self,
        map: impl FnMut((Tensor<4>, Tensor<4>)) -> (Tensor<4>, Tensor<4>),
    ) -> Self {
        self.layers = self.layers.into_iter().map(map).collect();
        self
    }

    /// The sources of several caches as one batch, padded to the longest.
    ///
    /// # Panics
    /// If there is no cache, or one has padding before a source or is of another model.
    pub fn join(caches: &[&Self]) -> Self {
        let first = caches.first().expect("caches to join");
        let columns = |cache: &Self| cache.layers.first().map_or(0, |(keys_bshk, _)| keys_bshk.dims()[1]);
        let longest = caches.iter().map(|cache| columns(cache)).max().unwrap_or(0);
        let lengths: Vec<usize> = caches
            .iter()
            .flat_map(|cache| match &cache.rows {
                None => vec![columns(cache); cache.len()],
                Some(rows) => {
                    let spans = rows.spans();
                    assert!(spans.iter().all(|span| span.start == 0), "sources begin in the first column");
                    spans.iter().map(|span| span.end.min(columns(cache))).collect()
                }
            })
            .collect();
        let joined = |part: fn(&(Tensor<4>, Tensor<4>)) -> &Tensor<4>, layer: usize| {
            let padded = caches.iter().map(|cache| pad_columns(part(&cache.layers[layer]).clone(), longest));
            Tensor::cat(padded.collect(), 0)
        };
        let layers = (0..first.layers.len()).map(|layer| (joined(|x| &x.0, layer), joined(|x| &x.1, layer)));
        let is_padded = lengths.iter().any(|&length| length < longest);
        let rows = is_padded.then(|| PaddingMask::padded_right(lengths));
        Self { layers: layers.collect(), first: first.first, rows }
    }

    /// Bytes of the keys and values.
    pub fn n_bytes(&self) -> usize {
        let bytes = |x: &Tensor<4>| x.dims().iter().product::<usize>() * x.dtype().size();
        self.layers.iter().map(|(keys, values)| bytes(keys) + bytes(values)).sum()
    }

    /// Number of sources.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |(keys_bshk, _)| keys_bshk.dims()[0])
    }

    /// Whether there is no source.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which columns of the source belong to each row; `None` if all do.
    pub fn padding_mask(&self) -> Option<&PaddingMask> {
        self.rows.as_ref()
    }

    /// Keeps these rows of the batch, in this order; a row may be repeated.
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

    /// Keys and values of a layer.
    pub(crate) fn layer(&self, layer: usize) -> (Tensor<4>, Tensor<4>) {
        self.layers[layer - self.first].clone()
    }
}

/// Zeros after the columns of the second axis, up to `columns` of them.
fn pad_columns(x_bshk: Tensor<4>, columns: usize) -> Tensor<4> {
    let [b, s, h, k] = x_bshk.dims();
    if s == columns {
        return x_bshk;
    }
    let padding_bshk = Tensor::zeros([b, columns - s, h, k], &x_bshk.device());
    Tensor::cat(vec![x_bshk, padding_bshk], 1)
}

fn select_rows(x_bshk: Tensor<4>, rows: &[usize]) -> Tensor<4> {
    let at: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    let at = ids::upload(&at, [rows.len()], &x_bshk.device());
    x_bshk.select(0, at)
}

#[cfg(any(feature = "flex", feature = "ndarray"))]
#[cfg(test)]
mod tests {
    use andiron_kernels::attention::Bf16;

    use super::*;
    use crate::DeviceSpec;
    use burn::tensor::TensorData;

    /// Appends `n` positions of two heads of width 3 to each row of a one-layer cache, with values `begin`, `begin + 1`, …
    fn extended(cache: &mut KvCache, [batch, n]: [usize; 2], begin: f32) -> KeysValues {
        let device = DeviceSpec::first_compiled().unwrap().open().unwrap();
        let values: Vec<f32> = (0..batch * n * 6).map(|at| begin + at as f32).collect();
        let x_bshk = Tensor::<4>::from_data(TensorData::new(values, [batch, n, 2, 3]), &device);
        let keys_values = cache.append(0, (x_bshk.clone(), x_bshk + 0.5), None);
        cache.advance(n, None);
        keys_values
    }

    /// Keys and values of a row, position by position.
    fn held(cache: &KvCache, row: usize) -> [Vec<f32>; 2] {
        let device = DeviceSpec::first_compiled().unwrap().open().unwrap();
        [0, 1].map(|part| {
            let of = |block: &Block| {
                let x_bhsk = Tensor::<4>::from_data(block.host_part(part), &device);
                x_bhsk.swap_dims(1, 2).into_data().try_into_vec::<f32>().unwrap()
            };
            let blocks = cache.rows[row].layers[0].iter();
            blocks.flat_map(of).take(cache.rows[row].len * 6).collect()
        })
    }

    fn rounded(x: Vec<f32>) -> Vec<f32> {
        x.into_iter().map(|x| Bf16::from_f32(x).to_f32()).collect()
    }

    fn counted(n: usize, begin: f32) -> Vec<f32> {
        (0..n * 6).map(|at| begin + at as f32).collect()
    }

    #[test]
    fn rows_share_blocks_until_one_of_them_goes_on() {
        for dtype in KvCacheDtype::ALL {
            let mut cache = KvCache::new(1, 100).with_dtype(dtype);
            extended(&mut cache, [1, 20], 0.0);
            let before = cache.clone();
            cache.select(&[0, 0]);
            extended(&mut cache, [2, 1], 120.0);
            for (row, begin) in [(0, 120.0), (1, 126.0)] {
                let wanted = [counted(20, 0.0), counted(1, begin)].concat();
                assert_eq!(held(&cache, row)[0], wanted, "{dtype}");
            }
            assert_eq!(held(&before, 0)[0], counted(20, 0.0), "{dtype}");
            let [mut first, _] = <[KvCache; 2]>::try_from(cache.split()).unwrap();
            assert_eq!(first.dtype(), dtype);
            // Truncated positions are overwritten.
            first.truncate(3);
            extended(&mut first, [1, 80], 40.0);
            let wanted = [counted(3, 0.0), counted(80, 40.0)].concat();
            let wanted = if dtype == KvCacheDtype::F32 { wanted } else { rounded(wanted) };
            assert_eq!(held(&first, 0)[0], wanted, "{dtype}");
        }
    }

    #[test]
    fn a_row_made_of_anothers_blocks_goes_on_from_there() {
        for dtype in KvCacheDtype::ALL {
            let mut cache = KvCache::new(1, 300).with_dtype(dtype);
            extended(&mut cache, [1, 150], 0.0);
            let mut other = KvCache::new(1, 300).with_dtype(dtype);
            other.append_block(&cache.block(0));
            other.append_block(&cache.block(1));
            assert_eq!(other.len(), 128);
            extended(&mut other, [1, 70], 7.0);
            let wanted = [counted(128, 0.0), counted(70, 7.0)].concat();
            let wanted = if dtype == KvCacheDtype::F32 { wanted } else { rounded(wanted) };
            assert_eq!(held(&other, 0)[0], wanted, "{dtype}");
            // What was read before stays.
            let wanted =
                if dtype == KvCacheDtype::F32 { counted(150, 0.0) } else { rounded(counted(150, 0.0)) };
            assert_eq!(held(&cache, 0)[0], wanted, "{dtype}");
        }
    }

    #[test]
    #[should_panic(expected = "block 1 of 100 positions is not full")]
    fn a_block_that_is_not_full_is_not_shared() {
        let mut cache = KvCache::new(1, 100);
        extended(&mut cache, [1, 100], 0.0);
        drop(cache.block(1));
    }

    #[test]
    fn bf16_takes_half_the_bytes_and_rounds_what_is_kept() {
        let [exact, half] = KvCacheDtype::ALL.map(|dtype| {
            let mut cache = KvCache::new(1, 100).with_dtype(dtype);
            extended(&mut cache, [2, 65], 0.0);
            cache
        });
        assert_eq!(exact.n_bytes(), 2 * half.n_bytes());
        assert_eq!(exact.n_bytes(), 2 * 2 * 64 * 2 * 6 * 4);
        let [keys, values] = held(&half, 1);
        assert_eq!(keys, rounded(counted(65, 390.0)));
        assert_eq!(values, rounded(counted(65, 390.5)));
        assert_eq!(held(&exact, 1)[1], counted(65, 390.5));
    }

    #[test]
    #[should_panic(expected = "caches in different element types")]
    fn caches_of_one_element_type_are_joined() {
        KvCache::join(KvCacheDtype::ALL.map(|dtype| KvCache::new(1, 9).with_dtype(dtype)));
    }
}
