//! Dropout of attention probabilities: the mask of a block of queries.
//!
//! The random word of a probability is that of its index in a row-major `[batch, heads, queries, keys]` tensor. So the mask
//! equals that of [`dropout::apply`](crate::dropout::apply) on such a tensor, for any block, thread and instruction set.
//! The backward pass draws it again. Words are drawn along keys, 64 at a time, and stored as one bit each: bit `j % 32`
//! of word `[j / 32, query]` belongs to key `j`, so that a vector of words holds 32 keys of a vector of queries.

use super::scores::Row;
use super::view::{Block, HeadView};
use crate::dropout::{GROUP, Rule};
use crate::simd::Simd;

/// Keys whose bits share a word.
const WORD: usize = u32::BITS as usize;

/// Dropout of one head's probabilities.
#[derive(Clone, Copy)]
pub(super) struct HeadDropout {
    pub(super) rule: Rule,
    /// Index in the whole tensor of the first query and the first key.
    pub(super) first: u64,
    /// Elements from a query to the next.
    pub(super) stride: u64,
}

impl HeadDropout {
    fn element(&self, query: usize, key: usize) -> u64 {
        self.first + query as u64 * self.stride + key as u64
    }

    /// Dropout factor of the probability of a query on a key.
    pub(super) fn factor(&self, query: usize, key: usize) -> f32 {
        self.rule.factor(self.element(query, key))
    }

    /// Elements of scratch memory for the mask of a block of `queries` queries.
    pub(super) fn room(view: &HeadView, queries: usize) -> usize {
        // The words that the keys fill, and two more because a query's first key may be in the middle of a group.
        view.dropout.map_or(0, |_| (view.keys.div_ceil(GROUP) + 1) * GROUP / WORD * queries)
    }

    /// Draws the mask of a block, two vectors of queries wide, into `bits`.
    ///
    /// # Safety
    /// `bits` is writable for [`room`](Self::room) elements while the mask is used.
    #[inline(always)]
    pub(super) unsafe fn draw<S: Simd>(self, s: S, block: Block, bits: *mut f32) -> DrawnMask {
        let (bits, columns) = (bits.cast::<u32>(), 2 * S::LANES);
        let queries = if block.keys == 0 { 0 } else { block.queries };
        for i in 0..queries {
            let start = self.element(block.start + i, block.first);
            let (group, shift) = (start / GROUP as u64, start % GROUP as u64);
            let last = (start + block.keys as u64 - 1) / GROUP as u64;
            // Bits are shifted, from two neighbouring groups, to where the query's first key is bit 0.
            let put = |n: u64, low: u64, high: u64| {
                let aligned = ((u128::from(high) << 64 | u128::from(low)) >> shift) as u64;
                // SAFETY: there is room for all groups that the keys touch.
                unsafe {
                    let to = bits.add(2 * n as usize * columns + i);
                    *to = aligned as u32;
                    *to.add(columns) = (aligned >> WORD) as u32;
                }
            };
            let mut before = 0;
            for n in 0..=last - group {
                let next = self.rule.kept(s, group + n);
                if n > 0 {
                    put(n - 1, before, next);
                }
                before = next;
            }
            put(last - group, before, 0);
        }
        DrawnMask { bits, scale: self.rule.scale() }
    }
}

/// The dropout mask of a block of queries.
pub(super) trait DropoutMask<S: Simd>: Copy {
    /// Whether anything can be dropped.
    const DROPS: bool;

    /// The row of key `j`: dropped elements become 0, the others are scaled.
    ///
    /// # Safety
    /// The block has key `j`, or `j` is odd and the block has key `j - 1`.
    unsafe fn apply(self, s: S, j: usize, row: Row<S>) -> Row<S>;
}

/// No dropout.
#[derive(Clone, Copy)]
pub(super) struct KeepAll;

impl<S: Simd> DropoutMask<S> for KeepAll {
    const DROPS: bool = false;

    #[inline(always)]
    unsafe fn apply(self, _: S, _: usize, row: Row<S>) -> Row<S> {
        row
    }
}

/// A mask that [`HeadDropout::draw`] drew.
#[derive(Clone, Copy)]
pub(super) struct DrawnMask {
    bits: *const u32,
    scale: f32,
}

impl<S: Simd> DropoutMask<S> for DrawnMask {
    const DROPS: bool = true;

    #[inline(always)]
    unsafe fn apply(self, s: S, j: usize, [low, high]: Row<S>) -> Row<S> {
        let (scale, zero) = (s.splat(self.scale), s.splat(0.0));
        // SAFETY: the bits of the keys' words were drawn.
        unsafe {
            let words = self.bits.add(j / WORD * 2 * S::LANES);
            let [keeps_low, keeps_high] =
                [s.has_bit(words, j % WORD), s.has_bit(words.add(S::LANES), j % WORD)];
            [s.select(keeps_low, s.mul(low, scale), zero), s.select(keeps_high, s.mul(high, scale), zero)]
        }
    }
}
