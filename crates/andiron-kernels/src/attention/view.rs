//! One head of one sequence, as pointers, and who in it sees whom.

use std::ops::Range;

use super::decode::QueryView;
use super::dropout::HeadDropout;

/// One head of one sequence. Position `i` of `q` and of its gradient begins `i * q_stride` behind its start, that of
/// `out` and its gradient `i * out_stride`; position `j` of `k` and `v` begins `j * kv_stride` behind theirs.
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
    /// That of the first query.
    pub(super) sight: Sight,
    pub(super) scale: f32,
    /// What is added to the score of the first query and the first key; for query `i` and key `j` it lies `i - j` behind.
    /// Null if nothing is added.
    pub(super) bias: *const f32,
    /// `None` if no probability is dropped.
    pub(super) dropout: Option<HeadDropout>,
}

impl HeadView {
    /// The keys that query `i` sees.
    #[inline(always)]
    pub(super) fn seen_by(&self, i: usize) -> Range<usize> {
        self.sight.later(i).among(self.keys)
    }

    /// The first query and the keys that it sees, which are one block.
    pub(super) fn first_query<'a>(&self, block: &'a [(*const f32, *const f32); 1]) -> QueryView<'a, f32> {
        QueryView {
            q: self.q,
            heads: 1,
            blocks: block,
            block_len: usize::MAX,
            kv_stride: self.kv_stride,
            seen: self.seen_by(0),
            dim: self.dim,
            scale: self.scale,
            bias: self.bias,
            bias_stride: 0,
        }
    }

    /// What is added to the score of query `i` and key `j`.
    ///
    /// # Safety
    /// There are so many, and the view is readable.
    pub(super) unsafe fn bias_of(&self, i: usize, j: usize) -> f32 {
        // SAFETY: the caller's promise.
        if self.bias.is_null() { 0.0 } else { unsafe { *self.bias.wrapping_add(i).wrapping_sub(j) } }
    }

    /// What dropout multiplies the probability of query `i` on key `j` by.
    pub(super) fn kept(&self, i: usize, j: usize) -> f64 {
        self.dropout.map_or(1.0, |dropout| f64::from(dropout.factor(i, j)))
    }

    /// At most `most` queries from `start` on, with their keys from a multiple of `multiple` on.
    #[inline(always)]
    pub(super) fn block(&self, start: usize, most: usize, multiple: usize) -> Block {
        let queries = most.min(self.queries - start);
        let first = self.seen_by(start).start / multiple * multiple;
        let keys = self.seen_by(start + queries - 1).end - first;
        let sight = self.sight.later(start).behind(first);
        let bias = match self.bias.is_null() {
            true => self.bias,
            false => self.bias.wrapping_add(start).wrapping_sub(first),
        };
        Block { start, queries, first, keys, sight, bias }
    }
}

/// The keys that a query may see, whether there are such keys or not: from `begin` on, up to and without `end`. Those
/// of the next query are one further.
#[derive(Clone, Copy)]
pub(super) struct Sight {
    pub(super) begin: isize,
    pub(super) end: isize,
}

impl Sight {
    /// Further than any key, and not too far to count from there.
    pub(super) const FAR: isize = isize::MAX / 4;

    /// That of the query that is `by` queries later.
    #[inline(always)]
    pub(super) fn later(self, by: usize) -> Self {
        Self { begin: self.begin + by as isize, end: self.end + by as isize }
    }

    /// The same where keys are counted from key `first` on.
    #[inline(always)]
    pub(super) fn behind(self, first: usize) -> Self {
        Self { begin: self.begin - first as isize, end: self.end - first as isize }
    }

    /// Those that exist of so many keys.
    #[inline(always)]
    pub(super) fn among(self, keys: usize) -> Range<usize> {
        let [begin, end] = [self.begin, self.end].map(|key| key.clamp(0, keys as isize) as usize);
        begin..end
    }
}

/// Some queries in a row, and the keys that any of them sees.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// The first query.
    pub(super) start: usize,
    pub(super) queries: usize,
    /// The first key.
    pub(super) first: usize,
    pub(super) keys: usize,
    /// That of the first query, from the block's first key on.
    pub(super) sight: Sight,
    /// As in [`HeadView`], of the block's first query and key.
    pub(super) bias: *const f32,
}

impl Block {
    /// The keys that all of the queries see, from the block's first key on; empty if there are none.
    #[inline(always)]
    pub(super) fn seen_by_all(&self) -> Range<usize> {
        let begin = self.sight.later(self.queries - 1).among(self.keys).start;
        begin..self.sight.among(self.keys).end.max(begin)
    }
}

/// One head of one sequence, going back.
#[derive(Clone, Copy)]
pub(super) struct BackwardView {
    pub(super) head: HeadView,
    pub(super) out: *const f32,
    pub(super) lse: *const f32,
    pub(super) dout: *const f32,
    pub(super) dq: *mut f32,
    /// Added to, as are `dv` and `dbias`.
    pub(super) dk: *mut f32,
    pub(super) dv: *mut f32,
    /// Laid out like the bias of the head; null if there is none.
    pub(super) dbias: *mut f32,
}
