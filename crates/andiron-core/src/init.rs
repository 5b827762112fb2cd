//! Initial parameter values from counter-based streams: the same on every backend.

use andiron_kernels::random::Seed;
use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};

/// A parameter drawn from a normal distribution with mean 0 and standard deviation `std`.
///
/// `seed` must be the parameter's own, for example `seed.derive("transformer.wte.weight")`. The values are drawn
/// when they are first used, so a model whose weights are then loaded draws none.
pub fn normal<const D: usize>(shape: [usize; D], std: f32, seed: Seed, device: &Device) -> Param<Tensor<D>> {
    let draw = move |device: &Device| {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count as u64).map(|at| std * seed.normal(at)).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    };
    when_used(shape, draw, device)
}

/// A parameter drawn uniformly from `-bound..bound`, as [`normal`].
pub fn uniform<const D: usize>(
    shape: [usize; D],
    bound: f32,
    seed: Seed,
    device: &Device,
) -> Param<Tensor<D>> {
    let draw = move |device: &Device| {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count as u64).map(|at| bound * (2.0 * seed.uniform(at) - 1.0)).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    };
    when_used(shape, draw, device)
}

/// A parameter that is zero everywhere, allocated when it is first used.
pub fn zeros<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    when_used(shape, move |device| Tensor::zeros(shape, device), device)
}

/// A parameter that is one everywhere, allocated when it is first used.
pub fn ones<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    when_used(shape, move |device| Tensor::ones(shape, device), device)
}

/// A parameter that is initialised on first use. Nothing is allocated before, so that a model whose sizes come from a file
/// can be compared with that file's weights first.
fn when_used<const D: usize>(
    shape: [usize; D],
    make: impl Fn(&Device) -> Tensor<D> + Send + Sync + 'static,
    device: &Device,
) -> Param<Tensor<D>> {
    let make = move |device: &Device, require_grad: bool| {
        let value = make(device);
        if require_grad { value.require_grad() } else { value }
    };
    Param::uninitialized(ParamId::new(), make, device.clone(), true, shape.into())
}
