//! Dropout with a stateless mask, a function of the seed and an element's index: no mask is stored.

use crate::Cpu;
use crate::parallel::{self, Shared};
use crate::random::{BULK, Seed};
use crate::simd::{Simd, dispatch};

/// Elements whose random words are drawn at once.
pub(crate) const GROUP: usize = 4 * BULK;

/// Which elements are dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The probability that an element becomes 0, in `[0, 1]`.
    pub probability: f32,
    /// The random stream; use a different one for every layer and step.
    pub seed: Seed,
}

/// A [`Dropout`] of a probability above 0: an element whose random word is below `threshold` is kept and multiplied by
/// `scale`.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    seed: Seed,
    threshold: u32,
    scale: f32,
}

impl Rule {
    /// `None` if nothing is dropped.
    ///
    /// # Panics
    /// If the probability is not in `[0, 1]`.
    #[track_caller]
    pub(crate) fn new(dropout: Dropout) -> Option<Self> {
        const ALL: f64 = (1u64 << 32) as f64;
        let Dropout { probability, seed } = dropout;
        assert!((0.0..=1.0).contains(&probability), "dropout probability {probability} is not in 0..=1");
        let kept = ((1.0 - f64::from(probability)) * ALL).round();
        let scale = if kept > 0.0 { (ALL / kept) as f32 } else { 0.0 };
        (kept < ALL).then_some(Self { seed, threshold: kept as u32, scale })
    }

    /// The factor of kept elements.
    pub(crate) fn scale(&self) -> f32 {
        self.scale
    }

    /// The factor of an element: `scale` or 0.
    pub(crate) fn factor(&self, element: u64) -> f32 {
        if self.seed.word(element) < self.threshold { self.scale } else { 0.0 }
    }

    /// The mask of a group: one bit per element, the lowest for the first; 1 is kept.
    #[inline(always)]
    pub(crate) fn kept<S: Simd>(&self, s: S, group: u64) -> u64 {
        let words = self.seed.words(group * BULK as u64);
        let mut kept = 0;
        for (n, words) in words.iter().enumerate() {
            kept |= u64::from(s.below(words, self.threshold)) << (n * BULK);
        }
        kept
    }
}

/// `y[i]` is 0 with the given probability `p`, else `x[i] / (1 - p)`.
///
/// The gradient is the same function: apply it to `dy` with the same [`Dropout`].
///
/// Source: Srivastava et al. 2014, "Dropout", <https://jmlr.org/papers/v15/srivastava14a.html>.
///
/// # Panics
/// If the lengths differ or the probability is not in `[0, 1]`.
///
/// # Example
/// ```
/// use andiron_kernels::{Cpu, dropout::{Dropout, apply}, random::Seed};
/// let (dropout, mut y) = (Dropout { probability: 0.5, seed: Seed::new(1) }, [0.0; 8]);
/// apply(Cpu::detect(1), dropout, &[1.0; 8], &mut y);
/// assert!(y.iter().all(|y| *y == 0.0 || *y == 2.0));
/// ```
pub fn apply(cpu: Cpu, dropout: Dropout, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "x and y differ in length");
    let Some(rule) = Rule::new(dropout) else {
        return y.copy_from_slice(x);
    };
    let y = Shared::new(y);
    parallel::rows(cpu, x.len(), 8, GROUP, |part| {
        // SAFETY: the parts are disjoint.
        let y = unsafe { y.range(part.clone()) };
        mask(cpu.isa, rule, part.start, &x[part], y);
    });
}

dispatch! { fn mask(rule: Rule, start: usize, x: &[f32], y: &mut [f32]) = plain | vector; }

/// `start`, the index of the first element, is a multiple of [`GROUP`].
#[inline(always)]
fn plain(rule: Rule, start: usize, x: &[f32], y: &mut [f32]) {
    let first = start / GROUP;
    let ((x, last_x), (y, last_y)) = (x.as_chunks(), y.as_chunks_mut());
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        mask_group(rule, first + i, x, y);
    }
    if !last_x.is_empty() {
        let (mut from, mut to) = ([0.0; GROUP], [0.0; GROUP]);
        from[..last_x.len()].copy_from_slice(last_x);
        mask_group(rule, first + x.len(), &from, &mut to);
        last_y.copy_from_slice(&to[..last_x.len()]);
    }
}

#[inline(always)]
fn mask_group(rule: Rule, group: usize, x: &[f32; GROUP], y: &mut [f32; GROUP]) {
    let words = rule.seed.words((group * BULK) as u64);
    for (n, words) in words.iter().enumerate() {
        for (i, word) in words.iter().enumerate() {
            let at = n * BULK + i;
            y[at] = if *word < rule.threshold { x[at] * rule.scale } else { 0.0 };
        }
    }
}

#[inline(always)]
fn vector<S: Simd>(_: S, rule: Rule, start: usize, x: &[f32], y: &mut [f32]) {
    plain(rule, start, x, y);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn the_mask_depends_on_seed_and_index_only() {
        let x: Vec<f32> = (0..50_001).map(|i| i as f32 + 1.0).collect();
        let dropout = Dropout { probability: 0.1, seed: Seed::new(4) };
        let mut wanted = vec![f32::NAN; x.len()];
        apply(Cpu::new(Isa::Scalar, 1), dropout, &x, &mut wanted);
        for isa in Isa::supported() {
            for threads in [1, 2, 3] {
                let mut y = vec![f32::NAN; x.len()];
                apply(Cpu::new(isa, threads), dropout, &x, &mut y);
                assert_eq!(y, wanted);
            }
        }
        let mut head = vec![0.0; 77];
        apply(Cpu::detect(1), dropout, &x[..77], &mut head);
        assert_eq!(head, wanted[..77]);
    }

    #[test]
    fn the_mean_is_kept() {
        let x = vec![1.0; 200_000];
        for probability in [0.0, 0.1, 0.5, 0.9] {
            let mut y = vec![0.0; x.len()];
            apply(Cpu::detect(2), Dropout { probability, seed: Seed::new(8) }, &x, &mut y);
            let mean = y.iter().map(|y| f64::from(*y)).sum::<f64>() / 2e5;
            assert!((mean - 1.0).abs() < 0.03, "probability {probability}: mean {mean}");
        }
    }

    #[test]
    fn nothing_and_everything_can_be_dropped() {
        let mut y = [0.0; 5];
        let seed = Seed::new(0);
        apply(Cpu::detect(1), Dropout { probability: 0.0, seed }, &[3.0; 5], &mut y);
        assert_eq!(y, [3.0; 5]);
        apply(Cpu::detect(1), Dropout { probability: 1.0, seed }, &[3.0; 5], &mut y);
        assert_eq!(y, [0.0; 5]);
    }
}
