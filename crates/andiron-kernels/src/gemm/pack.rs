//! Packing: copies parts of a matrix into panels of `W` lanes (rows of the left operand, columns of the right one). The
//! lanes of each step of the depth are contiguous; missing lanes are zero.

use std::cell::RefCell;

use super::block::Strided;

/// One cache line. Buffers are allocated in lines, so that vectors do not straddle two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [f32; 16]);

thread_local! {
    static SPARE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Scratch memory of this thread, kept between calls, with unspecified contents.
///
/// Nested users on the same thread get separate buffers from a stack, so that each level of nesting finds the buffer that
/// it had in the previous call.
pub(crate) struct Scratch(Vec<Line>);

impl Scratch {
    /// At least `len` f32.
    pub(crate) fn take(len: usize) -> Self {
        let mut lines = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        let wanted = len.div_ceil(16);
        if lines.len() < wanted {
            lines.resize(wanted, Line([0.0; 16]));
        }
        Self(lines)
    }

    pub(crate) fn pointer(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.0);
        // A thread that ends drops it.
        let _ = SPARE.try_with(|spare| spare.borrow_mut().push(lines));
    }
}

/// Hands out consecutive parts of a scratch memory.
pub(crate) struct Parts {
    next: *mut f32,
    left: usize,
}

impl Parts {
    pub(crate) fn new(scratch: &mut Scratch, len: usize) -> Self {
        Self { next: scratch.pointer(), left: len }
    }

    /// The next `len` f32, rounded up to whole cache lines.
    pub(crate) fn take(&mut self, len: usize) -> *mut f32 {
        let len = len.next_multiple_of(16);
        assert!(len <= self.left, "the parts are longer than the scratch memory");
        let part = self.next;
        self.next = part.wrapping_add(len);
        self.left -= len;
        part
    }
}

/// Packs `lanes` lanes of `depth` elements into panels of `W` lanes at `to`.
///
/// # Safety
/// `from` is readable for these lanes and depths, `to` writable for `lanes` rounded up to a multiple of `W`,
/// times `depth`.
#[inline(always)]
pub(crate) unsafe fn panels<const W: usize>(from: Strided, lanes: usize, depth: usize, to: *mut f32) {
    // SAFETY: the panels' lanes exist in `from`, their room in `to`.
    unsafe {
        let whole = if from.lane == 1 { lanes / W * W } else { 0 };
        side_by_side::<W>(from, whole, depth, to);
        for lane in (whole..lanes).step_by(W) {
            let from = Strided { start: from.start.add(lane * from.lane), ..from };
            panel::<W>(from, W.min(lanes - lane), depth, to.add(lane * depth));
        }
    }
}

/// Whole panels of lanes that are contiguous at each step of the depth. Steps are often on different pages, so several
/// cache lines are read at each, for several panels if those are narrow.
///
/// # Safety
/// As for [`panels`]; `lanes` is a multiple of `W`.
#[inline(always)]
unsafe fn side_by_side<const W: usize>(from: Strided, lanes: usize, depth: usize, to: *mut f32) {
    /// How many steps of the depth ahead to prefetch.
    const AHEAD: usize = 12;
    let together = (64 / W).max(1) * W;
    for lane in (0..lanes).step_by(together) {
        for d in 0..depth {
            for line in (lane..lanes.min(lane + together)).step_by(16) {
                fetch(from.start.wrapping_add((d + AHEAD) * from.depth + line));
            }
            for lane in (lane..lanes.min(lane + together)).step_by(W) {
                // SAFETY: the caller's promise.
                unsafe {
                    let step = from.start.add(d * from.depth + lane).cast::<[f32; W]>().read();
                    to.add(lane * depth + d * W).cast::<[f32; W]>().write(step);
                }
            }
        }
    }
}

/// Prefetches memory that will be read soon; any address is allowed.
#[inline(always)]
fn fetch(from: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which every x86-64 takes for any address.
    unsafe {
        use std::arch::x86_64::*;
        _mm_prefetch::<_MM_HINT_T0>(from.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = from;
}

/// # Safety
/// As for [`panels`], for one panel of `count` lanes.
#[inline(always)]
unsafe fn panel<const W: usize>(from: Strided, count: usize, depth: usize, to: *mut f32) {
    // SAFETY: every index is below `count` lanes and `depth` steps.
    unsafe {
        for lane in count..W {
            for d in 0..depth {
                to.add(d * W + lane).write(0.0);
            }
        }
        let transposed = if from.depth == 1 { (count / 2 * 2, depth / LINE * LINE) } else { (0, 0) };
        // One cache line of the depth at a time: what is written for it stays in the L1 cache until all lanes are there.
        for begin in (0..transposed.1).step_by(LINE) {
            for lane in (0..count / 4 * 4).step_by(4) {
                let rows = from.start.add(lane * from.lane + begin);
                for row in 0..4 {
                    fetch(rows.wrapping_add(row * from.lane + 2 * LINE));
                }
                for d in (0..LINE).step_by(4) {
                    transpose_4x4(rows.add(d), from.lane, to.add((begin + d) * W + lane), W);
                }
            }
            if count % 4 >= 2 {
                let lane = count / 4 * 4;
                for d in (begin..begin + LINE).step_by(4) {
                    transpose_2x4(from.start.add(lane * from.lane + d), from.lane, to.add(d * W + lane), W);
                }
            }
        }
        scalar::<W>(from, 0..transposed.0, transposed.1..depth, to);
        scalar::<W>(from, transposed.0..count, 0..depth, to);
    }
}

/// Elements of a cache line.
const LINE: usize = 16;

/// # Safety
/// The lanes and depths exist in `from`, their room in `to`.
#[inline(always)]
unsafe fn scalar<const W: usize>(
    from: Strided,
    lanes: std::ops::Range<usize>,
    depths: std::ops::Range<usize>,
    to: *mut f32,
) {
    for d in depths {
        for lane in lanes.clone() {
            // SAFETY: the caller's promise.
            unsafe { to.add(d * W + lane).write(*from.start.add(lane * from.lane + d * from.depth)) };
        }
    }
}

/// # Safety
/// Four rows of four elements are readable at `from` and writable at `to`.
#[inline(always)]
pub(crate) unsafe fn transpose_4x4(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64; the memory is the caller's promise.
    unsafe {
        use std::arch::x86_64::*;
        let mut a = _mm_loadu_ps(from);
        let mut b = _mm_loadu_ps(from.add(from_stride));
        let mut c = _mm_loadu_ps(from.add(2 * from_stride));
        let mut d = _mm_loadu_ps(from.add(3 * from_stride));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        _mm_storeu_ps(to, a);
        _mm_storeu_ps(to.add(to_stride), b);
        _mm_storeu_ps(to.add(2 * to_stride), c);
        _mm_storeu_ps(to.add(3 * to_stride), d);
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: NEON is part of AArch64; the memory is the caller's promise.
    unsafe {
        use std::arch::aarch64::*;
        let rows = |i: usize| vld1q_f32(from.add(i * from_stride));
        let (a, b, c, d) = (rows(0), rows(1), rows(2), rows(3));
        // Pairs of neighbours of two rows, then pairs of such pairs.
        let (ab_even, ab_odd) = (vtrn1q_f32(a, b), vtrn2q_f32(a, b));
        let (cd_even, cd_odd) = (vtrn1q_f32(c, d), vtrn2q_f32(c, d));
        let low =
            |x, y| vreinterpretq_f32_f64(vtrn1q_f64(vreinterpretq_f64_f32(x), vreinterpretq_f64_f32(y)));
        let high =
            |x, y| vreinterpretq_f32_f64(vtrn2q_f64(vreinterpretq_f64_f32(x), vreinterpretq_f64_f32(y)));
        vst1q_f32(to, low(ab_even, cd_even));
        vst1q_f32(to.add(to_stride), low(ab_odd, cd_odd));
        vst1q_f32(to.add(2 * to_stride), high(ab_even, cd_even));
        vst1q_f32(to.add(3 * to_stride), high(ab_odd, cd_odd));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    for i in 0..4 {
        for j in 0..4 {
            // SAFETY: the memory is the caller's promise.
            unsafe { *to.add(j * to_stride + i) = *from.add(i * from_stride + j) };
        }
    }
}

/// # Safety
/// Two rows of four elements are readable at `from`, four rows of two are writable at `to`.
#[inline(always)]
unsafe fn transpose_2x4(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the memory is the caller's promise.
    unsafe {
        let a = from.cast::<[f32; 4]>().read();
        let b = from.add(from_stride).cast::<[f32; 4]>().read();
        for j in 0..4 {
            to.add(j * to_stride).cast::<[f32; 2]>().write([a[j], b[j]]);
        }
    }
}
