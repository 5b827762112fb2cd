//! One head of one sequence, as pointers, and its mask.

use std::ops::Range;

use super::decode::QueryView;
use super::dropout::HeadDropout;

/// Pointer to element `index`, or to the end if there is none: without keys there is no first one.
pub(super) fn from<T>(slice: &[T], index: usize) -> *const T {
    slice[index.min(slice.len())..].as_ptr()
}

/// One head of one sequence. Strides are from one position to the next: `q_stride` of `q`, `out_stride` of `out` and its
/// gradient, `kv_stride` of `k` and `v`.
#[derive(Clone, Copy)]
pub(super) struct HeadView {
    pub(super) q: *const f32,
    pub(super) k: *const f32,
    pub(super) v: *const f32,
    pub(super) q_stride: usize,
    pub(super) kv_stride: usize,
    pub(super) out_stride: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) dim: usize,
    /// Mask of the first query.
    pub(super) mask: AttentionMask,
    pub(super) scale: f32,
    /// The bias of the first query and the first key; that of query `i` and key `j` is `i - j` elements further. Null if
    /// there is none.
    pub(super) bias: *const f32,
    /// `None` if no probability is dropped.
    pub(super) dropout: Option<HeadDropout>,
}

impl HeadView {
    /// The keys that query `i` attends to.
    #[inline(always)]
    pub(super) fn keys_of(&self, i: usize) -> Range<usize> {
        self.mask.later(i).among(self.keys)
    }

    /// Query `i` and the keys that it attends to, as one block.
    pub(super) fn query<'a>(&self, i: usize, block: &'a [(*const f32, *const f32); 1]) -> QueryView<'a, f32> {
        QueryView {
            q: self.q.wrapping_add(i * self.q_stride),
            heads: 1,
            blocks: block,
            block_len: usize::MAX,
            kv_stride: self.kv_stride,
            seen: self.keys_of(i),
            dim: self.dim,
            scale: self.scale,
            bias: if self.bias.is_null() { self.bias } else { self.bias.wrapping_add(i) },
            bias_stride: 0,
        }
    }

    /// The bias of query `i` and key `j`.
    ///
    /// # Safety
    /// The query and the key exist, and the view is readable.
    pub(super) unsafe fn bias_of(&self, i: usize, j: usize) -> f32 {
        // SAFETY: the caller's promise.
        if self.bias.is_null() { 0.0 } else { unsafe { *self.bias.wrapping_add(i).wrapping_sub(j) } }
    }

    /// What dropout multiplies the probability of query `i` on key `j` by.
    pub(super) fn kept(&self, i: usize, j: usize) -> f64 {
        self.dropout.map_or(1.0, |dropout| f64::from(dropout.factor(i, j)))
    }

    /// At most `most` queries from `start` on, and their keys, the first of which is a multiple of `multiple`.
    #[inline(always)]
    pub(super) fn block(&self, start: usize, most: usize, multiple: usize) -> Block {
        let queries = most.min(self.queries - start);
        let first = self.keys_of(start).start / multiple * multiple;
        let keys = self.keys_of(start + queries - 1).end - first;
        let mask = self.mask.later(start).relative_to_key(first);
        let bias = match self.bias.is_null() {
            true => self.bias,
            false => self.bias.wrapping_add(start).wrapping_sub(first),
        };
        Block { start, queries, first, keys, mask, bias }
    }
}

/// The mask of a query: it attends to the keys in `begin..end`, of which some may not exist. Both bounds grow by one from a
/// query to the next.
#[derive(Clone, Copy)]
pub(super) struct AttentionMask {
    pub(super) begin: isize,
    pub(super) end: isize,
}

impl AttentionMask {
    /// Beyond any key, and far from overflow.
    const FAR: isize = isize::MAX / 4;

    /// Mask of a query at `position`. The window includes the query's own position and is not 0.
    pub(super) fn new(position: isize, causal: bool, sliding_window: Option<usize>) -> Self {
        let before = sliding_window.map_or(Self::FAR, |window| (window - 1).min(Self::FAR as usize) as isize);
        let after = if causal { 0 } else { before };
        Self { begin: position - before, end: position + after + 1 }
    }

    /// Mask of the query `by` queries later.
    #[inline(always)]
    pub(super) fn later(self, by: usize) -> Self {
        Self { begin: self.begin + by as isize, end: self.end + by as isize }
    }

    /// The same mask where key `first` is key 0.
    #[inline(always)]
    pub(super) fn relative_to_key(self, first: usize) -> Self {
        Self { begin: self.begin - first as isize, end: self.end - first as isize }
    }

    /// The attended keys among `keys` keys.
    #[inline(always)]
    pub(super) fn among(self, keys: usize) -> Range<usize> {
        let [begin, end] = [self.begin, self.end].map(|key| key.clamp(0, keys as isize) as usize);
        begin..end
    }
}

/// Consecutive queries, and the keys that any of them attends to.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// The first query.
    pub(super) start: usize,
    pub(super) queries: usize,
    /// The first key.
    pub(super) first: usize,
    pub(super) keys: usize,
    /// Mask of the first query, with keys counted from the block's first.
    pub(super) mask: AttentionMask,
    /// As in [`HeadView`], of the block's first query and key.
    pub(super) bias: *const f32,
}

impl Block {
    /// The keys that all of the queries attend to, counted from the block's first.
    #[inline(always)]
    pub(super) fn unmasked(&self) -> Range<usize> {
        let begin = self.mask.later(self.queries - 1).among(self.keys).start;
        begin..self.mask.among(self.keys).end.max(begin)
    }
}

/// One head of one sequence in the backward pass.
#[derive(Clone, Copy)]
pub(super) struct BackwardView {
    pub(super) head: HeadView,
    /// Null if it was not kept; plain Rust alone reads it.
    pub(super) out: *const f32,
    pub(super) lse: *const f32,
    pub(super) dout: *const f32,
    pub(super) dq: *mut f32,
    /// Accumulated into, as are `dv` and `dbias`.
    pub(super) dk: *mut f32,
    pub(super) dv: *mut f32,
    /// From one position to the next of `dq`; of `dk` and `dv`.
    pub(super) dq_stride: usize,
    pub(super) dkv_stride: usize,
    /// In the layout of the head's bias; null if there is none.
    pub(super) dbias: *mut f32,
}
