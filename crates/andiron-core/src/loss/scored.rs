//! Losses of text embeddings for pairs whose similarity is given.

use burn::tensor::Tensor;

use super::cosine_pairs;

/// Squared difference between each pair's cosine and its score: `CosineSimilarityLoss` of sentence-transformers.
///
/// # Shape
/// `embeddings_nd`: `[2 · pairs, d]`, a pair being two consecutive rows; `scores_p`: `[pairs]` → `[pairs]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn cosine_mean_squared_error(embeddings_nd: Tensor<2>, scores_p: Tensor<1>) -> Tensor<1> {
    let cosines_p = cosine_pairs(embeddings_nd);
    assert_eq!(cosines_p.dims(), scores_p.dims(), "a score for each pair");
    let difference_p = cosines_p - scores_p;
    difference_p.clone() * difference_p
}

/// CoSENT: `log(1 + Σ e^(scale (cos a − cos b)))` over all pairs `a`, `b` of texts with `score a < score b`. Only the order of
/// the scores matters. The usual scale is 20.
///
/// It is a loss of the whole batch, not a sum over its pairs: a batch divided into micro-batches has another.
///
/// Source: Su 2022, "CoSENT: a more effective sentence embedding scheme than Sentence-BERT",
/// <https://kexue.fm/archives/8847>.
///
/// # Shape
/// `embeddings_nd`: `[2 · pairs, d]`, a pair being two consecutive rows; `scores_p`: `[pairs]` → `[1]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn cosent(embeddings_nd: Tensor<2>, scores_p: Tensor<1>, scale: f32) -> Tensor<1> {
    let cosines_p = cosine_pairs(embeddings_nd) * scale;
    let [p] = cosines_p.dims();
    assert_eq!([p], scores_p.dims(), "a score for each pair");
    let device = cosines_p.device();
    let differences_pp = cosines_p.clone().reshape([p, 1]) - cosines_p.reshape([1, p]);
    let (rows, columns) = (scores_p.clone().reshape([p, 1]), scores_p.reshape([1, p]));
    let differ_pp = rows.expand([p, p]).lower(columns.expand([p, p]));
    // Not infinity, whose gradient is NaN.
    let terms = differences_pp.mask_fill(differ_pp.bool_not(), -1e30).reshape([p * p]);
    let terms = Tensor::cat(vec![Tensor::zeros([1], &device), terms], 0);
    let max = terms.clone().detach().max();
    (terms - max.clone()).exp().sum().log() + max
}
