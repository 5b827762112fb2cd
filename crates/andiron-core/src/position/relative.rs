//! Relative position bias: added to attention scores by the distance between query and key (T5).
//!
//! Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
//! <https://arxiv.org/abs/1910.10683>, section 2.1; the buckets, which the paper does not define, are those of Mesh
//! TensorFlow.

use andiron_kernels::random::Seed;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{ids, init, ops};

/// Sizes of a [`RelativeBias`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelativeBiasConfig {
    /// Attention heads.
    pub n_heads: usize,
    /// Number of buckets; without `causal`, half of them are for keys before the query and half for keys after it.
    pub n_buckets: usize,
    /// Distances from here on share the last bucket.
    pub max_distance: usize,
    /// Whether attention is causal; keys after the query are then in the bucket of distance 0.
    pub causal: bool,
}

impl RelativeBiasConfig {
    /// Buckets per direction, and how many of them hold a single distance.
    fn sides(&self) -> (usize, usize) {
        let side = if self.causal { self.n_buckets } else { self.n_buckets / 2 };
        (side, side / 2)
    }

    /// Whether every distance has a bucket: at least 2 buckets per direction, and `max_distance` above the single-distance
    /// buckets.
    pub fn is_sound(&self) -> bool {
        let (_, n_exact) = self.sides();
        n_exact > 0 && self.max_distance > n_exact
    }

    /// Draws the table from N(0, `std`²).
    ///
    /// # Panics
    /// If the sizes are not [sound](Self::is_sound).
    pub fn init(&self, std: f32, seed: Seed, device: &Device) -> RelativeBias {
        assert!(self.is_sound(), "{} buckets up to distance {}", self.n_buckets, self.max_distance);
        RelativeBias {
            weight: init::normal([self.n_buckets, self.n_heads], std, seed, device),
            max_distance: self.max_distance,
            causal: self.causal,
        }
    }
}

/// A learned bias per head and distance bucket, added to scores.
///
/// The first quarter of the buckets (half if causal) hold one distance each; the others grow logarithmically up to
/// `max_distance`.
#[derive(Module, Debug)]
pub struct RelativeBias {
    /// The table, `[n_buckets, heads]`.
    pub weight: Param<Tensor<2>>,
    #[module(skip)]
    max_distance: usize,
    #[module(skip)]
    causal: bool,
}

impl RelativeBias {
    /// The biases of `t` new queries over `s` keys, the last `t` of which are the queries' own, by distance: keys `1 − t` to
    /// `s − 1` positions before the query.
    ///
    /// Layers that share a table compute this once. Left padding changes nothing: only distances matter.
    ///
    /// # Shape
    /// `[heads, t + s − 1]`, as [`AttentionConfig::bias_hr`](crate::attention::AttentionConfig::bias_hr) wants it.
    ///
    /// # Panics
    /// If there are more queries than keys.
    pub fn forward(&self, t: usize, s: usize) -> Tensor<2> {
        assert!(t <= s, "{t} queries over {s} keys");
        let table = self.weight.val();
        let after = (1..t).rev().map(|distance| self.buckets(distance)[1]);
        let buckets: Vec<u32> = after.chain((0..s).map(|distance| self.buckets(distance)[0])).collect();
        let buckets_1r = ids::upload(&buckets, [1, t + s - 1], &table.device());
        ops::embedding(table, buckets_1r).squeeze_dim::<2>(0).transpose()
    }

    /// The buckets of keys at these distances before the query, and after it.
    fn buckets(&self, distance: usize) -> [u32; 2] {
        let [n_buckets, n_heads] = self.weight.lazy_shape().dims();
        let (max_distance, causal) = (self.max_distance, self.causal);
        let (side, n_exact) = RelativeBiasConfig { n_heads, n_buckets, max_distance, causal }.sides();
        let before = match distance < n_exact {
            true => distance,
            false => {
                // In f32, as in the reference: rounding decides the bucket at the boundaries.
                let growth = (distance as f32 / n_exact as f32).ln();
                let whole = (max_distance as f64 / n_exact as f64).ln() as f32;
                let beyond = growth / whole * (side - n_exact) as f32;
                (n_exact + beyond as usize).min(side - 1)
            }
        };
        let after = if causal { 0 } else { side + before };
        [before as u32, after as u32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeviceSpec;
    use crate::ops::spread_biases as spread;

    fn device() -> Device {
        DeviceSpec::parse("ndarray").and_then(DeviceSpec::open).expect("tests are built with ndarray")
    }

    fn bias(n_buckets: usize, max_distance: usize, causal: bool) -> RelativeBias {
        RelativeBiasConfig { n_heads: 2, n_buckets, max_distance, causal }.init(1.0, Seed::new(3), &device())
    }

    /// Distances at which another bucket begins, and that bucket, of keys before (0) or after (1) the query.
    fn borders(bias: &RelativeBias, after: usize) -> Vec<(usize, u32)> {
        let mut found: Vec<(usize, u32)> = Vec::new();
        for distance in after..1200 {
            let bucket = bias.buckets(distance)[after];
            if found.last().is_none_or(|(_, last)| *last != bucket) {
                found.push((distance, bucket));
            }
        }
        found
    }

    /// The buckets, numbered on from `first`, must begin at the distances `expected`.
    #[track_caller]
    fn check(bias: &RelativeBias, after: usize, first: u32, expected: &[usize]) {
        let expected: Vec<(usize, u32)> = expected.iter().copied().zip(first..).collect();
        assert_eq!(borders(bias, after), expected);
    }

    // The borders below are those of `T5Attention._relative_position_bucket` in transformers 5.23 with torch 2.15.

    #[test]
    fn buckets_of_both_directions_are_those_of_t5() {
        let near = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];
        check(&bias(32, 128, false), 1, 17, &near);
        check(&bias(32, 128, false), 0, 0, &[&[0], &near[..]].concat());
    }

    #[test]
    fn buckets_of_the_past_are_those_of_t5() {
        let exact: Vec<usize> = (0..16).collect();
        let far = [16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113];
        check(&bias(32, 128, true), 0, 0, &[&exact[..], &far].concat());
    }

    #[test]
    fn odd_numbers_of_buckets_are_rounded_as_in_t5() {
        check(&bias(10, 37, false), 1, 6, &[1, 2, 6, 14]);
        check(&bias(10, 37, false), 0, 0, &[0, 1, 2, 6, 14]);
        check(&bias(7, 100, true), 0, 0, &[0, 1, 2, 3, 8, 18, 42]);
    }

    #[test]
    fn few_buckets_are_those_of_t5() {
        check(&bias(8, 20, false), 1, 5, &[1, 2, 7]);
        check(&bias(8, 20, true), 0, 0, &[0, 1, 2, 3, 4, 6, 9, 14]);
        check(&bias(4, 3, false), 1, 3, &[1]);
        check(&bias(4, 3, true), 0, 0, &[0, 1, 2, 3]);
    }

    #[test]
    fn many_buckets_are_those_of_t5() {
        let exact: Vec<usize> = (0..16).collect();
        let far = [16, 20, 25, 31, 39, 48, 59, 73, 91, 113, 140, 174, 216, 268, 332, 413];
        check(&bias(64, 512, false), 0, 0, &[&exact[..], &far].concat());
    }

    #[test]
    fn keys_after_the_query_have_no_distance_in_a_causal_bias() {
        let bias = bias(8, 20, true);
        let table: Vec<f32> = bias.weight.val().into_data().try_into_vec().expect("f32");
        let added: Vec<f32> = spread(bias.forward(2, 2), 2, 2).into_data().try_into_vec().expect("f32");
        // Head 0: query 0 over keys 0 and 1, query 1 over keys 0 and 1; then head 1.
        let of = |head: usize| [0, 0, 1, 0].map(|bucket: usize| table[2 * bucket + head]);
        assert_eq!(added, [of(0), of(1)].concat());
    }

    #[test]
    fn the_last_queries_stand_where_they_stand_among_all() {
        for causal in [false, true] {
            let bias = bias(8, 20, causal);
            let whole = spread(bias.forward(30, 30), 30, 30).slice([0..1, 0..2, 23..30, 0..30]);
            let last = spread(bias.forward(7, 30), 7, 30);
            assert_eq!(last.dims(), [1, 2, 7, 30]);
            assert_eq!(last.into_data(), whole.into_data());
        }
    }

    #[test]
    fn a_bucket_learns_from_every_score_it_was_added_to() {
        let device = device().autodiff();
        let config = RelativeBiasConfig { n_heads: 2, n_buckets: 4, max_distance: 3, causal: true };
        let bias = config.init(1.0, Seed::new(3), &device);
        let gradients = spread(bias.forward(2, 5), 2, 5).sum().backward();
        let gradient = bias.weight.val().grad(&gradients).expect("the table takes part");
        // Queries 3 and 4 of keys 0 to 4: distances 3 2 1 0 (−1) and 4 3 2 1 0.
        let counts: Vec<f32> = gradient.into_data().try_into_vec().expect("f32");
        assert_eq!(counts, [3.0, 3.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0]);
    }

    #[test]
    fn sizes_that_leave_distances_without_a_bucket_are_not_sound() {
        let sound = |n_buckets, max_distance, causal| {
            RelativeBiasConfig { n_heads: 1, n_buckets, max_distance, causal }.is_sound()
        };
        assert!(sound(4, 2, false) && sound(2, 2, true) && sound(32, 17, true));
        assert!(!sound(3, 9, false) && !sound(1, 9, true));
        assert!(!sound(32, 8, false) && !sound(32, 16, true));
    }
}
