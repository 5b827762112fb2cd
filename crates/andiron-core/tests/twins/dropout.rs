//! Dropout.

use andiron_core::ops;
use andiron_kernels::random::Seed;
use burn::tensor::Tensor;

use crate::{devices, floats};

const RATE: f32 = 0.25;

/// What a share of some ten thousand draws, all of one fixed seed, may be away from what is expected: five standard
/// deviations.
const STRAY: f32 = 0.02;

/// That dropout of ones gave `drawn`: each is 0 or what keeps the mean, as often as `rate` says, and whether it is 0 says
/// nothing about its neighbours at these distances. Returns which are 0.
#[track_caller]
pub fn assert_drawn<const N: usize>(drawn: &[f32], rate: f32, distances: [usize; N]) -> Vec<bool> {
    let (n, kept) = (drawn.len() as f32, 1.0 / (1.0 - rate));
    assert!(drawn.iter().all(|&x| x == 0.0 || (x - kept).abs() < 1e-4), "kept values become {kept}");
    let dropped: Vec<bool> = drawn.iter().map(|&x| x == 0.0).collect();
    let share = dropped.iter().filter(|&&dropped| dropped).count() as f32 / n;
    assert!((share - rate).abs() < STRAY, "{share} were dropped at {rate}");
    let mean = drawn.iter().sum::<f32>() / n;
    assert!((mean - 1.0).abs() < STRAY / (1.0 - rate), "the mean of ones became {mean}");
    for distance in [1, 2].into_iter().chain(distances) {
        let pairs = dropped.iter().zip(&dropped[distance..]);
        let both = pairs.filter(|(a, b)| **a && **b).count() as f32 / (dropped.len() - distance) as f32;
        assert!((both - rate * rate).abs() < STRAY, "{both} dropped together at a distance of {distance}");
    }
    dropped
}

#[test]
fn dropout_is_its_own_gradient_and_the_same_everywhere() {
    let mut seen: Vec<Vec<f32>> = Vec::new();
    for device in devices() {
        let device = device.autodiff();
        let x = Tensor::<2>::ones([200, 80], &device).require_grad();
        let y = ops::dropout(x.clone(), RATE, Seed::new(3));
        let drawn = floats(y.clone().inner());
        let dropped = assert_drawn(&drawn, RATE, [80, 8000]);
        let other = floats(ops::dropout(x.clone(), RATE, Seed::new(4)).inner());
        let other = assert_drawn(&other, RATE, [80]);
        let both = dropped.iter().zip(&other).filter(|(a, b)| **a && **b).count() as f32;
        let both = both / dropped.len() as f32;
        assert!((both - RATE * RATE).abs() < STRAY, "two seeds drop {both} in common");
        let grads = y.sum().backward();
        assert_eq!(floats(x.grad(&grads).unwrap()), drawn);
        seen.push(drawn);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}
