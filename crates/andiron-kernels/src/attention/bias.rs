//! Relative position bias of the scores, and its gradient.

use super::scores::MAX_BLOCK;
use super::view::{Block, HeadView};
use crate::simd::Simd;

/// Scales the scores of a vector of queries and adds their biases.
///
/// # Safety
/// `scores` is readable and writable for the keys of the block, `NR` elements apart; the block has a bias.
#[inline(always)]
pub(super) unsafe fn add<S: Simd, const NR: usize>(
    s: S,
    scores: *mut f32,
    column: usize,
    (block, scale): (Block, f32),
) {
    let count = S::LANES.min(block.queries.saturating_sub(column));
    let bias = block.bias.wrapping_add(column);
    for j in 0..block.keys {
        // SAFETY: the key and `count` queries exist; no others are read.
        unsafe {
            let score = scores.add(j * NR);
            let bias = s.load_part_from(bias.wrapping_sub(j), count);
            s.store_to(score, s.fma(s.load_from(score), s.splat(scale), bias));
        }
    }
}

/// Gradient of a head's bias, accumulated by distance.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// Several rows of accumulators; consecutive keys use different rows. Their vectors overlap, and loading a vector that
    /// was partly just stored stalls (a failed store-to-load forward).
    rows: *mut f32,
    len: usize,
    keys: usize,
}

/// Rows of accumulators.
const ROWS: usize = 4;

impl Sums {
    /// Elements of scratch memory.
    pub(super) fn room(head: &HeadView) -> usize {
        if head.bias.is_null() { 0 } else { ROWS * Self::len(head) }
    }

    /// Distances, with room for whole blocks of queries.
    fn len(head: &HeadView) -> usize {
        head.keys + head.queries.next_multiple_of(MAX_BLOCK)
    }

    /// Accumulators set to 0; `None` without a bias.
    ///
    /// # Safety
    /// `rows` is writable for [`room`](Self::room) elements, and nothing else uses them while the accumulators live.
    pub(super) unsafe fn new(rows: *mut f32, head: &HeadView) -> Option<Self> {
        if head.bias.is_null() {
            return None;
        }
        // SAFETY: the caller's promise.
        unsafe { rows.write_bytes(0, Self::room(head)) };
        Some(Self { rows, len: Self::len(head), keys: head.keys })
    }

    /// Adds the gradients of the scores of key `j` of the block, for a vector of queries from `column` on.
    ///
    /// # Safety
    /// The block belongs to the head given to [`new`](Self::new) and has the key; `column` is below [`MAX_BLOCK`].
    #[inline(always)]
    pub(super) unsafe fn add<S: Simd>(
        &self,
        s: S,
        (block, column): (Block, usize),
        j: usize,
        slopes: S::Vector,
    ) {
        let at = block.start + column + self.keys - 1 - (block.first + j);
        // SAFETY: there is room for whole blocks of queries.
        unsafe {
            let sums = self.rows.add(j % ROWS * self.len + at);
            s.store_to(sums, s.add(s.load_from(sums), slopes));
        }
    }

    /// Adds the accumulators to `to`, the gradient of the bias of the first query and the first key.
    ///
    /// # Safety
    /// The accumulators are those of a head with `queries` queries; `to` is readable and writable for all distances.
    pub(super) unsafe fn give(self, queries: usize, to: *mut f32) {
        let first = to.wrapping_sub(self.keys.saturating_sub(1));
        for at in 0..(queries + self.keys).saturating_sub(1) {
            // SAFETY: the caller's promise.
            unsafe {
                let sum: f32 = (0..ROWS).map(|row| *self.rows.add(row * self.len + at)).sum();
                *first.add(at) += sum;
            }
        }
    }
}
