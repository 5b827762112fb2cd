//! Residual connections: the sum of a layer's input and output.

use crate::parallel::{self, Shared};
use crate::simd::{Simd, dispatch};
use crate::{Cpu, Isa};

/// `sum += x`.
///
/// # Panics
/// If the lengths differ.
///
/// # Example
/// ```
/// use andiron_kernels::{Cpu, residual::add};
/// let mut sum = [0.5, -2.0];
/// add(Cpu::detect(1), &[1.0, 2.0], &mut sum);
/// assert_eq!(sum, [1.5, 0.0]);
/// ```
pub fn add(cpu: Cpu, x: &[f32], sum: &mut [f32]) {
    assert_eq!(x.len(), sum.len(), "x and the sum differ in length");
    let sum = Shared::new(sum);
    parallel::rows(cpu, x.len(), 2, 64, |part| {
        // SAFETY: the parts are disjoint.
        let sum = unsafe { sum.range(part.clone()) };
        add_part(cpu.isa, &x[part], sum);
    });
}

/// [`add`] on this thread.
pub(crate) fn add_part(isa: Isa, x: &[f32], sum: &mut [f32]) {
    run(isa, x, sum);
}

dispatch! { fn run(x: &[f32], sum: &mut [f32]) = plain | vector; }

#[inline(always)]
fn plain(x: &[f32], sum: &mut [f32]) {
    x.iter().zip(sum).for_each(|(x, sum)| *sum += x);
}

/// The plain version, which the compiler vectorizes.
#[inline(always)]
fn vector<S: Simd>(_: S, x: &[f32], sum: &mut [f32]) {
    plain(x, sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn every_path_adds_the_same() {
        for n in [0, 1, 7, 16, 100, 300_000] {
            let (x, y) = (numbers(1, n), numbers(2, n));
            let wanted: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            for isa in Isa::supported() {
                let mut sum = y.clone();
                add(Cpu::new(isa, 3), &x, &mut sum);
                assert_eq!(sum, wanted, "{isa}");
            }
        }
    }
}
