//! Contrastive losses of text embeddings.

use burn::tensor::{Int, Tensor};

use super::cross_entropy;

/// Cross-entropy of each anchor's own positive among all positives and negatives of the batch, whose logits are cosines times
/// `scale`: InfoNCE with in-batch negatives. The usual scale is 20, a temperature of 0.05.
///
/// Source: Henderson et al. 2017, "Efficient Natural Language Response Suggestion for Smart Reply",
/// <https://arxiv.org/abs/1705.00652>; as `MultipleNegativesRankingLoss` of sentence-transformers.
///
/// # Shape
/// `embeddings_nd`: `[groups · size, d]`, each `size` consecutive rows being an anchor, its positive and its negatives →
/// `[groups]`.
///
/// # Panics
/// If the rows are not groups of `size`, or `size` is below 2.
pub fn multiple_negatives_ranking(embeddings_nd: Tensor<2>, size: usize, scale: f32) -> Tensor<1> {
    let [n, d] = embeddings_nd.dims();
    assert!(size >= 2 && n % size == 0, "{n} rows are not groups of {size}");
    let groups = n / size;
    let device = embeddings_nd.device();
    let unit_gsd = normalized(embeddings_nd).reshape([groups, size, d]);
    let anchors_gd = unit_gsd.clone().slice([0..groups, 0..1]).reshape([groups, d]);
    // All positives, then all first negatives, and so on.
    let candidates_cd =
        unit_gsd.slice([0..groups, 1..size]).swap_dims(0, 1).reshape([groups * (size - 1), d]);
    let logits_gc = anchors_gd.matmul(candidates_cd.transpose()) * scale;
    cross_entropy(logits_gc, Tensor::<1, Int>::arange(0..groups as i64, &device), 0.0)
}

/// The cosine of each pair.
///
/// # Shape
/// `embeddings_nd`: `[2 · pairs, d]`, a pair being two consecutive rows → `[pairs]`.
///
/// # Panics
/// If the rows are not pairs.
pub fn cosine_pairs(embeddings_nd: Tensor<2>) -> Tensor<1> {
    let [n, d] = embeddings_nd.dims();
    assert_eq!(n % 2, 0, "{n} rows are not pairs");
    let pairs = n / 2;
    let unit_p2d = normalized(embeddings_nd).reshape([pairs, 2, d]);
    let side = |which: usize| unit_p2d.clone().slice([0..pairs, which..which + 1]);
    (side(0) * side(1)).sum_dim(2).reshape([pairs])
}

/// Rows of length 1. A row of zeros stays as it is.
fn normalized(x_nd: Tensor<2>) -> Tensor<2> {
    /// Square of the least length that is divided by. PyTorch's is 1e-12, which makes the gradient of a row of zeros enormous.
    const LEAST: f32 = 1e-12;
    let square_n1 = (x_nd.clone() * x_nd.clone()).sum_dim(1);
    x_nd / square_n1.clamp_min(LEAST).sqrt()
}
