//! Products with weights that are halves: each becomes an f32 as it is read.

use std::marker::PhantomData;

use super::bytes::{Bytes, Floats, Kernel, each, with_bytes};
use super::{MAX_ROWS, Product};
use crate::Isa;
use crate::quant::Format;
use crate::simd::Simd;

/// A kind of halves.
trait Halves {
    /// # Safety
    /// `from` is readable for as many halves as a vector of f32 has lanes.
    unsafe fn read<B: Bytes>(b: B, from: *const u8) -> Floats<B>;
}

struct F16;

impl Halves for F16 {
    #[inline(always)]
    unsafe fn read<B: Bytes>(b: B, from: *const u8) -> Floats<B> {
        // SAFETY: the caller's promise.
        unsafe { b.load_f16(from) }
    }
}

struct Bf16;

impl Halves for Bf16 {
    #[inline(always)]
    unsafe fn read<B: Bytes>(b: B, from: *const u8) -> Floats<B> {
        // SAFETY: the caller's promise.
        unsafe { b.load_bf16(from) }
    }
}

/// Some outputs of a product with halves.
pub(super) fn halves(isa: Isa, product: Product) {
    match product.w.format {
        Format::F16 => with_bytes(isa, Unblocked::<F16>(product, PhantomData)),
        _ => with_bytes(isa, Unblocked::<Bf16>(product, PhantomData)),
    }
}

/// A product whose kind of halves is known to the compiler.
struct Unblocked<'a, H>(Product<'a>, PhantomData<H>);

impl<H: Halves> Kernel for Unblocked<'_, H> {
    #[inline(always)]
    fn run<B: Bytes>(self, b: B) {
        match self.0.m {
            1 => self.0.all_halves::<H, B, 1>(b),
            2 => self.0.all_halves::<H, B, 2>(b),
            _ => self.0.all_halves::<H, B, MAX_ROWS>(b),
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn all_halves<H: Halves, B: Bytes, const M: usize>(&self, b: B) {
        // The sums, a vector of each output, and one of a row.
        if (M + 1) * 4 < <B::Simd as Simd>::REGISTERS {
            self.outputs_of::<H, B, M, 4>(b);
        } else {
            self.outputs_of::<H, B, M, 2>(b);
        }
    }

    #[inline(always)]
    fn outputs_of<H: Halves, B: Bytes, const M: usize, const N: usize>(&self, b: B) {
        let whole = self.outputs.start + self.outputs.len() / N * N;
        for output in (self.outputs.start..whole).step_by(N) {
            self.some_halves::<H, B, M, N>(b, output);
        }
        for output in whole..self.outputs.end {
            self.some_halves::<H, B, M, 1>(b, output);
        }
    }

    /// `N` outputs of `M` rows.
    #[inline(always)]
    fn some_halves<H: Halves, B: Bytes, const M: usize, const N: usize>(&self, b: B, output: usize) {
        let s = b.simd();
        let lanes = 8 * B::RUNS;
        let weights: [_; N] = each(|n| self.weights(output + n));
        let rows: [_; M] = each(|i| self.x(i));
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
                // SAFETY: a row of `x` has as many numbers.
                let x = unsafe { s.load_from(row.as_ptr().add(l)) };
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = s.fma(w, x, *sum);
                }
            }
        }
        let w: [_; N] = each(|n| {
            let mut padded = [0; 32];
            padded[..2 * (self.w.cols - whole)].copy_from_slice(&weights[n][2 * whole..]);
            // SAFETY: a vector has at most 16 lanes.
            unsafe { H::read(b, padded.as_ptr()) }
        });
        // As in a tile of `gemm`: sums taken by a running index lie in memory, where the loop above would write them.
        let in_memory = sums;
        for (i, (sums, row)) in in_memory.iter().zip(rows).enumerate().take(self.m) {
            let x = s.load_part(&row[whole..]);
            for (n, (sum, w)) in sums.iter().zip(w).enumerate() {
                self.store(i, output + n, s.sum(s.fma(w, x, *sum)));
            }
        }
    }
}
