//! Sinusoidal position embeddings.

/// Row `position` of the table, of width `d`: the sines of all frequencies, then the cosines.
///
/// Source: Vaswani et al. 2017, "Attention Is All You Need", <https://arxiv.org/abs/1706.03762>; the order of the
/// columns is that of Marian; in the paper sines and cosines alternate.
pub fn sinusoid(position: usize, d: usize) -> Vec<f32> {
    let half = d.div_ceil(2);
    let angle = |i: usize| position as f64 / 10000f64.powf(2.0 * i as f64 / d as f64);
    let sines = (0..half).map(|i| angle(i).sin() as f32);
    sines.chain((0..d / 2).map(|i| angle(i).cos() as f32)).collect()
}
