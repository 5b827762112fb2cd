//! What the tests of several kernels share.

use crate::random::Seed;

/// Normal numbers, the same for the same stream.
pub(crate) fn numbers(stream: u64, count: usize) -> Vec<f32> {
    let seed = Seed::new(99).at(stream);
    (0..count as u64).map(|i| seed.normal(i)).collect()
}

/// Requires `|found - wanted| <= tolerance * max(1, |wanted|)`, and the same special values.
#[track_caller]
pub(crate) fn assert_close(what: &str, found: &[f32], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}: lengths differ");
    for (i, (x, y)) in found.iter().zip(wanted).enumerate() {
        let x = f64::from(*x);
        let same = x == *y || x.is_nan() && y.is_nan();
        let error = (x - y).abs();
        assert!(same || error <= tolerance * y.abs().max(1.0), "{what}: element {i} is {x}, wanted {y}");
    }
}

/// Widens to f64.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}
