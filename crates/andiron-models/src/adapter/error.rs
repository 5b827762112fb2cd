//! Errors of adapters.

use std::path::PathBuf;

use crate::hf_config::ConfigError;
use crate::weights::{FileError, SaveError};

/// Why an adapter cannot be opened, added or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// `adapter_config.json` cannot be used.
    #[error("cannot use the adapter's configuration")]
    Config(#[from] ConfigError),
    /// The weights cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It cannot be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// Not an adapter's directory.
    #[error(
        "{} is not an adapter: it must hold adapter_config.json and adapter_model.safetensors, as peft writes them",
        path.display()
    )]
    NotAnAdapter {
        /// The path given.
        path: PathBuf,
    },
    /// A file that would be lost.
    #[error("{} would be lost: move it away, or save the adapter elsewhere", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// An invalid regular expression, or one that takes too long.
    #[error("{key}: cannot use the regular expression {pattern:?}")]
    Pattern {
        /// The key it stands under.
        key: &'static str,
        /// The expression.
        pattern: String,
        /// The cause.
        source: Box<fancy_regex::Error>,
    },
    /// No module has an adapter.
    #[error("target_modules: no module of the model matches {targets}; one of them is {example}")]
    NoTarget {
        /// The targets.
        targets: String,
        /// A module that could have an adapter.
        example: String,
    },
    /// `modules_to_save` names nothing.
    #[error("modules_to_save: no module of the model ends with {name:?}")]
    NothingToSave {
        /// The name.
        name: String,
    },
    /// A targeted module without a tensor in the file.
    #[error("{tensor} is missing from the adapter, whose configuration asks for it: is it of this model?")]
    Missing {
        /// The tensor.
        tensor: String,
    },
    /// A tensor of a module that the model lacks.
    #[error("{tensor} of the adapter has no place in the model: is it an adapter of this model?")]
    NoPlace {
        /// The tensor.
        tensor: String,
    },
    /// A tensor that the configuration does not ask for.
    #[error(
        "{tensor} is in the adapter, but neither target_modules, modules_to_save nor use_dora asks for it"
    )]
    NotTargeted {
        /// The tensor.
        tensor: String,
    },
    /// Two stored tensors with different values for one parameter.
    #[error("{tensor} of the adapter differs from another that the base model ties to it")]
    Twice {
        /// The tensor.
        tensor: String,
    },
    /// A tensor with the wrong shape.
    #[error(
        "{tensor}: the adapter has shape {found:?}, the model wants {wanted:?}: is it an adapter of this model?"
    )]
    Shape {
        /// The tensor's name in the file.
        tensor: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape by the model and the configuration.
        wanted: Vec<usize>,
    },
    /// A tensor with values that are no numbers.
    #[error("{tensor} of the adapter holds a value that is not finite")]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
    /// A module trained in full that shares its weight.
    #[error(
        "{module} cannot be trained in full: it shares its weight with {partner}, and the adapter would part them; \
         untie the base model (tie_word_embeddings: false, with a weight for each) or leave {module} out"
    )]
    Tied {
        /// The module.
        module: String,
        /// The module that it shares its weight with.
        partner: String,
    },
    /// A table that encoder and decoder share.
    #[error("{module}: adapters of embeddings that encoder and decoder share are not supported")]
    SharedTable {
        /// The module.
        module: String,
    },
    /// An adapter of a model with another head.
    #[error("the adapter is one of a {wanted}, the model is a {found}: open a base model of that class")]
    OtherClass {
        /// The class that the adapter was trained with.
        wanted: &'static str,
        /// The model's class.
        found: &'static str,
    },
    /// Dropout beside magnitude vectors.
    #[error(
        "the adapter's dropout is {value} beside magnitude vectors (dora): set one of them to 0 or false"
    )]
    Dropout {
        /// Its probability.
        value: f64,
    },
    /// A probability out of range.
    #[error("the adapter's dropout is {value}: it must be at least 0 and below 1")]
    DropoutRange {
        /// The probability.
        value: f64,
    },
    /// Dropout of an adapter of an output head.
    #[error(
        "{module}: the adapter of an output head is trained without dropout; leave the module out, or set dropout to 0"
    )]
    DropoutOfHead {
        /// The module.
        module: String,
    },
    /// A rank of 0.
    #[error("the adapter's rank is 0: it must be at least 1")]
    NoRank,
    /// A second adapter.
    #[error("the model has an adapter already: merge that first")]
    HasAdapter,
}

impl AdapterError {
    pub(super) fn pattern(key: &'static str, pattern: &str, source: fancy_regex::Error) -> Self {
        Self::Pattern { key, pattern: pattern.to_owned(), source: Box::new(source) }
    }
}
