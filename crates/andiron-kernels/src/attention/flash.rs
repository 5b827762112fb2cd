//! One head, a block of queries at a time, by vector instructions.
//!
//! The scores of a block are `[keys, queries]`, with as many queries as a matmul tile has columns. In that layout they
//! are the output of one matmul (`k qᵀ`), vectors of queries for the softmax, and a packed operand of the next matmul
//! (`vᵀ p`): nothing is repacked in between.

use super::bias::Sums;
use super::dropout::{HeadDropout, KeepAll};
use super::plain;
use super::scores::{scale_columns, slopes_block, slopes_dropped, softmax_block, softmax_dropped};
use super::view::{BackwardView, Block, HeadView};
use crate::gemm::block::Strided;
use crate::gemm::pack::{Parts, Scratch, transpose_4x4};
use crate::gemm::panel_format::PanelFormat;
use crate::gemm::tile::{Operands, Target, tile};
use crate::simd::{Simd, dispatch_matmul};

/// Keys per matmul with the values: their probabilities then fill half of the L1 cache.
const DEPTH: usize = 256;

dispatch_matmul! {
    /// # Safety
    /// The view, `out` and `lse` are readable and writable as the sizes say.
    pub(super) unsafe fn head_forward(view: HeadView, out: *mut f32, lse: *mut f32)
        = plain_forward | forward_vector;
}
dispatch_matmul! {
    /// # Safety
    /// The view is readable and writable as the sizes say.
    pub(super) unsafe fn head_backward(view: BackwardView) = plain_backward | backward_vector;
}

/// # Safety
/// As for [`head_forward`].
unsafe fn plain_forward(view: HeadView, out: *mut f32, lse: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe { plain::head_forward(view, out, lse) };
}

/// # Safety
/// As for [`head_backward`].
unsafe fn plain_backward(view: BackwardView) {
    // SAFETY: the caller's promise.
    unsafe { plain::head_backward(view) };
}

/// # Safety
/// As for [`head_forward`].
#[inline(always)]
unsafe fn forward_vector<S: Simd, P: PanelFormat<S>>(
    s: S,
    format: P,
    view: HeadView,
    out: *mut f32,
    lse: *mut f32,
) {
    // SAFETY: the caller's promise; the sizes are those of the tiles of this instruction set.
    unsafe {
        match (S::LANES, P::STEPS) {
            // Probabilities that are rounded to bf16 take the cheaper exponential.
            (16, 2) => forward_sized::<S, P, 12, 32, true>(s, format, view, out, lse),
            (16, _) => forward_sized::<S, P, 12, 32, false>(s, format, view, out, lse),
            _ => forward_sized::<S, P, 6, 16, false>(s, format, view, out, lse),
        }
    }
}

/// # Safety
/// As for [`head_backward`].
#[inline(always)]
unsafe fn backward_vector<S: Simd, P: PanelFormat<S>>(s: S, format: P, view: BackwardView) {
    // SAFETY: the caller's promise; the sizes are those of this instruction set's tiles, the last one a row of a block in
    // words.
    unsafe {
        match (S::LANES, P::STEPS) {
            (16, 2) => backward_sized::<S, P, 12, 32, 16, true>(s, format, view),
            (16, _) => backward_sized::<S, P, 12, 32, 32, false>(s, format, view),
            _ => backward_sized::<S, P, 6, 16, 16, false>(s, format, view),
        }
    }
}

/// # Safety
/// As for [`head_forward`]; `MR` and `NR` are the sizes of the largest tile.
#[inline(always)]
unsafe fn forward_sized<S: Simd, P: PanelFormat<S>, const MR: usize, const NR: usize, const ROUNDED: bool>(
    s: S,
    format: P,
    view: HeadView,
    out: *mut f32,
    lse: *mut f32,
) {
    let HeadView { q, k, v, q_stride, kv_stride, out_stride, queries, keys, dim, scale, .. } = view;
    let (key_rows, dim_rows) = (keys.next_multiple_of(MR), dim.next_multiple_of(MR));
    let (key_words, dim_words) = (keys.div_ceil(P::STEPS), dim.div_ceil(P::STEPS));
    let len = key_rows * dim_words
        + key_rows * NR
        + dim_words * NR
        + dim_rows * NR
        + dim_rows * key_words
        + key_words * NR
        + HeadDropout::room(&view, NR)
        + 7 * 16;
    let mut scratch = Scratch::take(len);
    let mut parts = Parts::new(&mut scratch, len);
    let k_panels = parts.take(key_rows * dim_words);
    let scores = parts.take(key_rows * NR);
    let q_panel = parts.take(dim_words * NR);
    let means = parts.take(dim_rows * NR);
    let v_room = parts.take(dim_rows * key_words);
    let weights_room = parts.take(key_words * NR);
    let mask_room = parts.take(HeadDropout::room(&view, NR));
    // SAFETY: the loops stay within the sizes of the view; the parts were sized for them.
    unsafe {
        format.panels::<MR>(Strided { start: k, lane: kv_stride, depth: 1 }, keys, dim, k_panels);
        let values = transposed::<S, P, MR>(format, v, kv_stride, keys, dim, v_room);
        for start in (0..queries).step_by(NR) {
            let block = view.block(start, NR, MR);
            let Block { first, keys, .. } = block;
            let from = Strided { start: q.add(start * q_stride), lane: q_stride, depth: 1 };
            format.panels::<NR>(from, block.queries, dim, q_panel);
            let k_panels = k_panels.add(first * dim_words);
            panel_matmul::<S, P, MR, NR>(s, format, (k_panels, keys), (q_panel, dim_words), scores);

            let how = (block, scale);
            let weights = if P::PLAIN { scores } else { weights_room };
            let factors = match view.dropout {
                None => softmax_block::<S, NR, ROUNDED>(s, scores, how, KeepAll, lse, |j, steps| {
                    format.two_steps(s, steps, weights.add(j / P::STEPS * NR));
                }),
                Some(dropout) => {
                    let factors = softmax_dropped(S::ISA, scores, how, (dropout, mask_room), lse);
                    columns::<S, P, NR>(format, scores, keys, weights);
                    factors
                }
            };
            let values = values.from(first / P::STEPS);
            weighted_sums::<S, P, MR, NR>(s, format, (values, dim), (weights, keys), means);
            scale_columns::<S, NR>(s, means, dim, factors);
            untranspose::<NR>(means, (block.queries, dim), out.add(start * out_stride), out_stride);
        }
    }
}

/// # Safety
/// As for [`head_backward`]; `MR` and `NR` are the sizes of the largest tile, `ROW` is `NR` in words.
#[inline(always)]
unsafe fn backward_sized<
    S: Simd,
    P: PanelFormat<S>,
    const MR: usize,
    const NR: usize,
    const ROW: usize,
    const ROUNDED: bool,
>(
    s: S,
    format: P,
    view: BackwardView,
) {
    assert!(ROW * P::STEPS == NR);
    let BackwardView { head, lse, dout, dq, dk, dv, dq_stride, dkv_stride, dbias, .. } = view;
    let HeadView { q, k, v, q_stride, kv_stride, out_stride, queries, keys, dim, scale, .. } = head;
    let (key_rows, dim_rows) = (keys.next_multiple_of(MR), dim.next_multiple_of(MR));
    let (key_words, dim_words) = (keys.div_ceil(P::STEPS), dim.div_ceil(P::STEPS));
    let dim_cols = dim.next_multiple_of(NR);
    let len = 2 * key_rows * dim_words
        + 2 * key_rows * NR
        + 2 * dim_words * NR
        + dim_rows * NR
        + dim_rows * key_words
        + dim_cols * ROW
        + 2 * key_rows * ROW
        + key_words * NR
        + Sums::room(&head)
        + HeadDropout::room(&head, NR)
        + 13 * 16;
    let mut scratch = Scratch::take(len);
    let mut parts = Parts::new(&mut scratch, len);
    let (k_panels, v_panels) = (parts.take(key_rows * dim_words), parts.take(key_rows * dim_words));
    let (scores, slopes) = (parts.take(key_rows * NR), parts.take(key_rows * NR));
    let (q_room, dout_room) = (parts.take(dim_words * NR), parts.take(dim_words * NR));
    let dq_columns = parts.take(dim_rows * NR);
    let k_room = parts.take(dim_rows * key_words);
    let (p_room, slopes_along_room) = (parts.take(key_rows * ROW), parts.take(key_rows * ROW));
    let rows_room = parts.take(dim_cols * ROW);
    let slopes_room = parts.take(key_words * NR);
    let sums_room = parts.take(Sums::room(&head));
    let mask_room = parts.take(HeadDropout::room(&head, NR));
    // SAFETY: the loops stay within the sizes of the view; the parts were sized for them.
    unsafe {
        format.panels::<MR>(Strided { start: k, lane: kv_stride, depth: 1 }, keys, dim, k_panels);
        format.panels::<MR>(Strided { start: v, lane: kv_stride, depth: 1 }, keys, dim, v_panels);
        let keys_transposed = transposed::<S, P, MR>(format, k, kv_stride, keys, dim, k_room);
        let sums = Sums::new(sums_room, &head);
        for start in (0..queries).step_by(NR) {
            let block = head.block(start, NR, MR);
            let Block { first, keys, queries, .. } = block;
            let (q, dq) = (q.add(start * q_stride), dq.add(start * dq_stride));
            let dout = dout.add(start * out_stride);
            let rows = Strided { start: q, lane: q_stride, depth: 1 };
            format.panels::<NR>(rows, queries, dim, q_room);
            let across = Strided { start: dout, lane: out_stride, depth: 1 };
            format.panels::<NR>(across, queries, dim, dout_room);
            let [k_panels, v_panels] = [k_panels, v_panels].map(|panels| panels.add(first * dim_words));
            panel_matmul::<S, P, MR, NR>(s, format, (k_panels, keys), (q_room, dim_words), scores);
            panel_matmul::<S, P, MR, NR>(s, format, (v_panels, keys), (dout_room, dim_words), slopes);
            let both = (scores, slopes);
            let how = (block, scale);
            // Probabilities and slopes by rows of keys, and slopes as a right operand: in place if words are f32.
            let (p, slopes_along, slopes_columns) = match P::PLAIN {
                true => (scores, slopes, slopes),
                false => (p_room, slopes_along_room, slopes_room),
            };
            match head.dropout {
                None => slopes_block::<S, _, NR, ROUNDED>(
                    s,
                    (scores, slopes.cast_const()),
                    how,
                    KeepAll,
                    lse,
                    sums,
                    |j, row| {
                        if !P::PLAIN {
                            format.row(s, row, p.add(j * ROW));
                        }
                    },
                    |j, rows| {
                        format.two_steps(s, rows, slopes_columns.add(j / P::STEPS * NR));
                        if !P::PLAIN {
                            // `j + 1` may not exist, but has room: `j` is even.
                            format.row(s, rows[0], slopes_along.add(j * ROW));
                            format.row(s, rows[1], slopes_along.add((j + 1) * ROW));
                        }
                    },
                ),
                Some(dropout) => {
                    slopes_dropped(S::ISA, both, how, (dropout, mask_room), lse, sums);
                    let len = keys.next_multiple_of(MR) * NR;
                    format.along(scores, len, p);
                    format.along(slopes, len, slopes_along);
                    columns::<S, P, NR>(format, slopes, keys, slopes_columns);
                }
            }
            let rows = (keys, queries);
            let [to_dv, to_dk] = [dv, dk].map(|to| (to.add(first * dkv_stride), dkv_stride));
            key_sums::<S, P, MR, NR, ROW>(s, format, rows, p, (dout, out_stride, dim), rows_room, to_dv);
            key_sums::<S, P, MR, NR, ROW>(
                s,
                format,
                rows,
                slopes_along,
                (q, q_stride, dim),
                rows_room,
                to_dk,
            );
            let keys_transposed = keys_transposed.from(first / P::STEPS);
            weighted_sums::<S, P, MR, NR>(
                s,
                format,
                (keys_transposed, dim),
                (slopes_columns, keys),
                dq_columns,
            );
            untranspose::<NR>(dq_columns, (queries, dim), dq, dq_stride);
        }
        if let Some(sums) = sums {
            sums.give(queries, dbias);
        }
    }
}

/// The transposed keys or values: stride `a_step` along keys, `panel_step` between panels.
#[derive(Clone, Copy)]
pub(super) struct Transposed {
    pub(super) start: *const f32,
    pub(super) a_step: usize,
    pub(super) panel_step: usize,
}

impl Transposed {
    /// The same operand from this word of its depth on.
    #[inline(always)]
    fn from(self, word: usize) -> Self {
        Self { start: self.start.wrapping_add(word * self.a_step), ..self }
    }
}

/// The transpose of `[keys, dim]` as left operand. Read in place if words are f32 and the smallest tile divides the
/// width, because lanes are contiguous already; else packed into `room`, with 0 in lanes beyond the width.
///
/// # Safety
/// `from` is readable for these sizes, `room` writable for `dim` rounded up to `MR`, times the words of `keys`.
#[inline(always)]
pub(super) unsafe fn transposed<S: Simd, P: PanelFormat<S>, const MR: usize>(
    format: P,
    from: *const f32,
    stride: usize,
    keys: usize,
    dim: usize,
    room: *mut f32,
) -> Transposed {
    if P::PLAIN && dim.is_multiple_of(4) {
        return Transposed { start: from, a_step: stride, panel_step: MR };
    }
    // SAFETY: the caller's promise.
    unsafe { format.panels::<MR>(Strided { start: from, lane: 1, depth: stride }, dim, keys, room) };
    Transposed { start: room, a_step: MR, panel_step: MR * keys.div_ceil(P::STEPS) }
}

/// `[depth, NR]` as right operand: packed into `room`, unless words are f32, which are one already.
///
/// # Safety
/// `from` is readable for these sizes, `room` writable for the words of `depth`, times `NR`.
#[inline(always)]
unsafe fn columns<S: Simd, P: PanelFormat<S>, const NR: usize>(
    format: P,
    from: *const f32,
    depth: usize,
    room: *mut f32,
) {
    if !P::PLAIN {
        // SAFETY: the caller's promise.
        unsafe { format.panels::<NR>(Strided { start: from, lane: 1, depth: NR }, NR, depth, room) };
    }
}

/// `to[j, lane] = Σ_d panels[j, d] columns[d, lane]` for the first `rows` rows.
///
/// # Safety
/// `panels` holds packed rows of `depth` words, `columns` a packed panel, `to` room for whole tiles.
#[inline(always)]
pub(super) unsafe fn panel_matmul<S: Simd, P: PanelFormat<S>, const MR: usize, const NR: usize>(
    s: S,
    format: P,
    (panels, rows): (*const f32, usize),
    (columns, depth): (*const f32, usize),
    to: *mut f32,
) {
    for row in (0..rows).step_by(MR) {
        // SAFETY: the panels are padded to whole tiles.
        unsafe {
            let a = panels.add(row * depth);
            let operands = Operands { k: depth, a, a_lane: 1, a_step: MR, b: columns, b_step: NR };
            let target = target::<NR>(to.add(row * NR), MR.min(rows - row), false);
            tile::<S, P, MR, 2>(s, format, operands, target);
        }
    }
}

/// `to[d, lane] = Σ_j values[j, d] weights[j, lane]` over the first `seen` keys.
///
/// # Safety
/// `values` is readable for `seen` keys, `weights` is a right operand of that depth, `to` has room for whole tiles.
#[inline(always)]
unsafe fn weighted_sums<S: Simd, P: PanelFormat<S>, const MR: usize, const NR: usize>(
    s: S,
    format: P,
    (values, dim): (Transposed, usize),
    (weights, seen): (*const f32, usize),
    to: *mut f32,
) {
    let depth = seen.div_ceil(P::STEPS);
    // At least once, so that `to` is written when the block has no keys.
    for word in (0..depth.max(1)).step_by(DEPTH) {
        for d in (0..dim).step_by(MR) {
            // SAFETY: keys and widths are below the sizes.
            unsafe {
                let a = values.start.add(d / MR * values.panel_step + word * values.a_step);
                let b = weights.add(word * NR);
                let k = DEPTH.min(depth - word);
                let operands = Operands { k, a, a_lane: 1, a_step: values.a_step, b, b_step: NR };
                tile::<S, P, MR, 2>(
                    s,
                    format,
                    operands,
                    target::<NR>(to.add(d * NR), MR.min(dim - d), word > 0),
                );
            }
        }
    }
}

/// `to[j, d] += Σ_i weights[j, i] rows[i, d]` for `keys` keys over a block of `count` queries.
///
/// # Safety
/// `weights` is `[keys, ROW]` words with room for whole tiles and 0 beyond `count`, the rows are readable, `to` is writable.
/// The room has `ROW` words for each of `dim` rounded up to `NR`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn key_sums<S: Simd, P: PanelFormat<S>, const MR: usize, const NR: usize, const ROW: usize>(
    s: S,
    format: P,
    (keys, count): (usize, usize),
    weights: *const f32,
    (rows, row_stride, dim): (*const f32, usize, usize),
    rows_room: *mut f32,
    (to, to_stride): (*mut f32, usize),
) {
    let k = count.div_ceil(P::STEPS);
    // SAFETY: the caller's promise; rows that are not whole vectors are read from the padded room.
    unsafe {
        let direct = P::PLAIN && dim.is_multiple_of(S::LANES);
        if !direct {
            let from = Strided { start: rows, lane: 1, depth: row_stride };
            format.panels::<NR>(from, dim, count, rows_room);
        }
        for d in (0..dim).step_by(NR) {
            let (b, b_step) =
                if direct { (rows.add(d), row_stride) } else { (rows_room.add(d * k).cast_const(), NR) };
            for key in (0..keys).step_by(MR) {
                let operands = Operands { k, a: weights.add(key * ROW), a_lane: ROW, a_step: 1, b, b_step };
                let target = Target {
                    c: to.add(key * to_stride + d),
                    stride: to_stride,
                    rows: MR.min(keys - key),
                    cols: NR.min(dim - d),
                    bias: std::ptr::null(),
                    accumulate: true,
                };
                tile::<S, P, MR, 2>(s, format, operands, target);
            }
        }
    }
}

#[inline(always)]
pub(super) fn target<const NR: usize>(c: *mut f32, rows: usize, accumulate: bool) -> Target {
    Target { c, stride: NR, rows, cols: NR, bias: std::ptr::null(), accumulate }
}

/// `to[i, d] = from[d, i]` for a block of queries.
///
/// # Safety
/// `from` is `[dim, NR]`, `to` writable for `count` rows of `dim`, `stride` apart.
#[inline(always)]
pub(super) unsafe fn untranspose<const NR: usize>(
    from: *const f32,
    (count, dim): (usize, usize),
    to: *mut f32,
    stride: usize,
) {
    let (whole_count, whole_dim) = (count / 4 * 4, dim / 4 * 4);
    // SAFETY: the indices are below the sizes.
    unsafe {
        for i in (0..whole_count).step_by(4) {
            for d in (0..whole_dim).step_by(4) {
                transpose_4x4(from.add(d * NR + i), NR, to.add(i * stride + d), stride);
            }
        }
        for i in 0..count {
            let done = if i < whole_count { whole_dim } else { 0 };
            for d in done..dim {
                *to.add(i * stride + d) = *from.add(d * NR + i);
            }
        }
    }
}
