//! Pooling: one vector from the hidden states of a text.

use andiron_core::PaddingMask;
use andiron_core::padding_mask::pick;
use burn::tensor::{Tensor, TensorData};

/// Pooling over the tokens of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// The first token.
    Cls,
    /// Mean over tokens.
    #[default]
    Mean,
    /// The last token.
    Last,
    /// Maximum per dimension.
    Max,
}

impl Pooling {
    /// Poolings with their names in sentence-transformers and the keys of versions before 6, in the order in which
    /// those versions concatenated them.
    pub(super) const NAMES: [(Self, &'static str, &'static str); 4] = [
        (Self::Cls, "cls", "pooling_mode_cls_token"),
        (Self::Max, "max", "pooling_mode_max_tokens"),
        (Self::Mean, "mean", "pooling_mode_mean_tokens"),
        (Self::Last, "lasttoken", "pooling_mode_lasttoken"),
    ];

    /// One vector per row of `hidden_btd`; `rows` is the padding mask, if any.
    ///
    /// # Shape
    /// `[batch, time, d_model]` → `[batch, d_model]`.
    ///
    /// # Panics
    /// If `rows` does not match the batch, or a row is all padding.
    pub fn pool(self, hidden_btd: Tensor<3>, rows: Option<&PaddingMask>) -> Tensor<2> {
        let [b, t, d] = hidden_btd.dims();
        let device = hidden_btd.device();
        let everything = PaddingMask::padded_right(vec![t; b]);
        let rows = rows.unwrap_or(&everything);
        assert_eq!(rows.len(), b, "one row of the batch for each of the rows");
        let spans = || rows.spans().iter().map(|span| span.start..span.end.min(t));
        assert!(spans().all(|span| !span.is_empty()), "a text without tokens has no embedding");
        match self {
            Self::Cls => pick(hidden_btd, spans().map(|span| span.start)),
            Self::Last => pick(hidden_btd, spans().map(|span| span.end - 1)),
            Self::Mean => {
                let weights_bt1: Tensor<3> = rows.weights(t, &device).unsqueeze_dim(2);
                let counts: Vec<f32> = spans().map(|span| span.len() as f32).collect();
                let counts_b1 = Tensor::from_data(TensorData::new(counts, [b, 1]), &device);
                (hidden_btd * weights_bt1).sum_dim(1).reshape([b, d]) / counts_b1
            }
            Self::Max => {
                let weights_bt1: Tensor<3> = rows.weights(t, &device).unsqueeze_dim(2);
                let hidden_btd = hidden_btd + (weights_bt1 - 1.0) * 1e30;
                hidden_btd.max_dim(1).reshape([b, d])
            }
        }
    }
}
