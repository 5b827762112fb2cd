//! Exponential moving averages.

use crate::Cpu;
use crate::parallel::{self, Shared};
use crate::simd::{Simd, dispatch};

/// `mean += (x − mean) · share`: what equals `x` stays exactly, however often this is called.
///
/// # Panics
/// If the lengths differ.
///
/// # Example
/// ```
/// use andiron_kernels::{Cpu, average::lerp};
/// let mut mean = [1.0, -2.0];
/// lerp(Cpu::detect(1), &mut mean, &[2.0, -2.0], 0.25);
/// assert_eq!(mean, [1.25, -2.0]);
/// ```
pub fn lerp(cpu: Cpu, mean: &mut [f32], x: &[f32], share: f32) {
    assert_eq!(mean.len(), x.len(), "mean and x differ in length");
    let mean = Shared::new(mean);
    parallel::rows(cpu, x.len(), 3, 64, |part| {
        // SAFETY: the parts are disjoint.
        let mean = unsafe { mean.range(part.clone()) };
        mix(cpu.isa, mean, &x[part], share);
    });
}

dispatch! { fn mix(mean: &mut [f32], x: &[f32], share: f32) = plain | vector; }

#[inline(always)]
fn plain(mean: &mut [f32], x: &[f32], share: f32) {
    mean.iter_mut().zip(x).for_each(|(mean, x)| *mean += (x - *mean) * share);
}

/// The plain version, which the compiler vectorizes.
#[inline(always)]
fn vector<S: Simd>(_: S, mean: &mut [f32], x: &[f32], share: f32) {
    plain(mean, x, share);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::numbers;

    #[test]
    fn every_path_mixes_the_same() {
        for n in [0, 1, 7, 100, 300_000] {
            let (start, x) = (numbers(1, n), numbers(2, n));
            let wanted: Vec<f32> = start.iter().zip(&x).map(|(m, x)| m + (x - m) * 0.1).collect();
            for isa in Isa::supported() {
                let mut mean = start.clone();
                lerp(Cpu::new(isa, 3), &mut mean, &x, 0.1);
                assert_eq!(mean, wanted, "{isa}");
            }
        }
    }
}
