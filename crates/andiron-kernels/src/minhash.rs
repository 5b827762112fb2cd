//! MinHash: the smallest hash of a set under each of many permutations.

use crate::Isa;

/// Permutations at a time.
const NARROW: usize = 16;

/// Lowers each `minima[i]` to the smallest `hash * multipliers[i] + addends[i]`, modulo 2^32, over all `hashes`.
///
/// With odd multipliers each of these is a permutation of the 32-bit numbers. Start with minima of [`u32::MAX`]; a set may be given
/// in parts.
///
/// Source: Broder 1997, "On the resemblance and containment of documents", <https://doi.org/10.1109/SEQUEN.1997.666900>.
///
/// # Panics
/// If there are not as many multipliers and addends as minima.
///
/// # Example
/// ```
/// use andiron_kernels::{Isa, minhash::lower_minima};
/// let mut minima = [u32::MAX; 2];
/// lower_minima(Isa::best(), &mut minima, &[1, 3], &[0, 1], &[5, 7]);
/// assert_eq!(minima, [5, 16]);
/// ```
pub fn lower_minima(isa: Isa, minima: &mut [u32], multipliers: &[u32], addends: &[u32], hashes: &[u32]) {
    assert_eq!(multipliers.len(), minima.len(), "not one multiplier for each minimum");
    assert_eq!(addends.len(), minima.len(), "not one addend for each minimum");
    match isa.available() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `available` only returns a set that this machine has.
        Isa::Avx2 => unsafe { avx2(minima, multipliers, addends, hashes) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `available` only returns a set that this machine has.
        Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => unsafe { avx512(minima, multipliers, addends, hashes) },
        _ => by_width::<NARROW, NARROW>(minima, multipliers, addends, hashes),
    }
}

// The compiler vectorizes the same code for each instruction set.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(minima: &mut [u32], multipliers: &[u32], addends: &[u32], hashes: &[u32]) {
    by_width::<32, NARROW>(minima, multipliers, addends, hashes);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2")]
fn avx512(minima: &mut [u32], multipliers: &[u32], addends: &[u32], hashes: &[u32]) {
    // All of the usual 112 stay in registers.
    by_width::<112, NARROW>(minima, multipliers, addends, hashes);
}

/// Permutations in groups of `N`, then of `M`, then singly.
#[inline(always)]
fn by_width<const N: usize, const M: usize>(
    minima: &mut [u32],
    multipliers: &[u32],
    addends: &[u32],
    hashes: &[u32],
) {
    let done = groups::<N>(minima, multipliers, addends, hashes);
    let (minima, multipliers, addends) = (&mut minima[done..], &multipliers[done..], &addends[done..]);
    let done = groups::<M>(minima, multipliers, addends, hashes);
    let (minima, multipliers, addends) = (&mut minima[done..], &multipliers[done..], &addends[done..]);
    groups::<1>(minima, multipliers, addends, hashes);
}

/// Whole groups of `N` permutations; returns how many permutations those are.
#[inline(always)]
fn groups<const N: usize>(minima: &mut [u32], multipliers: &[u32], addends: &[u32], hashes: &[u32]) -> usize {
    let (minima, _) = minima.as_chunks_mut::<N>();
    let ((multipliers, _), (addends, _)) = (multipliers.as_chunks::<N>(), addends.as_chunks::<N>());
    for ((minima, multipliers), addends) in minima.iter_mut().zip(multipliers).zip(addends) {
        let mut low = *minima;
        for &hash in hashes {
            for lane in 0..N {
                low[lane] = low[lane].min(hash.wrapping_mul(multipliers[lane]).wrapping_add(addends[lane]));
            }
        }
        *minima = low;
    }
    minima.len() * N
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_finds_the_smallest() {
        let number = |index: u32| index.wrapping_mul(0x9e37_79b9) ^ (index << 7);
        for n in [0, 1, 15, 16, 17, 33, 112, 130, 224] {
            let multipliers: Vec<u32> = (0..n).map(|index| number(index + 1) | 1).collect();
            let addends: Vec<u32> = (0..n).map(|index| number(index + 1000)).collect();
            let hashes: Vec<u32> = (0..57).map(|index| number(index + 5000)).collect();
            let least = |index: usize| {
                let permuted = hashes
                    .iter()
                    .map(|hash| hash.wrapping_mul(multipliers[index]).wrapping_add(addends[index]));
                permuted.min().unwrap()
            };
            let expected: Vec<u32> = (0..n as usize).map(least).collect();
            for isa in Isa::supported() {
                let mut minima = vec![u32::MAX; n as usize];
                let (first, rest) = hashes.split_at(20);
                lower_minima(isa, &mut minima, &multipliers, &addends, first);
                lower_minima(isa, &mut minima, &multipliers, &addends, rest);
                assert_eq!(minima, expected, "{n} permutations with {isa}");
            }
        }
    }
}
