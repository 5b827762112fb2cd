use proptest::prelude::*;

use super::*;
use crate::Precision;
use crate::testing::{WidenedIsF32, bf16, every_cpu, numbers};

const ALL: [Activation; 4] = [Activation::GeluTanh, Activation::GeluErf, Activation::Silu, Activation::Relu];

#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    d_input: usize,
    d_inner: usize,
    d_output: usize,
    activation: Activation,
    gated: bool,
    /// Whether the first maps and the last lie transposed in memory.
    transposed: (bool, bool),
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

    /// The norm of all the products that [`times`](Self::times) adds up.
    fn summands(&self, other: &Self) -> f64 {
        let of =
            |l| norm((0..self.rows).map(|i| self.at(i, l))) * norm((0..other.cols).map(|j| other.at(l, j)));
        norm((0..self.cols).map(of))
    }

    fn column_sums(&self) -> Vec<f64> {
        (0..self.cols).map(|j| (0..self.rows).map(|i| self.at(i, j)).sum()).collect()
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

/// Requires that the difference is small beside what was added up, as a whole and at its worst place.
#[track_caller]
fn assert_near(what: &str, found: &[f32], (wanted, summands): &(Vec<f64>, f64), tolerance: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}: lengths differ");
    let size = norm(wanted.iter().copied()).max(*summands);
    let error = norm(found.iter().zip(wanted).map(|(x, y)| f64::from(*x) - y));
    assert!(error <= tolerance * size + 1e-30, "{what}: the error is {} of {size}", error / size);
    let typical = summands / (wanted.len().max(1) as f64).sqrt();
    let most = wanted.iter().fold(typical, |most, x| most.max(x.abs()));
    for (at, (x, y)) in found.iter().zip(wanted).enumerate() {
        let error = (f64::from(*x) - y).abs();
        assert!(error <= 4.0 * tolerance * most + 1e-30, "{what}: element {at} is {x}, wanted {y}");
    }
}

/// Output, and gradients of input, gate, first map, its bias, last map, its bias, each with the norm of what was added
/// up; a gated layer has no first bias.
fn exact(
    case: Case,
    layer: FeedForward,
    [up_bias, down_bias]: [&[f32]; 2],
    (x, dy): (&[f32], &[f32]),
    precision: Precision,
) -> [(Vec<f64>, f64); 7] {
    let Case { rows, d_input, d_inner, d_output, activation, transposed, .. } = case;
    let (x, dy) =
        (Exact::of(MatRef::row_major(x, rows, d_input)), Exact::of(MatRef::row_major(dy, rows, d_output)));
    let (up, down) = (Exact::of(layer.up), Exact::of(layer.down));
    // The slope of some activations jumps, so that what goes into it must be rounded as the kernel does.
    let cpu = every_cpu().find(|cpu| cpu.matmul_precision() == precision);
    let rounds =
        precision == Precision::Mixed && cpu.is_some_and(|cpu| !gemv::stays_f32(cpu, rows, layer.up));
    let factors = |of: &Exact| {
        let round = |x: f64| if rounds { f64::from(bf16(x as f32)) } else { x };
        Exact::from_fn(of.rows, of.cols, |i, j| round(of.at(i, j)))
    };
    let before = factors(&x).times(&factors(&up));
    let inside = |at: &dyn Fn(usize, usize) -> f64| Exact::from_fn(rows, d_inner, at);
    let dinner = dy.times(&down.t());
    let gate = layer.gate.map(Exact::of);
    let (inner, slopes, gate_slopes) = match &gate {
        Some(gate) => {
            let x = factors(&x).times(&factors(gate));
            let value = inside(&|i, j| activation.value(x.at(i, j)));
            (
                inside(&|i, j| value.at(i, j) * before.at(i, j)),
                inside(&|i, j| value.at(i, j) * dinner.at(i, j)),
                inside(&|i, j| activation.slope(x.at(i, j)) * before.at(i, j) * dinner.at(i, j)),
            )
        }
        None => {
            let before = inside(&|i, j| before.at(i, j) + f64::from(up_bias[j]));
            (
                inside(&|i, j| activation.value(before.at(i, j))),
                inside(&|i, j| activation.slope(before.at(i, j)) * dinner.at(i, j)),
                inside(&|_, _| 0.0),
            )
        }
    };
    let y = inner.times(&down);
    let y = Exact::from_fn(rows, d_output, |i, j| y.at(i, j) + f64::from(down_bias[j]));
    let in_memory = |gradient: Exact, transposed| if transposed { gradient.t().data } else { gradient.data };
    let of_map =
        |x: &Exact, dy: &Exact, transposed| (in_memory(x.t().times(dy), transposed), x.t().summands(dy));
    let of_bias = |dy: &Exact| (dy.column_sums(), norm(dy.data.iter().copied()));
    let mut dx = (slopes.times(&up.t()).data, slopes.summands(&up.t()));
    let (mut dgate, mut dup_bias) = ((Vec::new(), 0.0), of_bias(&slopes));
    if let Some(gate) = gate {
        let more = gate_slopes.times(&gate.t());
        dx.0.iter_mut().zip(more.data).for_each(|(dx, more)| *dx += more);
        dx.1 += gate_slopes.summands(&gate.t());
        dgate = of_map(&x, &gate_slopes, transposed.0);
        dup_bias.0.clear();
    }
    [
        (y.data, inner.summands(&down)),
        dx,
        dgate,
        of_map(&x, &slopes, transposed.0),
        dup_bias,
        of_map(&inner, &dy, transposed.1),
        of_bias(&dy),
    ]
}

#[track_caller]
fn check(case: Case) {
    let Case { rows, d_input, d_inner, d_output, activation, gated, transposed } = case;
    let scaled = |stream, count, width: usize| -> Vec<f32> {
        numbers(stream, count).iter().map(|x| x / (width as f32).sqrt().max(1.0)).collect()
    };
    let map = |data, rows, cols, transposed| match transposed {
        true => MatRef::row_major(data, cols, rows).t(),
        false => MatRef::row_major(data, rows, cols),
    };
    let x = numbers(1, rows * d_input);
    let (up, down) = (scaled(2, d_input * d_inner, d_input), scaled(3, d_inner * d_output, d_inner));
    let gate = scaled(7, d_input * d_inner, d_input);
    let (up_bias, down_bias, dy) = (numbers(4, d_inner), numbers(5, d_output), numbers(6, rows * d_output));
    let layer = FeedForward {
        gate: gated.then(|| map(&gate, d_input, d_inner, transposed.0)),
        up: map(&up, d_input, d_inner, transposed.0),
        activation,
        down: map(&down, d_inner, d_output, transposed.1),
    };
    let biases = [(!gated).then_some(&up_bias[..]), Some(&down_bias[..])];

    let mut widened_is_f32 = WidenedIsF32::new();
    let wanted = [Precision::F32, Precision::Mixed]
        .map(|precision| exact(case, layer, [&up_bias, &down_bias], (&x, &dy), precision));
    for cpu in every_cpu() {
        let (wanted, tolerance) = match cpu.matmul_precision() {
            Precision::F32 => (&wanted[0], 2e-5),
            Precision::Mixed => (&wanted[1], 1e-2),
        };
        // Roundings of a handful of values may all go one way.
        let tolerance = if rows * d_inner < 64 { 2.5 * tolerance } else { tolerance };
        let mut first: Option<[Vec<f32>; 7]> = None;
        for threads in [1, 2, 3] {
            let cpu = Cpu { threads, ..cpu };
            let nan = |len| vec![f32::NAN; len];
            let mut saved = nan(layer.saved_len(cpu, rows));
            let (mut found_y, mut again) = (nan(rows * d_output), nan(rows * d_output));
            forward(cpu, layer, biases, &x, Some(&mut saved), &mut found_y);
            forward(cpu, layer, biases, &x, None, &mut again);
            assert_eq!(found_y, again, "{cpu:?} {case:?}: y depends on what is saved");
            let (mut dx, mut ddown_bias) = (nan(rows * d_input), nan(d_output));
            let (mut found_dup, mut found_ddown) = (nan(up.len()), nan(down.len()));
            let (mut dgate, mut dup_bias) =
                if gated { (nan(gate.len()), nan(0)) } else { (nan(0), nan(d_inner)) };
            let grads = FeedForwardGrads {
                dx: &mut dx,
                dgate: gated.then_some(&mut dgate[..]),
                dup: &mut found_dup,
                ddown: &mut found_ddown,
                dbiases: [(!gated).then_some(&mut dup_bias[..]), Some(&mut ddown_bias)],
            };
            let kept = (!layer.saves_input(cpu, rows)).then_some(&x[..]);
            backward(cpu, layer, (kept, &saved), &dy, grads);
            let found = [found_y, dx, dgate, found_dup, dup_bias, found_ddown, ddown_bias];
            let names = ["y", "dx", "dgate", "dup", "dup_bias", "ddown", "ddown_bias"];
            for ((name, found), wanted) in names.iter().zip(&found).zip(wanted) {
                let what = format!("{cpu:?} {case:?} {name}");
                assert_near(&what, found, wanted, tolerance);
            }
            assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{cpu:?}");
        }
        widened_is_f32.check(cpu, &first);
    }
}

#[test]
fn layers_of_many_strips_and_deep_maps_are_right() {
    for (at, (rows, d_input, d_inner, d_output)) in [
        (300, 32, 64, 32),
        (70, 450, 600, 400),
        (530, 33, 70, 31),
        (5, 5, 3, 2),
        (33, 800, 40, 20),
        (150, 36, 800, 780),
    ]
    .into_iter()
    .enumerate()
    {
        let transposed = (at % 2 == 0, at % 3 == 0);
        for gated in [false, true] {
            check(Case { rows, d_input, d_inner, d_output, activation: ALL[at % 4], gated, transposed });
        }
    }
}

#[test]
fn empty_layers_are_their_biases() {
    for (rows, d_inner, d_output) in [(0, 4, 3), (9, 0, 3), (9, 4, 0)] {
        for gated in [false, true] {
            let (activation, transposed) = (Activation::GeluTanh, (false, true));
            check(Case { rows, d_input: 5, d_inner, d_output, activation, gated, transposed });
        }
    }
}

#[test]
fn what_is_not_a_number_passes() {
    let (up, down) = (numbers(1, 32 * 64), numbers(2, 64 * 32));
    let mut x = numbers(3, 40 * 32);
    x[5 * 32 + 7] = f32::NAN;
    let up = MatRef::row_major(&up, 32, 64);
    let layer = |gate| FeedForward {
        gate,
        up,
        activation: Activation::GeluErf,
        down: MatRef::row_major(&down, 64, 32),
    };
    for cpu in every_cpu() {
        for gate in [None, Some(up)] {
            let mut y = vec![0.0; 40 * 32];
            forward(cpu, layer(gate), [None, None], &x, None, &mut y);
            for (row, y) in y.chunks_exact(32).enumerate() {
                assert_eq!(y.iter().all(|y| y.is_nan()), row == 5, "{cpu:?}: row {row}");
            }
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
        gated: bool,
        transposed: (bool, bool),
    ) {
        check(Case { rows, d_input, d_inner, d_output, activation: ALL[form], gated, transposed });
    }
}
