//! Parameters of one model in another, by name.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use super::ParamPath;

/// `model` with the parameters of `from` that have the same name and shape; the others keep their initial values.
///
/// Weights are dense on both sides.
pub fn transplant<M: Module, N: Module>(model: M, from: &N) -> M {
    let mut collect = Collect { path: ParamPath::default(), found: BTreeMap::new() };
    from.visit(&mut collect);
    model.map(&mut Place { path: ParamPath::default(), found: collect.found })
}

/// A parameter without its dimensions, and its shape.
type Flat = (Vec<usize>, Tensor<1>);

struct Collect {
    path: ParamPath,
    found: BTreeMap<String, Flat>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape = param.lazy_shape().to_vec();
        let n = shape.iter().product::<usize>();
        self.found.insert(self.path.name(), (shape, param.val().reshape([n])));
    }
}

struct Place {
    path: ParamPath,
    found: BTreeMap<String, Flat>,
}

impl ModuleMapper for Place {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape();
        match self.found.remove(&self.path.name()) {
            Some((found, value)) if found == shape.to_vec() => Param::from_tensor(value.reshape(shape)),
            _ => param,
        }
    }
}
