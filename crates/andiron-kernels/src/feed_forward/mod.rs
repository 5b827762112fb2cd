//! Feed-forward layers, fused: projections and the activation between them.
//!
//! The tensor between the projections is the widest of a transformer. With bf16 instructions it is never written as
//! f32: a strip of rows passes through both projections while it is in a core's cache, and what the backward pass needs
//! of it is saved in 16 bits per element. Without them, the layer is its matmuls and its activation, one after the
//! other.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod words;

use crate::activation::{self, Activation};
use crate::gemm::{Epilogue, MatRef, gemv, matmul};
use crate::memory::unspecified;
use crate::{Cpu, bf16, reduce};

/// A feed-forward layer without its biases. Each weight is a whole slice, row-major or transposed.
#[derive(Clone, Copy, Debug)]
pub struct FeedForward<'a> {
    /// The gate projection of a gated layer, whose output goes through the activation, `[d_input, d_inner]`.
    pub gate: Option<MatRef<'a>>,
    /// The up projection, `[d_input, d_inner]`. Its output is multiplied by the activated gate; without a gate, it goes
    /// through the activation itself.
    pub up: MatRef<'a>,
    /// The function between the projections.
    pub activation: Activation,
    /// The down projection, `[d_inner, d_output]`.
    pub down: MatRef<'a>,
}

/// The gradients, all of which are overwritten.
#[derive(Debug)]
pub struct FeedForwardGrads<'a> {
    /// Of the input, `[rows, d_input]`.
    pub dx: &'a mut [f32],
    /// Of the gate projection, if there is one, in its memory layout.
    pub dgate: Option<&'a mut [f32]>,
    /// Of the up projection, in its memory layout.
    pub dup: &'a mut [f32],
    /// Of the down projection, in its memory layout.
    pub ddown: &'a mut [f32],
    /// Of the biases of `up` and `down`, as far as those exist.
    pub dbiases: [Option<&'a mut [f32]>; 2],
}

impl FeedForward<'_> {
    /// Length of what [`forward`] saves for [`backward`], in f32: the outputs of the first projections and, if
    /// [`saves_input`](Self::saves_input), the input; in 16 bits each with bf16 instructions. The format is private to those
    /// two, which must be called with the same `cpu`.
    pub fn saved_len(&self, cpu: Cpu, rows: usize) -> usize {
        match self.path(cpu, rows) {
            #[cfg(target_arch = "x86_64")]
            Path::Tiles => amx::saved_len(self, rows),
            #[cfg(target_arch = "x86_64")]
            Path::Words => words::saved_len(self, rows),
            Path::Plain => self.width() * rows,
        }
    }

    /// Whether [`forward`] saves the input as well, so that [`backward`] needs no other copy of it.
    pub fn saves_input(&self, cpu: Cpu, rows: usize) -> bool {
        match self.path(cpu, rows) {
            #[cfg(target_arch = "x86_64")]
            Path::Tiles => amx::saves_input(self),
            #[cfg(target_arch = "x86_64")]
            Path::Words => true,
            Path::Plain => false,
        }
    }

    /// Width of the first projections together.
    fn width(&self) -> usize {
        self.up.cols * if self.gate.is_some() { 2 } else { 1 }
    }

    /// How rows pass through both projections. Few rows are not packed: that would take as long as the matmuls.
    fn path(&self, cpu: Cpu, rows: usize) -> Path {
        let rounds =
            cfg!(target_arch = "x86_64") && bf16::rounds(cpu) && !gemv::stays_f32(cpu, rows, self.up);
        match (rounds, cpu.uses_tiles()) {
            #[cfg(target_arch = "x86_64")]
            (true, true) if self.up.cols > 0 && self.down.cols > 0 => Path::Tiles,
            #[cfg(target_arch = "x86_64")]
            (true, false) if words::suits(self) => Path::Words,
            _ => Path::Plain,
        }
    }

    /// Checks the weights' sizes.
    #[track_caller]
    fn assert_sizes(&self) {
        for weight in self.gate.into_iter().chain([self.up, self.down]) {
            weight.assert_whole();
        }
        assert_eq!(self.up.cols, self.down.rows, "up and down differ in d_inner");
        if let Some(gate) = self.gate {
            assert_eq!((gate.rows, gate.cols), (self.up.rows, self.up.cols), "gate and up differ in shape");
        }
        assert!(self.up.rows > 0, "the input has no width");
    }

    /// The number of rows in `x`.
    #[track_caller]
    fn rows(&self, x: &[f32]) -> usize {
        let width = self.up.rows;
        assert!(x.len().is_multiple_of(width), "{} elements are not rows of {width}", x.len());
        x.len() / width
    }
}

/// How a layer is computed.
enum Path {
    /// With AMX.
    #[cfg(target_arch = "x86_64")]
    Tiles,
    /// With AVX-512-BF16.
    #[cfg(target_arch = "x86_64")]
    Words,
    /// One matmul after the other.
    Plain,
}

/// `y = f(x · up + biases[0]) · down + biases[1]`, or `y = (f(x · gate) (x · up)) · down + biases[1]` of a gated layer;
/// and in `saved`, if given, what [`backward`] needs.
///
/// Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.3, <https://arxiv.org/abs/1706.03762>; Shazeer
/// 2020, "GLU Variants Improve Transformer", <https://arxiv.org/abs/2002.05202>.
///
/// # Shape
/// `x`: `[rows, d_input]`, `biases`: `[d_inner]` and `[d_output]`, `saved`: [`FeedForward::saved_len`],
/// `y`: `[rows, d_output]`.
///
/// # Panics
/// If the shapes do not agree, or a gated layer has a bias before its activation.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::activation::Activation;
/// use andiron_kernels::feed_forward::{FeedForward, forward};
/// use andiron_kernels::gemm::MatRef;
/// let layer = FeedForward {
///     gate: None,
///     up: MatRef::row_major(&[1.0, -1.0], 1, 2),
///     activation: Activation::Relu,
///     down: MatRef::row_major(&[2.0, 3.0], 2, 1),
/// };
/// let mut y = [0.0; 2];
/// forward(Cpu::detect(1), layer, [Some(&[0.0, 0.5]), Some(&[1.0])], &[4.0, -4.0], None, &mut y);
/// assert_eq!(y, [9.0, 14.5]);
/// ```
pub fn forward(
    cpu: Cpu,
    layer: FeedForward,
    biases: [Option<&[f32]>; 2],
    x: &[f32],
    saved: Option<&mut [f32]>,
    y: &mut [f32],
) {
    layer.assert_sizes();
    let rows = layer.rows(x);
    assert!(layer.gate.is_none() || biases[0].is_none(), "a gated layer has no bias before its activation");
    for (bias, width) in biases.iter().zip([layer.up.cols, layer.down.cols]) {
        assert!(bias.is_none_or(|bias| bias.len() == width), "a bias and its projection differ in width");
    }
    assert_eq!(y.len(), rows * layer.down.cols, "y is not {rows} x {}", layer.down.cols);
    if let Some(saved) = &saved {
        assert_eq!(saved.len(), layer.saved_len(cpu, rows), "saved numbers");
    }
    match layer.path(cpu, rows) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this machine has tiles, and the shapes have been looked at.
        Path::Tiles => unsafe { amx::forward(cpu, &layer, biases, x, saved, y) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this machine has AVX-512-BF16, and the shapes have been looked at.
        Path::Words => unsafe { words::forward(cpu, &layer, biases, x, saved, y) },
        Path::Plain => plain_forward(cpu, &layer, biases, x, saved, y),
    }
}

/// Gradients of [`forward`], from what it saved, and from the input unless that [was saved](FeedForward::saves_input) as well.
///
/// # Shape
/// `x`: `[rows, d_input]`, `saved`: [`FeedForward::saved_len`], `dy`: `[rows, d_output]`.
///
/// # Panics
/// If the shapes do not agree, a gradient is asked for that the layer does not have, or that of a projection is missing.
pub fn backward(
    cpu: Cpu,
    layer: FeedForward,
    (x, saved): (Option<&[f32]>, &[f32]),
    dy: &[f32],
    grads: FeedForwardGrads,
) {
    layer.assert_sizes();
    let rows = layer.rows(grads.dx);
    assert_eq!(saved.len(), layer.saved_len(cpu, rows), "saved numbers");
    assert_eq!(dy.len(), rows * layer.down.cols, "dy is not {rows} x {}", layer.down.cols);
    assert!(x.is_none_or(|x| x.len() == grads.dx.len()), "dx and x differ in length");
    assert!(x.is_some() || layer.saves_input(cpu, rows), "the input is missing");
    let dgate_len = grads.dgate.as_ref().map(|gradient| gradient.len());
    assert_eq!(dgate_len, layer.gate.map(|gate| gate.data.len()), "gradient of the gate projection");
    assert_eq!(grads.dup.len(), layer.up.data.len(), "gradient of the up projection");
    assert_eq!(grads.ddown.len(), layer.down.data.len(), "gradient of the down projection");
    let [dup_bias, ddown_bias] = &grads.dbiases;
    assert!(layer.gate.is_none() || dup_bias.is_none(), "a gated layer has no bias before its activation");
    assert!(dup_bias.as_ref().is_none_or(|bias| bias.len() == layer.up.cols), "gradient of the first bias");
    if let Some(ddown_bias) = ddown_bias {
        assert_eq!(ddown_bias.len(), layer.down.cols, "gradient of the last bias");
    }
    match layer.path(cpu, rows) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this machine has tiles, and the shapes have been looked at.
        Path::Tiles => unsafe { amx::backward(cpu, &layer, (x, saved), dy, grads) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this machine has AVX-512-BF16, and the shapes have been looked at.
        Path::Words => unsafe { words::backward(cpu, &layer, saved, dy, grads) },
        Path::Plain => plain_backward(cpu, &layer, (x.unwrap_or(&[]), saved), dy, grads),
    }
}

const REPLACE: Epilogue = Epilogue { bias: None, accumulate: false };

/// Saves the output of the up projection, followed by that of the gate projection, if there is one.
fn plain_forward(
    cpu: Cpu,
    layer: &FeedForward,
    biases: [Option<&[f32]>; 2],
    x: &[f32],
    saved: Option<&mut [f32]>,
    y: &mut [f32],
) {
    let &FeedForward { gate, up, activation, down } = layer;
    let [up_bias, down_bias] = biases.map(|bias| Epilogue { bias, ..REPLACE });
    let rows = x.len() / up.rows;
    let mut room = Vec::new();
    let saved = saved.unwrap_or_else(|| {
        room = unspecified(rows * layer.width());
        &mut room
    });
    let x = MatRef::row_major(x, rows, up.rows);
    let (before, gated) = saved.split_at_mut(rows * up.cols);
    matmul(cpu, x, up, up_bias, before);
    let mut inner = unspecified(rows * up.cols);
    match gate {
        Some(gate) => {
            matmul(cpu, x, gate, REPLACE, gated);
            activation::gate(cpu, activation, gated, before, &mut inner);
        }
        None => activation::forward(cpu, activation, before, &mut inner),
    }
    let inner = MatRef::row_major(&inner, rows, down.rows);
    matmul(cpu, inner, down, down_bias, y);
}

fn plain_backward(
    cpu: Cpu,
    layer: &FeedForward,
    (x, saved): (&[f32], &[f32]),
    dy: &[f32],
    grads: FeedForwardGrads,
) {
    let &FeedForward { gate, up, activation, down } = layer;
    let FeedForwardGrads { dx, dgate, dup, ddown, dbiases: [dup_bias, ddown_bias] } = grads;
    let rows = x.len() / up.rows;
    if let Some(ddown_bias) = ddown_bias {
        reduce::column_sum(cpu, rows, down.cols, dy, ddown_bias);
    }
    let (x, dy) = (MatRef::row_major(x, rows, up.rows), MatRef::row_major(dy, rows, down.cols));
    let (before, gated) = saved.split_at(rows * up.cols);
    let mut inner = unspecified(before.len());
    match gate {
        Some(_) => activation::gate(cpu, activation, gated, before, &mut inner),
        None => activation::forward(cpu, activation, before, &mut inner),
    }
    weight_gradient(cpu, MatRef::row_major(&inner, rows, down.rows), dy, down, ddown);
    let mut dinner = unspecified(before.len());
    matmul(cpu, dy, down.t(), REPLACE, &mut dinner);
    let mut slopes = inner;
    match (gate, dgate) {
        (Some(gate), Some(dgate)) => {
            let mut gate_slopes = unspecified(before.len());
            let to = (&mut gate_slopes[..], &mut slopes[..]);
            activation::gate_backward(cpu, activation, (gated, before), &dinner, to);
            let gate_slopes = MatRef::row_major(&gate_slopes, rows, gate.cols);
            weight_gradient(cpu, x, gate_slopes, gate, dgate);
            matmul(cpu, gate_slopes, gate.t(), REPLACE, dx);
        }
        _ => activation::backward(cpu, activation, before, &dinner, &mut slopes),
    }
    if let Some(dup_bias) = dup_bias {
        reduce::column_sum(cpu, rows, up.cols, &slopes, dup_bias);
    }
    let slopes = MatRef::row_major(&slopes, rows, up.cols);
    weight_gradient(cpu, x, slopes, up, dup);
    matmul(cpu, slopes, up.t(), Epilogue { bias: None, accumulate: gate.is_some() }, dx);
}

/// `xᵀ dy` in the memory layout of `weight`.
fn weight_gradient(cpu: Cpu, x: MatRef, dy: MatRef, weight: MatRef, to: &mut [f32]) {
    match weight.col_stride {
        1 => matmul(cpu, x.t(), dy, REPLACE, to),
        _ => matmul(cpu, dy.t(), x, REPLACE, to),
    }
}

#[cfg(test)]
mod tests;
