//! Search for repeated n-grams.

use std::collections::BTreeMap;

/// Calls `visit` with each id that would complete an n-gram of `n` ids that occurs in `ids`; never if `n` is 0. An id
/// may be visited several times.
///
/// Source: `NoRepeatNGramLogitsProcessor` of Hugging Face transformers.
pub(super) fn for_each_repeat(ids: &[u32], n: usize, mut visit: impl FnMut(u32)) {
    let Some(before) = n.checked_sub(1).filter(|&before| before <= ids.len()) else { return };
    let ending = &ids[ids.len() - before..];
    for gram in ids.windows(n) {
        if &gram[..before] == ending {
            visit(gram[before]);
        }
    }
}

/// Prompt lookup: at most `n` ids that followed the latest earlier occurrence of the longest suffix of `ids`, of at
/// most `longest` ids; empty if there is none.
///
/// Source: Saxena 2023, "Prompt Lookup Decoding", <https://github.com/apoorvumang/prompt-lookup-decoding>.
pub(super) fn lookup(ids: &[u32], longest: usize, n: usize) -> &[u32] {
    for len in (1..=longest.min(ids.len().saturating_sub(1))).rev() {
        let ending = &ids[ids.len() - len..];
        // The last window is the suffix itself; the one before it is the latest with a continuation.
        let earlier = ids[..ids.len() - 1].windows(len).rposition(|window| window == ending);
        if let Some(at) = earlier {
            let next = &ids[at + len..];
            return &next[..n.min(next.len())];
        }
    }
    &[]
}

/// Calls `visit` with each id that would continue a repeat, and with the length of the repeated suffix, the longest
/// of all occurrences. A repeat contains none of `breakers`.
///
/// Linear in `ids`. Source: DRY of llama.cpp, with the Z algorithm for the lengths.
pub(super) fn for_each_continuation(ids: &[u32], breakers: &[u32], mut visit: impl FnMut(u32, usize)) {
    let reversed: Vec<u32> = ids.iter().rev().copied().collect();
    let unbroken = reversed.iter().position(|id| breakers.contains(id)).unwrap_or(reversed.len());
    let mut longest: BTreeMap<u32, usize> = BTreeMap::new();
    for (back, len) in common_prefixes(&reversed).into_iter().enumerate().skip(1) {
        let next = reversed[back - 1];
        let len = len.min(unbroken);
        if len > 0 && !breakers.contains(&next) {
            let longest = longest.entry(next).or_default();
            *longest = len.max(*longest);
        }
    }
    longest.into_iter().for_each(|(id, len)| visit(id, len));
}

/// Z array: for each position, the length of the longest common prefix with the whole; 0 for the first position.
fn common_prefixes(ids: &[u32]) -> Vec<usize> {
    let mut lengths = vec![0; ids.len()];
    // The match found so far that ends furthest to the right.
    let (mut start, mut end) = (0, 0);
    for at in 1..ids.len() {
        let known = if at < end { lengths[at - start].min(end - at) } else { 0 };
        let more = ids[at + known..].iter().zip(&ids[known..]).take_while(|(a, b)| a == b).count();
        lengths[at] = known + more;
        if at + lengths[at] > end {
            (start, end) = (at, at + lengths[at]);
        }
    }
    lengths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn continuations(ids: &[u32], breakers: &[u32]) -> Vec<(u32, usize)> {
        let mut found = Vec::new();
        for_each_continuation(ids, breakers, |id, len| found.push((id, len)));
        found
    }

    #[test]
    fn what_followed_a_longer_repeat_counts_for_more() {
        let ids = [1, 2, 3, 9, 2, 3, 8, 1, 2, 3];
        assert_eq!(continuations(&ids, &[]), [(8, 2), (9, 3)]);
        assert_eq!(continuations(&ids, &[2]), [(8, 1), (9, 1)]);
        assert_eq!(continuations(&ids, &[9]), [(8, 2)]);
        assert_eq!(continuations(&ids, &[3]), []);
        assert_eq!(continuations(&[5, 5, 5], &[]), [(5, 2)]);
        assert_eq!(continuations(&[], &[]), []);
    }

    proptest! {
        #[test]
        fn lengths_are_those_of_a_plain_search(ids in prop::collection::vec(0u32..3, 0..40), breaker in 0u32..6) {
            let mut expected: BTreeMap<u32, usize> = BTreeMap::new();
            for next in 1..ids.len() {
                let pairs = ids[..next].iter().rev().zip(ids.iter().rev());
                let len = pairs.take_while(|(a, b)| a == b && **a != breaker).count();
                if len > 0 && ids[next] != breaker {
                    let longest = expected.entry(ids[next]).or_default();
                    *longest = len.max(*longest);
                }
            }
            prop_assert_eq!(continuations(&ids, &[breaker]), expected.into_iter().collect::<Vec<_>>());
        }
    }

    fn repeats(ids: &[u32], n: usize) -> Vec<u32> {
        let mut found = Vec::new();
        for_each_repeat(ids, n, |id| found.push(id));
        found
    }

    #[test]
    fn the_latest_and_longest_ending_is_looked_up() {
        assert_eq!(lookup(&[1, 2, 3, 4, 9, 2, 3, 5, 2, 3], 3, 2), [5, 2]);
        assert_eq!(lookup(&[1, 2, 3, 4, 9, 3, 5, 1, 2, 3], 3, 9), [4, 9, 3, 5, 1, 2, 3]);
        assert_eq!(lookup(&[7, 7, 7], 3, 4), [7]);
        assert_eq!(lookup(&[1, 2, 3], 3, 4), [] as [u32; 0]);
        assert_eq!(lookup(&[1], 3, 4), [] as [u32; 0]);
        assert_eq!(lookup(&[], 3, 4), [] as [u32; 0]);
    }

    #[test]
    fn what_followed_the_same_ending_is_a_repeat() {
        let ids = [1, 2, 3, 1, 2, 4, 1, 2];
        assert_eq!(repeats(&ids, 3), [3, 4]);
        assert_eq!(repeats(&ids, 2), [3, 4]);
        assert_eq!(repeats(&ids[..7], 2), [2, 2]);
        assert_eq!(repeats(&ids, 4), [] as [u32; 0]);
        assert_eq!(repeats(&[5, 6], 1), [5, 6]);
        assert_eq!(repeats(&ids, 0), [] as [u32; 0]);
        assert_eq!(repeats(&[1], 3), [] as [u32; 0]);
    }
}
