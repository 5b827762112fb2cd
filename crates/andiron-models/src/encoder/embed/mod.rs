//! Sentence embeddings: from hidden states to one vector per text.

mod dense;
mod pooling;
mod prompts;
mod sentence;

use andiron_core::PaddingMask;
use burn::tensor::Tensor;

pub use dense::Dense;
pub use pooling::Pooling;
pub use prompts::Prompts;

use crate::weights::FileError;
use crate::weights::gguf::{GgufError, GgufFile, Value};

/// Minimum norm when embeddings are normalized, as in PyTorch.
const MIN_LENGTH: f32 = 1e-12;

/// The embedding pipeline, as described by `modules.json` and the files beside it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbedPipeline {
    /// Pooling over tokens.
    pub pooling: Pooling,
    /// Further poolings of the same tokens, concatenated in order.
    pub appended: Vec<Pooling>,
    /// Stages after pooling, in order.
    pub stages: Vec<EmbedStage>,
    /// Whether embeddings are L2-normalized at the end.
    pub normalize: bool,
    /// Maximum length in tokens, if the pipeline's own files set it.
    pub max_tokens: Option<usize>,
    /// Whether texts are lower-cased.
    pub lower_case: bool,
    /// Prompts.
    pub prompts: Prompts,
    /// Whether prompt tokens are excluded from pooling.
    pub skips_prompt: bool,
    /// Similarity function.
    pub similarity: Similarity,
    /// Unknown keys of the files, each with its file.
    pub unread: Vec<String>,
}

/// A stage of an [`EmbedPipeline`] between pooling and the final normalization.
#[derive(Clone, Debug, PartialEq)]
pub enum EmbedStage {
    /// A linear layer and an activation.
    Dense(Dense),
    /// L2 normalization.
    Normalize,
}

/// Similarity functions; higher is more similar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Similarity {
    /// Cosine similarity.
    #[default]
    Cosine,
    /// Dot product.
    Dot,
    /// Negated Euclidean distance.
    Euclidean,
    /// Negated Manhattan distance.
    Manhattan,
}

impl Similarity {
    /// Similarity of two vectors of equal length.
    pub fn of(self, a: &[f32], b: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let differences = a.iter().zip(b).map(|(a, b)| a - b);
        match self {
            Self::Cosine => {
                let lengths = (dot(a, a) * dot(b, b)).sqrt();
                if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
            }
            Self::Dot => dot(a, b),
            Self::Euclidean => -differences.map(|d| d * d).sum::<f32>().sqrt(),
            Self::Manhattan => -differences.map(f32::abs).sum::<f32>(),
        }
    }
}

/// L2-normalizes each row.
pub(super) fn normalize(x_bd: Tensor<2>) -> Tensor<2> {
    let length_b1 = x_bd.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(MIN_LENGTH);
    x_bd / length_b1
}

impl EmbedPipeline {
    /// One embedding per row of a right-padded batch. The first `n_prompt` tokens of each row are the prompt.
    ///
    /// # Shape
    /// `[batch, time, d_model]` → `[batch, d]`.
    ///
    /// # Panics
    /// As [`Pooling::pool`], if a row holds only an excluded prompt, or if the width of the first stage differs.
    pub fn apply(&self, hidden_btd: Tensor<3>, rows: Option<&PaddingMask>, n_prompt: usize) -> Tensor<2> {
        let pool = |hidden_btd: Tensor<3>, rows: Option<&PaddingMask>| match &self.appended[..] {
            [] => self.pooling.pool(hidden_btd, rows),
            appended => {
                let poolings = std::iter::once(&self.pooling).chain(appended);
                Tensor::cat(poolings.map(|pooling| pooling.pool(hidden_btd.clone(), rows)).collect(), 1)
            }
        };
        let mut x_bd = match n_prompt {
            n if n > 0 && self.skips_prompt => {
                let [b, t, d] = hidden_btd.dims();
                let ends =
                    |rows: &PaddingMask| rows.spans().iter().map(|span| span.end.min(t)).collect::<Vec<_>>();
                let ends = rows.map_or_else(|| vec![t; b], ends);
                assert!(ends.iter().all(|&end| end > n), "a text is longer than its prompt");
                let rows = PaddingMask::padded_right(ends.into_iter().map(|end| end - n));
                pool(hidden_btd.slice([0..b, n..t, 0..d]), Some(&rows))
            }
            _ => pool(hidden_btd, rows),
        };
        for stage in &self.stages {
            x_bd = match stage {
                EmbedStage::Dense(dense) => dense.apply(x_bd),
                EmbedStage::Normalize => normalize(x_bd),
            };
        }
        if self.normalize { normalize(x_bd) } else { x_bd }
    }

    /// Width of the embeddings for hidden states of width `d_model`.
    pub fn width(&self, d_model: usize) -> usize {
        let mut widths = self.stages.iter().filter_map(|stage| match stage {
            EmbedStage::Dense(dense) => Some(dense.d_output()),
            EmbedStage::Normalize => None,
        });
        widths.next_back().unwrap_or_else(|| self.pooled_width(d_model))
    }

    /// Width after pooling.
    fn pooled_width(&self, d_model: usize) -> usize {
        d_model * (1 + self.appended.len())
    }

    /// The pipeline of a GGUF file: its pooling, if any, and L2 normalization, as in llama.cpp.
    pub(super) fn of_gguf(file: &GgufFile) -> Result<Option<Self>, FileError> {
        let pooling = match file.metadata("bert.pooling_type").map(Value::as_u64) {
            None | Some(Some(0)) => return Ok(None),
            Some(Some(1)) => Pooling::Mean,
            Some(Some(2)) => Pooling::Cls,
            Some(Some(3)) => Pooling::Last,
            Some(other) => {
                return Err(FileError::from(GgufError::NotSupported {
                    path: file.path().to_owned(),
                    what: "bert.pooling_type".to_owned(),
                    reason: format!("{other:?} is none of 1 (mean), 2 (cls) and 3 (last)"),
                }));
            }
        };
        Ok(Some(Self { pooling, normalize: true, ..Self::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarities_are_those_of_their_names() {
        let (a, b) = ([3.0, 4.0], [4.0, 3.0]);
        assert_eq!(Similarity::Cosine.of(&a, &b), 24.0 / 25.0);
        assert_eq!(Similarity::Cosine.of(&a, &[0.0, 0.0]), 0.0);
        assert_eq!(Similarity::Dot.of(&a, &b), 24.0);
        assert_eq!(Similarity::Euclidean.of(&a, &b), -(2.0_f32).sqrt());
        assert_eq!(Similarity::Manhattan.of(&a, &b), -2.0);
    }
}
