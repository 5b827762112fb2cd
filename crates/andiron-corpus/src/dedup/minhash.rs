//! MinHash: signatures by which near-duplicates are found without comparing texts.
//!
//! A text is the set of its n-grams of [words](super::words). A random permutation of all n-grams has the same smallest member for two
//! sets with a probability that is their Jaccard similarity. The permutations are divided into buckets: two documents are
//! candidates if in some bucket all of the smallest members are equal.
//!
//! Source: Broder 1997, "On the resemblance and containment of documents", <https://doi.org/10.1109/SEQUEN.1997.666900>; the
//! defaults and the normalization of texts are datatrove's.

use andiron_kernels::Isa;
use andiron_kernels::minhash::lower_minima;
use serde::{Deserialize, Serialize};

use super::words::{mixed, ngram_hashes, word_hashes};

/// N-grams that are hashed before the minima are lowered: they stay in the cache.
const CHUNK: usize = 1024;

/// How near-duplicates are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MinHashConfig {
    /// Words of an n-gram. A document of fewer words has no signature and is never a near-duplicate.
    pub n_grams: usize,
    /// Buckets of a signature.
    pub buckets: usize,
    /// Hashes of a bucket, all of which must agree.
    pub hashes_per_bucket: usize,
    /// The seed of the permutations.
    pub seed: u64,
}

impl Default for MinHashConfig {
    /// 5-grams, 14 buckets of 8 hashes, as in datatrove and FineWeb: pairs with a similarity of 0.8 are found with a probability
    /// of 0.92, of 0.5 with 0.05.
    fn default() -> Self {
        Self { n_grams: 5, buckets: 14, hashes_per_bucket: 8, seed: 1 }
    }
}

impl MinHashConfig {
    /// The probability that a pair of documents with a Jaccard similarity is found.
    pub fn probability(&self, similarity: f64) -> f64 {
        let one_bucket = similarity.powi(self.hashes_per_bucket as i32);
        1.0 - (1.0 - one_bucket).powi(self.buckets as i32)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// If a setting is out of its range.
    pub fn validate(&self) -> Result<(), MinHashError> {
        let settings = [
            ("n_grams", self.n_grams, 1000),
            ("buckets", self.buckets, 256),
            ("hashes_per_bucket", self.hashes_per_bucket, 64),
        ];
        for (setting, value, most) in settings {
            if !(1..=most).contains(&value) {
                return Err(MinHashError { setting, value, most });
            }
        }
        Ok(())
    }

    /// Permutations in all.
    pub(super) fn n_hashes(&self) -> usize {
        self.buckets * self.hashes_per_bucket
    }
}

/// A setting of [`MinHashConfig`] that is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("minhash: {setting} is {value}; it must be at least 1 and at most {most}")]
pub struct MinHashError {
    /// The setting.
    pub setting: &'static str,
    /// Its value.
    pub value: usize,
    /// The largest value.
    pub most: usize,
}

/// Computes signatures. Equal settings give equal signatures on every machine.
#[derive(Clone, Debug)]
pub struct Signer {
    config: MinHashConfig,
    multipliers: Vec<u32>,
    addends: Vec<u32>,
    isa: Isa,
}

impl Signer {
    /// A signer with the permutations of the seed.
    ///
    /// # Errors
    /// If a setting is out of its range.
    pub fn new(config: &MinHashConfig) -> Result<Self, MinHashError> {
        config.validate()?;
        let mut random = blake3::Hasher::new_derive_key("andiron 2026 minhash permutations")
            .update(&config.seed.to_le_bytes())
            .finalize_xof();
        let mut draw = || {
            let mut bytes = [0; 4];
            random.fill(&mut bytes);
            u32::from_le_bytes(bytes)
        };
        let (mut multipliers, mut addends) = (Vec::new(), Vec::new());
        for _ in 0..config.n_hashes() {
            // Odd, so that it is a permutation.
            multipliers.push(draw() | 1);
            addends.push(draw());
        }
        Ok(Self { config: *config, multipliers, addends, isa: Isa::best() })
    }

    /// The settings.
    pub fn config(&self) -> &MinHashConfig {
        &self.config
    }

    /// The signature of a text; `None` if it has fewer words than an n-gram.
    pub fn sign(&self, text: &str, scratch: &mut SignerScratch) -> Option<Signature> {
        let SignerScratch { words, hashes } = scratch;
        word_hashes(text, words);
        if words.len() < self.config.n_grams {
            return None;
        }
        let mut minima = vec![u32::MAX; self.config.n_hashes()];
        let mut lower = |hashes: &mut Vec<u32>| {
            lower_minima(self.isa, &mut minima, &self.multipliers, &self.addends, hashes);
            hashes.clear();
        };
        hashes.clear();
        for hash in ngram_hashes(words, self.config.n_grams) {
            hashes.push((hash >> 32) as u32);
            if hashes.len() == CHUNK {
                lower(hashes);
            }
        }
        lower(hashes);
        let keys = minima.chunks_exact(self.config.hashes_per_bucket).map(bucket_key).collect();
        // The lowest bits of a minimum are as random as the n-gram that has it.
        let sketch = minima.iter().map(|minimum| *minimum as u8).collect();
        Some(Signature { keys, sketch })
    }
}

/// Memory that is used again from text to text.
#[derive(Clone, Debug, Default)]
pub struct SignerScratch {
    words: Vec<u64>,
    hashes: Vec<u32>,
}

/// What is kept of the smallest hashes of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// For each bucket a hash of its hashes: equal ones make candidates.
    pub(super) keys: Box<[u64]>,
    /// The lowest 8 bits of each hash, by which the similarity is estimated.
    pub(super) sketch: Box<[u8]>,
}

impl Signature {
    /// The estimated Jaccard similarity of two documents, in `0..=1`.
    ///
    /// Its standard error is about `sqrt(s (1 - s) / n)` with `n` hashes: 0.04 at 0.8 with 112.
    ///
    /// # Panics
    /// If the settings of the two differ in the number of hashes.
    pub fn similarity(&self, other: &Self) -> f64 {
        similarity(&self.sketch, &other.sketch)
    }
}

/// The estimated similarity of two documents by their sketches.
///
/// Source: Li and König 2010, "b-Bit minwise hashing", <https://arxiv.org/abs/0910.3349>.
pub(super) fn similarity(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len(), "signatures of different settings");
    let equal = a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64;
    let by_chance = 1.0 / 256.0;
    ((equal - by_chance) / (1.0 - by_chance)).clamp(0.0, 1.0)
}

fn bucket_key(minima: &[u32]) -> u64 {
    minima.iter().fold(0, |key, minimum| mixed(key ^ u64::from(*minimum)).rotate_left(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(text: &str) -> Option<Signature> {
        Signer::new(&MinHashConfig::default()).unwrap().sign(text, &mut SignerScratch::default())
    }

    #[test]
    fn a_document_of_fewer_words_than_an_ngram_has_no_signature() {
        assert_eq!(sign(""), None);
        assert_eq!(sign("only four words, here"), None);
        assert!(sign("now these are five words").is_some());
    }

    #[test]
    fn signatures_do_not_see_case_punctuation_and_numbers() {
        assert_eq!(
            sign("The café sold 1,200 cups, then closed."),
            sign("the CAFE sold 7 cups\n\n  then closed")
        );
        assert_ne!(sign("the cafe sold 7 cups then closed"), sign("the cafe sold 7 mugs then closed"));
    }

    #[test]
    fn signatures_stay_what_they_are() {
        // A change makes signatures on disk worthless: then `VERSION` of signature files changes too.
        let signature = sign("to be or not to be that is the question").unwrap();
        assert_eq!((signature.keys[0], signature.sketch[111]), (4_736_226_887_016_622_504, 3));
    }

    #[test]
    fn the_similarity_is_estimated_without_bias() {
        let config = MinHashConfig { n_grams: 1, buckets: 64, hashes_per_bucket: 64, seed: 5 };
        let signer = Signer::new(&config).unwrap();
        let words = |range: std::ops::Range<u32>| {
            let text = range.map(|word| {
                format!("{}x ", blake3::hash(&word.to_le_bytes()).to_hex().replace(char::is_numeric, "q"))
            });
            signer.sign(&text.collect::<String>(), &mut SignerScratch::default()).unwrap()
        };
        for (shared, expected) in [(0, 0.0), (100, 1.0 / 3.0), (160, 2.0 / 3.0), (200, 1.0)] {
            let found = words(0..200).similarity(&words(200 - shared..400 - shared));
            // Four standard errors of 4096 hashes.
            assert!((found - expected).abs() <= 0.03, "{shared}: {found} for {expected}");
        }
    }

    #[test]
    fn settings_have_ranges() {
        let config = MinHashConfig { buckets: 0, ..MinHashConfig::default() };
        let error = Signer::new(&config).unwrap_err().to_string();
        assert_eq!(error, "minhash: buckets is 0; it must be at least 1 and at most 256");
    }

    #[test]
    fn the_probability_is_the_s_curve() {
        // datatrove's documentation says 0.924 at 0.8.
        assert!((MinHashConfig::default().probability(0.8) - 0.924).abs() < 5e-4);
    }
}
