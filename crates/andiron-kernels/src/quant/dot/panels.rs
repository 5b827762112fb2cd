//! Matmul of weights in blocks with activations quantized to int8, by AVX-512-VNNI.
//!
//! A lane is an output: the integers of sixteen outputs are unpacked and transposed to panels, in which each vector has four
//! neighbours of every output. The dot product of a group of 32 is then exact in each lane, is scaled once, and needs no sum
//! across lanes. For more than a few rows, the panels of sixteen outputs are kept in the caches for all of them. An element is
//! the sum of its groups in their order, whatever the number of rows.

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use super::blocks::{Blocks, EightRuns, Group, OneRun, SixBits};
use super::bytes::{Bytes as _, each};
use super::factors::round;
use super::vnni::Vnni;
use crate::gemm::amx::transpose_words;
use crate::gemm::pack::Scratch;
use crate::parallel::{self, Shared};
use crate::quant::{Format, QuantRef};
use crate::simd::Simd;
use crate::{Cpu, Isa, Precision};

/// Outputs of a panel.
const OUTPUTS: usize = 16;
/// Rows of `x` whose accumulators stay in registers.
const ROWS: usize = 8;
/// Up to this many rows, panels are used as they are unpacked, while the next weights are being read.
const FEW: usize = 4;
/// Wider rows are left to other kernels: the offsets of sixteen of them must fit 32 bits.
const MAX_COLS: usize = 1 << 26;
/// Units in the largest block.
const BLOCK_UNITS: usize = 4;

/// Two groups of 32 of sixteen outputs.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Unit {
    /// Four neighbours of each output, unsigned, then the next four.
    numbers: [__m512i; 16],
    /// For each [part](Scaled::PARTS).
    scales: [__m512; 4],
    /// For each group, if there are minima.
    minima: [__m512; 2],
}

/// Two groups of 32 of a row of `x`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Quantized {
    /// Four neighbours, then the next four.
    numbers: [u32; 16],
    scales: [f32; 2],
    /// Sums of the quantized values of each group.
    totals: [f32; 2],
    /// For each part, minus what the offset of the unsigned weights adds to the dot product.
    excess: [i32; 4],
}

/// The scales of a format.
trait Scaled: Blocks {
    /// Parts of a unit with a scale of their own.
    const PARTS: usize;
    /// Units that are unpacked together: those of a block.
    const UNITS: usize = if Self::RUNS == 1 { 1 } else { Self::RUNS / 2 };

    /// Writes scales and minima of the units of a group: the first output's begins at `start`, the others at these offsets.
    ///
    /// # Safety
    /// The blocks are readable, `to` writable for [`UNITS`](Self::UNITS); the caller is compiled for AVX-512.
    unsafe fn scales_of_all(group: Group, offsets: __m512i, to: *mut Unit);
}

/// Four bytes of each output, `at` bytes into its block.
///
/// # Safety
/// The bytes are readable, and the caller is compiled for AVX-512.
#[inline(always)]
unsafe fn words(start: *const u8, at: usize, offsets: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_i32gather_epi32::<1>(offsets, start.wrapping_add(at).cast()) }
}

/// The lower, or the upper f16 of each word.
///
/// # Safety
/// The caller is compiled for AVX-512.
#[inline(always)]
unsafe fn halves<const UPPER: bool>(words: __m512i) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let words = if UPPER { _mm512_srli_epi32::<16>(words) } else { words };
        _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words))
    }
}

impl<const BITS: u32, const MINIMA: bool> Scaled for OneRun<BITS, MINIMA> {
    const PARTS: usize = 2;

    #[inline(always)]
    unsafe fn scales_of_all(Group { start, step }: Group, offsets: __m512i, to: *mut Unit) {
        for run in 0..2 {
            // SAFETY: the caller's promise; a block is longer than 4 bytes.
            unsafe {
                let heads = words(start, run * step, offsets);
                (*to).scales[run] = halves::<false>(heads);
                if MINIMA {
                    (*to).minima[run] = halves::<true>(heads);
                }
            }
        }
    }
}

impl<const BITS: u32> Scaled for EightRuns<BITS> {
    const PARTS: usize = 2;

    #[inline(always)]
    unsafe fn scales_of_all(Group { start, .. }: Group, offsets: __m512i, to: *mut Unit) {
        // SAFETY: the caller's promise; the block begins with two halves and 12 bytes of scales and minima, packed as
        // `scales_and_minima` says.
        unsafe {
            let heads = words(start, 0, offsets);
            let factors = [halves::<false>(heads), _mm512_sub_ps(_mm512_setzero_ps(), halves::<true>(heads))];
            let third = words(start, 12, offsets);
            let byte = |x: i32| _mm512_set1_epi32(x * 0x0101_0101);
            for (which, factor) in factors.into_iter().enumerate() {
                let own = words(start, 4 + 4 * which, offsets);
                let upper = _mm512_slli_epi32::<4>(_mm512_and_si512(_mm512_srli_epi32::<6>(own), byte(3)));
                let lower = if which == 0 { third } else { _mm512_srli_epi32::<4>(third) };
                let numbers = [
                    _mm512_and_si512(own, byte(0x3f)),
                    _mm512_or_si512(_mm512_and_si512(lower, byte(0x0f)), upper),
                ];
                for run in 0..8 {
                    let shift = _mm_cvtsi32_si128(8 * (run as i32 % 4));
                    let number = _mm512_srl_epi32(numbers[run / 4], shift);
                    let number = _mm512_and_si512(number, _mm512_set1_epi32(0xff));
                    let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(number), factor);
                    let unit = &mut *to.add(run / 2);
                    let place =
                        if which == 0 { &mut unit.scales[run % 2] } else { &mut unit.minima[run % 2] };
                    *place = scaled;
                }
            }
        }
    }
}

impl Scaled for SixBits {
    const PARTS: usize = 4;

    #[inline(always)]
    unsafe fn scales_of_all(Group { start, .. }: Group, offsets: __m512i, to: *mut Unit) {
        // SAFETY: the caller's promise; the block ends with 16 scales and a half.
        unsafe {
            let factor = halves::<true>(words(start, 206, offsets));
            for unit in 0..Self::UNITS {
                let numbers = words(start, 192 + 4 * unit, offsets);
                for part in 0..Self::PARTS {
                    let top = _mm512_sll_epi32(numbers, _mm_cvtsi32_si128(24 - 8 * part as i32));
                    let number = _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(top));
                    (*to.add(unit)).scales[part] = _mm512_mul_ps(number, factor);
                }
            }
        }
    }
}

/// Whether such a matmul is computed here, which is fast with any number of rows: with activations in int8, on a machine that
/// has the instructions.
pub(in crate::quant) fn suits(cpu: Cpu, w: QuantRef) -> bool {
    let has_blocks = w.format().block_len() > 1 && (1..=MAX_COLS).contains(&w.cols());
    has_blocks && cpu.precision == Precision::Mixed && cpu.isa.available() >= Isa::Avx512Bf16
}

/// `y = x wᵀ + bias`, `x` quantized to int8.
///
/// # Panics
/// Unless it [`suits`].
pub(super) fn matmul(cpu: Cpu, x: &[f32], w: QuantRef, bias: Option<&[f32]>, y: &mut [f32]) {
    assert!(suits(cpu, w), "{} weights on {}", w.format(), cpu.isa);
    match w.format() {
        Format::Q8_0 => product::<OneRun<8, false>>(cpu, x, w, bias, y),
        Format::Q4_0 => product::<OneRun<4, false>>(cpu, x, w, bias, y),
        Format::Q4_1 => product::<OneRun<4, true>>(cpu, x, w, bias, y),
        Format::Q5_0 => product::<OneRun<5, false>>(cpu, x, w, bias, y),
        Format::Q5_1 => product::<OneRun<5, true>>(cpu, x, w, bias, y),
        Format::Q4K => product::<EightRuns<4>>(cpu, x, w, bias, y),
        Format::Q5K => product::<EightRuns<5>>(cpu, x, w, bias, y),
        Format::Q6K => product::<SixBits>(cpu, x, w, bias, y),
        Format::F16 | Format::Bf16 => unreachable!("halves have no blocks"),
    }
}

fn product<F: Scaled>(cpu: Cpu, x: &[f32], w: QuantRef, bias: Option<&[f32]>, y: &mut [f32]) {
    let (m, units) = (x.len() / w.cols(), w.cols().div_ceil(64));
    let mut quantized = vec![Quantized::default(); m * units];
    let all = Shared::new(&mut quantized);
    parallel::rows(cpu, m, 2 * w.cols(), 1, |rows| {
        for row in rows {
            // SAFETY: the rows are disjoint; the machine has the vectors, as `suits` has found.
            unsafe {
                let to = all.range(row * units..(row + 1) * units);
                quantize::<F>(&x[row * w.cols()..(row + 1) * w.cols()], to);
            }
        }
    });
    let y = Shared::new(y);
    let product = Product::<F> { x: &quantized, m, units, w, bias, y: &y, format: PhantomData };
    parallel::rows(cpu, w.rows(), (4 + m) * w.cols() / 16, OUTPUTS, |outputs| {
        // SAFETY: the machine has the vectors, as `suits` has found; the outputs are this part's alone.
        unsafe { product.outputs(outputs) };
    });
}

/// Quantizes a row.
///
/// # Safety
/// The machine has the vectors.
#[target_feature(enable = "avx512vl,avx512bw,avx512f,avx2,fma")]
unsafe fn quantize<F: Scaled>(x: &[f32], to: &mut [Quantized]) {
    let per_part = 64 / F::PARTS;
    let mut runs = x.as_chunks::<32>().0.iter();
    for to in to {
        for group in 0..2 {
            let (numbers, scale) = round(runs.next().unwrap_or(&[0.0; 32]));
            let words = &mut to.numbers[8 * group..8 * group + 8];
            for (to, four) in words.iter_mut().zip(numbers.as_chunks::<4>().0) {
                *to = u32::from_ne_bytes(four.map(|x| x as u8));
            }
            to.scales[group] = scale;
            let mut total = 0;
            for (part, numbers) in numbers.chunks_exact(per_part).enumerate() {
                let sum: i32 = numbers.iter().map(|&number| i32::from(number)).sum();
                to.excess[group * F::PARTS / 2 + part] = -i32::from(F::OFFSET) * sum;
                total += sum;
            }
            to.totals[group] = total as f32 * scale;
        }
    }
}

struct Product<'a, F> {
    /// `[m, units]`.
    x: &'a [Quantized],
    m: usize,
    units: usize,
    w: QuantRef<'a>,
    bias: Option<&'a [f32]>,
    /// `[m, outputs]`.
    y: &'a Shared<'a, f32>,
    format: PhantomData<fn() -> F>,
}

/// The weights of up to sixteen outputs.
struct Panel {
    /// The first block of each; those of the last output in the place of outputs that do not exist.
    starts: [*const u8; OUTPUTS],
    offsets: __m512i,
    /// Bytes of all outputs, which are as far from the next outputs.
    len: usize,
}

impl<F: Scaled> Product<'_, F> {
    /// All rows of these outputs.
    ///
    /// # Safety
    /// The machine has the vectors, and no other thread writes these outputs.
    #[target_feature(enable = "avx512bf16,avx512vnni,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn outputs(&self, outputs: Range<usize>) {
        // SAFETY: the caller's promise; scratch memory is aligned to cache lines, and any bits are vectors.
        unsafe {
            if self.m <= FEW {
                for start in outputs.clone().step_by(OUTPUTS) {
                    let outputs = start..outputs.end.min(start + OUTPUTS);
                    match self.m {
                        1 => self.few::<1>(outputs),
                        2 => self.few::<2>(outputs),
                        _ => self.few::<FEW>(outputs),
                    }
                }
                return;
            }
            let mut scratch =
                Scratch::take(self.units.next_multiple_of(F::UNITS) * size_of::<Unit>() / size_of::<f32>());
            let units = scratch.pointer().cast::<Unit>();
            for start in outputs.clone().step_by(OUTPUTS) {
                self.many(start..outputs.end.min(start + OUTPUTS), units);
            }
        }
    }

    /// # Safety
    /// As for [`outputs`](Self::outputs), of up to sixteen outputs and `M` rows, of which all but the first may be missing.
    #[inline(always)]
    unsafe fn few<const M: usize>(&self, outputs: Range<usize>) {
        // SAFETY: the caller's promise; the units of a group are unpacked before they are read.
        unsafe {
            let panel = self.panel(outputs.clone());
            let mut room = std::mem::MaybeUninit::<[Unit; BLOCK_UNITS]>::uninit();
            let units = room.as_mut_ptr().cast::<Unit>();
            let x: [_; M] = each(|i| self.row(i));
            let mut sums = [_mm512_setzero_ps(); M];
            for first in (0..self.units).step_by(F::UNITS) {
                self.unpack(&panel, first, units);
                for unit in 0..F::UNITS {
                    add::<F, M>(units.add(unit), each(|i| x[i].add(first + unit)), &mut sums);
                }
            }
            self.store(0, outputs, sums);
        }
    }

    /// # Safety
    /// As for [`outputs`](Self::outputs), of up to sixteen outputs; `units` has room for a row's.
    #[inline(always)]
    unsafe fn many(&self, outputs: Range<usize>, units: *mut Unit) {
        // SAFETY: the caller's promise.
        unsafe {
            let panel = self.panel(outputs.clone());
            for first in (0..self.units).step_by(F::UNITS) {
                self.unpack(&panel, first, units.add(first));
            }
            let mut row = 0;
            while row < self.m {
                let outputs = outputs.clone();
                row += match self.m - row {
                    1 => self.rows::<1>(row, outputs, units),
                    2..4 => self.rows::<2>(row, outputs, units),
                    4..ROWS => self.rows::<4>(row, outputs, units),
                    _ => self.rows::<ROWS>(row, outputs, units),
                };
            }
        }
    }

    /// `M` rows from `row` on, of unpacked outputs; returns `M`.
    ///
    /// # Safety
    /// As for [`many`](Self::many); the rows exist.
    #[inline(always)]
    unsafe fn rows<const M: usize>(&self, row: usize, outputs: Range<usize>, units: *const Unit) -> usize {
        // SAFETY: the caller's promise.
        unsafe {
            let x: [_; M] = each(|i| self.row(row + i));
            let mut sums = [_mm512_setzero_ps(); M];
            for unit in 0..self.units {
                add::<F, M>(units.add(unit), each(|i| x[i].add(unit)), &mut sums);
            }
            self.store(row, outputs, sums);
        }
        M
    }

    /// Row `i` of `x`; the last one for any beyond it.
    #[inline(always)]
    fn row(&self, i: usize) -> *const Quantized {
        self.x[i.min(self.m - 1) * self.units..].as_ptr()
    }

    /// # Safety
    /// The caller is compiled for AVX-512, and there is an output.
    #[inline(always)]
    unsafe fn panel(&self, outputs: Range<usize>) -> Panel {
        let (bytes, last) = (self.w.cols() / F::RUNS / 32 * F::BYTES, outputs.len() - 1);
        let start = self.w.bytes(outputs).as_ptr();
        let offsets: [i32; OUTPUTS] = each(|output| (output.min(last) * bytes) as i32);
        Panel {
            starts: each(|output| start.wrapping_add(output.min(last) * bytes)),
            // SAFETY: the caller's promise; the array is as long as what is read.
            offsets: unsafe { _mm512_loadu_si512(offsets.as_ptr().cast()) },
            len: OUTPUTS * bytes,
        }
    }

    /// Unpacks the units of a group, the first of which is unit `first`.
    ///
    /// # Safety
    /// As for [`outputs`](Self::outputs); `to` has room for the units.
    #[inline(never)]
    #[target_feature(enable = "avx512bf16,avx512vnni,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn unpack(&self, panel: &Panel, first: usize, to: *mut Unit) {
        let runs = self.w.cols() / 32;
        let group_bytes = 2 * F::UNITS / F::RUNS * F::BYTES;
        let at = 2 * first / F::RUNS * F::BYTES;
        let step = if 2 * (first + F::UNITS) <= runs { F::BYTES } else { 0 };
        // SAFETY: the caller's promise; the group begins in each row.
        unsafe {
            let b = Vnni::new();
            // As much of the next panel as this is of this one.
            let ahead = panel.starts[0].wrapping_add(panel.len + OUTPUTS * at);
            for line in (0..OUTPUTS * group_bytes).step_by(64) {
                b.simd().prefetch(ahead.wrapping_add(line));
            }
            F::scales_of_all(Group { start: panel.starts[0].add(at), step }, panel.offsets, to);
            // Neither a loop nor a closure: they would not be unrolled, or not inlined.
            macro_rules! numbers {
                ($unit:literal: $($output:literal)*) => {
                    [$(F::numbers(b, Group { start: panel.starts[$output].add(at), step }, $unit)),*]
                };
            }
            macro_rules! unit {
                ($unit:literal) => {
                    if $unit < F::UNITS {
                        let rows = numbers!($unit: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
                        let to = (*to.add($unit)).numbers.as_mut_ptr();
                        transpose_words(|output| rows[output], |word, numbers| *to.add(word) = numbers);
                    }
                };
            }
            unit!(0);
            unit!(1);
            unit!(2);
            unit!(3);
        }
    }

    /// # Safety
    /// As for [`outputs`](Self::outputs).
    #[inline(always)]
    unsafe fn store<const M: usize>(&self, row: usize, outputs: Range<usize>, sums: [__m512; M]) {
        let exist = ((1_u32 << outputs.len()) - 1) as __mmask16;
        // SAFETY: the mask keeps accesses within the outputs, and the rows exist.
        unsafe {
            let bias = match self.bias {
                Some(bias) => _mm512_maskz_loadu_ps(exist, bias[outputs.start..].as_ptr()),
                None => _mm512_setzero_ps(),
            };
            for (i, sums) in sums.into_iter().enumerate().take(self.m - row) {
                let sums = if self.bias.is_some() { _mm512_add_ps(sums, bias) } else { sums };
                let to = self.y.pointer((row + i) * self.w.rows() + outputs.start);
                _mm512_mask_storeu_ps(to, exist, sums);
            }
        }
    }
}

/// Adds the products of a unit of sixteen outputs and `M` rows.
///
/// # Safety
/// The units are readable, and the caller is compiled for AVX-512-VNNI.
#[inline(always)]
unsafe fn add<F: Scaled, const M: usize>(
    unit: *const Unit,
    x: [*const Quantized; M],
    sums: &mut [__m512; M],
) {
    let words = 16 / F::PARTS;
    // SAFETY: the caller's promise.
    unsafe {
        for part in 0..F::PARTS {
            let group = part * 2 / F::PARTS;
            let mut products: [__m512i; M] = match F::OFFSET {
                0 => [_mm512_setzero_si512(); M],
                _ => each(|i| _mm512_set1_epi32((*x[i]).excess[part])),
            };
            for word in part * words..(part + 1) * words {
                let weights = (*unit).numbers[word];
                for (product, x) in products.iter_mut().zip(x) {
                    let numbers = _mm512_set1_epi32((*x).numbers[word].cast_signed());
                    *product = _mm512_dpbusd_epi32(*product, weights, numbers);
                }
            }
            for ((sum, product), x) in sums.iter_mut().zip(products).zip(x) {
                let scales = _mm512_mul_ps(_mm512_set1_ps((*x).scales[group]), (*unit).scales[part]);
                *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(product), scales, *sum);
                if F::MINIMA {
                    let totals = _mm512_set1_ps((*x).totals[group]);
                    *sum = _mm512_fmadd_ps(totals, (*unit).minima[part], *sum);
                }
            }
        }
    }
}
