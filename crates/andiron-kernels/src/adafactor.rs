//! The Adafactor optimizer step.

use crate::Cpu;
use crate::parallel::{self, Shared};
use crate::reduce::square_sum;
use crate::simd::{Simd, dispatch};

/// Rows whose squares are summed together: by column, and for the norm of the update.
const BLOCK_ROWS: usize = 64;
/// Running sums, which the compiler vectorizes.
const LANES: usize = 16;

/// Settings of one step for one group of parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdafactorStep {
    /// Learning rate of this step.
    pub lr: f32,
    /// Multiply the learning rate by the RMS of the parameter.
    pub scale_parameter: bool,
    /// Lower bound of that RMS.
    pub min_rms: f32,
    /// Added to squared gradients.
    pub eps: f32,
    /// The update is divided so that its RMS, before the learning rate, is at most this.
    pub clip_threshold: f32,
    /// Exponent of the step in the share of new squares, below 0: `step ^ decay_rate`.
    pub decay_rate: f32,
    /// Decay of the running mean of updates, in `[0, 1)`; without a running mean it is ignored.
    pub beta1: f32,
    /// Decoupled weight decay, per unit of the learning rate, scaled as it is.
    pub weight_decay: f32,
    /// Number of this step; the first is 1.
    pub step: u64,
    /// Multiplies every gradient: 1, or the factor of gradient clipping and accumulation.
    pub grad_scale: f32,
}

impl AdafactorStep {
    /// Share of this step's squares in their running means; the first step's is 1.
    pub fn share(&self) -> f64 {
        (self.step as f64).powf(self.decay_rate.into())
    }
}

/// Running means of squared gradients.
#[derive(Debug)]
pub enum Squares<'a> {
    /// Of each element.
    Whole(&'a mut [f32]),
    /// Of each row and of each column of a matrix, from which those of elements are estimated.
    Factored {
        /// One for each row.
        rows: &'a mut [f32],
        /// One for each column.
        columns: &'a mut [f32],
    },
}

/// The coefficients of a step, in f32.
#[derive(Clone, Copy)]
struct Factors {
    grad_scale: f32,
    eps: f32,
    /// Of the squares so far.
    keep: f32,
    /// Of the new squares.
    share: f32,
}

/// How a parameter moves along its update.
#[derive(Clone, Copy)]
struct Move {
    /// Factor of the update.
    size: f32,
    /// Factor of the parameter.
    shrink: f32,
    beta1: f32,
}

/// Updates parameters and running means in place, by the formula of `transformers`' `Adafactor`. `mean` is the running
/// mean of updates, if there is one.
///
/// A factored matrix needs a running mean for each row and each column only. Its gradient is read three times and no
/// memory of its size is taken.
///
/// Source: Shazeer and Stern 2018, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
/// <https://arxiv.org/abs/1804.04235>.
///
/// # Panics
/// If the lengths do not agree or `settings.step` is 0.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::adafactor::{AdafactorStep, Squares, step};
/// let settings = AdafactorStep {
///     lr: 0.1,
///     scale_parameter: false,
///     min_rms: 1e-3,
///     eps: 1e-30,
///     clip_threshold: 1.0,
///     decay_rate: -0.8,
///     beta1: 0.0,
///     weight_decay: 0.0,
///     step: 1,
///     grad_scale: 1.0,
/// };
/// let (mut param, mut rows, mut columns) = ([1.0; 4], [0.0; 2], [0.0; 2]);
/// let squares = Squares::Factored { rows: &mut rows, columns: &mut columns };
/// step(Cpu::detect(1), settings, &mut param, &[1.0, -2.0, 2.0, -4.0], squares, None);
/// // The gradient is a product of a column and a row, so that its estimated squares are exact.
/// for (param, expected) in param.into_iter().zip([0.9, 1.1, 0.9, 1.1]) {
///     assert!((param - expected).abs() < 1e-6f32);
/// }
/// ```
pub fn step(
    cpu: Cpu,
    settings: AdafactorStep,
    param: &mut [f32],
    grad: &[f32],
    squares: Squares<'_>,
    mean: Option<&mut [f32]>,
) {
    let len = param.len();
    assert_eq!(grad.len(), len, "param and grad differ in length");
    assert!(mean.as_ref().is_none_or(|mean| mean.len() == len), "param and mean differ in length");
    assert!(settings.step > 0, "steps are counted from 1");
    if len == 0 {
        return;
    }
    let share = settings.share();
    let factors = Factors {
        grad_scale: settings.grad_scale,
        eps: settings.eps,
        keep: (1.0 - share) as f32,
        share: share as f32,
    };
    // The update of an element is its gradient times a factor of its row times a factor of its column.
    let (of_row, of_column) = match squares {
        Squares::Whole(square) => {
            assert_eq!(square.len(), len, "param and its squares differ in length");
            for (square, grad) in square.iter_mut().zip(grad) {
                let grad = grad * factors.grad_scale;
                *square = *square * factors.keep + factors.share * (grad * grad + factors.eps);
            }
            (vec![factors.grad_scale], square.iter().map(|square| square.sqrt().recip()).collect())
        }
        Squares::Factored { rows, columns } => {
            assert_eq!(rows.len() * columns.len(), len, "rows and columns do not span the parameter");
            update_means(cpu, factors, grad, rows, columns);
            let mean = rows.iter().map(|&row| f64::from(row)).sum::<f64>() / rows.len() as f64;
            let of_row = |&row: &f32| (mean / f64::from(row)).sqrt() as f32 * factors.grad_scale;
            let of_row: Vec<f32> = rows.iter().map(of_row).collect();
            (of_row, columns.iter().map(|column| column.sqrt().recip()).collect::<Vec<f32>>())
        }
    };
    let rms = |squares: f64| (squares / len as f64).sqrt();
    let lr = f64::from(settings.lr)
        * if settings.scale_parameter {
            rms(square_sum(cpu, param)).max(settings.min_rms.into())
        } else {
            1.0
        };
    let of_update = rms(update_squares(cpu, grad, &of_row, &of_column));
    let moves = Move {
        size: (lr / (of_update / f64::from(settings.clip_threshold)).max(1.0)) as f32,
        shrink: (1.0 - lr * f64::from(settings.weight_decay)) as f32,
        beta1: settings.beta1,
    };
    let width = of_column.len();
    let (param, mean) = (Shared::new(param), mean.map(Shared::new));
    parallel::rows(cpu, of_row.len(), 5 * width, 1, |part| {
        for at in part {
            let row = at * width..(at + 1) * width;
            // SAFETY: the rows are disjoint.
            let (param, mean) =
                unsafe { (param.range(row.clone()), mean.as_ref().map(|mean| mean.range(row.clone()))) };
            move_row(cpu.isa, moves, of_row[at], param, &grad[row], &of_column, mean);
        }
    });
}

/// Updates the running means of squares of rows and columns. Sums are cut by the shape alone and combined in order, so
/// that they do not depend on threads.
fn update_means(cpu: Cpu, factors: Factors, grad: &[f32], rows: &mut [f32], columns: &mut [f32]) {
    let Factors { grad_scale, eps, keep, share } = factors;
    let (n_rows, width) = (rows.len(), columns.len());
    let blocks = n_rows.div_ceil(BLOCK_ROWS);
    let mut sums = vec![0.0; blocks * width];
    {
        let (sums, rows) = (Shared::new(&mut sums), Shared::new(rows));
        parallel::rows(cpu, blocks, 3 * BLOCK_ROWS * width, 1, |part| {
            for block in part {
                let start = block * BLOCK_ROWS;
                // SAFETY: the blocks are disjoint.
                let (sums, rows) = unsafe {
                    let rows = rows.range(start..n_rows.min(start + BLOCK_ROWS));
                    (sums.range(block * width..(block + 1) * width), rows)
                };
                for (at, row) in (start..).zip(rows) {
                    let squares = row_squares(cpu.isa, grad_scale, &grad[at * width..(at + 1) * width], sums);
                    *row = *row * keep + share * ((squares / width as f64) as f32 + eps);
                }
            }
        });
    }
    let (total, others) = sums.split_at_mut(width);
    for other in others.chunks_exact(width) {
        total.iter_mut().zip(other).for_each(|(total, sum)| *total += sum);
    }
    for (column, total) in columns.iter_mut().zip(total) {
        *column = *column * keep + share * (*total / n_rows as f32 + eps);
    }
}

/// The sum of squares of the update.
fn update_squares(cpu: Cpu, grad: &[f32], of_row: &[f32], of_column: &[f32]) -> f64 {
    let (n_rows, width) = (of_row.len(), of_column.len());
    let mut sums = vec![0.0; n_rows.div_ceil(BLOCK_ROWS)];
    let shared = Shared::new(&mut sums);
    parallel::rows(cpu, n_rows.div_ceil(BLOCK_ROWS), 3 * BLOCK_ROWS * width, 1, |part| {
        // SAFETY: the parts are disjoint.
        let sums = unsafe { shared.range(part.clone()) };
        for (block, sum) in part.zip(sums) {
            let rows = block * BLOCK_ROWS..n_rows.min((block + 1) * BLOCK_ROWS);
            let squares = |at: usize| {
                weighted_squares(cpu.isa, of_row[at], &grad[at * width..(at + 1) * width], of_column)
            };
            *sum = rows.map(squares).sum();
        }
    });
    sums.iter().sum()
}

dispatch! {
    fn row_squares(grad_scale: f32, grad: &[f32], columns: &mut [f32]) -> f64
        = plain_row_squares | vector_row_squares;
}
dispatch! {
    fn weighted_squares(of_row: f32, grad: &[f32], of_column: &[f32]) -> f64
        = plain_weighted_squares | vector_weighted_squares;
}
dispatch! {
    fn move_row(
        moves: Move,
        of_row: f32,
        param: &mut [f32],
        grad: &[f32],
        of_column: &[f32],
        mean: Option<&mut [f32]>,
    ) = plain_move_row | vector_move_row;
}

// The compiler vectorizes these. They fuse no multiply-add, and sums have their own lanes, so every version gives the same
// bits.

/// The sum of the row's squares, which are added to `columns` as well.
#[inline(always)]
fn plain_row_squares(grad_scale: f32, grad: &[f32], columns: &mut [f32]) -> f64 {
    let mut sums = [0.0f64; LANES];
    let mut add = |grad: &[f32], columns: &mut [f32]| {
        for ((grad, column), sum) in grad.iter().zip(columns).zip(&mut sums) {
            let grad = grad * grad_scale;
            *column += grad * grad;
            *sum += f64::from(grad) * f64::from(grad);
        }
    };
    let (whole, rest) = grad.as_chunks::<LANES>();
    let (whole_columns, rest_columns) = columns.as_chunks_mut::<LANES>();
    for (grad, columns) in whole.iter().zip(whole_columns) {
        add(grad, columns);
    }
    add(rest, rest_columns);
    sums.iter().sum()
}

/// The sum of squares of the row's update.
#[inline(always)]
fn plain_weighted_squares(of_row: f32, grad: &[f32], of_column: &[f32]) -> f64 {
    let mut sums = [0.0f64; LANES];
    let mut add = |grad: &[f32], of_column: &[f32]| {
        for ((grad, of_column), sum) in grad.iter().zip(of_column).zip(&mut sums) {
            let update = f64::from(grad * of_row * of_column);
            *sum += update * update;
        }
    };
    let (whole, rest) = grad.as_chunks::<LANES>();
    let (whole_columns, rest_columns) = of_column.as_chunks::<LANES>();
    for (grad, of_column) in whole.iter().zip(whole_columns) {
        add(grad, of_column);
    }
    add(rest, rest_columns);
    sums.iter().sum()
}

#[inline(always)]
fn plain_move_row(
    moves: Move,
    of_row: f32,
    param: &mut [f32],
    grad: &[f32],
    of_column: &[f32],
    mean: Option<&mut [f32]>,
) {
    let Move { size, shrink, beta1 } = moves;
    let moved = param.iter_mut().zip(grad).zip(of_column);
    match mean {
        None => {
            for ((param, grad), of_column) in moved {
                *param = *param * shrink - grad * of_row * of_column * size;
            }
        }
        Some(mean) => {
            for (((param, grad), of_column), mean) in moved.zip(mean) {
                *mean = *mean * beta1 + (1.0 - beta1) * (grad * of_row * of_column * size);
                *param = *param * shrink - *mean;
            }
        }
    }
}

#[inline(always)]
fn vector_row_squares<S: Simd>(_: S, grad_scale: f32, grad: &[f32], columns: &mut [f32]) -> f64 {
    plain_row_squares(grad_scale, grad, columns)
}

#[inline(always)]
fn vector_weighted_squares<S: Simd>(_: S, of_row: f32, grad: &[f32], of_column: &[f32]) -> f64 {
    plain_weighted_squares(of_row, grad, of_column)
}

#[inline(always)]
fn vector_move_row<S: Simd>(
    _: S,
    moves: Move,
    of_row: f32,
    param: &mut [f32],
    grad: &[f32],
    of_column: &[f32],
    mean: Option<&mut [f32]>,
) {
    plain_move_row(moves, of_row, param, grad, of_column, mean);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers, wide};

    const STEP: AdafactorStep = AdafactorStep {
        lr: 1e-2,
        scale_parameter: false,
        min_rms: 1e-3,
        eps: 1e-30,
        clip_threshold: 1.0,
        decay_rate: -0.8,
        beta1: 0.9,
        weight_decay: 0.0,
        step: 1,
        grad_scale: 1.0,
    };

    /// A parameter and its running means.
    #[derive(Clone)]
    struct State<T> {
        param: Vec<T>,
        rows: Vec<T>,
        columns: Vec<T>,
        mean: Vec<T>,
    }

    /// The algorithm of the paper, in f64. Without columns, `rows` are the squares of a vector's elements.
    fn exact(settings: AdafactorStep, with_mean: bool, at: &mut State<f64>, grad: &[f32]) {
        let rms = |x: &[f64]| (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64).sqrt();
        let share = (settings.step as f64).powf(settings.decay_rate.into());
        let grad: Vec<f64> = grad.iter().map(|g| f64::from(*g) * f64::from(settings.grad_scale)).collect();
        let square = |i: usize| grad[i] * grad[i] + f64::from(settings.eps);
        let (n_rows, width) = (at.rows.len(), at.columns.len());
        let update: Vec<f64> = if width == 0 {
            at.rows.iter_mut().enumerate().for_each(|(i, v)| *v += (square(i) - *v) * share);
            at.rows.iter().zip(&grad).map(|(v, g)| g / v.sqrt()).collect()
        } else {
            for (i, row) in at.rows.iter_mut().enumerate() {
                let mean = (0..width).map(|j| square(i * width + j)).sum::<f64>() / width as f64;
                *row += (mean - *row) * share;
            }
            for (j, column) in at.columns.iter_mut().enumerate() {
                let mean = (0..n_rows).map(|i| square(i * width + j)).sum::<f64>() / n_rows as f64;
                *column += (mean - *column) * share;
            }
            let mean_row = at.rows.iter().sum::<f64>() / n_rows as f64;
            let square = |i: usize| at.rows[i / width] * at.columns[i % width] / mean_row;
            (0..grad.len()).map(|i| grad[i] / square(i).sqrt()).collect()
        };
        let scale = if settings.scale_parameter { rms(&at.param).max(settings.min_rms.into()) } else { 1.0 };
        let lr = f64::from(settings.lr) * scale;
        let clip = (rms(&update) / f64::from(settings.clip_threshold)).max(1.0);
        for ((param, mean), update) in at.param.iter_mut().zip(&mut at.mean).zip(update) {
            let mut update = update * lr / clip;
            if with_mean {
                *mean += (update - *mean) * (1.0 - f64::from(settings.beta1));
                update = *mean;
            }
            *param = *param * (1.0 - lr * f64::from(settings.weight_decay)) - update;
        }
    }

    /// Three steps of a matrix, or of a vector with `columns = 0`.
    #[track_caller]
    fn check(settings: AdafactorStep, with_mean: bool, [rows, columns]: [usize; 2]) {
        let len = rows * columns.max(1);
        let start = State {
            param: numbers(1, len),
            rows: vec![0.0; rows],
            columns: vec![0.0; columns],
            mean: vec![0.0; len],
        };
        let grads: Vec<Vec<f32>> = [2, 3, 4].map(|stream| numbers(stream, len)).to_vec();
        let mut wanted = State {
            param: wide(&start.param),
            rows: wide(&start.rows),
            columns: wide(&start.columns),
            mean: wide(&start.mean),
        };
        for (step, grads) in (1..).zip(&grads) {
            exact(AdafactorStep { step, ..settings }, with_mean, &mut wanted, grads);
        }
        let mut first = None;
        for isa in Isa::supported() {
            for threads in [1, 2, 3] {
                let State { mut param, mut rows, mut columns, mut mean } = start.clone();
                for (number, grads) in (1..).zip(&grads) {
                    let settings = AdafactorStep { step: number, ..settings };
                    let squares = if columns.is_empty() {
                        Squares::Whole(&mut rows)
                    } else {
                        Squares::Factored { rows: &mut rows, columns: &mut columns }
                    };
                    let mean = with_mean.then_some(&mut mean[..]);
                    step(Cpu::new(isa, threads), settings, &mut param, grads, squares, mean);
                }
                let what = format!("{isa}, {threads} threads");
                assert_close(&what, &param, &wanted.param, 2e-6);
                assert_close(&what, &rows, &wanted.rows, 2e-6);
                assert_close(&what, &columns, &wanted.columns, 2e-6);
                assert_close(&what, &mean, &wanted.mean, 2e-6);
                assert_eq!(first.get_or_insert_with(|| param.clone()), &param, "{what}");
            }
        }
    }

    const SHAPES: [[usize; 2]; 6] = [[1, 1], [3, 200], [200, 3], [400, 330], [1, 0], [700, 0]];

    #[test]
    fn steps_follow_the_published_algorithm() {
        for shape in SHAPES {
            for with_mean in [false, true] {
                check(STEP, with_mean, shape);
            }
        }
    }

    #[test]
    fn the_size_of_a_parameter_scales_its_step_and_its_decay() {
        let settings = AdafactorStep { scale_parameter: true, weight_decay: 0.5, grad_scale: 0.1, ..STEP };
        for shape in SHAPES {
            check(settings, true, shape);
            check(AdafactorStep { min_rms: 3.0, clip_threshold: 0.3, ..settings }, false, shape);
        }
    }

    #[test]
    fn a_gradient_of_zeros_moves_nothing() {
        let (mut param, mut rows, mut columns) = ([1.0; 6], [0.0; 2], [0.0; 3]);
        let squares = Squares::Factored { rows: &mut rows, columns: &mut columns };
        step(Cpu::detect(1), STEP, &mut param, &[0.0; 6], squares, None);
        assert_eq!(param, [1.0; 6]);
        step(Cpu::detect(1), STEP, &mut [], &[], Squares::Whole(&mut []), None);
    }

    #[test]
    #[should_panic(expected = "rows and columns do not span the parameter")]
    fn means_of_another_shape_are_refused() {
        let squares = Squares::Factored { rows: &mut [0.0; 2], columns: &mut [0.0; 2] };
        step(Cpu::detect(1), STEP, &mut [0.0; 6], &[0.0; 6], squares, None);
    }
}
