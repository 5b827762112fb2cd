use proptest::prelude::*;

use super::*;
use crate::testing::numbers;

const ALL: [Activation; 4] = [Activation::GeluTanh, Activation::GeluErf, Activation::Silu, Activation::Relu];

#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    d_input: usize,
    d_inner: usize,
    d_output: usize,
    activation: Activation,
    /// Whether the maps lie transposed in memory.
    turned: (bool, bool),
}

/// A matrix in f64, row by row.
struct Exact {
    rows: usize,
    cols: usize,
    data: Vec<f64>,
}

impl Exact {
    fn of(matrix: MatRef) -> Self {
        Self::from_fn(matrix.rows, matrix.cols, |i, j| f64::from(matrix.at(i, j)))
    }

    fn from_fn(rows: usize, cols: usize, at: impl Fn(usize, usize) -> f64) -> Self {
        let data = (0..rows * cols).map(|at_| at(at_ / cols.max(1), at_ % cols.max(1))).collect();
        Self { rows, cols, data }
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        self.data[i * self.cols + j]
    }

    fn t(&self) -> Self {
        Self::from_fn(self.cols, self.rows, |i, j| self.at(j, i))
    }

    fn times(&self, other: &Self) -> Self {
        Self::from_fn(self.rows, other.cols, |i, j| {
            (0..self.cols).map(|l| self.at(i, l) * other.at(l, j)).sum()
        })
    }

    fn column_sums(&self) -> Vec<f64> {
        (0..self.cols).map(|j| (0..self.rows).map(|i| self.at(i, j)).sum()).collect()
    }
}

/// Requires that the difference is small beside what is wanted, as a whole and at its worst place.
#[track_caller]
fn assert_near(what: &str, found: &[f32], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}: lengths differ");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let size = norm(&mut wanted.iter().copied());
    let error = norm(&mut found.iter().zip(wanted).map(|(x, y)| f64::from(*x) - y));
    assert!(error <= tolerance * size + 1e-30, "{what}: the error is {} of {size}", error / size);
    let most = wanted.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    for (at, (x, y)) in found.iter().zip(wanted).enumerate() {
        let error = (f64::from(*x) - y).abs();
        assert!(error <= 4.0 * tolerance * most + 1e-30, "{what}: element {at} is {x}, wanted {y}");
    }
}

#[track_caller]
fn check(case: Case) {
    let Case { rows, d_input, d_inner, d_output, activation, turned } = case;
    let scaled = |stream, count, width: usize| -> Vec<f32> {
        numbers(stream, count).iter().map(|x| x / (width as f32).sqrt().max(1.0)).collect()
    };
    let map = |data, rows, cols, turned| match turned {
        true => MatRef::row_major(data, cols, rows).t(),
        false => MatRef::row_major(data, rows, cols),
    };
    let x = numbers(1, rows * d_input);
    let (up, down) = (scaled(2, d_input * d_inner, d_input), scaled(3, d_inner * d_output, d_inner));
    let (up_bias, down_bias, dy) = (numbers(4, d_inner), numbers(5, d_output), numbers(6, rows * d_output));
    let layer = FeedForward {
        up: map(&up, d_input, d_inner, turned.0),
        activation,
        down: map(&down, d_inner, d_output, turned.1),
    };
    let biases = [&up_bias[..], &down_bias];

    let (exact_x, exact_dy) =
        (Exact::of(MatRef::row_major(&x, rows, d_input)), Exact::of(MatRef::row_major(&dy, rows, d_output)));
    let (exact_up, exact_down) = (Exact::of(layer.up), Exact::of(layer.down));
    let before = exact_x.times(&exact_up);
    let before = Exact::from_fn(rows, d_inner, |i, j| before.at(i, j) + f64::from(up_bias[j]));
    let inner = Exact::from_fn(rows, d_inner, |i, j| activation.value(before.at(i, j)));
    let y = inner.times(&exact_down);
    let y = Exact::from_fn(rows, d_output, |i, j| y.at(i, j) + f64::from(down_bias[j]));
    let dinner = exact_dy.times(&exact_down.t());
    let slopes = Exact::from_fn(rows, d_inner, |i, j| activation.slope(before.at(i, j)) * dinner.at(i, j));
    let dup = exact_x.t().times(&slopes);
    let ddown = inner.t().times(&exact_dy);

    for isa in Isa::supported() {
        for (precision, tolerance) in [(Precision::F32, 2e-5), (Precision::Mixed, 1e-2)] {
            let mut first: Option<[Vec<f32>; 6]> = None;
            for threads in [1, 2, 3] {
                let cpu = Cpu::new(isa, threads).at(precision);
                let nan = |len| vec![f32::NAN; len];
                let mut saved = nan(layer.saved_len(cpu, rows));
                let (mut found_y, mut again) = (nan(rows * d_output), nan(rows * d_output));
                forward(cpu, layer, biases, &x, Some(&mut saved), &mut found_y);
                forward(cpu, layer, biases, &x, None, &mut again);
                assert_eq!(found_y, again, "{isa} {precision} {case:?}: y depends on what is saved");
                let mut dx = nan(rows * d_input);
                let (mut found_dup, mut dup_bias) = (nan(up.len()), nan(d_inner));
                let (mut found_ddown, mut ddown_bias) = (nan(down.len()), nan(d_output));
                let grads = FeedForwardGrads {
                    dx: &mut dx,
                    dup: &mut found_dup,
                    dup_bias: &mut dup_bias,
                    ddown: &mut found_ddown,
                    ddown_bias: &mut ddown_bias,
                };
                backward(cpu, layer, (&x, &saved), &dy, grads);
                let found = [found_y, dx, found_dup, dup_bias, found_ddown, ddown_bias];
                let in_memory = |gradient: &Exact, turned| match turned {
                    true => gradient.t().data,
                    false => gradient.data.clone(),
                };
                let wanted = [
                    y.data.clone(),
                    slopes.times(&exact_up.t()).data,
                    in_memory(&dup, turned.0),
                    slopes.column_sums(),
                    in_memory(&ddown, turned.1),
                    exact_dy.column_sums(),
                ];
                let names = ["y", "dx", "dup", "dup_bias", "ddown", "ddown_bias"];
                for ((name, found), wanted) in names.iter().zip(&found).zip(&wanted) {
                    let what = format!("{isa} {precision} {threads} {case:?} {name}");
                    // The slope of relu is not continuous: what is rounded may fall on the other side.
                    let jumps = activation == Activation::Relu && precision == Precision::Mixed;
                    let tolerance = if jumps && name.starts_with('d') { 6.0 * tolerance } else { tolerance };
                    assert_near(&what, found, wanted, tolerance);
                }
                assert_eq!(
                    first.get_or_insert_with(|| found.clone()),
                    &found,
                    "{isa} with {threads} threads"
                );
            }
        }
    }
}

#[test]
fn layers_of_many_strips_and_deep_maps_are_right() {
    for (at, (rows, d_input, d_inner, d_output)) in
        [(300, 32, 64, 32), (70, 450, 600, 400), (530, 33, 70, 31), (5, 5, 3, 2), (33, 800, 40, 20)]
            .into_iter()
            .enumerate()
    {
        let turned = (at % 2 == 0, at % 3 == 0);
        check(Case { rows, d_input, d_inner, d_output, activation: ALL[at % 4], turned });
    }
}

#[test]
fn empty_layers_are_their_biases() {
    for (rows, d_inner, d_output) in [(0, 4, 3), (9, 0, 3), (9, 4, 0)] {
        let activation = Activation::GeluTanh;
        check(Case { rows, d_input: 5, d_inner, d_output, activation, turned: (false, true) });
    }
}

#[test]
fn what_is_not_a_number_passes() {
    let (up, down) = (numbers(1, 32 * 64), numbers(2, 64 * 32));
    let mut x = numbers(3, 40 * 32);
    x[5 * 32 + 7] = f32::NAN;
    let layer = FeedForward {
        up: MatRef::row_major(&up, 32, 64),
        activation: Activation::GeluErf,
        down: MatRef::row_major(&down, 64, 32),
    };
    for (isa, precision) in
        Isa::supported().flat_map(|isa| [Precision::F32, Precision::Mixed].map(|precision| (isa, precision)))
    {
        let mut y = vec![0.0; 40 * 32];
        forward(Cpu::new(isa, 1).at(precision), layer, [&[0.0; 64], &[0.0; 32]], &x, None, &mut y);
        for (row, y) in y.chunks_exact(32).enumerate() {
            assert_eq!(y.iter().all(|y| y.is_nan()), row == 5, "{isa} {precision}: row {row}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_path_equals_the_exact_one(
        rows in 1usize..80,
        d_input in 1usize..70,
        d_inner in 1usize..100,
        d_output in 1usize..70,
        form in 0usize..4,
        turned: (bool, bool),
    ) {
        check(Case { rows, d_input, d_inner, d_output, activation: ALL[form], turned });
    }
}
