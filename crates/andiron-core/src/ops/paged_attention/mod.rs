//! Attention over the blocks of a KV cache.

mod autodiff;
mod composed;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;

use burn::backend::{Backend, ExtensionType};
use burn::tensor::Tensor;

pub use extension::PagedAttentionOps;

use super::{AttentionMask, Dispatch, OptionalTensor, Tensors};
use crate::cache::{Block, Blocks};
use crate::precision;

/// Keys and values of some sequences, in blocks, new positions included.
///
/// The blocks of a cache are either all tensors or all in host memory.
#[derive(Clone, Debug, ExtensionType)]
pub struct PagedKeyValues<B: Backend> {
    /// Tensor blocks of all rows, concatenated: `[2, block length, KV heads, width]` each, keys first.
    #[extension_type]
    pub tensors: Tensors<B>,
    /// The rows; at least one has a block.
    pub rows: Vec<PagedRow>,
}

/// The part of one sequence in [`PagedKeyValues`].
#[derive(Clone, Debug)]
pub struct PagedRow {
    /// Number of its blocks among the tensors.
    n_tensors: usize,
    /// Its blocks in host memory.
    host: Vec<Block>,
    /// Positions, new ones included.
    pub keys: usize,
    /// New positions: the queries.
    pub new: usize,
}

/// Attention of new positions over themselves and their row's cached context: `softmax(q · kᵀ · scale + bias) · v`. The
/// output of padding columns is unspecified.
///
/// # Shape
/// `q_bthk`: `[rows, t, heads, width]` → the same. `bias_hr`: `[heads, t + n − 1]` with `n` the columns of the pass plus the
/// cached positions of the longest row, as in [`attention_biased`](super::attention_biased).
///
/// # Panics
/// If the shapes do not fit, or the mask is not causal.
pub(crate) fn attention_blocks(
    q_bthk: Tensor<4>,
    blocks: &Blocks,
    bias_hr: Option<Tensor<2>>,
    (scale, mask): (f32, AttentionMask),
) -> Tensor<4> {
    assert!(mask.causal, "a query that continues a sequence does not see what comes after it");
    let [b, t, h, _] = q_bthk.dims();
    let cache = paged(blocks);
    assert_eq!(b, cache.rows.len(), "queries of as many rows as the cache has");
    if let Some(bias_hr) = &bias_hr {
        assert_eq!(bias_hr.dims(), [h, 2 * t + held(&cache.rows) - 1], "biases of all heads by distance");
    }
    let bias = OptionalTensor::new(bias_hr.map(Tensor::into_dispatch));
    let q = q_bthk.into_dispatch();
    Tensor::from_dispatch(Dispatch::paged_attention(q, cache, bias, scale, mask, precision::current()))
}

fn paged(blocks: &Blocks) -> PagedKeyValues<Dispatch> {
    let mut tensors = Vec::new();
    let rows = blocks.rows.iter().map(|row| {
        let (before, mut host) = (tensors.len(), Vec::new());
        for block in &row.blocks {
            match block {
                Block::Tensor(x) => tensors.push(x.clone().into_dispatch()),
                block => host.push(block.clone()),
            }
        }
        PagedRow { n_tensors: tensors.len() - before, host, keys: row.keys, new: row.new }
    });
    let rows = rows.collect();
    PagedKeyValues { tensors: Tensors(tensors), rows }
}

/// For builds whose tensors are never in host memory.
#[cfg(not(any(feature = "flex", feature = "ndarray")))]
pub(crate) fn with_elements<T>(_: [&Tensor<4>; 2], _: impl FnOnce([&[f32]; 2]) -> T) -> Option<T> {
    None
}

/// Positions of the longest row before the pass.
fn held(rows: &[PagedRow]) -> usize {
    rows.iter().map(|row| row.keys - row.new).max().unwrap_or(0)
}

#[cfg(any(feature = "flex", feature = "ndarray"))]
#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::cache::{KeysValues, KvCacheDtype};
    use crate::{DeviceSpec, Forward, KvCache, PaddingMask};

    #[test]
    fn blocks_where_they_lie_are_what_is_gathered() {
        KvCacheDtype::ALL.into_iter().for_each(check_gathered);
    }

    /// Rows that hold 70, 0, 64 and 0 positions go on by 3, 2, none and none.
    fn check_gathered(dtype: KvCacheDtype) {
        let device = DeviceSpec::first_compiled().unwrap().open().unwrap();
        let random =
            |t: usize, h: usize| Tensor::random([4, t, h, 8], Distribution::Normal(0.0, 1.0), &device);
        let mut cache = KvCache::new(1, 100).with_dtype(dtype);
        let mut pass = |lens: [usize; 4]| {
            let t = *lens.iter().max().unwrap();
            let mut cx = Forward::cached(&mut cache).with_padding_mask(PaddingMask::padded_right(lens));
            let keys_values = cx.keys_values(0, random(t, 2), random(t, 2));
            cx.advance(t);
            keys_values
        };
        pass([70, 0, 64, 0]);
        let KeysValues::Blocks(blocks) = pass([3, 2, 0, 0]) else { panic!("the rows hold something") };
        assert_eq!(blocks.rows.iter().map(|row| row.blocks.len()).collect::<Vec<_>>(), [2, 1, 1, 0]);
        let q_bthk = random(3, 4);
        let bias_hr = Tensor::random([4, 6 + 70 - 1], Distribution::Normal(0.0, 1.0), &device);
        for (bias_hr, sliding_window) in [(None, None), (Some(bias_hr), None), (None, Some(6))] {
            let mask = AttentionMask { sliding_window, ..AttentionMask::CAUSAL };
            let host = attention_blocks(q_bthk.clone(), &blocks, bias_hr.clone(), (0.5, mask));
            let gathered = Tensor::from_dispatch(composed::paged_attention::<Dispatch>(
                q_bthk.clone().into_dispatch(),
                paged(&blocks),
                OptionalTensor::new(bias_hr.map(Tensor::into_dispatch)),
                0.5,
                mask,
                precision::current(),
            ));
            for (row, own) in [(0, 3), (1, 2)] {
                let of = |x: &Tensor<4>| x.clone().slice([row..row + 1, 0..own, 0..4, 0..8]).into_data();
                of(&host).assert_approx_eq::<f32>(&of(&gathered), burn::tensor::Tolerance::absolute(1e-5));
            }
        }
    }
}
