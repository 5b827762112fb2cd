//! Rearranges parts of a matrix into panels: groups of `W` lanes (rows of the left operand or columns of
//! the right one), the lanes of each step of the depth side by side, missing lanes zero.

use std::cell::RefCell;

use super::block::Strided;

/// One cache line, the unit of the buffers, so that vectors do not straddle lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [f32; 16]);

thread_local! {
    static SPARE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Scratch memory of this thread, kept between calls. Its contents are whatever the last user left.
///
/// A nested user on the same thread gets memory of its own: the last that was given back is the first to be taken, so
/// that each level of nesting finds its memory of the call before.
pub(crate) struct Scratch(Vec<Line>);

impl Scratch {
    /// At least `len` numbers.
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
        // A thread that ends has no use for it.
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

    /// The next `len` numbers, rounded up to whole cache lines.
    pub(crate) fn take(&mut self, len: usize) -> *mut f32 {
        let len = len.next_multiple_of(16);
        assert!(len <= self.left, "the parts are longer than the scratch memory");
        let part = self.next;
        self.next = part.wrapping_add(len);
        self.left -= len;
        part
    }
}

/// Packs `lanes` lanes of `depth` numbers into panels of `W` lanes at `to`.
///
/// # Safety
/// `from` is readable for these lanes and depths, `to` writable for `lanes` rounded up to a multiple of `W`,
/// times `depth`.
#[inline(always)]
pub(crate) unsafe fn panels<const W: usize>(from: Strided, lanes: usize, depth: usize, to: *mut f32) {
    let mut lane = 0;
    while lane < lanes {
        let count = W.min(lanes - lane);
        // SAFETY: the panel's lanes exist in `from`, its room in `to`.
        unsafe {
            let from = Strided { start: from.start.add(lane * from.lane), ..from };
            panel::<W>(from, count, depth, to.add(lane * depth));
        }
        lane += W;
    }
}

/// # Safety
/// As for [`panels`], for one panel of `count` lanes.
#[inline(always)]
unsafe fn panel<const W: usize>(from: Strided, count: usize, depth: usize, to: *mut f32) {
    // SAFETY: every index is below `count` lanes and `depth` steps.
    unsafe {
        if from.lane == 1 && count == W {
            for d in 0..depth {
                let step: [f32; W] = from.start.add(d * from.depth).cast::<[f32; W]>().read();
                to.add(d * W).cast::<[f32; W]>().write(step);
            }
            return;
        }
        if count < W {
            for d in 0..depth {
                for lane in count..W {
                    to.add(d * W + lane).write(0.0);
                }
            }
        }
        let (mut lane, mut d) = (0, 0);
        if from.depth == 1 {
            while lane + 4 <= count {
                d = 0;
                while d + 4 <= depth {
                    transpose_4x4(from.start.add(lane * from.lane + d), from.lane, to.add(d * W + lane), W);
                    d += 4;
                }
                scalar::<W>(from, lane..lane + 4, d..depth, to);
                lane += 4;
            }
            while lane + 2 <= count {
                d = 0;
                while d + 4 <= depth {
                    transpose_2x4(from.start.add(lane * from.lane + d), from.lane, to.add(d * W + lane), W);
                    d += 4;
                }
                scalar::<W>(from, lane..lane + 2, d..depth, to);
                lane += 2;
            }
        }
        let _ = d;
        scalar::<W>(from, lane..count, 0..depth, to);
    }
}

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
/// Four rows of four numbers are readable at `from` and writable at `to`.
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
/// Two rows of four numbers are readable at `from`, four rows of two are writable at `to`.
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
