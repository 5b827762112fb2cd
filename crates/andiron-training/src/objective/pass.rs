//! One pass of a model over a batch: the device, dropout, and the scale of the losses.

use andiron_core::{Documents, Forward, PaddingMask, ids, ops};
use andiron_data::batch::{Sequences, TokenLabels};
use andiron_kernels::random::Seed;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// A pass of a model over one batch. It makes the context of each side and uploads ids, labels and weights.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// The device of the model: with autodiff while training.
    pub device: &'a Device,
    /// Dropout's random stream, new for each micro-batch; `None` outside training.
    pub dropout: Option<Seed>,
    /// Factor of the loss. In training one over the weight of the whole step, so that the losses of its micro-batches add up
    /// to the mean.
    pub scale: f32,
    /// Activation checkpointing: whether the blocks of the model are computed again in the backward pass
    /// ([`Forward::block`]).
    pub checkpointing: bool,
}

impl<'a> Pass<'a> {
    /// A pass of validation: no dropout, and losses as they are.
    pub fn evaluation(device: &'a Device) -> Self {
        Self { device, dropout: None, scale: 1.0, checkpointing: false }
    }

    /// The pass of another side of the model, such as `"decoder"`, with a dropout stream of its own.
    #[must_use]
    pub fn side(&self, name: &str) -> Self {
        Self { dropout: self.dropout.map(|seed| seed.derive(name)), ..*self }
    }

    /// The context without a padding mask, for sequences whose padding is seen by nothing that counts: that at the ends of
    /// the rows of a decoder.
    pub fn causal_context(&self) -> Forward<'static> {
        let cx = match self.dropout {
            Some(seed) => Forward::training(seed),
            None => Forward::evaluation(),
        };
        if self.checkpointing { cx.with_checkpointing() } else { cx }
    }

    /// [`causal_context`](Self::causal_context) of rows that several documents may be packed into.
    pub fn document_context(&self, sequences: &Sequences) -> Forward<'static> {
        let cx = self.causal_context();
        match &sequences.documents {
            Some(starts) => cx.with_documents(Documents::new(starts.iter().cloned())),
            None => cx,
        }
    }

    /// The context in which the model reads `sequences`: padding is not attended to.
    pub fn context(&self, sequences: &Sequences) -> Forward<'static> {
        let cx = self.causal_context();
        match &sequences.lengths {
            // A row that is only padding reads its first position: a softmax needs something.
            Some(lengths) if lengths.iter().any(|&length| length < sequences.columns) => {
                cx.with_padding_mask(PaddingMask::padded_right(lengths.iter().map(|&length| length.max(1))))
            }
            _ => cx,
        }
    }

    /// An output head as the loss takes it: the values of a weight in few bits come without autodiff.
    pub(crate) fn head(&self, head: impl Into<ops::Head>) -> ops::Head {
        let head = head.into();
        match self.device.is_autodiff() {
            true => ops::Head { weight_vd: head.weight_vd.autodiff(), ..head },
            false => head,
        }
    }

    /// The ids of `sequences`.
    ///
    /// # Shape
    /// `[rows, columns]`.
    ///
    /// # Panics
    /// If an id does not fit `i32`.
    pub fn ids(&self, sequences: &Sequences) -> Tensor<2, Int> {
        ids::upload(&sequences.ids, [sequences.rows, sequences.columns], self.device)
    }

    /// The token type ids of `sequences`; `None` if all are 0.
    ///
    /// # Shape
    /// `[rows, columns]`.
    pub fn type_ids(&self, sequences: &Sequences) -> Option<Tensor<2, Int>> {
        let type_ids = sequences.type_ids.as_ref()?;
        Some(ids::upload(type_ids, [sequences.rows, sequences.columns], self.device))
    }

    /// Target ids and their weights, multiplied by the scale.
    ///
    /// # Shape
    /// `[rows · columns]` each.
    pub fn targets(&self, labels: &TokenLabels) -> (Tensor<1, Int>, Tensor<1>) {
        let n = labels.ids.len();
        let weights: Vec<f32> = labels.weights.iter().map(|weight| weight * self.scale).collect();
        let weights = Tensor::from_data(TensorData::new(weights, [n]), self.device);
        (ids::upload(&labels.ids, [n], self.device), weights)
    }

    /// [`targets`](Self::targets) of weight above 0 only, with their positions; of one position, if all have weight 0.
    ///
    /// # Shape
    /// `[n]` each.
    pub fn weighted_targets(&self, labels: &TokenLabels) -> WeightedTargets {
        let weighted = labels.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
        let mut positions: Vec<usize> = weighted.map(|(position, _)| position).collect();
        if positions.is_empty() {
            positions.push(0);
        }
        let targets = TokenLabels {
            ids: positions.iter().map(|&position| labels.ids[position]).collect(),
            weights: positions.iter().map(|&position| labels.weights[position]).collect(),
        };
        let (targets_n, weights_n) = self.targets(&targets);
        let positions: Vec<u32> = positions.into_iter().map(|position| position as u32).collect();
        WeightedTargets {
            positions_n: ids::upload(&positions, [positions.len()], self.device),
            targets_n,
            weights_n,
        }
    }
}

/// The targets of a batch that count.
#[derive(Clone, Debug)]
pub struct WeightedTargets {
    /// Positions, row-major.
    pub positions_n: Tensor<1, Int>,
    /// Target ids.
    pub targets_n: Tensor<1, Int>,
    /// Scaled weights.
    pub weights_n: Tensor<1>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::device;

    #[test]
    fn padding_is_where_rows_end() {
        let device = device();
        let pass = Pass::evaluation(&device);
        let padded = Sequences::padded(&[&[1, 2, 3][..], &[], &[4]], 0);
        let cx = pass.context(&padded);
        assert_eq!(cx.padding_mask().unwrap().spans(), [0..3, 0..1, 0..1]);
        assert!(pass.context(&Sequences::padded(&[[1, 2], [3, 4]], 0)).padding_mask().is_none());
        assert!(pass.context(&Sequences::full(vec![0; 4], [2, 2])).padding_mask().is_none());
    }

    #[test]
    fn documents_of_rows_are_apart() {
        let device = device();
        let pass = Pass::evaluation(&device);
        let whole = Sequences::full(vec![0; 8], [2, 4]);
        assert!(pass.document_context(&whole).documents().is_none());
        let packed = Sequences { documents: Some(vec![vec![0, 3], vec![0]]), ..whole };
        let cx = pass.document_context(&packed);
        assert_eq!(cx.positions(4), [[0, 1, 2, 0], [0, 1, 2, 3]]);
    }

    #[test]
    fn only_targets_with_a_weight_are_uploaded() {
        let device = device();
        let pass = Pass { scale: 0.5, ..Pass::evaluation(&device) };
        let check = |weights: &[f32], positions: &[i64], targets: &[i64], scaled: &[f32]| {
            let labels = TokenLabels { ids: vec![5, 6, 7, 8], weights: weights.to_vec() };
            let found = pass.weighted_targets(&labels);
            let ids = |tensor: Tensor<1, Int>| tensor.into_data().iter::<i64>().collect::<Vec<_>>();
            assert_eq!(
                (ids(found.positions_n), ids(found.targets_n)),
                (positions.to_vec(), targets.to_vec())
            );
            assert_eq!(found.weights_n.into_data().try_into_vec::<f32>().unwrap(), scaled);
        };
        check(&[0.0, 1.0, 0.0, 0.5], &[1, 3], &[6, 8], &[0.5, 0.25]);
        check(&[0.0; 4], &[0], &[5], &[0.0]);
    }

    #[test]
    fn each_side_has_a_stream_of_its_own() {
        let device = device();
        let pass = Pass { dropout: Some(Seed::new(3)), ..Pass::evaluation(&device) };
        assert_ne!(pass.side("decoder").dropout, pass.dropout);
        assert_eq!(Pass::evaluation(&device).side("decoder").dropout, None);
    }
}
