//! Activation checkpointing: of a block only the inputs are kept for the backward pass, which computes the block again.
//!
//! Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", <https://arxiv.org/abs/1604.06174>.

use burn::backend::{AutodiffBackend as _, Dispatch, DispatchTensor};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::ops::{self, BlockGradients, GradientSlot, Recompute};
use crate::position::rotary::Angles;
use crate::precision::{self, with_precision};
use crate::{Forward, cache::CrossAttentionCache};

/// What a block computes with, besides its parameters: a tensor, or a value that holds some.
pub trait BlockInputs: Clone + Send + 'static {
    /// The same value with each of its tensors replaced by what `map` makes of it, always in the same order.
    fn map_tensors(self, map: &mut dyn FnMut(DispatchTensor) -> DispatchTensor) -> Self;
}

impl<const D: usize> BlockInputs for Tensor<D> {
    fn map_tensors(self, map: &mut dyn FnMut(DispatchTensor) -> DispatchTensor) -> Self {
        Self::from_dispatch(map(self.into_dispatch()))
    }
}

impl<T: BlockInputs> BlockInputs for Option<T> {
    fn map_tensors(self, map: &mut dyn FnMut(DispatchTensor) -> DispatchTensor) -> Self {
        self.map(|value| value.map_tensors(map))
    }
}

impl<A: BlockInputs, B: BlockInputs> BlockInputs for (A, B) {
    fn map_tensors(self, map: &mut dyn FnMut(DispatchTensor) -> DispatchTensor) -> Self {
        (self.0.map_tensors(map), self.1.map_tensors(map))
    }
}

impl BlockInputs for Angles {
    fn map_tensors(self, map: &mut dyn FnMut(DispatchTensor) -> DispatchTensor) -> Self {
        let [cos_bt1k, sin_bt1k] = [self.cos_bt1k, self.sin_bt1k].map(|table| table.map_tensors(map));
        Self { cos_bt1k, sin_bt1k }
    }
}

/// The keys and values of a block's own layer: see [`CrossAttentionCache::only`].
impl BlockInputs for CrossAttentionCache {
    fn map_tensors(self, map: &mut dyn FnMut(DispatchTensor) -> DispatchTensor) -> Self {
        self.map_layers(|layer| layer.map_tensors(map))
    }
}

impl Forward<'_> {
    /// Runs a block of a model, `run(block, inputs, self)`. With [activation checkpointing](Self::with_checkpointing), and if
    /// anything in the block is trained, only the block's inputs are kept for the backward pass, which runs the block again,
    /// with the same dropout masks. The gradients are the same.
    ///
    /// `run` must compute the same each time, and its output must depend on no tensor but `inputs` and the block's parameters.
    ///
    /// # Shape
    /// `[batch, time, d_model]`.
    ///
    /// # Panics
    /// If more than four tensors of `inputs` need a gradient.
    pub fn block<M, I, F>(&mut self, block: &M, inputs: I, run: F) -> Tensor<3>
    where
        M: Module + 'static,
        I: BlockInputs,
        F: Fn(&M, I, &mut Forward<'_>) -> Tensor<3> + Send + 'static,
    {
        if !self.checkpoints() {
            return self.run(|cx| run(block, inputs, cx));
        }
        let mut params = Trained(Vec::new());
        block.visit(&mut params);
        let Trained(params) = params;
        let mut tensors = Vec::new();
        let inputs = inputs.map_tensors(&mut |tensor| {
            tensors.push(tensor.clone());
            tensor
        });
        if params.is_empty() && !tensors.iter().any(Dispatch::is_tracked) {
            return self.run(|cx| run(block, inputs, cx));
        }
        let inputs = inputs.map_tensors(&mut Dispatch::inner);
        let (precision, mut again, block) = (precision::current(), self.again(), block.clone());
        let output = self.run(|cx| run(&block.valid(), inputs.clone(), cx));
        let recompute = Recompute::new(move |BlockGradients { output, inputs: of_inputs, params }| {
            with_precision(precision, || {
                let block = block.map(&mut NewLeaves(params.into_iter()));
                let mut of_inputs = of_inputs.into_iter();
                let inputs = inputs.map_tensors(&mut |tensor| match of_inputs.next().flatten() {
                    Some(slot) => ops::leaf(tensor, slot),
                    None => Dispatch::from_inner(tensor),
                });
                ops::backward_from(again.run(|cx| run(&block, inputs, cx)), output);
            });
        });
        ops::recomputed(Tensor::from_inner(output), tensors, params, recompute)
    }
}

/// Whether gradients of this parameter are computed. Reads no value that is not there: a quantized weight is not trained.
fn is_trained<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    param.is_initialized() && param.val().is_tracked()
}

/// The trained parameters of a module, in its order.
struct Trained(Vec<DispatchTensor>);

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if is_trained(param) {
            self.0.push(param.val().into_dispatch());
        }
    }
}

/// Makes the trained parameters of a module new leaves whose gradients go to these slots.
struct NewLeaves<I>(I);

impl<I: Iterator<Item = GradientSlot>> ModuleMapper for NewLeaves<I> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !is_trained(&param) {
            return param;
        }
        let slot = self.0.next().expect("a slot for each trained parameter");
        param.map(|value| Tensor::from_dispatch(ops::leaf(value.inner().into_dispatch(), slot)))
    }
}

#[cfg(test)]
#[cfg(feature = "ndarray")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use andiron_kernels::random::Seed;
    use burn::tensor::Device;

    use super::*;
    use crate::linear::LinearConfig;
    use crate::ops::WeightLayout;
    use crate::{DropoutSite, Linear};

    fn layer(device: &Device) -> Linear {
        let config = LinearConfig { d_input: 3, d_output: 3, bias: true, layout: WeightLayout::InOut };
        config.init(0.5, Seed::new(1), device).train()
    }

    /// Runs a block that keeps count of its runs, with and without a graph.
    fn run(layer: &Linear, x: Tensor<3>, cx: &mut Forward<'_>) -> (Tensor<3>, [Arc<AtomicUsize>; 2]) {
        let counts: [Arc<AtomicUsize>; 2] = Default::default();
        let counted = counts.clone();
        cx.enter_layer(0);
        let y = cx.block(layer, x, move |layer, x, cx| {
            counted[usize::from(x.is_autodiff())].fetch_add(1, Ordering::Relaxed);
            cx.dropout(layer.forward(x.clone()).tanh() * x, 0.3, DropoutSite::FeedForwardOutput)
        });
        (y, counts)
    }

    fn bits<const D: usize>(tensor: Option<Tensor<D>>) -> Vec<u32> {
        let values = tensor.unwrap().into_data().try_into_vec::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn a_block_is_computed_again_only_in_the_backward_pass() {
        let device = crate::DeviceSpec::parse("ndarray").unwrap().open().unwrap();
        let layer = layer(&device);
        let input =
            || Tensor::<3>::from_data([[[0.5, -1.0, 2.0], [0.1, 0.2, -0.3]]], &device.clone().autodiff());
        let gradients = |mut cx: Forward<'_>| {
            let x = input().require_grad();
            let (y, counts) = run(&layer, x.clone() * 2.0, &mut cx);
            let before = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
            let gradients = (y.clone() * y).sum().backward();
            let after = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
            let bias = layer.bias.as_ref().unwrap().val().grad(&gradients);
            let weight = layer.weight.as_dense().unwrap().grad(&gradients);
            ((before, after), bits(x.grad(&gradients)), bits(weight), bits(bias))
        };
        let kept = gradients(Forward::training(Seed::new(2)));
        let again = gradients(Forward::training(Seed::new(2)).with_checkpointing());
        assert_eq!(kept.0, ([0, 1], [0, 1]));
        assert_eq!(again.0, ([1, 0], [1, 1]));
        assert_eq!((again.1, again.2, again.3), (kept.1, kept.2, kept.3));
    }

    #[test]
    fn a_block_in_which_nothing_is_trained_runs_once() {
        let device = crate::DeviceSpec::parse("ndarray").unwrap().open().unwrap();
        let mut cx = Forward::evaluation().with_checkpointing();
        let x = Tensor::<3>::ones([1, 2, 3], &device);
        let (y, counts) = run(&layer(&device).valid(), x, &mut cx);
        assert!(!y.is_autodiff());
        assert_eq!(counts.each_ref().map(|count| count.load(Ordering::Relaxed)), [1, 0]);
    }
}
