//! Matmul with few rows: decoding. Sixteen of `q8_0` can use int8 tiles (`amx`).
//!
//! Weights are read once and only results are written, so the loops have as few instructions as possible between a byte of
//! memory and an accumulator. A vector of bytes holds as many groups of 32 weights as fit ([`bytes`]); a format unpacks its
//! blocks to unsigned integers, scales and minima ([`blocks`]); activations are stored in the order in which those are
//! multiplied ([`activations`]), as f32 or as int8 ([`factors`]). f16 and bf16 have no blocks and are
//! simpler ([`sixteen_bit`]). With AVX-512-VNNI and int8, a lane is an output (`panels`). For more rows, AMX dequantizes blocks to bf16 `rows`.

mod activations;
#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod blocks;
mod bytes;
mod factors;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod panels;
#[cfg(target_arch = "x86_64")]
mod rows;
mod sixteen_bit;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::marker::PhantomData;
use std::ops::Range;

use super::expand::plain;
use super::{Format, QuantRef};
use crate::parallel::{self, Shared};
use crate::simd::Simd;
use crate::{Cpu, Isa, Precision};
use activations::{Activations, Order};
use blocks::{Blocks, EightRuns, Group, OneRun, SixBits};
use bytes::{Bytes, Kernel, each, with_bytes};
use factors::{Exact, Factors, Rounded};

#[cfg(target_arch = "x86_64")]
pub(super) use panels::suits as has_panels;
#[cfg(target_arch = "x86_64")]
pub(super) use rows::{UNIT, expand, order};

/// Rows whose accumulators stay in registers. More are several groups of rows, for which the weights of an output stay in the
/// L1 cache.
pub(super) const MAX_ROWS: usize = 4;

/// `y = x wᵀ + bias`; the order of an element's sum does not depend on the number of rows. At mixed precision, activations are
/// quantized for weights in blocks.
pub(super) fn few_rows(cpu: Cpu, x: &[f32], w: QuantRef, bias: Option<&[f32]>, y: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if panels::suits(cpu, w) {
        return panels::matmul(cpu, x, w, bias, y);
    }
    let m = y.len() / w.rows;
    let activations = Activations::new(cpu, x, w);
    let y = Shared::new(y);
    parallel::rows(cpu, w.rows, row_work(m, w, activations.how), 4, |outputs| {
        let product = Product { x: &activations, m, w, bias, y: &y, outputs };
        match activations.how {
            Order::Plain => scalar(&product),
            Order::SixteenBit => sixteen_bit::multiply(cpu.isa, product),
            Order::Exact => by_format::<Exact>(cpu.isa, product),
            Order::Rounded => by_format::<Rounded>(cpu.isa, product),
        }
    });
}

/// Whether [`few_rows`] unpacks the weights once for all rows, so that it is fast with many.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn has_panels(_: Cpu, _: QuantRef) -> bool {
    false
}

/// `y = x wᵀ + bias` of any number of rows, by plain Rust, without quantized activations.
pub(super) fn exact(cpu: Cpu, x: &[f32], w: QuantRef, bias: Option<&[f32]>, y: &mut [f32]) {
    few_rows(cpu.at(Precision::F32), x, w, bias, y);
}

/// Work per output, in f32 multiply-adds. A weight costs the time of reading and of multiplying it.
fn row_work(m: usize, w: QuantRef, how: Order) -> usize {
    match how {
        Order::Plain => 4 * (1 + m) * w.cols,
        Order::SixteenBit => m.div_ceil(MAX_ROWS) * w.cols,
        Order::Exact => (1 + m) * w.cols / 3,
        Order::Rounded => (1 + m) * w.cols / 8,
    }
}

/// Some outputs of a matmul.
struct Product<'a> {
    x: &'a Activations<'a>,
    m: usize,
    w: QuantRef<'a>,
    bias: Option<&'a [f32]>,
    /// `[m, rows]`; the columns `outputs` are written by no other thread.
    y: &'a Shared<'a, f32>,
    outputs: Range<usize>,
}

impl Product<'_> {
    /// The bytes of an output's weights.
    fn weights(&self, output: usize) -> &[u8] {
        self.w.bytes(output..output + 1)
    }

    /// Row `i` of `x`; the last one for any beyond it.
    fn x(&self, i: usize) -> &[f32] {
        self.x.row(i.min(self.m - 1))
    }

    fn store(&self, i: usize, output: usize, sum: f32) {
        self.store_all(i, output, [sum]);
    }

    /// Stores the sums of neighbouring outputs.
    #[inline(always)]
    fn store_all<const N: usize>(&self, i: usize, output: usize, mut sums: [f32; N]) {
        assert!(self.outputs.start <= output && output + N <= self.outputs.end && i < self.m);
        if let Some(bias) = self.bias {
            sums.iter_mut().zip(&bias[output..output + N]).for_each(|(sum, bias)| *sum += bias);
        }
        let at = i * self.w.rows + output;
        // SAFETY: each element of `y` belongs to one row and output, and the outputs are this product's alone.
        unsafe { self.y.range(at..at + N) }.copy_from_slice(&sums);
    }

    /// Several outputs at a time if `x` has few rows, so that each vector of `x` is read less often.
    #[inline(always)]
    fn with_rows<F: Blocks, X: Factors, B: Bytes>(&self, b: B) {
        match self.m {
            1 => self.all::<F, X, B, 1, 4>(b),
            2 => self.all::<F, X, B, 2, 2>(b),
            _ => self.all::<F, X, B, MAX_ROWS, 1>(b),
        }
    }

    #[inline(always)]
    fn all<F: Blocks, X: Factors, B: Bytes, const M: usize, const N: usize>(&self, b: B) {
        let Range { start, end } = self.outputs;
        let whole = start + (end - start) / N * N;
        for output in (start..whole).step_by(N) {
            for row in (0..self.m).step_by(M) {
                self.some::<F, X, B, M, N>(b, (row, output));
            }
        }
        for output in whole..end {
            for row in (0..self.m).step_by(M) {
                self.some::<F, X, B, M, 1>(b, (row, output));
            }
        }
    }

    /// `N` outputs of `M` rows from these on.
    #[inline(always)]
    fn some<F: Blocks, X: Factors, B: Bytes, const M: usize, const N: usize>(
        &self,
        b: B,
        (row, output): (usize, usize),
    ) {
        let s = b.simd();
        let runs = self.w.cols / 32;
        // One block, or one for each group of 32 in a vector, of which the last may be missing.
        let group_runs = B::RUNS.max(F::RUNS);
        let group_bytes = group_runs / F::RUNS * F::BYTES;
        let weights: [_; N] = each(|n| self.weights(output + n).as_ptr());
        let rows: [_; M] = each(|i| self.x(row + i).as_ptr());
        let ahead = N * runs / F::RUNS * F::BYTES;
        let mut sums = [[s.splat(0.0); N]; M];
        for first in (0..runs).step_by(group_runs) {
            let step = if first + group_runs <= runs { F::BYTES } else { 0 };
            // SAFETY: the group begins in the row.
            let start = |n: usize| unsafe { weights[n].add(first / F::RUNS * F::BYTES) };
            let groups: [_; N] = each(|n| Group { start: start(n), step });
            // The same place in the outputs that follow, all lines of it.
            for group in groups {
                for line in (0..group_bytes).step_by(64) {
                    s.prefetch(group.start.wrapping_add(ahead + line));
                }
            }
            // SAFETY: the blocks of the group lie in the row.
            let heads = unsafe { F::heads(b, groups) };
            for unit in 0..group_runs / B::RUNS {
                let at = (first + unit * B::RUNS) * X::RUN_WORDS;
                // SAFETY: rows of `x` are activations in whole units, at least as many as those of the weights.
                let x: [_; M] = each(|i| unsafe { X::read(b, rows[i].add(at), F::OFFSET) });
                for n in 0..N {
                    // SAFETY: the blocks of the group lie in the row.
                    let numbers = unsafe { F::numbers(b, groups[n], unit) };
                    let scales = F::scales::<B, N>(b, &heads, n, unit);
                    for (sums, x) in sums.iter_mut().zip(x) {
                        sums[n] = s.fma(X::dot(b, x, numbers, F::OFFSET), scales, sums[n]);
                        if F::MINIMA {
                            sums[n] = s.fma(X::total(b, x), F::minima::<B, N>(b, &heads, n, unit), sums[n]);
                        }
                    }
                }
            }
        }
        // As in a tile of `gemm`: indexing accumulators in a loop would put them in memory, in the loop above too.
        let in_memory = sums;
        for (i, sums) in in_memory.iter().enumerate().take(self.m - row) {
            for (n, sum) in sums.iter().enumerate() {
                self.store(row + i, output + n, s.sum(*sum));
            }
        }
    }
}

/// A matmul whose formats are known to the compiler, so that each has functions of its own.
struct Blocked<'a, F, X>(Product<'a>, PhantomData<(F, X)>);

impl<F: Blocks, X: Factors> Kernel for Blocked<'_, F, X> {
    #[inline(always)]
    fn run<B: Bytes>(self, b: B) {
        self.0.with_rows::<F, X, B>(b);
    }
}

fn by_format<X: Factors>(isa: Isa, product: Product) {
    match product.w.format {
        Format::Q8_0 => blocked::<OneRun<8, false>, X>(isa, product),
        Format::Q4_0 => blocked::<OneRun<4, false>, X>(isa, product),
        Format::Q4_1 => blocked::<OneRun<4, true>, X>(isa, product),
        Format::Q5_0 => blocked::<OneRun<5, false>, X>(isa, product),
        Format::Q5_1 => blocked::<OneRun<5, true>, X>(isa, product),
        Format::Q4K => blocked::<EightRuns<4>, X>(isa, product),
        Format::Q5K => blocked::<EightRuns<5>, X>(isa, product),
        Format::Q6K => blocked::<SixBits, X>(isa, product),
        Format::F16 | Format::Bf16 => unreachable!("halves have no blocks"),
    }
}

fn blocked<F: Blocks, X: Factors>(isa: Isa, product: Product) {
    with_bytes(isa, Blocked::<F, X>(product, PhantomData));
}

/// Each output by itself: the reference for the fast versions, but for the order of sums.
fn scalar(product: &Product) {
    for output in product.outputs.clone() {
        for i in 0..product.m {
            product.store(i, output, plain_dot(product.w.format, product.weights(output), product.x(i)));
        }
    }
}

/// `Σ_l weights[l] x[l]` over whole blocks.
fn plain_dot(format: Format, weights: &[u8], x: &[f32]) -> f32 {
    /// Weights dequantized at a time: one block of the longest.
    const PART: usize = 256;
    let part_bytes = PART / format.block_len() * format.block_bytes();
    let mut room = [0.0; PART];
    let mut sum = 0.0;
    for (weights, x) in weights.chunks(part_bytes).zip(x.chunks(PART)) {
        let room = &mut room[..x.len()];
        plain(format, weights, room);
        sum += room.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
    }
    sum
}
