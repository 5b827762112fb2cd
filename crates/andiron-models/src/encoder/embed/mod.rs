//! From hidden states to one vector for a text.

mod dense;
mod pooling;
mod prompts;
mod sentence;

use andiron_core::PaddingMask;
use burn::tensor::Tensor;

pub use dense::{Dense, DenseActivation};
pub use pooling::Pooling;
pub use prompts::Prompts;

use crate::weights::FileError;
use crate::weights::gguf::{GgufError, GgufFile, Value};

/// Lengths below this are taken as this when vectors are normalised, as PyTorch does.
const MIN_LENGTH: f32 = 1e-12;

/// What makes a sentence embedding out of a text, as `modules.json` and the files beside it say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbedPipeline {
    /// How tokens become one vector.
    pub pooling: Pooling,
    /// Other poolings of the same tokens, whose vectors are appended in order.
    pub appended: Vec<Pooling>,
    /// What the vector goes through then, in order.
    pub stages: Vec<EmbedStage>,
    /// Whether vectors are scaled to length 1 at the end.
    pub normalize: bool,
    /// Longest text, in tokens, if the pipeline's own files say it.
    pub max_tokens: Option<usize>,
    /// Whether texts are read in lower case.
    pub lower_case: bool,
    /// What stands before a text.
    pub prompts: Prompts,
    /// Whether the tokens of a prompt are left out when vectors are pooled.
    pub skips_prompt: bool,
    /// How near two vectors are.
    pub similarity: Similarity,
    /// Keys of the files that say nothing to anybody, each with its file.
    pub unread: Vec<String>,
}

/// A step of an [`EmbedPipeline`] between pooling and the last scaling.
#[derive(Clone, Debug, PartialEq)]
pub enum EmbedStage {
    /// An affine map and an activation.
    Dense(Dense),
    /// Scaling to length 1.
    Normalize,
}

/// How near two vectors are, more being nearer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Similarity {
    /// The cosine of their angle.
    #[default]
    Cosine,
    /// Their product.
    Dot,
    /// Their Euclidean distance, negated.
    Euclidean,
    /// The sum of their differences, negated.
    Manhattan,
}

impl Similarity {
    /// Of two vectors of equal length.
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

/// Scales each row to length 1.
pub(super) fn normalize(x_bd: Tensor<2>) -> Tensor<2> {
    let length_b1 = x_bd.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(MIN_LENGTH);
    x_bd / length_b1
}

impl EmbedPipeline {
    /// One vector for each row of a batch that is padded on the right, the first `n_prompt` tokens of each being a prompt's.
    ///
    /// # Shape
    /// `[batch, time, d_model]` → `[batch, d]`.
    ///
    /// # Panics
    /// As [`Pooling::pool`], if a row has nothing but a prompt that is left out, or if the first stage wants another
    /// width.
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

    /// Length of the vectors that come out for hidden states of `d_model`.
    pub fn width(&self, d_model: usize) -> usize {
        let mut widths = self.stages.iter().filter_map(|stage| match stage {
            EmbedStage::Dense(dense) => Some(dense.d_output()),
            EmbedStage::Normalize => None,
        });
        widths.next_back().unwrap_or_else(|| self.pooled_width(d_model))
    }

    /// Length of the vectors that pooling gives.
    fn pooled_width(&self, d_model: usize) -> usize {
        d_model * (1 + self.appended.len())
    }

    /// What a GGUF file says: its pooling, if any. llama.cpp scales such vectors to length 1.
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
