//! What is added to scores by how far a key is from its query, and the slopes of that.

use super::scores::MAX_BLOCK;
use super::view::{Block, HeadView};
use crate::simd::Simd;

/// Adds a vector of queries' biases to their scores times the scale.
///
/// # Safety
/// `scores` is readable and writable every `NR` numbers for the keys of the block, which has a bias.
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
        // SAFETY: the key exists, and so do `count` queries; no other is read.
        unsafe {
            let score = scores.add(j * NR);
            let bias = s.load_part_from(bias.wrapping_sub(j), count);
            s.store_to(score, s.fma(s.load_from(score), s.splat(scale), bias));
        }
    }
}

/// Where a head's slopes are added up for each distance.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// Several rows of sums, where keys that follow each other go to different ones: they are added to places that
    /// overlap, and a processor waits when it loads what it has only partly just stored.
    rows: *mut f32,
    len: usize,
    keys: usize,
}

/// Rows of sums.
const ROWS: usize = 4;

impl Sums {
    /// How many numbers they take.
    pub(super) fn room(head: &HeadView) -> usize {
        if head.bias.is_null() { 0 } else { ROWS * Self::len(head) }
    }

    /// Queries of the last block that do not exist have room as well.
    fn len(head: &HeadView) -> usize {
        head.keys + head.queries.next_multiple_of(MAX_BLOCK)
    }

    /// Sums of nothing yet, if there is a bias.
    ///
    /// # Safety
    /// `rows` is writable for [`room`](Self::room) numbers, by nobody else for as long as the sums are used.
    pub(super) unsafe fn new(rows: *mut f32, head: &HeadView) -> Option<Self> {
        if head.bias.is_null() {
            return None;
        }
        // SAFETY: the caller's promise.
        unsafe { rows.write_bytes(0, Self::room(head)) };
        Some(Self { rows, len: Self::len(head), keys: head.keys })
    }

    /// Adds the slopes of key `j` of the block, a vector of queries from `column` on.
    ///
    /// # Safety
    /// The block is one of the head that the sums were made for, and has the key; `column` is below [`MAX_BLOCK`].
    #[inline(always)]
    pub(super) unsafe fn add<S: Simd>(
        &self,
        s: S,
        (block, column): (Block, usize),
        j: usize,
        slopes: S::Vector,
    ) {
        let at = block.start + column + self.keys - 1 - (block.first + j);
        // SAFETY: queries in whole blocks have room.
        unsafe {
            let sums = self.rows.add(j % ROWS * self.len + at);
            s.store_to(sums, s.add(s.load_from(sums), slopes));
        }
    }

    /// Adds the sums to `to`, which is that of the first query and the first key of `queries`.
    ///
    /// # Safety
    /// The sums were made for a head of so many queries; `to` is readable and writable for all distances.
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
