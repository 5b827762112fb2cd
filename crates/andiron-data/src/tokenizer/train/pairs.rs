//! Merging of the most frequent pairs of tokens: what BPE and WordPiece have in common.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A pair of tokens.
pub(super) type Pair = (u32, u32);

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The most tokens, first ones included.
    pub(super) vocab_size: usize,
    /// A pair that occurs less often is not merged.
    pub(super) min_frequency: u64,
}

/// What was learned.
pub(super) struct Trained {
    /// The tokens by their ids.
    pub(super) tokens: Vec<String>,
    /// The pairs that merge, the first merged first.
    pub(super) merges: Vec<Pair>,
}

/// A pair that may be merged next: the most frequent one, of equally frequent ones that of lower ids.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    count: u64,
    pair: Reverse<Pair>,
    /// The words that it is in, or was.
    words: Vec<u32>,
}

/// How often each pair occurs, and where pairs have occurred since they were last asked for.
#[derive(Default)]
struct PairCounts {
    counts: HashMap<Pair, i64>,
    found: HashMap<Pair, Vec<u32>>,
}

impl PairCounts {
    fn add(&mut self, pair: Pair, count: i64, word: u32) {
        *self.counts.entry(pair).or_default() += count;
        if count > 0 {
            let words = self.found.entry(pair).or_default();
            // The pairs of a word come one after the other.
            if words.last() != Some(&word) {
                words.push(word);
            }
        }
    }

    fn of(&self, pair: Pair) -> u64 {
        self.counts.get(&pair).map_or(0, |&count| u64::try_from(count).unwrap_or(0))
    }

    /// The pairs that were found.
    fn candidates(&mut self) -> Vec<Candidate> {
        let found = std::mem::take(&mut self.found);
        let candidate = |(pair, words)| Candidate { count: self.of(pair), pair: Reverse(pair), words };
        found.into_iter().map(candidate).filter(|candidate| candidate.count > 0).collect()
    }
}

/// Merges pairs, beginning with `tokens`, of which the words consist. `prefix` begins those that continue a word; it is left
/// out where two are joined.
///
/// The merges are those of the `tokenizers` library 0.23, except that its order of `##` tokens, and with it the choice among
/// equally frequent pairs, changes from run to run.
///
/// Source: Sennrich, Haddow, Birch 2016, "Neural Machine Translation of Rare Words with Subword Units",
/// <https://arxiv.org/abs/1508.07909>, algorithm 1.
pub(super) fn merge_pairs(
    mut words: Vec<(Vec<u32>, u64)>,
    mut tokens: Vec<String>,
    prefix: &str,
    bounds: Bounds,
) -> Trained {
    let mut ids: HashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
    let mut merges = Vec::new();
    let mut counts = PairCounts::default();
    for ((word, count), number) in words.iter().zip(0..) {
        for two in word.windows(2) {
            counts.add((two[0], two[1]), count.cast_signed(), number);
        }
    }
    let mut queue = BinaryHeap::from(counts.candidates());
    while tokens.len() < bounds.vocab_size {
        let Some(mut top) = queue.pop() else { break };
        let Reverse(pair) = top.pair;
        let now = counts.of(pair);
        if top.count != now {
            // It has been counted before words changed.
            top.count = now;
            queue.push(top);
            continue;
        }
        if now < bounds.min_frequency.max(1) {
            break;
        }
        let (a, b) = (&tokens[pair.0 as usize], &tokens[pair.1 as usize]);
        let joined = format!("{a}{}", b.strip_prefix(prefix).unwrap_or(b));
        let id = *ids.entry(joined).or_insert_with_key(|joined| {
            tokens.push(joined.clone());
            tokens.len() as u32 - 1
        });
        merges.push(pair);
        for number in top.words {
            let (word, count) = &mut words[number as usize];
            let count = count.cast_signed();
            merge(word, pair, id, |pair, sign| counts.add(pair, sign * count, number));
        }
        queue.extend(counts.candidates());
    }
    Trained { tokens, merges }
}

/// Replaces a pair in a word, and tells `changed` which pairs are more or fewer.
fn merge(word: &mut Vec<u32>, (a, b): Pair, id: u32, mut changed: impl FnMut(Pair, i64)) {
    let (mut read, mut written) = (0, 0);
    while read < word.len() {
        if word[read] != a || word.get(read + 1) != Some(&b) {
            word[written] = word[read];
            (read, written) = (read + 1, written + 1);
            continue;
        }
        if written > 0 {
            let before = word[written - 1];
            changed((before, a), -1);
            changed((before, id), 1);
        }
        if let Some(&after) = word.get(read + 2) {
            changed((b, after), -1);
            changed((id, after), 1);
        }
        word[written] = id;
        (read, written) = (read + 2, written + 1);
    }
    word.truncate(written);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trained(words: &[(&str, u64)], vocab_size: usize) -> Trained {
        let tokens = ["a", "b", "c"].map(str::to_owned).to_vec();
        let ids = |word: &str| word.bytes().map(|byte| u32::from(byte - b'a')).collect();
        let words = words.iter().map(|&(word, count)| (ids(word), count)).collect();
        merge_pairs(words, tokens, "", Bounds { vocab_size, min_frequency: 2 })
    }

    #[test]
    fn the_most_frequent_pair_is_merged_first() {
        let trained = trained(&[("abab", 3), ("bc", 7), ("aac", 1)], 10);
        assert_eq!(trained.tokens[3..], ["bc", "ab", "abab"]);
        assert_eq!(trained.merges, [(1, 2), (0, 1), (4, 4)]);
    }

    #[test]
    fn of_equally_frequent_pairs_that_of_lower_ids_is_first() {
        assert_eq!(trained(&[("bc", 2), ("ab", 2)], 4).tokens[3..], ["ab"]);
        // Merging "aa" in "aaaa" leaves one pair of what was three.
        assert_eq!(trained(&[("aaaa", 2)], 9).tokens[3..], ["aa", "aaaa"]);
    }
}
