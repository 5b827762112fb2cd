//! Each fused operation against a reference, values and gradients, on every backend of this build, through the public
//! API.
//!
//! The reference is written once more with Burn's tensor operations and runs on the first CPU backend, so that neither
//! the kernels, nor the composed bodies, nor a GPU's own operations vouch for themselves.
//! `cargo xtask test --backend wgpu` runs this on a GPU backend.

#![allow(clippy::unwrap_used)] // A test fails where it panics.
#![cfg(any(feature = "ndarray", feature = "flex"))]

mod activation;
mod attention;
mod attention_dropout;
mod dropout;
mod embedding;
mod feed_forward;
mod head;
mod linear;
mod low_rank;
mod mixed;
mod norm;
mod optimizer;
mod paged_attention;
mod rotary;

use andiron_core::{Backend, DeviceSpec};
use andiron_kernels::random::Seed;
use burn::tensor::{Device, Tensor, TensorData};

/// f32 kernels against f32 chains of operations, relative above 1.
const ON_CPU: f32 = 2e-5;
/// The same on a GPU, whose elementary functions are less exact and whose sums have another order.
const ON_GPU: f32 = 1e-4;

/// The device of each backend in this build.
fn devices() -> Vec<Device> {
    Backend::compiled().into_iter().map(open).collect()
}

/// The devices for one case of a table of sizes and cases. A GPU compiles kernels for each, so that it gets every case at
/// the second size, and the first case at the others.
fn devices_for(size: usize, case: usize) -> Vec<Device> {
    if size == 1 || case == 0 { devices() } else { cpu_devices() }
}

/// Where references are computed.
fn reference_device() -> Device {
    cpu_devices().remove(0)
}

fn cpu_devices() -> Vec<Device> {
    Backend::compiled().into_iter().filter(|backend| backend.is_cpu()).map(open).collect()
}

fn open(backend: Backend) -> Device {
    DeviceSpec { backend, index: None }.open().unwrap()
}

fn random<const D: usize>(shape: [usize; D], label: &str, device: &Device) -> Tensor<D> {
    let seed = Seed::new(7).derive(label);
    let values: Vec<f32> = (0..shape.iter().product::<usize>() as u64).map(|at| seed.normal(at)).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// Compares by the tolerance of the device of `ours`.
#[track_caller]
fn assert_close<const D: usize>(what: &str, ours: Tensor<D>, reference: Tensor<D>) {
    assert_eq!(ours.dims(), reference.dims(), "{what}: shape");
    let device = ours.device();
    let tolerance = if cpu_devices().contains(&device) { ON_CPU } else { ON_GPU };
    for (at, (a, b)) in floats(ours).into_iter().zip(floats(reference)).enumerate() {
        let close = (a - b).abs() <= tolerance * (1.0 + b.abs());
        assert!(close, "{what}[{at}] on {device:?}: {a} is not {b}");
    }
}

/// The output of an operation, and the gradients of a random projection of it in each of the inputs.
struct Passes<const D: usize, const N: usize, const O: usize> {
    output: Tensor<O>,
    grads: [Tensor<D>; N],
}

fn passes<const D: usize, const N: usize, const O: usize>(
    name: &str,
    shapes: [[usize; D]; N],
    operation: impl Fn([Tensor<D>; N]) -> Tensor<O>,
    device: &Device,
) -> Passes<D, N, O> {
    let device = device.clone().autodiff();
    let mut at = 0;
    let inputs = shapes.map(|shape| {
        at += 1;
        random(shape, &format!("{name}.{at}"), &device).require_grad()
    });
    let y = operation(inputs.clone());
    let grads = (y.clone() * random(y.dims(), "towards", &device)).sum().backward();
    Passes { output: y.inner(), grads: inputs.map(|input| input.grad(&grads).unwrap()) }
}

/// Compares `ours`, everywhere, with `reference`: both passes, and the forward pass without autodiff.
fn check<const D: usize, const N: usize, const O: usize>(
    name: &str,
    shapes: [[usize; D]; N],
    ours: impl Fn([Tensor<D>; N]) -> Tensor<O>,
    reference: impl Fn([Tensor<D>; N]) -> Tensor<O>,
) {
    check_on(devices(), name, shapes, ours, reference);
}

/// [`check`] on these devices.
fn check_on<const D: usize, const N: usize, const O: usize>(
    devices: Vec<Device>,
    name: &str,
    shapes: [[usize; D]; N],
    ours: impl Fn([Tensor<D>; N]) -> Tensor<O>,
    reference: impl Fn([Tensor<D>; N]) -> Tensor<O>,
) {
    let expected = passes(name, shapes, reference, &reference_device());
    for device in devices {
        let found = passes(name, shapes, &ours, &device);
        assert_close(name, found.output, expected.output.clone());
        for (at, (found, expected)) in found.grads.into_iter().zip(&expected.grads).enumerate() {
            assert_close(&format!("gradient of {name} in input {at}"), found, expected.clone());
        }
        let mut at = 0;
        let inputs = shapes.map(|shape| {
            at += 1;
            random(shape, &format!("{name}.{at}"), &device)
        });
        assert_close(&format!("{name} without autodiff"), ours(inputs), expected.output.clone());
    }
}
