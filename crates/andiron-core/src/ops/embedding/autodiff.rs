//! Gradients of lookups.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::EmbeddingOps;

#[derive(Debug)]
struct EmbeddingRows;

impl<B: EmbeddingOps> Backward<B, 1> for EmbeddingRows {
    type State = (FloatTensor<B>, IntTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (table, ids) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |dy| B::embedding_rows_backward(table, dy, ids));
    }
}

impl<B: EmbeddingOps, C: CheckpointStrategy> EmbeddingOps for Autodiff<B, C> {
    fn embedding_rows(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        match EmbeddingRows.prepare::<C>([table.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let table = table.into_primitive();
                prep.finish((table.clone(), ids.clone()), B::embedding_rows(table, ids))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::embedding_rows(table.into_primitive(), ids)),
        }
    }
}
