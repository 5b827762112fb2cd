//! Which ids would repeat what was said.

/// Calls `visit` with each id that, put after `ids`, would make `n` consecutive ids which are there already; with
/// none if `n` is 0. An id may be visited several times.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn repeats(ids: &[u32], n: usize) -> Vec<u32> {
        let mut found = Vec::new();
        for_each_repeat(ids, n, |id| found.push(id));
        found
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
