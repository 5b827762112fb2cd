//! Counts of n-grams of all orders at once, from one sort.

use std::collections::HashMap;

/// Numbers words from 1, so that equal words have equal numbers.
#[derive(Default)]
pub(super) struct Numbering<'a>(HashMap<&'a str, u32>);

impl<'a> Numbering<'a> {
    /// The numbers of `words`.
    pub(super) fn number(&mut self, words: impl Iterator<Item = &'a str>) -> Vec<u32> {
        let number = |word| {
            let next = self.0.len() as u32 + 1;
            *self.0.entry(word).or_insert(next)
        };
        words.map(number).collect()
    }
}

/// Width of a character's code point, plus one, in bits.
pub(super) const CHAR_BITS: u32 = 21;
/// Width of a word's number in bits.
pub(super) const WORD_BITS: u32 = 32;

/// The n-grams of a sequence of symbols, for every n up to an order.
///
/// Each position contributes one key: its symbols, the first in the highest bits, and zeros after the end of the sequence. A
/// sorted list of keys is also sorted by its first `n` symbols, for every `n`, so that equal n-grams stand together.
pub(super) struct Ngrams {
    keys: Vec<u128>,
    bits: u32,
    order: u32,
}

impl Ngrams {
    /// The n-grams of `symbols`, each above 0 and of at most `bits` bits.
    pub(super) fn new(symbols: &[u32], bits: u32, order: usize) -> Self {
        let order = order as u32;
        debug_assert!(bits * order <= u128::BITS, "{order} symbols of {bits} bits are a key");
        let mask = u128::MAX >> (u128::BITS - bits * order);
        let mut keys = vec![0; symbols.len()];
        let mut key = 0;
        for (at, out) in keys.iter_mut().enumerate().rev() {
            key = (key >> bits | u128::from(symbols[at]) << (bits * (order - 1))) & mask;
            *out = key;
        }
        keys.sort_unstable();
        Self { keys, bits, order }
    }

    /// Number of n-grams.
    pub(super) fn count(&self, n: usize) -> u64 {
        (self.keys.len() + 1).saturating_sub(n) as u64
    }

    /// Number of n-grams that are also in one of `references`, each counted at most as often as in the reference that has it
    /// most often.
    pub(super) fn matches(&self, references: &[&Self], n: usize) -> u64 {
        let mut runs: Vec<Runs> = references.iter().map(|reference| reference.runs(n)).collect();
        let mut matches = 0;
        for (gram, count) in self.runs(n) {
            let most = runs.iter_mut().map(|runs| runs.count_of(gram)).max();
            matches += count.min(most.unwrap_or(0));
        }
        matches
    }

    fn runs(&self, n: usize) -> Runs<'_> {
        let symbol = u128::MAX >> (u128::BITS - self.bits);
        Runs { keys: &self.keys, shift: self.bits * (self.order - n as u32), symbol }
    }
}

/// Distinct n-grams in ascending order, with their counts.
struct Runs<'a> {
    keys: &'a [u128],
    shift: u32,
    symbol: u128,
}

impl Runs<'_> {
    /// How often `gram` occurs. Calls must ask for ascending n-grams.
    fn count_of(&mut self, gram: u128) -> u64 {
        let skipped = self.keys.iter().take_while(|&&key| key >> self.shift < gram).count();
        self.keys = &self.keys[skipped..];
        let count = self.keys.iter().take_while(|&&key| key >> self.shift == gram).count();
        self.keys = &self.keys[count..];
        count as u64
    }
}

impl Iterator for Runs<'_> {
    type Item = (u128, u64);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let gram = self.keys.first()? >> self.shift;
            let count = self.count_of(gram);
            // The last symbol is 0 where the sequence ended too early.
            if gram & self.symbol != 0 {
                return Some((gram, count));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same counted with a map of slices.
    fn by_map(symbols: &[u32], n: usize) -> HashMap<&[u32], u64> {
        let mut counts = HashMap::new();
        symbols.windows(n).for_each(|gram| *counts.entry(gram).or_default() += 1);
        counts
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn counts_are_those_of_a_map(
            text in proptest::collection::vec(1u32..4, 0..20),
            references in proptest::collection::vec(proptest::collection::vec(1u32..4, 0..20), 0..3),
        ) {
            for (bits, order) in [(CHAR_BITS, 6), (WORD_BITS, 4), (WORD_BITS, 1)] {
                let grams = Ngrams::new(&text, bits, order);
                let others: Vec<_> = references.iter().map(|text| Ngrams::new(text, bits, order)).collect();
                for n in 1..=order {
                    let counts = by_map(&text, n);
                    prop_assert_eq!(grams.count(n), counts.values().sum::<u64>());
                    let maps: Vec<_> = references.iter().map(|text| by_map(text, n)).collect();
                    let most = |gram| maps.iter().filter_map(|map| map.get(gram)).max().copied().unwrap_or(0);
                    let expected: u64 = counts.iter().map(|(gram, &count)| count.min(most(gram))).sum();
                    prop_assert_eq!(grams.matches(&others.iter().collect::<Vec<_>>(), n), expected);
                }
            }
        }
    }

    #[test]
    fn equal_words_have_equal_numbers() {
        let mut numbering = Numbering::default();
        assert_eq!(numbering.number(["a", "b", "a"].into_iter()), [1, 2, 1]);
        assert_eq!(numbering.number(["c", "b"].into_iter()), [3, 2]);
    }
}
