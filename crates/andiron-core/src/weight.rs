//! The weight of a projection or of embeddings: dense, quantized, or either of them with a low-rank adapter.
//!
//! A [`Weight`] hides how its values are stored: layers ask it to [`project`](Weight::project) or to
//! [`look up`](Weight::lookup) and never see the form. To a module traversal it is one parameter under the name of its
//! field, `…weight`, in every form, so that names in files, counts and shapes do not depend on it; an adapter adds its
//! factors, `…weight.lora_a` and `…weight.lora_b`, and a magnitude vector if it has one ([`AdapterUse::names`]).
//!
//! [`Module`] is implemented by hand. The derived implementation for an enum would be close, but it could not say the
//! [`WeightKind`], would show a quantized weight as a module without parameters, and could not change the form when a
//! mapper asks for it. A visitor sees a quantized weight as a parameter that is not initialized: its shape costs nothing,
//! and whoever reads its value gets the dequantized matrix, which is freed with the visitor's handle.

use andiron_kernels::random::Seed;
use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param,
    ParamId, Reparameterization, Reparameterizer,
};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::adapter_dropout::AdapterSite;
use crate::ops::{self, FrozenWeight, KeptInput, WeightLayout};
use crate::quant::QuantMatrix;
use crate::role::{ParamRole, WeightKind};

mod adapter;

use adapter::Adapted;
pub use adapter::{AdapterConfig, AdapterUse, NewAdapter};

/// Name of the path segment below the field of a weight; names in files leave segments with capitals out.
const SEGMENT: &str = "Weight";

/// The weight of a projection or of embeddings.
#[derive(Clone, Debug)]
pub struct Weight {
    kind: WeightKind,
    stored: Stored,
}

#[derive(Clone, Debug)]
enum Stored {
    Dense(Param<Tensor<2>>),
    Quantized(Quantized),
    Adapted(Box<Adapted>),
}

/// A matrix in blocks in the place of a parameter; it is not trained.
#[derive(Clone, Debug)]
struct Quantized {
    id: ParamId,
    matrix: QuantMatrix,
    device: Device,
}

impl Weight {
    /// A dense weight, with axes in the order of `kind.layout`.
    pub fn dense(param: Param<Tensor<2>>, kind: WeightKind) -> Self {
        Self { kind, stored: Stored::Dense(param) }
    }

    /// A quantized weight, outputs as rows for any `kind.layout`.
    pub fn quantized(matrix: QuantMatrix, kind: WeightKind, device: &Device) -> Self {
        let stored = Quantized { id: ParamId::new(), matrix, device: device.clone() };
        Self { kind, stored: Stored::Quantized(stored) }
    }

    /// Its kind, declared by its layer.
    pub fn kind(&self) -> WeightKind {
        self.kind
    }

    /// The same weight with another kind.
    #[must_use]
    pub fn with_kind(self, kind: WeightKind) -> Self {
        Self { kind, ..self }
    }

    /// The same weight in another role.
    #[must_use]
    pub fn with_role(self, role: ParamRole) -> Self {
        let kind = WeightKind { role, ..self.kind };
        self.with_kind(kind)
    }

    /// Shape, with axes in the order of its layout. Initialises and dequantizes nothing.
    pub fn dims(&self) -> [usize; 2] {
        match &self.stored {
            Stored::Dense(param) => param.lazy_shape().dims(),
            Stored::Quantized(quantized) => quantized.dims(self.kind.layout),
            Stored::Adapted(adapted) => adapted.base.dims(),
        }
    }

    /// Its device.
    pub fn device(&self) -> Device {
        match &self.stored {
            Stored::Dense(param) => param.lazy_device(),
            Stored::Quantized(quantized) => quantized.device.clone(),
            Stored::Adapted(adapted) => adapted.base.device(),
        }
    }

    /// The effective matrix of [`project`](Self::project) as a tensor, with axes in the order of its layout. Each call
    /// dequantizes a quantized weight and merges an adapter; `project` itself needs neither.
    pub fn val(&self) -> Tensor<2> {
        self.effective(AdapterUse::Projection)
    }

    /// The effective matrix of [`lookup`](Self::lookup), as [`val`](Self::val). The two differ if an adapter changes one of
    /// them.
    pub fn lookup_val(&self) -> Tensor<2> {
        self.effective(AdapterUse::Lookup)
    }

    fn effective(&self, usage: AdapterUse) -> Tensor<2> {
        match &self.stored {
            Stored::Dense(param) => param.val(),
            Stored::Quantized(quantized) => quantized.dequantize(self.kind.layout, &quantized.device),
            Stored::Adapted(adapted) => adapted.effective(usage),
        }
    }

    /// The parameter's own tensor if the weight is dense, for operations that fuse several weights.
    pub fn as_dense(&self) -> Option<Tensor<2>> {
        match &self.stored {
            Stored::Dense(param) => Some(param.val()),
            Stored::Quantized(_) | Stored::Adapted(_) => None,
        }
    }

    /// Whether the weight is dense.
    pub fn is_dense(&self) -> bool {
        matches!(self.stored, Stored::Dense(_))
    }

    /// The matrix of a quantized weight or quantized adapter base, outputs as rows.
    pub fn quant_matrix(&self) -> Option<&QuantMatrix> {
        match &self.stored {
            Stored::Dense(_) => None,
            Stored::Quantized(quantized) => Some(&quantized.matrix),
            Stored::Adapted(adapted) => adapted.base.quant_matrix(),
        }
    }

    /// Whether the weight has an adapter.
    pub fn is_adapted(&self) -> bool {
        matches!(self.stored, Stored::Adapted(_))
    }

    /// The same weight, frozen, with a trainable low-rank adapter that initially changes nothing. `seed` must be the weight's
    /// own. Embeddings get an adapter of lookups, other weights one of projections: see [`Weight::with_adapter`].
    ///
    /// # Panics
    /// If it has such an adapter already.
    #[must_use]
    pub fn adapt(self, config: AdapterConfig, seed: Seed) -> Self {
        let usage = AdapterUse::of_role(self.kind.role);
        self.with_adapter(NewAdapter { config, usage, seed, site: AdapterSite::of_seed(seed) })
    }

    /// The same weight, frozen, with a trainable low-rank adapter of one of its uses, which initially changes nothing.
    ///
    /// # Panics
    /// If it has an adapter of this use already, or one of lookups is for a weight whose rows are inputs.
    #[must_use]
    pub fn with_adapter(self, new: NewAdapter) -> Self {
        let kind = self.kind;
        let adapted = match self.stored {
            Stored::Adapted(adapted) => *adapted,
            _ => Adapted { base: self.frozen(), projection: None, lookup: None },
        };
        Self { kind, stored: Stored::Adapted(Box::new(adapted.with(new))) }
    }

    /// As a dense weight: a quantized one is dequantized and an adapter is merged, both as trainable parameters; a dense one
    /// is unchanged. Of a weight with an adapter for each use, that of projections counts: the result cannot be both.
    #[must_use]
    pub fn merge(self) -> Self {
        self.materialize()
    }

    fn id(&self) -> ParamId {
        match &self.stored {
            Stored::Dense(param) => param.id,
            Stored::Quantized(quantized) => quantized.id,
            Stored::Adapted(adapted) => adapted.base.id(),
        }
    }

    fn frozen(self) -> Self {
        match self.stored {
            Stored::Dense(param) => Self::dense(param.set_require_grad(false), self.kind),
            stored => Self { stored, ..self },
        }
    }

    /// `x · W + b` on the last axis.
    ///
    /// # Shape
    /// `[.., d_input]` → `[.., d_output]`.
    ///
    /// # Panics
    /// If the widths do not match.
    pub fn project<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        self.project_kept(x, bias, None)
    }

    /// [`project`](Self::project) of an input that other projections read as well: `kept` is what [`ops::keep_input`] returned
    /// for it, of which only adapters make use.
    ///
    /// # Shape
    /// `[.., d_input]` → `[.., d_output]`.
    ///
    /// # Panics
    /// If the widths do not match.
    pub fn project_kept<const D: usize>(
        &self,
        x: Tensor<D>,
        bias: Option<Tensor<1>>,
        kept: Option<&KeptInput>,
    ) -> Tensor<D> {
        match &self.stored {
            Stored::Dense(param) => ops::linear(x, param.val(), bias, self.kind.layout),
            Stored::Quantized(quantized) => ops::linear_quantized(x, &quantized.matrix, bias),
            Stored::Adapted(adapted) => match &adapted.projection {
                Some(adapter) => adapter.project(&adapted.base, x, bias, kept),
                None => adapted.base.project(x, bias),
            },
        }
    }

    /// The values of a weight below an adapter.
    fn as_frozen(&self) -> FrozenWeight<'_> {
        match &self.stored {
            Stored::Dense(param) => FrozenWeight::Dense(param.val(), self.kind.layout),
            Stored::Quantized(quantized) => FrozenWeight::Quantized(&quantized.matrix),
            Stored::Adapted(_) => unreachable!("a weight has one adapter for each use"),
        }
    }

    /// The rows `ids_bt` of embeddings.
    ///
    /// # Shape
    /// `[batch, time]` → `[batch, time, d_model]`.
    ///
    /// # Panics
    /// If rows are inputs; on the CPU backends, if an id is not below the number of rows.
    pub fn lookup(&self, ids_bt: Tensor<2, Int>) -> Tensor<3> {
        assert_eq!(self.kind.layout, WeightLayout::OutIn, "embeddings have a row for each entry");
        match &self.stored {
            Stored::Dense(param) => ops::embedding(param.val(), ids_bt),
            Stored::Quantized(quantized) => ops::embedding_quantized(&quantized.matrix, ids_bt),
            Stored::Adapted(adapted) => match &adapted.lookup {
                Some(adapter) => adapter.lookup(&adapted.base, ids_bt),
                None => adapted.base.lookup(ids_bt),
            },
        }
    }

    /// The weight requested by a mapper that returns `param`; `before` is the previous weight if it was quantized.
    fn mapped(param: Param<Tensor<2>>, before: Option<Quantized>, kind: WeightKind) -> Self {
        let replacement =
            param.reparameterization::<Replacement>().map(|replacement| replacement.form.clone());
        let stored = match (replacement, before) {
            (Some(Form::Quantized(matrix)), _) => {
                let device = param.lazy_device();
                Stored::Quantized(Quantized { id: param.id, matrix, device })
            }
            (Some(Form::Adapted(adapters)), before) => {
                let stored = before.map_or_else(|| Stored::Dense(without_form(param)), Stored::Quantized);
                return adapters.into_iter().fold(Self { kind, stored }, Self::with_adapter);
            }
            // The mapper did not read the values.
            (None, Some(quantized)) if !param.is_initialized() => Stored::Quantized(quantized),
            (None, _) => Stored::Dense(param),
        };
        Self { kind, stored }
    }
}

impl Quantized {
    fn dims(&self, layout: WeightLayout) -> [usize; 2] {
        let [outputs, inputs] = self.matrix.dims();
        match layout {
            WeightLayout::OutIn => [outputs, inputs],
            WeightLayout::InOut => [inputs, outputs],
        }
    }

    fn dequantize(&self, layout: WeightLayout, device: &Device) -> Tensor<2> {
        let dims = self.matrix.dims();
        let values = TensorData::new(self.matrix.dequantize(0..dims[0]), dims);
        let stored = Tensor::from_data(values, device);
        match layout {
            WeightLayout::OutIn => stored,
            WeightLayout::InOut => stored.transpose(),
        }
    }

    /// The weight as shown to a traversal: a frozen parameter whose value is computed on demand.
    fn as_param(&self, layout: WeightLayout) -> Param<Tensor<2>> {
        let (dims, quantized) = (self.dims(layout), self.clone());
        let make = move |device: &Device, _: bool| quantized.dequantize(layout, device);
        Param::uninitialized(self.id, make, self.device.clone(), false, dims.into())
    }
}

impl Module for Weight {
    fn collect_devices(&self, mut devices: Devices) -> Devices {
        if let Stored::Adapted(adapted) = &self.stored {
            return adapted.collect_devices(devices);
        }
        let device = self.device();
        if !devices.contains(&device) {
            devices.push(device);
        }
        devices
    }

    fn fork(self, device: &Device) -> Self {
        let Self { kind, stored } = self;
        let stored = match stored {
            Stored::Dense(param) => Stored::Dense(param.fork(device)),
            Stored::Quantized(quantized) => {
                Stored::Quantized(Quantized { device: device.clone(), ..quantized })
            }
            Stored::Adapted(adapted) => Stored::Adapted(Box::new(adapted.fork(device))),
        };
        Self { kind, stored }
    }

    fn to_device(self, device: &Device) -> Self {
        let Self { kind, stored } = self;
        let stored = match stored {
            Stored::Dense(param) => Stored::Dense(param.to_device(device)),
            Stored::Quantized(quantized) => {
                Stored::Quantized(Quantized { device: device.clone(), ..quantized })
            }
            Stored::Adapted(adapted) => Stored::Adapted(Box::new(adapted.moved_to(device))),
        };
        Self { kind, stored }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        let container = self.kind.container();
        match &self.stored {
            Stored::Dense(param) => {
                visitor.enter_module(SEGMENT, &container);
                param.visit(visitor);
                visitor.exit_module(SEGMENT, &container);
            }
            Stored::Quantized(quantized) => {
                visitor.enter_module(SEGMENT, &container);
                visitor.visit_float(&quantized.as_param(self.kind.layout));
                visitor.exit_module(SEGMENT, &container);
            }
            Stored::Adapted(adapted) => adapted.visit(visitor),
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let Self { kind, stored } = self;
        let (param, before) = match stored {
            // Moved, not cloned, so that an optimizer may write into its memory.
            Stored::Dense(param) => (param, None),
            Stored::Quantized(quantized) => (quantized.as_param(kind.layout), Some(quantized)),
            Stored::Adapted(adapted) => {
                return Self { kind, stored: Stored::Adapted(Box::new(adapted.map(mapper))) };
            }
        };
        let container = kind.container();
        mapper.enter_module(SEGMENT, &container);
        let mapped = Self::mapped(Module::map(param, mapper), before, kind);
        mapper.exit_module(SEGMENT, &container);
        mapped
    }

    fn valid(&self) -> Self {
        let stored = match &self.stored {
            Stored::Dense(param) => Stored::Dense(param.valid()),
            Stored::Quantized(quantized) => Stored::Quantized(quantized.clone()),
            Stored::Adapted(adapted) => Stored::Adapted(Box::new(adapted.valid())),
        };
        Self { kind: self.kind, stored }
    }

    fn train(self) -> Self {
        let Self { kind, stored } = self;
        let stored = match stored {
            Stored::Dense(param) => Stored::Dense(param.train()),
            Stored::Quantized(quantized) => Stored::Quantized(quantized),
            Stored::Adapted(adapted) => Stored::Adapted(Box::new(adapted.train())),
        };
        Self { kind, stored }
    }

    fn materialize(self) -> Self {
        let Self { kind, stored } = self;
        let param = match stored {
            Stored::Dense(param) => param.materialize(),
            Stored::Quantized(quantized) => {
                let value = quantized.dequantize(kind.layout, &quantized.device);
                Param::initialized(quantized.id, value).set_require_grad(true)
            }
            Stored::Adapted(adapted) => {
                Param::initialized(adapted.base.id(), adapted.merged().detach()).set_require_grad(true)
            }
        };
        Self::dense(param, kind)
    }
}

impl ModuleDisplayDefault for Weight {
    fn content(&self, content: Content) -> Option<Content> {
        let content = content.set_top_level_type(SEGMENT);
        let content = content.add_debug_attribute("role", &self.kind.role);
        match &self.stored {
            Stored::Dense(_) => content.add_debug_attribute("shape", &self.dims()),
            Stored::Quantized(quantized) => content.add_debug_attribute("matrix", &quantized.matrix),
            Stored::Adapted(adapted) => content.add_debug_attribute("adapted", &adapted),
        }
        .optional()
    }
}

impl ModuleDisplay for Weight {}

/// For a [`ModuleMapper`]: what to return for `param`, the parameter of a [`Weight`], so that the weight becomes
/// quantized. Outputs are the rows of `matrix`, whatever the layout of the weight.
pub fn quantized<const D: usize>(param: Param<Tensor<D>>, matrix: QuantMatrix) -> Param<Tensor<D>> {
    param.apply_reparameterization(Replacement { form: Form::Quantized(matrix) })
}

/// For a [`ModuleMapper`]: what to return for `param`, the parameter of a [`Weight`], so that the weight gets adapters; see
/// [`Weight::with_adapter`].
pub fn adapted<const D: usize>(param: Param<Tensor<D>>, adapters: Vec<NewAdapter>) -> Param<Tensor<D>> {
    param.apply_reparameterization(Replacement { form: Form::Adapted(adapters) })
}

/// The parameter without the form attached by a mapper.
fn without_form(param: Param<Tensor<2>>) -> Param<Tensor<2>> {
    let (id, value, mapper) = param.consume();
    Param::from_mapped_value(id, value, mapper)
}

/// The form that a weight becomes. A mapper returns only a parameter, so the parameter carries this from the mapper to its
/// weight, which takes it out at once.
#[derive(Module, Debug)]
struct Replacement {
    #[module(skip)]
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Quantized(QuantMatrix),
    Adapted(Vec<NewAdapter>),
}

impl Reparameterization for Replacement {
    const NAME: &'static str = "replacement";

    fn apply<const D: usize>(&self, _: Tensor<D>) -> Tensor<D> {
        panic!("only the parameter of a Weight can be replaced")
    }
}

impl Reparameterizer for Replacement {
    type Reparam = Self;

    fn reparameterize<const D: usize>(
        &mut self,
        _: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Self>) {
        (param, Some(self.clone()))
    }
}

#[cfg(test)]
mod tests;
