//! One head of one sequence, as pointers.

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
    pub(super) causal: bool,
    /// See [`end_of`](Self::end_of).
    pub(super) end_of_first: isize,
    pub(super) scale: f32,
}

impl HeadView {
    /// How many keys query `i` sees, the first ones.
    #[inline(always)]
    pub(super) fn seen_by(&self, i: usize) -> usize {
        self.end_of(i).clamp(0, self.keys as isize) as usize
    }

    /// The position behind the last key that query `i` sees, if there are so many. It lies before the first key by as
    /// many positions as later queries see nothing either.
    #[inline(always)]
    pub(super) fn end_of(&self, i: usize) -> isize {
        if self.causal { self.end_of_first + i as isize } else { self.end_of_first }
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
    /// Added to, as is `dv`.
    pub(super) dk: *mut f32,
    pub(super) dv: *mut f32,
}
