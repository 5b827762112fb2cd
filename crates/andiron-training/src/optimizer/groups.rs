//! Parameter groups: which parameters are trained, which of them decay, and which Muon updates.

use andiron_core::ParamRole;
use andiron_models::weights::{ParamInfo, ParamPath};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// Whether a parameter of a model in training mode is trained. A frozen one is not, and neither is a quantized weight,
/// which a traversal shows as a parameter without a value.
pub(crate) fn is_trainable<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    param.is_initialized() && param.val().is_require_grad()
}

/// The parameters of `model` that are trained, in the order of the module.
pub(super) fn trainable<M: Module>(model: &M) -> Vec<ParamInfo> {
    #[derive(Default)]
    struct Trainable {
        path: ParamPath,
        found: Vec<ParamInfo>,
    }

    impl ModuleVisitor for Trainable {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if is_trainable(param) {
                self.found.push(self.path.info(param.lazy_shape().to_vec()));
            }
        }
    }

    let mut trainable = Trainable::default();
    model.visit(&mut trainable);
    trainable.found
}

/// Whether weight decay applies to parameters of this role.
///
/// Weights of projections and heads decay; biases and norms do not. Embeddings and other lookup tables decay only with
/// `decay_embeddings`, because a row that does not occur in a batch would shrink without a gradient. Tied embeddings, which
/// are also the output head, follow the same rule.
///
/// nanoGPT's rule, all tensors of at least two axes, is `decay_embeddings = true`.
///
/// # Example
/// ```
/// use andiron_core::ParamRole;
/// use andiron_training::optimizer::decays;
/// assert!(decays(ParamRole::Matrix, false));
/// assert!(!decays(ParamRole::Bias, false));
/// assert!(!decays(ParamRole::Embedding, false));
/// assert!(decays(ParamRole::Embedding, true));
/// ```
pub fn decays(role: ParamRole, decay_embeddings: bool) -> bool {
    match role {
        ParamRole::Matrix | ParamRole::Head | ParamRole::Adapter => true,
        ParamRole::Embedding | ParamRole::SourceEmbedding | ParamRole::OutputEmbedding | ParamRole::Table => {
            decay_embeddings
        }
        ParamRole::Norm | ParamRole::Bias => false,
    }
}

/// Whether Muon updates a parameter: the weights of projections in the stacked blocks, which map hidden states to hidden
/// states. Embeddings, heads and what is before and after the blocks are AdamW's.
pub fn is_hidden_matrix(parameter: &ParamInfo) -> bool {
    parameter.role == ParamRole::Matrix && parameter.in_block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_matrices_decay_unless_embeddings_are_asked_for() {
        for (role, decays_always, decays_if_asked) in [
            (ParamRole::Matrix, true, true),
            (ParamRole::Head, true, true),
            (ParamRole::Adapter, true, true),
            (ParamRole::Embedding, false, true),
            (ParamRole::SourceEmbedding, false, true),
            (ParamRole::OutputEmbedding, false, true),
            (ParamRole::Table, false, true),
            (ParamRole::Norm, false, false),
            (ParamRole::Bias, false, false),
        ] {
            assert_eq!(decays(role, false), decays_always, "{role:?}");
            assert_eq!(decays(role, true), decays_if_asked, "{role:?}");
        }
    }

    #[test]
    fn only_the_matrices_of_blocks_are_hidden() {
        let parameter = |role, in_block| ParamInfo {
            name: String::new(),
            shape: vec![4, 4],
            role,
            weight: None,
            in_block,
        };
        assert!(is_hidden_matrix(&parameter(ParamRole::Matrix, true)));
        // A head for labels, a pooler.
        assert!(!is_hidden_matrix(&parameter(ParamRole::Matrix, false)));
        for role in [ParamRole::Table, ParamRole::Adapter, ParamRole::Norm, ParamRole::Bias] {
            assert!(!is_hidden_matrix(&parameter(role, true)), "{role:?}");
        }
    }
}
