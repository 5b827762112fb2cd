//! Weights between modules and safetensors files, under Hugging Face's names, every tensor accounted for.
//!
//! The path of a parameter in its module *is* its name in the file; a few rules say where files in the wild
//! differ.

mod file;
pub mod gguf;
mod load;
mod save;
mod source;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

pub use file::FileError;
pub use load::LoadError;
pub(crate) use load::{load, load_from};
pub use save::SaveError;
pub(crate) use save::{Parameter, parameters, save};

/// How the names in a file may differ from the paths of a module's parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NameRules {
    /// A prefix that some files leave out.
    pub(crate) optional_prefix: &'static str,
    /// Endings of tensors that are no parameters, such as saved masks.
    pub(crate) ignored_suffixes: &'static [&'static str],
    /// Names that a tied model does not store, and the parameter that they repeat.
    pub(crate) tied: &'static [(&'static str, &'static str)],
}

/// Names and shapes of all parameters, in the order of the module. Draws no weights.
pub fn names<M: Module>(model: &M) -> Vec<(String, Vec<usize>)> {
    struct Names {
        path: ParamPath,
        found: Vec<(String, Vec<usize>)>,
    }

    impl ModuleVisitor for Names {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.enter(name);
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push((self.path.name(), param.lazy_shape().to_vec()));
        }
    }

    let mut names = Names { path: ParamPath::default(), found: Vec::new() };
    model.visit(&mut names);
    names.found
}

/// The path of the module that a traversal is in: give it what `enter_module` and `exit_module` are told.
#[derive(Clone, Debug, Default)]
pub struct ParamPath {
    segments: Vec<String>,
}

impl ParamPath {
    /// Goes down into `name`.
    pub fn enter(&mut self, name: &str) {
        self.segments.push(name.to_owned());
    }

    /// Comes back up.
    pub fn exit(&mut self) {
        self.segments.pop();
    }

    /// The name of the parameter here: segments joined by dots. The names of enum variants are left out.
    pub fn name(&self) -> String {
        let fields = self.segments.iter().filter(|segment| !segment.starts_with(char::is_uppercase));
        fields.map(String::as_str).collect::<Vec<_>>().join(".")
    }
}
