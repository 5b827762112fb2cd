//! Initial parameter values from counter-based streams: the same on every backend.

use andiron_kernels::random::Seed;
use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};

/// A parameter drawn from a normal distribution with mean 0 and standard deviation `std`.
///
/// `seed` must be the parameter's own, for example `seed.derive("transformer.wte.weight")`. The values are drawn
/// when they are first used, so a model whose weights are then loaded draws none.
pub fn normal<const D: usize>(shape: [usize; D], std: f32, seed: Seed, device: &Device) -> Param<Tensor<D>> {
    let draw = move |device: &Device, require_grad: bool| {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count as u64).map(|at| std * seed.normal(at)).collect();
        let value = Tensor::from_data(TensorData::new(values, shape), device);
        if require_grad { value.require_grad() } else { value }
    };
    Param::uninitialized(ParamId::new(), draw, device.clone(), true, shape.into())
}

/// A parameter that is zero everywhere.
pub fn zeros<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::zeros(shape, device))
}

/// A parameter that is one everywhere.
pub fn ones<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::ones(shape, device))
}
