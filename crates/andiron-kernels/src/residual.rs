//! Sums of what a layer was given and what it adds.

use crate::Cpu;
use crate::parallel::{self, Shared};
use crate::simd::{Simd, dispatch};

/// `out = x + y`.
///
/// # Panics
/// If the lengths differ.
///
/// # Example
/// ```
/// use andiron_kernels::{Cpu, residual::sum};
/// let mut out = [0.0; 2];
/// sum(Cpu::detect(1), &[1.0, 2.0], &[0.5, -2.0], &mut out);
/// assert_eq!(out, [1.5, 0.0]);
/// ```
pub fn sum(cpu: Cpu, x: &[f32], y: &[f32], out: &mut [f32]) {
    assert!(x.len() == y.len() && x.len() == out.len(), "x, y and out differ in length");
    let out = Shared::new(out);
    parallel::rows(cpu, x.len(), 2, 64, |part| {
        // SAFETY: the parts are disjoint.
        let out = unsafe { out.range(part.clone()) };
        add(cpu.isa, &x[part.clone()], &y[part], out);
    });
}

dispatch! { fn add(x: &[f32], y: &[f32], out: &mut [f32]) = plain | vector; }

#[inline(always)]
fn plain(x: &[f32], y: &[f32], out: &mut [f32]) {
    x.iter().zip(y).zip(out).for_each(|((x, y), out)| *out = x + y);
}

/// The compiler makes vectors of the plain version.
#[inline(always)]
fn vector<S: Simd>(_: S, x: &[f32], y: &[f32], out: &mut [f32]) {
    plain(x, y, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::numbers;

    #[test]
    fn every_path_adds_the_same() {
        for n in [0, 1, 7, 16, 100, 300_000] {
            let (x, y) = (numbers(1, n), numbers(2, n));
            let wanted: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            for isa in Isa::supported() {
                let mut out = vec![9.0; n];
                sum(Cpu::new(isa, 3), &x, &y, &mut out);
                assert_eq!(out, wanted, "{isa}");
            }
        }
    }
}
