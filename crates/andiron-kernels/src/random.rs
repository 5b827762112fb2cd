//! Counter-based random numbers: each is a function of a seed and a counter.
//!
//! A stateless stream needs no checkpoint, cannot be advanced by accident and gives the same numbers in any order and on
//! any number of threads. The generator is Philox4x32-10, which passes BigCrush.
//!
//! Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel Random Numbers: As Easy as 1, 2, 3",
//! <https://doi.org/10.1145/2063384.2063405>.

/// A stream of random numbers.
///
/// Substreams come from [`derive`](Self::derive) (by purpose) and [`at`](Self::at) (by step, worker or row); within a
/// stream, numbers are indexed by a counter.
///
/// # Example
/// ```
/// use andiron_kernels::random::Seed;
/// let dropout = Seed::new(1337).derive("dropout");
/// let at_step_10 = dropout.at(10);
/// assert_eq!(at_step_10.uniform(3), at_step_10.uniform(3));
/// assert_ne!(at_step_10.uniform(3), dropout.at(11).uniform(3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seed(u64);

/// The third counter word is the purpose of a block, so that uses never share one.
const FOR_VALUES: u32 = 0;
const FOR_LABELS: u32 = 1;
const FOR_INDICES: u32 = 2;
const FOR_ORDER: u32 = 3;
const FOR_WORDS: u32 = 4;

/// Narrow Feistel networks reach few permutations, so short sequences cycle-walk in a larger domain.
const FEISTEL_MIN_BITS: u32 = 6;
const FEISTEL_ROUNDS: u64 = 8;

impl Seed {
    /// The stream with this seed value.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The seed value; `Seed::new` of it is the same stream.
    pub const fn value(&self) -> u64 {
        self.0
    }

    /// An independent stream for a purpose.
    pub fn derive(&self, label: &str) -> Self {
        let mut state = self.0;
        for part in label.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            state = block(state, u64::from_le_bytes(word), FOR_LABELS, 0).0;
        }
        Self(block(state, label.len() as u64, FOR_LABELS, 1).0)
    }

    /// An independent stream for a step, a worker or a row.
    pub fn at(&self, index: u64) -> Self {
        Self(block(self.0, index, FOR_INDICES, 0).0)
    }

    /// 64 random bits.
    pub fn bits(&self, counter: u64) -> u64 {
        block(self.0, counter, FOR_VALUES, 0).0
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-24.
    pub fn uniform(&self, counter: u64) -> f32 {
        (self.bits(counter) >> 40) as f32 * (1.0 / (1u32 << 24) as f32)
    }

    /// Standard normal, with magnitude at most 6.7.
    ///
    /// Source: Box and Muller 1958, "A Note on the Generation of Random Normal Deviates".
    pub fn normal(&self, counter: u64) -> f32 {
        const TO_UNIT: f64 = 1.0 / (1u64 << 32) as f64;
        let bits = self.bits(counter);
        // The logarithm needs (0, 1], the angle [0, 1).
        let radius = (-2.0 * (((bits >> 32) as f64 + 1.0) * TO_UNIT).ln()).sqrt();
        let turn = (bits & 0xffff_ffff) as f64 * TO_UNIT;
        (radius * (std::f64::consts::TAU * turn).cos()) as f32
    }

    /// An integer in `0..n`, exactly uniform.
    ///
    /// Source: Lemire 2019, "Fast Random Integer Generation in an Interval", <https://doi.org/10.1145/3230636>.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&self, counter: u64, n: u64) -> u64 {
        assert!(n > 0, "there is no number below 0");
        let uneven = n.wrapping_neg() % n;
        let mut attempt = 0;
        loop {
            let product = u128::from(block(self.0, counter, FOR_VALUES, attempt).0) * u128::from(n);
            if product as u64 >= uneven {
                return (product >> 64) as u64;
            }
            attempt += 1;
        }
    }

    /// The position of `index` in a shuffled `0..n`: a bijection of `0..n`, so a shuffle needs no memory.
    ///
    /// A Feistel network on the fewest bits that hold `n` (at least 6), with cycle walking until the result is below
    /// `n`. Source: Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains".
    ///
    /// # Panics
    /// If `index` is not below `n`.
    pub fn permute(&self, index: u64, n: u64) -> u64 {
        assert!(index < n, "index {index} is outside 0..{n}");
        let (key_low, key_high) = block(self.0, 0, FOR_ORDER, 0);
        let bits = (u64::BITS - (n - 1).leading_zeros()).max(FEISTEL_MIN_BITS);
        let mut at = index;
        loop {
            at = feistel(at, bits, key_low, key_high);
            if at < n {
                return at;
            }
        }
    }

    /// `4 * BULK` words of 32 random bits, for bulk users (dropout): the four words of the counters
    /// `first..first + BULK`, all first words first.
    #[inline(always)]
    pub(crate) fn words(&self, first: u64) -> [[u32; BULK]; 4] {
        let (mut low, mut high) = ([0; BULK], [0; BULK]);
        for (i, (low, high)) in low.iter_mut().zip(&mut high).enumerate() {
            let counter = first + i as u64;
            *low = counter & LOW;
            *high = counter >> 32;
        }
        let counters = [low, high, [u64::from(FOR_WORDS); BULK], [0; BULK]];
        // A loop, because `array::map` would call a function that is compiled without the vector instructions.
        let mut words = [[0; BULK]; 4];
        for (words, wide) in words.iter_mut().zip(philox4x32(counters, split(self.0))) {
            for (word, wide) in words.iter_mut().zip(wide) {
                *word = wide as u32;
            }
        }
        words
    }

    /// Word `index` of the stream that [`words`](Self::words) returns in bulk: counters `0..BULK` give the first `4 * BULK`
    /// words, and so on.
    pub(crate) fn word(&self, index: u64) -> u32 {
        let (bulk, rest) = (BULK as u64, index % (4 * BULK as u64));
        let (low, high) = block(self.0, index / (4 * bulk) * bulk + rest % bulk, FOR_WORDS, 0);
        [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32][(rest / bulk) as usize]
    }
}

/// Counters computed together in bulk, so that the compiler vectorizes them.
pub(crate) const BULK: usize = 16;

fn split(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

fn block(key: u64, counter: u64, purpose: u32, attempt: u32) -> (u64, u64) {
    let words = [counter & LOW, counter >> 32, u64::from(purpose), u64::from(attempt)];
    let [[a], [b], [c], [d]] = philox4x32(words.map(|word| [word]), split(key));
    (a & LOW | b << 32, c & LOW | d << 32)
}

/// The half of a 64-bit lane that holds a word.
const LOW: u64 = u32::MAX as u64;

/// Philox4x32 with ten rounds, for `N` counters at once: word `w` of counter `i` is the low half of `counters[w][i]`, in
/// input and output; the high half is unspecified.
///
/// Words are kept in 64-bit lanes because their products have 64 bits: vector instructions multiply the low halves of such
/// lanes directly, so no word moves between lanes in any round.
#[inline(always)]
fn philox4x32<const N: usize>(mut counters: [[u64; N]; 4], mut key: [u32; 2]) -> [[u64; N]; 4] {
    const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for _ in 0..10 {
        let [a, b, c, d] = &mut counters;
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let first = MULTIPLIERS[0] * (*a & LOW);
            let second = MULTIPLIERS[1] * (*c & LOW);
            *a = second >> 32 ^ *b ^ u64::from(key[0]);
            *b = second;
            *c = first >> 32 ^ *d ^ u64::from(key[1]);
            *d = first;
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counters
}

/// A bijection of the integers of `bits` bits. The halves swap widths every round, hence an even number of rounds.
fn feistel(value: u64, bits: u32, key_low: u64, key_high: u64) -> u64 {
    let mut left_bits = bits / 2;
    let mut right_bits = bits - left_bits;
    let (mut left, mut right) = (value >> right_bits, value & mask(right_bits));
    for round in 0..FEISTEL_ROUNDS {
        let key = if round % 2 == 0 { key_low } else { key_high };
        let mixed = mix(right ^ key.wrapping_add(round.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        (left, right) = (right, (left ^ mixed) & mask(left_bits));
        (left_bits, right_bits) = (right_bits, left_bits);
    }
    left << right_bits | right
}

fn mask(bits: u32) -> u64 {
    if bits == 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// The finaliser of SplitMix64. Source: Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom Number
/// Generators", <https://doi.org/10.1145/2660193.2660195>.
fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // The answers published with the authors' Random123 library, file `kat_vectors`.
    #[test]
    fn philox_gives_the_published_answers() {
        let ones = u32::MAX;
        let philox = |counter: [u32; 4], key| {
            philox4x32(counter.map(|word| [u64::from(word)]), key).map(|[word]| word as u32)
        };
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn bulk_words_are_those_of_single_counters() {
        let (seed, first) = (Seed::new(3), u64::from(u32::MAX) - 4);
        let words = seed.words(first);
        for i in 0..BULK {
            let (low, high) = block(3, first + i as u64, FOR_WORDS, 0);
            let [a, b, c, d] = words.map(|of_all| u64::from(of_all[i]));
            assert_eq!((a | b << 32, c | d << 32), (low, high));
        }
        let words = seed.words(3 * BULK as u64).concat();
        let one_by_one: Vec<u32> = (0..words.len() as u64).map(|i| seed.word(12 * BULK as u64 + i)).collect();
        assert_eq!(one_by_one, words);
    }

    #[test]
    fn streams_differ_by_label_index_and_use() {
        let seed = Seed::new(7);
        let mut values: Vec<u64> = ["", "a", "b", "ab", "abcdefgh", "abcdefgh\0", "abcdefghi"]
            .iter()
            .map(|label| seed.derive(label).value())
            .collect();
        values.extend((0..100).map(|i| seed.at(i).value()));
        values.extend((0..100).map(|i| seed.bits(i)));
        values.push(seed.value());
        let count = values.len();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), count);
    }

    #[test]
    fn uniform_numbers_fill_the_interval_evenly() {
        let seed = Seed::new(1);
        let values: Vec<f64> = (0..100_000).map(|i| f64::from(seed.uniform(i))).collect();
        assert!(values.iter().all(|v| (0.0..1.0).contains(v)));
        let mean = values.iter().sum::<f64>() / 1e5;
        assert!((mean - 0.5).abs() < 0.005, "mean {mean}");
        let mut tenths = [0; 10];
        values.iter().for_each(|v| tenths[(v * 10.0) as usize] += 1);
        assert!(tenths.iter().all(|n| (9_600..10_400).contains(n)), "{tenths:?}");
    }

    #[test]
    fn normal_numbers_have_the_moments_of_the_normal_distribution() {
        let seed = Seed::new(2);
        let moment =
            |power: i32| (0..100_000).map(|i| f64::from(seed.normal(i)).powi(power)).sum::<f64>() / 1e5;
        for (power, expected, tolerance) in [(1, 0.0, 0.015), (2, 1.0, 0.02), (3, 0.0, 0.06), (4, 3.0, 0.15)]
        {
            let found = moment(power);
            assert!((found - expected).abs() < tolerance, "moment {power} is {found}");
        }
    }

    #[test]
    fn below_is_even_and_in_range() {
        let seed = Seed::new(3);
        let mut counts = [0; 7];
        (0..70_000).for_each(|i| counts[seed.below(i, 7) as usize] += 1);
        assert!(counts.iter().all(|n| (9_600..10_400).contains(n)), "{counts:?}");
        // Just above half the range: nearly every second draw is rejected.
        let n = (1 << 63) + 1;
        assert!((0..1000).all(|i| seed.below(i, n) < n));
    }

    #[test]
    fn short_shuffles_reach_every_order() {
        let mut seen = std::collections::HashMap::new();
        for i in 0..6_000 {
            let seed = Seed::new(5).at(i);
            let order: Vec<u64> = (0..3).map(|j| seed.permute(j, 3)).collect();
            *seen.entry(order).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(seen.values().all(|n| (850..1150).contains(n)), "{seen:?}");
    }

    #[test]
    fn the_whole_range_can_be_permuted() {
        let seed = Seed::new(11);
        let found: std::collections::HashSet<u64> =
            [0, 1, u64::MAX - 1, u64::MAX / 2].iter().map(|i| seed.permute(*i, u64::MAX)).collect();
        assert_eq!(found.len(), 4);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_permutation_visits_each_index_once(seed: u64, n in 1u64..2000) {
            let mut visited = vec![false; n as usize];
            for i in 0..n {
                let to = Seed::new(seed).permute(i, n) as usize;
                prop_assert!(!visited[to]);
                visited[to] = true;
            }
        }
    }
}
