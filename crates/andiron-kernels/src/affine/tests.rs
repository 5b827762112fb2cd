use proptest::prelude::*;

use super::*;
use crate::Precision;
use crate::testing::{WidenedIsF32, every_cpu, numbers};

/// Compares all gradients with sums in f64, on every instruction set, in both precisions.
#[track_caller]
fn check(rows: usize, d_input: usize, d_output: usize, transposed: bool) {
    let (x, dy, weights) =
        (numbers(1, rows * d_input), numbers(2, rows * d_output), numbers(3, d_input * d_output));
    let w = match transposed {
        true => MatRef::row_major(&weights, d_output, d_input).t(),
        false => MatRef::row_major(&weights, d_input, d_output),
    };
    let exact = |count: usize, term: &dyn Fn(usize) -> (f32, f32)| {
        let terms = (0..count).map(term).map(|(a, b)| f64::from(a) * f64::from(b));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    };
    // To round both factors to bf16, which has 8 bits, changes each by up to a 256th.
    let mut widened_is_f32 = WidenedIsF32::new();
    for cpu in every_cpu() {
        let tolerance = if cpu.matmul_precision() == Precision::Mixed { 0.00784 } else { 1e-6 };
        let mut first: Option<[Vec<f32>; 3]> = None;
        for threads in [1, 2, 3] {
            let cpu = Cpu { threads, ..cpu };
            let nan = |len| vec![f32::NAN; len];
            let (mut dx, mut dw, mut db) = (nan(x.len()), nan(weights.len()), nan(d_output));
            let grads = AffineGrads { dx: &mut dx, dw: &mut dw, db: Some(&mut db) };
            backward(cpu, Input::F32(&x), w, &dy, grads);
            let what = format!("{cpu:?} {rows} x {d_input} x {d_output} {transposed}");
            let near = |name: &str, found: f32, (wanted, size): (f64, f64), tolerance: f64| {
                let error = (f64::from(found) - wanted).abs();
                assert!(error <= tolerance * size, "{what} {name}: {found}, wanted {wanted}");
            };
            for (i, l) in (0..rows).flat_map(|i| (0..d_input).map(move |l| (i, l))) {
                let wanted = exact(d_output, &|j| (dy[i * d_output + j], w.at(l, j)));
                near("dx", dx[i * d_input + l], wanted, tolerance);
            }
            for (l, j) in (0..d_input).flat_map(|l| (0..d_output).map(move |j| (l, j))) {
                let wanted = exact(rows, &|i| (x[i * d_input + l], dy[i * d_output + j]));
                let at = if transposed { j * d_input + l } else { l * d_output + j };
                near("dw", dw[at], wanted, tolerance);
            }
            for (j, db) in db.iter().enumerate() {
                near("db", *db, exact(rows, &|i| (dy[i * d_output + j], 1.0)), 1e-6);
            }
            let found = [dx, dw, db];
            if rounds_input(cpu, rows, w) {
                check_rounded(cpu, (&x, w, &dy), &found);
            }
            assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{what}: {threads} threads");
        }
        widened_is_f32.check(cpu, &first);
    }
}

/// Requires that a rounded input gives the output and the gradients, `wanted`, of the input itself, bit for bit.
#[track_caller]
fn check_rounded(cpu: Cpu, (x, w, dy): (&[f32], MatRef, &[f32]), wanted: &[Vec<f32>; 3]) {
    let (rows, bias) = (x.len() / w.rows, numbers(4, w.cols));
    let nan = |len| vec![f32::NAN; len];
    let (mut rounded, mut y, mut plain) = (nan(x.len() / 2), nan(dy.len()), nan(dy.len()));
    forward(cpu, x, w, Some(&bias), Some(&mut rounded), &mut y);
    forward(cpu, x, w, Some(&bias), None, &mut plain);
    assert_eq!(y, plain, "{cpu:?}: y");
    let (mut dx, mut dw, mut db) = (nan(x.len()), nan(w.data.len()), nan(w.cols));
    let grads = AffineGrads { dx: &mut dx, dw: &mut dw, db: Some(&mut db) };
    backward(cpu, Input::Bf16(&rounded), w, dy, grads);
    // A gradient of few rows is multiplied without rounding when the input is f32.
    let few = [rows, w.rows, w.cols].into_iter().min().is_some_and(|least| least <= 2 * gemv::GROUP);
    for (name, found, wanted) in [("dx", &dx, &wanted[0]), ("dw", &dw, &wanted[1]), ("db", &db, &wanted[2])] {
        assert!(few && name != "db" || found == wanted, "{cpu:?} {rows} x {} x {}: {name}", w.rows, w.cols);
    }
}

#[test]
fn whole_and_odd_shapes_are_right() {
    for (rows, d_input, d_output) in
        [(160, 32, 64), (300, 33, 47), (5, 70, 1), (1, 3, 4), (64, 450, 40), (310, 34, 420)]
    {
        check(rows, d_input, d_output, false);
        check(rows, d_input, d_output, true);
    }
}

#[test]
fn empty_shapes_have_gradients_of_zeros() {
    for (rows, d_input, d_output) in [(0, 3, 4), (9, 3, 0)] {
        check(rows, d_input, d_output, false);
    }
}

#[test]
fn what_is_not_a_number_passes() {
    let (x, weights) = (numbers(1, 40 * 32), numbers(2, 32 * 64));
    let mut dy = numbers(3, 40 * 64);
    dy[5 * 64 + 7] = f32::NAN;
    for cpu in every_cpu() {
        let (mut dx, mut dw, mut db) = (vec![0.0; 40 * 32], vec![0.0; 32 * 64], vec![0.0; 64]);
        let grads = AffineGrads { dx: &mut dx, dw: &mut dw, db: Some(&mut db) };
        backward(cpu, Input::F32(&x), MatRef::row_major(&weights, 32, 64), &dy, grads);
        for (at, dx) in dx.iter().enumerate() {
            assert_eq!(dx.is_nan(), at / 32 == 5, "{cpu:?}: dx[{at}]");
        }
        for (at, dw) in dw.iter().enumerate() {
            assert_eq!(dw.is_nan(), at % 64 == 7, "{cpu:?}: dw[{at}]");
        }
        assert_eq!(db.iter().position(|db| db.is_nan()), Some(7));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn every_path_equals_the_exact_one(
        rows in 1usize..80,
        d_input in 1usize..70,
        d_output in 1usize..70,
        transposed: bool,
    ) {
        check(rows, d_input, d_output, transposed);
    }
}
