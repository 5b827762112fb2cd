//! Matmul with f16 or bf16 weights: each is widened to f32 as it is read.

use std::marker::PhantomData;

use super::bytes::{Bytes, Floats, Kernel, each, with_bytes};
use super::{MAX_ROWS, Product};
use crate::Isa;
use crate::quant::Format;
use crate::simd::Simd;

/// A 16-bit float format.
trait SixteenBit {
    /// # Safety
    /// `from` is readable for as many values as an f32 vector has lanes.
    unsafe fn read<B: Bytes>(b: B, from: *const u8) -> Floats<B>;
}

struct F16;

impl SixteenBit for F16 {
    #[inline(always)]
    unsafe fn read<B: Bytes>(b: B, from: *const u8) -> Floats<B> {
        // SAFETY: the caller's promise.
        unsafe { b.load_f16(from) }
    }
}

struct Bf16;

impl SixteenBit for Bf16 {
    #[inline(always)]
    unsafe fn read<B: Bytes>(b: B, from: *const u8) -> Floats<B> {
        // SAFETY: the caller's promise.
        unsafe { b.load_bf16(from) }
    }
}

/// Some outputs of a matmul with f16 or bf16 weights.
pub(super) fn multiply(isa: Isa, product: Product) {
    match product.w.format {
        Format::F16 => with_bytes(isa, Unblocked::<F16>(product, PhantomData)),
        _ => with_bytes(isa, Unblocked::<Bf16>(product, PhantomData)),
    }
}

/// A matmul whose format is known to the compiler.
struct Unblocked<'a, H>(Product<'a>, PhantomData<H>);

impl<H: SixteenBit> Kernel for Unblocked<'_, H> {
    #[inline(always)]
    fn run<B: Bytes>(self, b: B) {
        // Accumulators, a vector of each output, and one of a row.
        if (self.0.m.min(MAX_ROWS) + 1) * 4 < <B::Simd as Simd>::REGISTERS {
            self.0.outputs_of::<H, B, 4>(b);
        } else {
            self.0.outputs_of::<H, B, 2>(b);
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn outputs_of<H: SixteenBit, B: Bytes, const N: usize>(&self, b: B) {
        let whole = self.outputs.start + self.outputs.len() / N * N;
        for output in (self.outputs.start..whole).step_by(N) {
            self.rows_of::<H, B, N>(b, output);
        }
        for output in whole..self.outputs.end {
            self.rows_of::<H, B, 1>(b, output);
        }
    }

    /// `N` outputs of all rows; after the first group of rows, their weights are in the L1 cache.
    #[inline(always)]
    fn rows_of<H: SixteenBit, B: Bytes, const N: usize>(&self, b: B, output: usize) {
        for first in (0..self.m).step_by(MAX_ROWS) {
            match self.m - first {
                1 => self.some_columns::<H, B, 1, N>(b, output, first),
                2 => self.some_columns::<H, B, 2, N>(b, output, first),
                3 => self.some_columns::<H, B, 3, N>(b, output, first),
                _ => self.some_columns::<H, B, MAX_ROWS, N>(b, output, first),
            }
        }
    }

    /// `N` outputs of `M` rows from `first` on.
    #[inline(always)]
    fn some_columns<H: SixteenBit, B: Bytes, const M: usize, const N: usize>(
        &self,
        b: B,
        output: usize,
        first: usize,
    ) {
        let s = b.simd();
        let lanes = 8 * B::RUNS;
        let weights: [_; N] = each(|n| self.weights(output + n));
        let rows: [_; M] = each(|i| self.x(first + i));
        let ahead = 2 * N * self.w.cols;
        let mut sums = [[s.splat(0.0); N]; M];
        let whole = self.w.cols / lanes * lanes;
        for l in (0..whole).step_by(lanes) {
            // The same place in the outputs that follow.
            for weights in weights {
                s.prefetch(weights.as_ptr().wrapping_add(2 * l + ahead));
            }
            // SAFETY: `l + lanes` is at most the number of weights of an output.
            let w: [_; N] = each(|n| unsafe { H::read(b, weights[n].as_ptr().add(2 * l)) });
            for (sums, row) in sums.iter_mut().zip(rows) {
                // SAFETY: a row of `x` has that many elements.
                let x = unsafe { s.load_from(row.as_ptr().add(l)) };
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = s.fma(w, x, *sum);
                }
            }
        }
        let has_rest = whole < self.w.cols;
        let w: [Floats<B>; N] = each(|n| {
            if !has_rest {
                return s.splat(0.0);
            }
            let mut padded = [0; 32];
            padded[..2 * (self.w.cols - whole)].copy_from_slice(&weights[n][2 * whole..]);
            // SAFETY: a vector has at most 16 lanes.
            unsafe { H::read(b, padded.as_ptr()) }
        });
        // As in a tile of `gemm`: indexing accumulators in a loop would put them in memory, in the loop above too.
        let in_memory = sums;
        for (i, (sums, row)) in in_memory.iter().zip(rows).enumerate().take(self.m - first) {
            let x = if has_rest { s.load_part(&row[whole..]) } else { s.splat(0.0) };
            let sums = each::<f32, N>(|n| s.sum(s.fma(w[n], x, sums[n])));
            self.store_all(first + i, output, sums);
        }
    }
}
