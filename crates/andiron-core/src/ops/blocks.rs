//! Attention over the blocks of a cache.

use burn::tensor::{Device, Tensor};

use super::AttentionOptions;
use crate::Rows;
use crate::cache::{BlockedRow, Blocks};

/// Attention of new positions over themselves and what their rows hold, each over its own row:
/// `softmax(q · kᵀ · scale + bias) · v`. What columns beyond a row's own get is not specified.
///
/// # Shape
/// `q_bthk`: `[rows, t, heads, width]` → the same. `bias_hr`: `[heads, t + n − 1]` with `n` the columns of the pass and the
/// positions that the longest row held before, as in [`attention_biased`](super::attention_biased).
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn attention_blocks(
    q_bthk: Tensor<4>,
    blocks: &Blocks,
    bias_hr: Option<Tensor<2>>,
    (scale, reach): (f32, Option<usize>),
) -> Tensor<4> {
    let [b, t, h, _] = q_bthk.dims();
    let held = blocks.held();
    assert_eq!(b, blocks.rows.len(), "queries of as many rows as the cache has");
    if let Some(bias_hr) = &bias_hr {
        assert_eq!(bias_hr.dims(), [h, 2 * t + held - 1], "biases of all heads by distance");
    }
    #[cfg(any(feature = "flex", feature = "ndarray"))]
    if let Some(out) = super::host::attention_blocks(&q_bthk, blocks, bias_hr.as_ref(), (scale, reach)) {
        return out;
    }
    by_gathering(q_bthk, blocks, bias_hr, (scale, reach))
}

impl Blocks {
    /// Positions that the longest row held before the pass.
    fn held(&self) -> usize {
        self.rows.iter().map(|row| row.keys - row.new).max().unwrap_or(0)
    }
}

/// By attention over whole keys and values.
fn by_gathering(
    q_bthk: Tensor<4>,
    blocks: &Blocks,
    bias_hr: Option<Tensor<2>>,
    (scale, reach): (f32, Option<usize>),
) -> Tensor<4> {
    let (t, held) = (q_bthk.dims()[1], blocks.held());
    let [keys_bshk, values_bshk] = [0, 1].map(|part| gathered(blocks, part, [held, t], &q_bthk.device()));
    let alike = blocks.rows.iter().all(|row| (row.keys, row.new) == (held + t, t));
    let spans = blocks.rows.iter().map(|row| held + row.new - row.keys..held + row.new);
    let rows = (!alike).then(|| Rows::of(spans.collect()));
    let options = AttentionOptions { scale, causal: true, reach, n_keys: held + t, rows };
    match bias_hr {
        Some(bias_hr) => super::attention_biased(q_bthk, (keys_bshk, values_bshk), bias_hr, options),
        None => super::attention(q_bthk, keys_bshk, values_bshk, options),
    }
}

/// The keys or the values of all rows, those of new positions in the last `t` columns.
fn gathered(blocks: &Blocks, part: usize, [held, t]: [usize; 2], device: &Device) -> Tensor<4> {
    let [_, _, h, k] =
        blocks.rows.iter().find_map(|row| row.blocks.first()).expect("a row holds something").dims();
    let of_row = |row: &BlockedRow| {
        let filled = row.blocks.iter().map(|block| {
            let [_, positions, h, k] = block.dims();
            block.clone().slice([part..part + 1, 0..positions, 0..h, 0..k])
        });
        let own = || Tensor::cat(filled.collect(), 1).slice([0..1, 0..row.keys, 0..h, 0..k]);
        let zeros = |n: usize| (n > 0).then(|| Tensor::zeros([1, n, h, k], device));
        let (before, behind) = (held + row.new - row.keys, t - row.new);
        let parts = [zeros(before), (row.keys > 0).then(own), zeros(behind)];
        Tensor::cat(parts.into_iter().flatten().collect(), 1)
    };
    Tensor::cat(blocks.rows.iter().map(of_row).collect(), 0)
}

#[cfg(all(test, any(feature = "flex", feature = "ndarray")))]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::cache::Past;
    use crate::{DeviceSpec, Forward, KvCache, Rows};

    /// Rows that hold 70, 0, 64 and 0 positions go on by 3, 2, none and none.
    #[test]
    fn blocks_where_they_lie_are_what_is_gathered() {
        let device = DeviceSpec::first_compiled().unwrap().open().unwrap();
        let random =
            |t: usize, h: usize| Tensor::random([4, t, h, 8], Distribution::Normal(0.0, 1.0), &device);
        let mut cache = KvCache::new(1, 100);
        let mut past = |lens: [usize; 4]| {
            let t = *lens.iter().max().unwrap();
            let mut cx = Forward::cached(&mut cache).over(Rows::padded_right(lens));
            let past = cx.past(0, random(t, 2), random(t, 2));
            cx.advance(t);
            past
        };
        past([70, 0, 64, 0]);
        let Past::Blocks(blocks) = past([3, 2, 0, 0]) else { panic!("the rows hold something") };
        assert_eq!(blocks.rows.iter().map(|row| row.blocks.len()).collect::<Vec<_>>(), [2, 1, 1, 0]);
        let q_bthk = random(3, 4);
        let bias_hr = Tensor::random([4, 6 + 70 - 1], Distribution::Normal(0.0, 1.0), &device);
        for (bias_hr, reach) in [(None, None), (Some(bias_hr), None), (None, Some(5))] {
            let host = attention_blocks(q_bthk.clone(), &blocks, bias_hr.clone(), (0.5, reach));
            let gathered = by_gathering(q_bthk.clone(), &blocks, bias_hr, (0.5, reach));
            for (row, own) in [(0, 3), (1, 2)] {
                let of = |x: &Tensor<4>| x.clone().slice([row..row + 1, 0..own, 0..4, 0..8]).into_data();
                of(&host).assert_approx_eq::<f32>(&of(&gathered), burn::tensor::Tolerance::absolute(1e-5));
            }
        }
    }
}
