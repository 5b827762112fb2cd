use proptest::prelude::*;

use super::*;
use crate::testing::{WidenedIsF32, assert_close, bf16, every_cpu, numbers};

/// A matmul with every sum in f64, of operands rounded as `precision` says.
fn exact(precision: Precision, a: MatRef, b: MatRef, epilogue: Epilogue, c: &[f32]) -> Vec<f64> {
    let factor = |x: f32| f64::from(if precision == Precision::Mixed { bf16(x) } else { x });
    let mut out = Vec::new();
    for i in 0..a.rows {
        for j in 0..b.cols {
            let sum: f64 = (0..a.cols).map(|l| factor(a.at(i, l)) * factor(b.at(l, j))).sum();
            let bias = epilogue.bias.map_or(0.0, |bias| f64::from(bias[j]));
            let old = if epilogue.accumulate { f64::from(c[i * b.cols + j]) } else { 0.0 };
            out.push(sum + bias + old);
        }
    }
    out
}

#[derive(Clone, Copy, Debug)]
struct Case {
    m: usize,
    k: usize,
    n: usize,
    a_transposed: bool,
    b_transposed: bool,
    bias: bool,
    accumulate: bool,
}

#[track_caller]
fn check(case: Case) {
    let Case { m, k, n, .. } = case;
    let (a, b) = (numbers(1, m * k), numbers(2, k * n));
    let a = if case.a_transposed { MatRef::row_major(&a, k, m).t() } else { MatRef::row_major(&a, m, k) };
    let b = if case.b_transposed { MatRef::row_major(&b, n, k).t() } else { MatRef::row_major(&b, k, n) };
    let (bias, start) = (numbers(3, n), numbers(4, m * n));
    let epilogue = Epilogue { bias: case.bias.then_some(&bias), accumulate: case.accumulate };
    let magnitude = 4e-6 * (k as f64).sqrt().max(1.0);
    // What is bound by memory is not rounded: more rows are where the columns of `b` are contiguous.
    let few = if (case.b_transposed || n == 1) && k > 1 { 8 } else { 4 };
    let rounded = if m <= few || n == 1 && !case.bias { Precision::F32 } else { Precision::Mixed };
    let [wanted, wanted_rounded] =
        [Precision::F32, rounded].map(|precision| exact(precision, a, b, epilogue, &start));
    let mut widened_is_f32 = WidenedIsF32::new();
    for cpu in every_cpu() {
        let wanted = match cpu.matmul_precision() {
            Precision::F32 => &wanted,
            Precision::Mixed => &wanted_rounded,
        };
        let mut first: Option<Vec<f32>> = None;
        for threads in [1, 2, 3] {
            let mut c = if case.accumulate { start.clone() } else { vec![f32::NAN; m * n] };
            matmul(Cpu { threads, ..cpu }, a, b, epilogue, &mut c);
            assert_close(&format!("{cpu:?} {case:?}"), &c, wanted, magnitude);
            assert_eq!(first.get_or_insert_with(|| c.clone()), &c, "{cpu:?} with {threads} threads");
        }
        widened_is_f32.check(cpu, &first);
    }
}

#[test]
fn products_of_many_blocks_are_right() {
    for (m, k, n) in [(200, 300, 530), (13, 513, 33), (385, 64, 65), (5, 700, 1100), (1, 3000, 70)] {
        for layout in 0..4 {
            check(Case {
                m,
                k,
                n,
                a_transposed: layout & 1 == 1,
                b_transposed: layout & 2 == 2,
                bias: true,
                accumulate: layout == 3,
            });
        }
    }
}

#[test]
fn empty_products_are_the_bias() {
    check(Case { m: 3, k: 0, n: 5, a_transposed: false, b_transposed: false, bias: true, accumulate: false });
    check(Case { m: 0, k: 2, n: 5, a_transposed: false, b_transposed: true, bias: true, accumulate: false });
    check(Case { m: 4, k: 2, n: 0, a_transposed: true, b_transposed: false, bias: false, accumulate: true });
}

#[test]
fn columns_of_a_wider_matrix_can_be_multiplied() {
    let wide = numbers(5, 20 * 48);
    let b = MatRef { data: &wide[16..], rows: 20, cols: 17, row_stride: 48, col_stride: 1 };
    let strided = MatRef { data: &wide[3..], rows: 9, cols: 20, row_stride: 2, col_stride: 24 };
    for cpu in every_cpu() {
        let wanted = exact(cpu.matmul_precision(), strided, b, Epilogue::default(), &[]);
        let mut c = vec![0.0; 9 * 17];
        matmul(Cpu { threads: 2, ..cpu }, strided, b, Epilogue::default(), &mut c);
        assert_close(&format!("{cpu:?}"), &c, &wanted, 1e-5);
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row_and_column() {
    for cpu in every_cpu() {
        for m in [1, 4, 5, 14] {
            let (mut a, b) = (numbers(1, m * 40), numbers(2, 40 * 50));
            a[20] = f32::NAN;
            let mut c = vec![0.0; m * 50];
            matmul(
                cpu,
                MatRef::row_major(&a, m, 40),
                MatRef::row_major(&b, 40, 50),
                Epilogue::default(),
                &mut c,
            );
            assert!(c[..50].iter().all(|x| x.is_nan()));
            assert!(c[50..].iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
#[should_panic(expected = "columns of a and rows of b differ")]
fn shapes_must_agree() {
    let x = [0.0; 6];
    let a = MatRef::row_major(&x, 2, 3);
    matmul(Cpu::detect(1), a, a, Epilogue::default(), &mut [0.0; 6]);
}

#[test]
fn rounding_goes_to_the_nearest_even_number() {
    let of = |bits: u32| bf16(f32::from_bits(bits)).to_bits();
    assert_eq!(of(0x3f80_8000), 0x3f80_0000); // halfway, down to even
    assert_eq!(of(0x3f81_8000), 0x3f82_0000); // halfway, up to even
    assert_eq!(of(0x3f80_8001), 0x3f81_0000);
    assert_eq!(of(0x7f7f_ffff), 0x7f80_0000); // beyond the largest
    assert_eq!(of(0xff80_0000), 0xff80_0000);
    assert!(bf16(f32::from_bits(0x7f80_0001)).is_nan());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn products_equal_the_definition(
        (m, k, n) in (0usize..40, 0usize..70, 0usize..80),
        (a_transposed, b_transposed, bias, accumulate) in any::<(bool, bool, bool, bool)>(),
    ) {
        check(Case { m, k, n, a_transposed, b_transposed, bias, accumulate });
    }
}
