//! Rotary position embeddings: pairs of a head's channels, rotated by an angle per position.

use crate::Cpu;
use crate::parallel::{self, Shared};
use crate::simd::{Simd, dispatch};

/// Sizes of the rotated tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotaryShape {
    /// Sequences.
    pub batch: usize,
    /// Positions of each.
    pub time: usize,
    /// Heads at each position.
    pub heads: usize,
    /// Channels of a head.
    pub width: usize,
    /// Rotated pairs: channels `i` and `i + pairs`. Channels from `2 · pairs` on are copied.
    pub pairs: usize,
}

/// Which way pairs are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// By the angles.
    Forward,
    /// By the negated angles: the gradient of [`Rotation::Forward`].
    Inverse,
}

/// Rotates the pairs of every head: `(x₁ cos − x₂ sin, x₂ cos + x₁ sin)`.
///
/// Source: Su et al. 2021, "RoFormer", <https://arxiv.org/abs/2104.09864>, with channels paired as in
/// Hugging Face's checkpoints.
///
/// # Shape
/// `x`, `y`: `[batch, time, heads, width]`; `cos`, `sin`: `[batch, time, pairs]`, or `[time, pairs]` for all sequences.
///
/// # Panics
/// If a length does not match the sizes, or heads are narrower than the rotated channels.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::rotary::{RotaryShape, Rotation, rotate};
/// let shape = RotaryShape { batch: 1, time: 1, heads: 1, width: 2, pairs: 1 };
/// let mut y = [0.0; 2];
/// rotate(Cpu::detect(1), shape, (&[1.0, 2.0], Rotation::Forward), (&[0.0], &[1.0]), &mut y); // a quarter turn
/// assert_eq!(y, [-2.0, 1.0]);
/// ```
pub fn rotate(
    cpu: Cpu,
    shape: RotaryShape,
    (x, way): (&[f32], Rotation),
    (cos, sin): (&[f32], &[f32]),
    y: &mut [f32],
) {
    let RotaryShape { batch, time, heads, width, pairs } = shape;
    assert!(2 * pairs <= width, "{pairs} pairs do not fit heads of width {width}");
    let position = heads * width;
    assert_eq!(x.len(), batch * time * position, "x is not {batch} x {time} x {heads} x {width}");
    assert_eq!(x.len(), y.len(), "x and y differ in length");
    assert_eq!(cos.len(), sin.len(), "cosines and sines differ in number");
    let shared = cos.len() == time * pairs;
    assert!(shared || cos.len() == batch * time * pairs, "angles are neither of one sequence nor of each");
    let y = Shared::new(y);
    parallel::rows(cpu, batch * time, 3 * position, 1, |part| {
        for at in part {
            let angle = if shared { at % time } else { at } * pairs;
            let angles = (&cos[angle..angle + pairs], &sin[angle..angle + pairs]);
            let elements = at * position..(at + 1) * position;
            // SAFETY: positions are disjoint.
            let y = unsafe { y.range(elements.clone()) };
            rotate_heads(cpu.isa, width, (&x[elements], way), angles, y);
        }
    });
}

dispatch! {
    fn rotate_heads(width: usize, x: (&[f32], Rotation), angles: (&[f32], &[f32]), y: &mut [f32]) = plain | vector;
}

#[inline(always)]
fn plain(width: usize, (x, way): (&[f32], Rotation), (cos, sin): (&[f32], &[f32]), y: &mut [f32]) {
    let pairs = cos.len();
    let sign = if way == Rotation::Forward { 1.0 } else { -1.0 };
    for (x, y) in x.chunks_exact(width.max(1)).zip(y.chunks_exact_mut(width.max(1))) {
        let ((first, rest), (y_first, y_rest)) = (x.split_at(pairs), y.split_at_mut(pairs));
        let ((second, rest), (y_second, y_rest)) = (rest.split_at(pairs), y_rest.split_at_mut(pairs));
        for i in 0..pairs {
            let (cos, sin) = (cos[i], sign * sin[i]);
            y_first[i] = first[i] * cos - second[i] * sin;
            y_second[i] = second[i] * cos + first[i] * sin;
        }
        y_rest.copy_from_slice(rest);
    }
}

/// The plain version, which the compiler vectorizes; it rounds the same.
#[inline(always)]
fn vector<S: Simd>(_: S, width: usize, x: (&[f32], Rotation), angles: (&[f32], &[f32]), y: &mut [f32]) {
    plain(width, x, angles, y);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers, wide};

    #[test]
    fn the_inverse_undoes_a_rotation_on_every_path() {
        for (batch, time, heads, width, pairs, rows) in [
            (2, 5, 3, 64, 32, 1),
            (2, 5, 3, 64, 32, 2),
            (1, 1, 9, 20, 8, 1),
            (3, 40, 4, 6, 3, 3),
            (1, 2, 1, 2, 0, 1),
        ] {
            let shape = RotaryShape { batch, time, heads, width, pairs };
            let x = numbers(1, batch * time * heads * width);
            let angles = numbers(2, rows * time * pairs);
            let cos: Vec<f32> = angles.iter().map(|angle| angle.cos()).collect();
            let sin: Vec<f32> = angles.iter().map(|angle| angle.sin()).collect();
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::supported() {
                let cpu = Cpu::new(isa, 2);
                let (mut y, mut back) = (vec![9.0; x.len()], vec![9.0; x.len()]);
                rotate(cpu, shape, (&x, Rotation::Forward), (&cos, &sin), &mut y);
                rotate(cpu, shape, (&y, Rotation::Inverse), (&cos, &sin), &mut back);
                assert_close(&format!("{isa} back"), &back, &wide(&x), 1e-6);
                assert_close(&format!("{isa}"), &y, &wide(first.get_or_insert_with(|| y.clone())), 1e-6);
                let at = ((batch - 1) * time + time - 1) * heads * width;
                if pairs > 0 {
                    let angle = angles[(rows * time - 1) * pairs];
                    let wanted = x[at] * angle.cos() - x[at + pairs] * angle.sin();
                    assert!((y[at] - wanted).abs() < 1e-6, "{isa}: {} is not {wanted}", y[at]);
                }
            }
        }
    }
}
