use proptest::prelude::*;

use super::half::{f16_to_f32, f32_to_f16};
use super::*;
use crate::Precision;
use crate::random::Seed;
use crate::testing::{WidenedIsF32, assert_close, bf16, every_cpu, numbers};

/// Element `index` of a block, by itself: the definition of each format, independent of the functions tested.
fn element(format: Format, block: &[u8], index: usize) -> f32 {
    let half = |at: usize| f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]));
    let nibble = |at: usize, i: usize| block[at + i % 16] >> (i / 16 * 4) & 15;
    let bit = |at: usize, i: usize| block[at + i / 8] >> (i % 8) & 1;
    // 64 bytes hold 128 numbers: each 32 bytes a run in their low halves and one in their high ones.
    let run_nibble = |at: usize, i: usize| block[at + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
    let scale_and_minimum = |at: usize, j: usize| {
        if j < 4 {
            return (block[at + j] & 63, block[at + j + 4] & 63);
        }
        let (low, first, second) = (block[at + j + 4], block[at + j - 4], block[at + j]);
        (low & 15 | first >> 6 << 4, low >> 4 | second >> 6 << 4)
    };
    let affine = |number: u8| {
        let (scale, minimum) = scale_and_minimum(4, index / 32);
        half(0) * f32::from(scale) * f32::from(number) - half(2) * f32::from(minimum)
    };
    match format {
        Format::F16 => half(0),
        Format::Bf16 => f32::from_bits(u32::from(block[1]) << 24 | u32::from(block[0]) << 16),
        Format::Q8_0 => f32::from(block[2 + index] as i8) * half(0),
        Format::Q4_0 => half(0) * (f32::from(nibble(2, index)) - 8.0),
        Format::Q4_1 => half(0) * f32::from(nibble(4, index)) + half(2),
        Format::Q5_0 => half(0) * (f32::from(nibble(6, index) | bit(2, index) << 4) - 16.0),
        Format::Q5_1 => half(0) * f32::from(nibble(8, index) | bit(4, index) << 4) + half(2),
        Format::Q4K => affine(run_nibble(16, index)),
        Format::Q5K => affine(run_nibble(48, index) | (block[16 + index % 32] >> (index / 32) & 1) << 4),
        Format::Q6K => {
            let (part, within) = (index / 128, index % 128);
            let low = block[part * 64 + within % 64] >> (within / 64 * 4) & 15;
            let high = block[128 + part * 32 + within % 32] >> (within / 32 * 2) & 3;
            let scale = f32::from(block[192 + index / 16] as i8);
            half(208) * scale * (f32::from(low | high << 4) - 32.0)
        }
    }
}

fn defined(matrix: QuantRef) -> Vec<f32> {
    let (len, bytes) = (matrix.format.block_len(), matrix.format.block_bytes());
    let blocks = matrix.data.chunks_exact(bytes);
    blocks.flat_map(|block| (0..len).map(|index| element(matrix.format, block, index))).collect()
}

/// Random bits with scales of ordinary size, times `magnitude`.
fn random_blocks(format: Format, rows: usize, cols: usize, magnitude: f32) -> Vec<u8> {
    let bytes = format.block_bytes();
    let seed = Seed::new(5).at(format as u64);
    let count = rows * cols / format.block_len();
    let mut data: Vec<u8> =
        (0..(count * bytes) as u64).map(|i| (seed.normal(i) * 1e4) as i32 as u8).collect();
    for (index, block) in data.chunks_exact_mut(bytes).enumerate() {
        let number = |i: usize| magnitude * seed.at(1).normal((2 * index + i) as u64);
        let mut put = |at: usize, x: f32| block[at..at + 2].copy_from_slice(&f32_to_f16(x).to_le_bytes());
        match format {
            Format::F16 => put(0, number(0)),
            Format::Bf16 => block.copy_from_slice(&crate::gemm::panel_format::bits(number(0)).to_le_bytes()),
            Format::Q8_0 | Format::Q4_0 | Format::Q5_0 => put(0, number(0)),
            Format::Q6K => put(208, number(0) / 64.0),
            Format::Q4_1 | Format::Q5_1 => {
                put(0, number(0));
                put(2, 8.0 * number(1));
            }
            Format::Q4K | Format::Q5K => {
                put(0, number(0) / 32.0);
                put(2, number(1) / 4.0);
            }
        }
    }
    data
}

#[derive(Clone, Copy, Debug)]
struct Case {
    format: Format,
    m: usize,
    rows: usize,
    /// Columns, in blocks; in 32 numbers for halves.
    blocks: usize,
    bias: bool,
    magnitude: f32,
}

impl Case {
    fn cols(self) -> usize {
        self.blocks * self.format.block_len().max(32)
    }
}

/// The error allowed, as a part of the sum of the magnitudes of a product's terms: of sums in f32.
const SUMS: f64 = 1e-5;
/// The same where factors are rounded to bf16 or 8 bits.
const MIXED: f64 = 8e-3;

#[track_caller]
fn check(case: Case) {
    let Case { format, m, rows, .. } = case;
    let cols = case.cols();
    let data = random_blocks(format, rows, cols, case.magnitude);
    let matrix = QuantRef::new(format, rows, cols, &data);
    let weights = defined(matrix);
    let x: Vec<f32> = numbers(1, m * cols).iter().map(|x| x / case.magnitude).collect();
    let bias = case.bias.then(|| numbers(3, rows));
    let mut wanted = Vec::new();
    let mut sizes = Vec::new();
    for x in x.chunks_exact(cols) {
        for (output, w) in weights.chunks_exact(cols).enumerate() {
            let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
            let bias = bias.as_ref().map_or(0.0, |bias| f64::from(bias[output]));
            wanted.push(terms.clone().sum::<f64>() + bias);
            sizes.push(terms.map(f64::abs).sum::<f64>() + bias.abs());
        }
    }
    let mut widened_is_f32 = WidenedIsF32::new();
    for cpu in every_cpu() {
        // A few rows of `x` are rounded to int8 whatever multiplies them.
        let in_bytes = cpu.precision == Precision::Mixed && format.block_len() > 1 && m <= dot::MAX_ROWS;
        let in_bf16 = cpu.matmul_precision() == Precision::Mixed && !has_few_rows(cpu, m, matrix);
        let rounds = in_bytes || in_bf16;
        let tolerance = if rounds { MIXED } else { SUMS };
        let mut first: Option<Vec<f32>> = None;
        for threads in [1, 2, 3] {
            let mut y = vec![f32::NAN; m * rows];
            matmul(Cpu { threads, ..cpu }, &x, matrix, bias.as_deref(), &mut y);
            for (index, ((y, wanted), size)) in y.iter().zip(&wanted).zip(&sizes).enumerate() {
                let error = (f64::from(*y) - wanted).abs();
                let what = format!("{cpu:?} {case:?}: {index}");
                assert!(error <= tolerance * size, "{what} is {y} for {wanted} of {size}");
            }
            assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "{cpu:?} {case:?}, {threads} threads");
        }
        if !in_bytes {
            widened_is_f32.check(cpu, &first);
        }
    }
}

#[test]
fn every_format_is_expanded_as_defined() {
    for format in Format::ALL {
        let cols = 2 * format.block_len().max(32);
        let data = random_blocks(format, 9, cols, 1.0);
        let matrix = QuantRef::new(format, 9, cols, &data);
        let wanted = defined(matrix);
        for isa in Isa::supported() {
            let mut out = vec![f32::NAN; 7 * cols];
            dequantize(Cpu::new(isa, 2), matrix, 1..8, &mut out);
            assert_eq!(out, wanted[cols..8 * cols], "{format} {isa}");
            let mut out = vec![f32::NAN; 3 * cols];
            gather(Cpu::new(isa, 2), matrix, &[8, 0, 8], &mut out);
            assert_eq!(out[..cols], wanted[8 * cols..], "{format} {isa}");
            assert_eq!(out[cols..2 * cols], wanted[..cols], "{format} {isa}");
            assert_eq!(out[..cols], out[2 * cols..], "{format} {isa}");
        }
    }
}

#[test]
fn products_of_every_format_are_right() {
    for format in Format::ALL {
        for (m, rows, blocks) in [(1, 1, 1), (1, 7, 9), (2, 64, 3), (3, 5, 6), (4, 33, 4), (8, 10, 2)] {
            check(Case { format, m, rows, blocks, bias: rows % 2 == 1, magnitude: 1.0 });
        }
    }
}

#[test]
fn products_of_many_rows_are_right() {
    for format in Format::ALL {
        for (m, rows, blocks) in
            [(5, 70, 17), (13, 33, 5), (40, 100, 3), (16, 600, 2), (200, 31, 1), (530, 70, 3)]
        {
            check(Case { format, m, rows, blocks, bias: rows % 2 == 1, magnitude: 1.0 });
        }
    }
}

#[test]
fn products_that_threads_share_are_right() {
    for format in [Format::Bf16, Format::Q8_0, Format::Q4_1, Format::Q6K] {
        for (m, rows, blocks) in [(3, 97, 40), (16, 330, 24), (40, 151, 24)] {
            let blocks = blocks * 32 / format.block_len().max(32);
            check(Case { format, m, rows, blocks, bias: true, magnitude: 1.0 });
        }
    }
}

#[test]
fn large_and_small_scales_are_applied() {
    for format in Format::ALL {
        for magnitude in [1e3, 1e-3] {
            check(Case { format, m: 1, rows: 6, blocks: 5, bias: false, magnitude });
            check(Case { format, m: 20, rows: 6, blocks: 5, bias: false, magnitude });
        }
    }
}

#[test]
fn zeros_give_the_bias() {
    for format in Format::ALL {
        let cols = format.block_len().max(32);
        let data = random_blocks(format, 3, cols, 1.0);
        for (isa, m) in Isa::supported().flat_map(|isa| [(isa, 1), (isa, 30)]) {
            let mut y = vec![f32::NAN; 3 * m];
            let matrix = QuantRef::new(format, 3, cols, &data);
            matmul(Cpu::new(isa, 1), &vec![0.0; m * cols], matrix, Some(&[1.0, 2.0, 3.0]), &mut y);
            assert!(y.chunks(3).all(|y| y == [1.0, 2.0, 3.0]), "{format} {isa}: {y:?}");
        }
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    for format in Format::ALL {
        let cols = 3 * format.block_len().max(32);
        let data = random_blocks(format, 7, cols, 1.0);
        let matrix = QuantRef::new(format, 7, cols, &data);
        for (isa, m) in Isa::supported().flat_map(|isa| [(isa, 2), (isa, 3), (isa, 6), (isa, 20)]) {
            for (precision, special) in [Precision::F32, Precision::Mixed]
                .into_iter()
                .flat_map(|precision| [(precision, f32::NAN), (precision, f32::INFINITY)])
            {
                let mut x = numbers(1, m * cols);
                x[cols + 5] = special;
                let mut y = vec![0.0; m * 7];
                matmul(Cpu::new(isa, 1).at(precision), &x, matrix, None, &mut y);
                let what = format!("{format} {isa} {precision} {m} {special}");
                assert!(y[7..14].iter().all(|y| !y.is_finite() && (y.is_nan() || special > 0.0)), "{what}");
                assert!(y[..7].iter().chain(&y[14..]).all(|y| y.is_finite()), "{what}");
            }
        }
    }
}

#[test]
fn a_weight_that_is_not_a_number_stays_in_its_output() {
    for format in Format::ALL {
        let cols = 3 * format.block_len().max(32);
        for (rows, precision) in [(7, Precision::F32), (7, Precision::Mixed), (70, Precision::Mixed)] {
            let mut data = random_blocks(format, rows, cols, 1.0);
            let bytes = format.row_bytes(cols).unwrap();
            let at = if format == Format::Q6K { 208 } else { 0 };
            data[3 * bytes + at..3 * bytes + at + 2].copy_from_slice(&0x7fffu16.to_le_bytes());
            let matrix = QuantRef::new(format, rows, cols, &data);
            for (isa, m) in Isa::supported().flat_map(|isa| [(isa, 1), (isa, 2), (isa, 9), (isa, 20)]) {
                let mut y = vec![0.0; m * rows];
                matmul(Cpu::new(isa, 1).at(precision), &numbers(1, m * cols), matrix, None, &mut y);
                for (index, y) in y.iter().enumerate() {
                    assert_eq!(y.is_nan(), index % rows == 3, "{format} {isa} {precision} {rows} {m}");
                }
            }
        }
    }
}

#[test]
fn gradients_of_inputs_are_those_of_the_dense_matrix() {
    // The last matrix is several panels.
    for (format, m, rows, cols) in [
        (Format::Bf16, 3, 5, 7),
        (Format::Q8_0, 1, 70, 96),
        (Format::Q4_0, 9, 33, 64),
        (Format::Q4K, 5, 40, 512),
        (Format::Q6K, 2, 2100, 1024),
    ] {
        let data = random_blocks(format, rows, cols, 1.0);
        let matrix = QuantRef::new(format, rows, cols, &data);
        let (weights, dy) = (defined(matrix), numbers(1, m * rows));
        for isa in Isa::supported() {
            for (precision, tolerance) in [(Precision::F32, SUMS), (Precision::Mixed, MIXED)] {
                let mut dx = vec![f32::NAN; m * cols];
                input_gradient(Cpu::new(isa, 2).at(precision), &dy, matrix, &mut dx);
                for (index, dx) in dx.iter().enumerate() {
                    let (row, col) = (index / cols, index % cols);
                    let term =
                        |at: usize| f64::from(dy[row * rows + at]) * f64::from(weights[at * cols + col]);
                    let wanted: f64 = (0..rows).map(term).sum();
                    let size: f64 = (0..rows).map(|at| term(at).abs()).sum();
                    let error = (f64::from(*dx) - wanted).abs();
                    assert!(
                        error <= tolerance * size,
                        "{format} {isa} {precision}: {index} is {dx} for {wanted}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_gradient_without_outputs_is_zero() {
    let mut dx = [f32::NAN; 4];
    input_gradient(Cpu::detect(1), &[], QuantRef::new(Format::Bf16, 0, 2, &[]), &mut dx);
    assert_eq!(dx, [0.0; 4]);
}

#[test]
fn no_columns_give_the_bias() {
    let mut y = [f32::NAN; 4];
    matmul(Cpu::detect(1), &[], QuantRef::new(Format::Q4_0, 2, 0, &[]), Some(&[1.0, 2.0]), &mut y);
    assert_eq!(y, [1.0, 2.0, 1.0, 2.0]);
}

/// The largest error of storing normal numbers, as a part of the largest number of a block.
#[track_caller]
fn check_error(format: Format, allowed: f32) {
    let cols = 2 * format.block_len().max(32);
    let values = numbers(7, 8 * cols);
    let mut first: Option<Vec<u8>> = None;
    for isa in Isa::supported() {
        let data = quantize(Cpu::new(isa, 2), format, &values, cols);
        let mut back = vec![0.0; values.len()];
        dequantize(Cpu::new(isa, 2), QuantRef::new(format, 8, cols, &data), 0..8, &mut back);
        let len = format.block_len();
        for (x, y) in values.chunks(len).zip(back.chunks(len)) {
            let largest = x.iter().fold(0.0, |a: f32, x| a.max(x.abs()));
            let error = x.iter().zip(y).fold(0.0, |a: f32, (x, y)| a.max((x - y).abs()));
            assert!(error <= allowed * largest, "{format} {isa}: {error} of {largest}");
        }
        if format.block_len() < 256 {
            assert_eq!(first.get_or_insert_with(|| data.clone()), &data, "{format} {isa}");
        }
    }
}

#[test]
fn storing_loses_no_more_than_half_a_step() {
    check_error(Format::F16, 0.5 / 1024.0);
    check_error(Format::Bf16, 0.5 / 128.0);
    // Half a step, and the rounding of the scale to f16, which grows with the number.
    check_error(Format::Q8_0, 0.57 / 127.0);
    // A whole step at the end that has no counterpart.
    check_error(Format::Q4_0, 1.01 / 8.0);
    check_error(Format::Q5_0, 1.01 / 16.0);
    check_error(Format::Q4_1, 1.02 / 15.0);
    check_error(Format::Q5_1, 1.02 / 31.0);
    // A search for the smallest squares, and scales that are rounded themselves.
    check_error(Format::Q4K, 3.0 / 15.0);
    check_error(Format::Q5K, 3.0 / 31.0);
    check_error(Format::Q6K, 2.0 / 31.0);
}

#[test]
fn blocks_of_the_reference_are_reproduced() {
    let cpu = Cpu::detect(1);
    let mut x = [0.0; 32];
    (x[0], x[1], x[2], x[16], x[31]) = (-8.0, 7.0, 0.5, 3.0, -0.5);
    // d = 1; 8.5 is added and the fraction dropped.
    let q4 = quantize(cpu, Format::Q4_0, &x, 32);
    assert_eq!(q4[..5], [0x00, 0x3c, 0xb0, 0x8f, 0x89]);
    assert_eq!(q4[17], 0x88);
    // d = 15 / 15 and m = -8.
    let q4 = quantize(cpu, Format::Q4_1, &x, 32);
    assert_eq!(q4[..7], [0x00, 0x3c, 0x00, 0xc8, 0xb0, 0x8f, 0x89]);
    // d = 8 / 127; halves go away from zero.
    let q8 = quantize(cpu, Format::Q8_0, &x, 32);
    assert_eq!(q8[..2], f32_to_f16(8.0 / 127.0).to_le_bytes());
    assert_eq!(q8[2..5].iter().map(|q| *q as i8).collect::<Vec<_>>(), [-127, 111, 8]);
    assert_eq!(quantize(cpu, Format::Q4_0, &[0.0; 32], 32)[2..], [0x88; 16]);
}

#[test]
fn a_run_of_equal_numbers_is_kept() {
    for format in Format::ALL {
        for value in [0.0, 1.0, -2.0] {
            let x = vec![value; 256];
            let data = quantize(Cpu::detect(1), format, &x, 256);
            let mut back = vec![0.0; 256];
            dequantize(Cpu::detect(1), QuantRef::new(format, 1, 256, &data), 0..1, &mut back);
            assert_close(&format!("{format} of {value}"), &back, &[f64::from(value); 256], 0.02);
        }
    }
}

#[test]
#[should_panic(expected = "rows of 33 are not whole blocks of 32 (q4_0)")]
fn rows_must_be_whole_blocks() {
    QuantRef::new(Format::Q4_0, 1, 33, &[0; 18]);
}

#[test]
#[should_panic(expected = "2 rows of 18 bytes do not fill the data")]
fn data_must_be_whole_rows() {
    QuantRef::new(Format::Q4_0, 2, 32, &[0; 35]);
}

#[test]
#[should_panic(expected = "x is not 2 rows of 32")]
fn x_must_have_the_columns_of_the_weights() {
    let w = QuantRef::new(Format::Q4_0, 1, 32, &[0; 18]);
    matmul(Cpu::detect(1), &[0.0; 63], w, None, &mut [0.0; 2]);
}

#[test]
#[should_panic(expected = "y is not whole rows of 2")]
fn y_must_have_a_number_per_output() {
    let w = QuantRef::new(Format::Q4_0, 2, 32, &[0; 36]);
    matmul(Cpu::detect(1), &[0.0; 32], w, None, &mut [0.0; 3]);
}

#[test]
#[should_panic(expected = "bias does not have one element per output")]
fn a_bias_must_have_a_number_per_output() {
    let w = QuantRef::new(Format::Q4_0, 2, 32, &[0; 36]);
    matmul(Cpu::detect(1), &[0.0; 32], w, Some(&[0.0]), &mut [0.0; 2]);
}

#[test]
#[should_panic(expected = "id 2 of 2 rows")]
fn ids_must_be_rows() {
    gather(Cpu::detect(1), QuantRef::new(Format::Q4_0, 2, 32, &[0; 36]), &[2], &mut [0.0; 32]);
}

/// The 8-bit numbers and the scale that a run of 32 is rounded to at mixed precision, by the definition.
fn rounded(run: &[f32]) -> Vec<f64> {
    let largest = run.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
    let by = 127.0 / largest;
    let scale = if by.is_finite() { largest / 127.0 } else { 0.0 };
    run.iter()
        .map(|x| if scale == 0.0 { 0.0 } else { f64::from((x * by).round_ties_even() * scale) })
        .collect()
}

/// Few rows at mixed precision are the products of the rounded `x`, up to sums in f32.
#[track_caller]
fn check_rounding(format: Format, data: &[u8], x: &[f32], cols: usize) {
    check_rounding_of(Isa::supported(), format, data, x, cols);
}

#[track_caller]
fn check_rounding_of(isas: impl Iterator<Item = Isa>, format: Format, data: &[u8], x: &[f32], cols: usize) {
    let (m, rows) = (x.len() / cols, data.len() / format.row_bytes(cols).unwrap());
    let matrix = QuantRef::new(format, rows, cols, data);
    let weights = defined(matrix);
    let x_rounded: Vec<f64> = x.chunks(32).flat_map(rounded).collect();
    for isa in isas {
        let mut y = vec![f32::NAN; m * rows];
        matmul(Cpu::new(isa, 1).at(Precision::Mixed), x, matrix, None, &mut y);
        for (i, y) in y.iter().enumerate() {
            let (x, w) = (&x_rounded[i / rows * cols..][..cols], &weights[i % rows * cols..][..cols]);
            let terms = x.iter().zip(w).map(|(x, w)| x * f64::from(*w));
            let (wanted, size) = (terms.clone().sum::<f64>(), terms.map(f64::abs).sum::<f64>());
            let error = (f64::from(*y) - wanted).abs();
            assert!(error <= SUMS * size, "{format} {isa} {m} rows: {i} is {y} for {wanted} of {size}");
        }
    }
}

#[test]
fn tiles_of_whole_numbers_round_as_few_rows_do() {
    let has_tiles = |isa: Isa| isa == Isa::Amx;
    for (m, rows, blocks) in [(5, 1, 1), (7, 16, 2), (9, 33, 3), (16, 47, 8), (16, 15, 1)] {
        let cols = 32 * blocks;
        let mut x = numbers(17, m * cols);
        x.iter_mut()
            .enumerate()
            .filter(|(l, _)| l / 32 % 3 == 1)
            .for_each(|(l, x)| *x *= 1e6 * (l % 2) as f32);
        x.iter_mut().enumerate().filter(|(l, _)| l / 32 % 5 == 2).for_each(|(_, x)| *x = 0.0);
        let mut data = random_blocks(Format::Q8_0, rows, cols, 1.0);
        data[2..34].fill(0x80);
        check_rounding_of(Isa::supported().filter(|isa| has_tiles(*isa)), Format::Q8_0, &data, &x, cols);
    }
}

/// With many rows at mixed precision both operands are rounded to bf16 where bf16 instructions multiply them, else neither:
/// up to sums in f32.
#[test]
fn many_rows_are_the_products_of_bf16() {
    for format in Format::ALL {
        for (m, rows, blocks) in [(17, 3, 5), (33, 65, 1), (48, 130, 3)] {
            let cols = blocks * format.block_len().max(32);
            let data = random_blocks(format, rows, cols, 1.0);
            let matrix = QuantRef::new(format, rows, cols, &data);
            let weights = defined(matrix);
            let x = numbers(3, m * cols);
            for cpu in every_cpu() {
                let operand = |x: &f32| match cpu.matmul_precision() {
                    Precision::F32 => f64::from(*x),
                    Precision::Mixed => f64::from(bf16(*x)),
                };
                let mut y = vec![f32::NAN; m * rows];
                matmul(Cpu { threads: 2, ..cpu }, &x, matrix, None, &mut y);
                for (i, y) in y.iter().enumerate() {
                    let (x, w) = (&x[i / rows * cols..][..cols], &weights[i % rows * cols..][..cols]);
                    let terms = x.iter().zip(w).map(|(x, w)| operand(x) * operand(w));
                    let (wanted, size) = (terms.clone().sum::<f64>(), terms.map(f64::abs).sum::<f64>());
                    let error = (f64::from(*y) - wanted).abs();
                    assert!(error <= SUMS * size, "{format} {cpu:?} {m}: {i} is {y} for {wanted} of {size}");
                }
            }
        }
    }
}

/// Rows of halves may have any length and begin anywhere in memory.
#[test]
fn halves_need_no_whole_runs() {
    for format in [Format::F16, Format::Bf16] {
        for (m, rows, cols) in [(1, 5, 7), (3, 64, 33), (6, 70, 31), (17, 65, 1), (40, 96, 45), (33, 128, 64)]
        {
            let bytes = random_blocks(format, rows, cols, 1.0);
            for offset in 0..3 {
                let data = [vec![0; offset], bytes.clone()].concat();
                let matrix = QuantRef::new(format, rows, cols, &data[offset..]);
                let (weights, x) = (defined(matrix), numbers(1, m * cols));
                for isa in Isa::supported() {
                    let mut y = vec![f32::NAN; m * rows];
                    matmul(Cpu::new(isa, 1).at(Precision::Mixed), &x, matrix, None, &mut y);
                    for (i, y) in y.iter().enumerate() {
                        let (x, w) = (&x[i / rows * cols..][..cols], &weights[i % rows * cols..][..cols]);
                        let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                        let (wanted, size) = (terms.clone().sum::<f64>(), terms.map(f64::abs).sum::<f64>());
                        let error = (f64::from(*y) - wanted).abs();
                        assert!(error <= MIXED * size, "{format} {isa} {m} {cols}: {i} is {y} for {wanted}");
                    }
                }
            }
        }
    }
}

#[test]
fn huge_numbers_are_multiplied() {
    for m in [3, 10, 40] {
        check(Case { format: Format::Bf16, m, rows: 70, blocks: 3, bias: false, magnitude: 1e30 });
        check(Case { format: Format::Bf16, m, rows: 70, blocks: 3, bias: false, magnitude: 1e-30 });
    }
    // Sums beyond f32 are infinite, and only those.
    let data: Vec<u8> = [0x7f00u16; 64].iter().flat_map(|half| half.to_le_bytes()).collect();
    let matrix = QuantRef::new(Format::Bf16, 2, 32, &data);
    for (isa, m) in Isa::supported().flat_map(|isa| [(isa, 2), (isa, 9), (isa, 20)]) {
        let mut x = vec![1e-3; 32 * m];
        x[..32].fill(1.0);
        let mut y = vec![0.0; 2 * m];
        matmul(Cpu::new(isa, 1).at(Precision::Mixed), &x, matrix, None, &mut y);
        assert_eq!(y[..2], [f32::INFINITY; 2], "{isa} {m}");
        assert!(y[2..].iter().all(|y| y.is_finite()), "{isa} {m}: {y:?}");
    }
}

#[test]
fn few_rows_are_rounded_the_same_by_all_instructions() {
    for format in Format::ALL.into_iter().filter(|format| format.block_len() > 1) {
        for (m, rows, blocks) in [(1, 1, 1), (1, 9, 5), (2, 7, 2), (3, 4, 3), (4, 11, 1)] {
            let cols = blocks * format.block_len();
            let mut x = numbers(17, m * cols);
            // Runs of zeros, of one number, and of very different sizes; halves between whole numbers.
            x[..16].fill(0.0);
            x.iter_mut()
                .enumerate()
                .filter(|(l, _)| l / 32 % 3 == 1)
                .for_each(|(l, x)| *x *= 1e6 * (l % 2) as f32);
            x.iter_mut().enumerate().filter(|(l, _)| l / 32 % 5 == 2).for_each(|(_, x)| *x = 0.0);
            let tail = x.len() - 32;
            x[tail..]
                .iter_mut()
                .enumerate()
                .for_each(|(l, x)| *x = if l == 0 { 127.0 } else { l as f32 - 16.5 });
            check_rounding(format, &random_blocks(format, rows, cols, 1.0), &x, cols);
        }
    }
}

#[test]
fn the_largest_whole_numbers_do_not_overflow() {
    for format in Format::ALL.into_iter().filter(|format| format.block_len() > 1) {
        let cols = 8 * format.block_len();
        for (bits, sign) in [(0x00, 1.0), (0xff, 1.0), (0x7f, -1.0), (0x80, 1.0)] {
            let mut data = random_blocks(format, 5, cols, 1.0);
            // All numbers, fifth bits and scales at one end; the halves stay as they are.
            let halves = match format {
                Format::Q6K => 208..210,
                Format::Q8_0 | Format::Q4_0 | Format::Q5_0 => 0..2,
                _ => 0..4,
            };
            for block in data.chunks_exact_mut(format.block_bytes()) {
                let outside = |(at, _): &(usize, &mut u8)| !halves.contains(at);
                block.iter_mut().enumerate().filter(outside).for_each(|(_, byte)| *byte = bits);
            }
            check_rounding(format, &data, &vec![sign; cols], cols);
        }
    }
}

#[test]
fn numbers_at_the_ends_of_f32_are_rounded_without_harm() {
    for format in Format::ALL.into_iter().filter(|format| format.block_len() > 1) {
        let cols = format.block_len().max(64);
        let data = random_blocks(format, 3, cols, 1e-2);
        for size in [1e-45, 1e-39, 1e-30, 1e30] {
            let x: Vec<f32> = numbers(5, cols).iter().map(|x| x * size).collect();
            for isa in Isa::supported() {
                let mut y = vec![f32::NAN; 3];
                let matrix = QuantRef::new(format, 3, cols, &data);
                matmul(Cpu::new(isa, 1).at(Precision::Mixed), &x, matrix, None, &mut y);
                let wanted =
                    |y: &f32| y.is_finite() && (size > 1e-36 || *y == 0.0) && (size < 1.0 || *y != 0.0);
                assert!(y.iter().all(wanted), "{format} {isa} {size}: {y:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn products_equal_the_definition(
        (format, m, rows, blocks) in (0..Format::ALL.len(), 1usize..40, 0usize..80, 1usize..8),
        bias in any::<bool>(),
    ) {
        check(Case { format: Format::ALL[format], m, rows, blocks, bias, magnitude: 1.0 });
    }

    #[test]
    fn few_rows_are_the_products_of_the_rounded_x(
        (format, m, rows, blocks) in (2..Format::ALL.len(), 1usize..5, 1usize..10, 1usize..8),
    ) {
        let format = Format::ALL[format];
        let cols = blocks * format.block_len();
        check_rounding(format, &random_blocks(format, rows, cols, 1.0), &numbers(m as u64, m * cols), cols);
    }

    #[test]
    fn storing_stored_numbers_changes_nothing(format in 0..7usize, blocks in 1usize..5) {
        // Numbers that the format has: those of a block are stored as the same block, up to the sign of its scale.
        let format = Format::ALL[format];
        let cols = blocks * 32;
        let once = quantize(Cpu::detect(1), format, &numbers(blocks as u64, cols), cols);
        let mut values = vec![0.0; cols];
        dequantize(Cpu::detect(1), QuantRef::new(format, 1, cols, &once), 0..1, &mut values);
        let twice = quantize(Cpu::detect(1), format, &values, cols);
        let mut again = vec![0.0; cols];
        dequantize(Cpu::detect(1), QuantRef::new(format, 1, cols, &twice), 0..1, &mut again);
        let wanted: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
        assert_close(&format.to_string(), &again, &wanted, 4e-3);
    }
}
