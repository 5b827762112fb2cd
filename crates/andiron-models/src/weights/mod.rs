//! Loading and saving weights under Hugging Face's names, with every tensor accounted for. Safetensors files are read
//! and written; `pytorch_model.bin` is read without executing anything.
//!
//! The path of a parameter in its module *is* its name in the file; [`NameRules`] lists the exceptions in published
//! files.

mod depth;
mod directory;
mod elements;
mod file;
pub mod gguf;
mod load;
mod save;
mod source;
mod torch;
mod trainable;
mod transplant;
mod write;

use andiron_core::ParamRole;
use andiron_core::role::WeightKind;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

pub use depth::{Depth, depths};
pub use directory::paths;
pub(crate) use directory::{WeightFile, open};
pub use file::FileError;
pub use load::{LoadError, StoredTensors};
pub(crate) use load::{SMALLEST, check_names, load_from};
pub use save::SaveError;
pub(crate) use save::{Parameter, parameters, save, save_tensors};
pub(crate) use source::TensorSource;
pub use torch::{PickleError, TorchError};
pub(crate) use trainable::{Trained, train_only};
pub use trainable::{adapt, freeze};
pub use transplant::transplant;
pub use write::write_tensors;

/// How tensor names in a file may differ from parameter paths.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameRules {
    /// A prefix that some files omit.
    pub optional_prefix: &'static str,
    /// Stored tensors that are not parameters, such as saved masks; `*` is a wildcard at the beginning or the end.
    pub ignored: &'static [&'static str],
    /// Old name suffixes and their current form.
    pub renamed: &'static [(&'static str, &'static str)],
    /// Tied names and the parameter that they share. A file may hold either or both.
    pub tied: &'static [(&'static str, &'static str)],
    /// Parameters that may be missing; they keep their initial values.
    pub optional: &'static [&'static str],
}

impl NameRules {
    /// The current name of a stored tensor.
    fn current_name(&self, name: &str) -> String {
        let renamed = |(old, new): &(&str, &str)| Some(format!("{}{new}", name.strip_suffix(old)?));
        self.renamed.iter().find_map(renamed).unwrap_or_else(|| name.to_owned())
    }

    /// The names under which a file may store a parameter.
    fn forms<'a>(&self, name: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        [Some(name), name.strip_prefix(self.optional_prefix)].into_iter().flatten()
    }

    fn ignores(&self, name: &str) -> bool {
        self.ignored.iter().any(|pattern| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (Some(ending), _) => name.ends_with(ending),
            (_, Some(beginning)) => name.starts_with(beginning),
            _ => name == *pattern,
        })
    }
}

/// Names and shapes of all parameters, in the order of the module. Draws no weights.
pub fn names<M: Module>(model: &M) -> Vec<(String, Vec<usize>)> {
    describe(model).into_iter().map(|ParamInfo { name, shape, .. }| (name, shape)).collect()
}

/// Metadata of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    /// Name in files.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Role.
    pub role: ParamRole,
    /// Layout and packing, if it is a [`Weight`](andiron_core::Weight).
    pub weight: Option<WeightKind>,
    /// Whether it belongs to a block of the stack, rather than to embeddings, final norm or head.
    pub in_block: bool,
}

impl ParamInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }
}

/// All parameters, in the order of the module. Draws no weights.
pub fn describe<M: Module>(model: &M) -> Vec<ParamInfo> {
    struct Describe {
        path: ParamPath,
        found: Vec<ParamInfo>,
    }

    impl ModuleVisitor for Describe {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push(self.path.info(param.lazy_shape().to_vec()));
        }
    }

    let mut describe = Describe { path: ParamPath::default(), found: Vec::new() };
    model.visit(&mut describe);
    describe.found
}

/// Tensor names that cannot be field names: keywords, names like an enum variant's, and an empty name for a wrapped
/// model; by field name.
const RENAMED_FIELDS: &[(&str, &str)] = &[
    ("self_", "self"),
    ("layer_norm_", "LayerNorm"),
    ("self_attention_", "SelfAttention"),
    ("enc_dec_attention_", "EncDecAttention"),
    ("dense_relu_dense_", "DenseReluDense"),
    ("inline_", ""),
    ("w_qkv_", "Wqkv"),
    ("w_i_", "Wi"),
    ("w_o_", "Wo"),
];

/// The module path of a traversal: forward `enter_module` and `exit_module` to it.
#[derive(Clone, Debug, Default)]
pub struct ParamPath {
    /// Name and container type.
    segments: Vec<(String, String)>,
}

impl ParamPath {
    /// Enters `name`, part of a `container`.
    pub fn enter(&mut self, name: &str, container: &str) {
        self.segments.push((name.to_owned(), container.to_owned()));
    }

    /// Leaves the current module.
    pub fn exit(&mut self) {
        self.segments.pop();
    }

    /// The parameter name at the current path: segments joined by dots. Enum variants are omitted, and renamed fields
    /// get their name in files.
    pub fn name(&self) -> String {
        let segments = self.segments.iter().map(|(name, _)| name);
        let fields = segments.filter(|segment| !segment.starts_with(char::is_uppercase));
        let name_in_file = |field: &String| match RENAMED_FIELDS.iter().find(|(ours, _)| ours == field) {
            Some((_, theirs)) => (*theirs).to_owned(),
            None => field.clone(),
        };
        fields.map(name_in_file).filter(|name| !name.is_empty()).collect::<Vec<_>>().join(".")
    }

    /// The weight's layout and packing at the current path, if it is one.
    pub fn weight(&self) -> Option<WeightKind> {
        self.segments.last().and_then(|(_, container)| WeightKind::of_container(container))
    }

    /// Metadata of the parameter at the current path, with this shape.
    pub fn info(&self, shape: Vec<usize>) -> ParamInfo {
        let container = self.segments.last().map_or("", |(_, container)| container);
        ParamInfo {
            name: self.name(),
            shape,
            role: ParamRole::of_container(container),
            weight: self.weight(),
            in_block: self.segments.iter().any(|(_, container)| container == "Vec"),
        }
    }
}
