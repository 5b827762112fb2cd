//! Parameter groups: which parameters are trained, how fast, which of them decay, and which Muon updates.

use andiron_core::ParamRole;
use andiron_models::weights::{self, ParamInfo, ParamPath};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{NamePattern, OptimizerConfig};

/// Settings of the parameters whose names match a pattern. A parameter belongs to the first group that it matches.
///
/// # Example
/// ```
/// # use andiron_training::optimizer::GroupConfig;
/// # #[derive(serde::Deserialize)] struct Groups { groups: Vec<GroupConfig> }
/// # let parsed: Groups = toml::from_str(r#"
/// [[groups]]
/// match = "bert.embeddings.*"
/// freeze = true
///
/// [[groups]]
/// match = "classifier.*"
/// lr = 1e-3
/// weight_decay = 0.0
/// # "#)?;
/// # assert_eq!(parsed.groups.len(), 2);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// Which names match.
    #[serde(rename = "match")]
    pub pattern: NamePattern,
    /// Factor of the learning rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr_scale: Option<f64>,
    /// Peak learning rate, in the place of `optimizer.lr` and of `optimizer.muon.lr`; it follows the schedule in
    /// proportion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Weight decay of every parameter of the group, whatever its role; absent, [`decays`] says which have
    /// `optimizer.weight_decay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Do not train: no gradient, no moments.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub freeze: bool,
}

impl GroupConfig {
    /// A group that changes nothing yet.
    pub fn new(pattern: impl Into<String>) -> Self {
        let pattern = NamePattern::new(pattern);
        Self { pattern, lr_scale: None, lr: None, weight_decay: None, freeze: false }
    }
}

impl OptimizerConfig {
    /// Freezes the parameters of `model` that `groups` say; to be called before [`Optimizer::new`](super::Optimizer::new).
    ///
    /// # Errors
    /// If a group has no parameter.
    pub fn freeze<M: Module>(&self, model: M) -> Result<M, GroupError> {
        let parameters = weights::describe(&model);
        assign(&self.groups, parameters.iter().map(|parameter| parameter.name.as_str()))?;
        if !self.groups.iter().any(|group| group.freeze) {
            return Ok(model);
        }
        let is_frozen = |name: &str| group_of(&self.groups, name).is_some_and(|group| group.freeze);
        Ok(weights::freeze(model, |parameter| is_frozen(&parameter.name)))
    }
}

/// The group of a parameter.
fn group_of<'a>(groups: &'a [GroupConfig], name: &str) -> Option<&'a GroupConfig> {
    groups.iter().find(|group| group.pattern.matches(name))
}

/// The group of each parameter; each group has one at least.
pub(super) fn assign<'a, 'n>(
    groups: &'a [GroupConfig],
    names: impl Iterator<Item = &'n str> + Clone,
) -> Result<Vec<Option<&'a GroupConfig>>, GroupError> {
    let assigned: Vec<_> = names.clone().map(|name| group_of(groups, name)).collect();
    let is_used =
        |group: &GroupConfig| assigned.iter().flatten().any(|assigned| std::ptr::eq(*assigned, group));
    let Some(GroupConfig { pattern, .. }) = groups.iter().find(|group| !is_used(group)) else {
        return Ok(assigned);
    };
    let mut names = names;
    let example = names.clone().next().unwrap_or_default().to_owned();
    let is_shadowed = names.any(|name| pattern.matches(name));
    let pattern = pattern.to_string();
    Err(if is_shadowed { GroupError::Shadowed { pattern } } else { GroupError::NoMatch { pattern, example } })
}

/// Whether a parameter of a model in training mode is trained. A frozen one is not, and neither is a quantized weight,
/// which a traversal shows as a parameter without a value.
pub(crate) fn is_trainable<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    param.is_initialized() && param.val().is_require_grad()
}

/// The parameters of `model` in the order of the module, and whether they are trained.
pub(super) fn parameters<M: Module>(model: &M) -> Vec<(ParamInfo, bool)> {
    #[derive(Default)]
    struct Parameters {
        path: ParamPath,
        found: Vec<(ParamInfo, bool)>,
    }

    impl ModuleVisitor for Parameters {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push((self.path.info(param.lazy_shape().to_vec()), is_trainable(param)));
        }
    }

    let mut parameters = Parameters::default();
    model.visit(&mut parameters);
    parameters.found
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

/// Why the groups do not fit a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A pattern matches no parameter.
    #[error("optimizer.groups: match = {pattern:?} matches no parameter; names are like {example}")]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// A name that is there.
        example: String,
    },
    /// A group has no parameter, because earlier ones have them all.
    #[error(
        "optimizer.groups: match = {pattern:?} has no parameter left, because the first match counts: move the group up"
    )]
    Shadowed {
        /// The pattern.
        pattern: String,
    },
    /// A group sets a rate or a decay of parameters that are not trained.
    #[error("optimizer.groups: match = {pattern:?} matches only parameters that are not trained")]
    Untrained {
        /// The pattern.
        pattern: String,
    },
    /// Every parameter is frozen.
    #[error("nothing is left to train: optimizer.groups freeze every parameter")]
    AllFrozen,
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

    #[test]
    fn the_first_match_counts() {
        let groups = ["a.*", "*.bias", "*"].map(GroupConfig::new);
        let found = assign(&groups, ["a.bias", "b.bias", "b.weight"].into_iter()).unwrap();
        let patterns = found.iter().map(|group| group.unwrap().pattern.to_string());
        assert_eq!(patterns.collect::<Vec<_>>(), ["a.*", "*.bias", "*"]);
        assert_eq!(assign(&groups[..1], ["a.bias", "b.bias"].into_iter()).unwrap()[1], None);
    }

    #[test]
    fn a_group_without_parameters_is_named() {
        let names = ["h.0.weight", "h.0.bias"];
        let error = |groups: &[GroupConfig]| assign(groups, names.into_iter()).unwrap_err().to_string();
        let none = error(&["*.bias", "layer.0.*"].map(GroupConfig::new));
        assert!(none.contains("\"layer.0.*\" matches no parameter; names are like h.0.weight"), "{none}");
        let shadowed = error(&["h.*", "*.bias"].map(GroupConfig::new));
        assert!(shadowed.contains("\"*.bias\" has no parameter left"), "{shadowed}");
    }
}
