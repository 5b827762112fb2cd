//! Weights between modules and files, under Hugging Face's names, every tensor accounted for. Safetensors files are read and
//! written; `pytorch_model.bin` is read, without executing anything.
//!
//! The path of a parameter in its module *is* its name in the file; a few rules say where files in the wild
//! differ.

mod directory;
mod elements;
mod file;
pub mod gguf;
mod load;
mod save;
mod source;
mod torch;
mod trainable;
mod write;

use andiron_core::ParamRole;
use andiron_core::role::WeightKind;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

pub(crate) use directory::open;
pub use directory::paths;
pub use file::FileError;
pub use load::{LoadError, StoredTensors};
pub(crate) use load::{SMALLEST, check_names, load_from};
pub use save::SaveError;
pub(crate) use save::{Parameter, parameters, save, save_tensors};
pub(crate) use source::TensorSource;
pub use torch::{PickleError, TorchError};
pub use trainable::{adapt, freeze};
pub use write::write_tensors;

/// How the names in a file may differ from the paths of a module's parameters.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameRules {
    /// A prefix that some files leave out.
    pub optional_prefix: &'static str,
    /// Names of tensors that are no parameters of this model, such as saved masks; a `*` stands for anything, at the
    /// beginning or the end.
    pub ignored: &'static [&'static str],
    /// Older endings of names, and what they are called today.
    pub renamed: &'static [(&'static str, &'static str)],
    /// Names that a tied model does not store, and the parameter that they repeat. A file may hold the one, the other
    /// or both.
    pub tied: &'static [(&'static str, &'static str)],
    /// Parameters that a file may leave out; they keep their first values.
    pub optional: &'static [&'static str],
}

impl NameRules {
    /// The name that a tensor of a file has today.
    fn current_name(&self, name: &str) -> String {
        let renamed = |(old, new): &(&str, &str)| Some(format!("{}{new}", name.strip_suffix(old)?));
        self.renamed.iter().find_map(renamed).unwrap_or_else(|| name.to_owned())
    }

    /// The ways in which a file may write a parameter's name.
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

/// What is known of a parameter without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    /// Its name in files.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: ParamRole,
    /// What the layer says of it, if it is a [`Weight`](andiron_core::Weight).
    pub weight: Option<WeightKind>,
    /// Whether it belongs to one of the stacked blocks of the model, rather than to what is before and after them.
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

/// Names in files that no field can have, because they are keywords or look like an enum's variant, or nothing, for a model that
/// another one is built around; by the field's name.
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

/// The path of the module that a traversal is in: give it what `enter_module` and `exit_module` are told.
#[derive(Clone, Debug, Default)]
pub struct ParamPath {
    /// Name and container type.
    segments: Vec<(String, String)>,
}

impl ParamPath {
    /// Goes down into `name`, part of a `container`.
    pub fn enter(&mut self, name: &str, container: &str) {
        self.segments.push((name.to_owned(), container.to_owned()));
    }

    /// Comes back up.
    pub fn exit(&mut self) {
        self.segments.pop();
    }

    /// The name of the parameter here: segments joined by dots. The names of enum variants are left out; a few
    /// fields are called otherwise, because a file's name for them cannot be a field's.
    pub fn name(&self) -> String {
        let segments = self.segments.iter().map(|(name, _)| name);
        let fields = segments.filter(|segment| !segment.starts_with(char::is_uppercase));
        let name_in_file = |field: &String| match RENAMED_FIELDS.iter().find(|(ours, _)| ours == field) {
            Some((_, theirs)) => (*theirs).to_owned(),
            None => field.clone(),
        };
        fields.map(name_in_file).filter(|name| !name.is_empty()).collect::<Vec<_>>().join(".")
    }

    /// What the layer says of the weight here, if it is one.
    pub fn weight(&self) -> Option<WeightKind> {
        self.segments.last().and_then(|(_, container)| WeightKind::of_container(container))
    }

    /// What is known of the parameter here, which has this shape.
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
