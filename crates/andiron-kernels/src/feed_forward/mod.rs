//! The two maps of a feed-forward layer and the activation between them, as one piece.
//!
//! Between the maps lies the widest tensor of a transformer. Where products are made of tiles of bf16, it is never
//! written as f32: a strip of rows goes through both maps while it lies in a core's cache, and what the backward pass
//! wants of it is kept in 16 bits a number.

#[cfg(target_arch = "x86_64")]
mod amx;

use crate::activation::{self, Activation};
use crate::gemm::{Epilogue, MatRef, gemv, matmul};
use crate::memory::unspecified;
use crate::{Cpu, Isa, Precision, reduce};

/// What [`forward`] computes, but for the biases.
#[derive(Clone, Copy, Debug)]
pub struct FeedForward<'a> {
    /// The first map, `[d_input, d_inner]`: all of a slice, or the transpose of all of one.
    pub up: MatRef<'a>,
    /// The function between the maps.
    pub activation: Activation,
    /// The second map, `[d_inner, d_output]`: all of a slice, or the transpose of all of one.
    pub down: MatRef<'a>,
}

/// Where the gradients go; all is overwritten.
#[derive(Debug)]
pub struct FeedForwardGrads<'a> {
    /// Of the input, `[rows, d_input]`.
    pub dx: &'a mut [f32],
    /// Of the first map, in the order in which that lies in memory.
    pub dup: &'a mut [f32],
    /// Of its bias.
    pub dup_bias: &'a mut [f32],
    /// Of the second map, in the order in which that lies in memory.
    pub ddown: &'a mut [f32],
    /// Of its bias.
    pub ddown_bias: &'a mut [f32],
}

impl FeedForward<'_> {
    /// Numbers that [`forward`] keeps for [`backward`]: the input of the activation, in 16 bits each where products are
    /// made of tiles. What they hold is known to those two, called with the same `cpu`.
    pub fn saved_len(&self, cpu: Cpu, rows: usize) -> usize {
        match self.by_tiles(cpu, rows) {
            #[cfg(target_arch = "x86_64")]
            true => crate::gemm::amx::room(rows, self.up.cols),
            _ => rows * self.up.cols,
        }
    }

    /// Whether rows go through both maps by tiles. A few do not: they would take as long to pack as the maps.
    fn by_tiles(&self, cpu: Cpu, rows: usize) -> bool {
        cfg!(target_arch = "x86_64")
            && cpu.precision == Precision::Mixed
            && cpu.isa.available() == Isa::Amx
            && rows > gemv::MAX_ROWS
            && self.up.cols > 0
            && self.down.cols > 0
    }

    /// The number of rows in `x`, after a look at all sizes.
    #[track_caller]
    fn rows(&self, x: &[f32]) -> usize {
        for map in [self.up, self.down] {
            let whole = map.rows * map.cols == map.data.len();
            let row_major = map.col_stride == 1 && map.row_stride == map.cols;
            let turned = map.row_stride == 1 && map.col_stride == map.rows;
            assert!(whole && (row_major || turned), "a map is not all of a slice or its transpose");
        }
        assert_eq!(self.up.cols, self.down.rows, "one map makes what the other takes");
        let width = self.up.rows;
        assert!(width > 0 && x.len().is_multiple_of(width), "{} numbers are not rows of {width}", x.len());
        x.len() / width
    }
}

/// `y = f(x · up + biases[0]) · down + biases[1]`; and in `saved`, if it is given, what [`backward`] wants.
///
/// Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.3, <https://arxiv.org/abs/1706.03762>.
///
/// # Shape
/// `x`: `[rows, d_input]`, `biases`: `[d_inner]` and `[d_output]`, `saved`: [`FeedForward::saved_len`],
/// `y`: `[rows, d_output]`.
///
/// # Panics
/// If the shapes do not agree.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::activation::Activation;
/// use andiron_kernels::feed_forward::{FeedForward, forward};
/// use andiron_kernels::gemm::MatRef;
/// let layer = FeedForward {
///     up: MatRef::row_major(&[1.0, -1.0], 1, 2),
///     activation: Activation::Relu,
///     down: MatRef::row_major(&[2.0, 3.0], 2, 1),
/// };
/// let mut y = [0.0; 2];
/// forward(Cpu::detect(1), layer, [&[0.0, 0.5], &[1.0]], &[4.0, -4.0], None, &mut y);
/// assert_eq!(y, [9.0, 14.5]);
/// ```
pub fn forward(
    cpu: Cpu,
    layer: FeedForward,
    biases: [&[f32]; 2],
    x: &[f32],
    saved: Option<&mut [f32]>,
    y: &mut [f32],
) {
    let rows = layer.rows(x);
    assert_eq!(biases.map(<[f32]>::len), [layer.up.cols, layer.down.cols], "biases and maps differ in width");
    assert_eq!(y.len(), rows * layer.down.cols, "y is not {rows} x {}", layer.down.cols);
    if let Some(saved) = &saved {
        assert_eq!(saved.len(), layer.saved_len(cpu, rows), "saved numbers");
    }
    match layer.by_tiles(cpu, rows) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this machine has tiles, and the shapes have been looked at.
        true => unsafe { amx::forward(cpu, &layer, biases, x, saved, y) },
        _ => plain_forward(cpu, &layer, biases, x, saved, y),
    }
}

/// Gradients of [`forward`], from what it saved.
///
/// # Shape
/// `x`: `[rows, d_input]`, `saved`: [`FeedForward::saved_len`], `dy`: `[rows, d_output]`.
///
/// # Panics
/// If the shapes do not agree.
pub fn backward(
    cpu: Cpu,
    layer: FeedForward,
    (x, saved): (&[f32], &[f32]),
    dy: &[f32],
    grads: FeedForwardGrads,
) {
    let rows = layer.rows(x);
    assert_eq!(saved.len(), layer.saved_len(cpu, rows), "saved numbers");
    assert_eq!(dy.len(), rows * layer.down.cols, "dy is not {rows} x {}", layer.down.cols);
    assert_eq!(grads.dx.len(), x.len(), "dx and x differ in length");
    assert_eq!(grads.dup.len(), layer.up.data.len(), "gradient of the first map");
    assert_eq!(grads.dup_bias.len(), layer.up.cols, "gradient of the first bias");
    assert_eq!(grads.ddown.len(), layer.down.data.len(), "gradient of the second map");
    assert_eq!(grads.ddown_bias.len(), layer.down.cols, "gradient of the second bias");
    reduce::column_sum(cpu, rows, layer.down.cols, dy, grads.ddown_bias);
    match layer.by_tiles(cpu, rows) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this machine has tiles, and the shapes have been looked at.
        true => unsafe { amx::backward(cpu, &layer, (x, saved), dy, grads) },
        _ => plain_backward(cpu, &layer, (x, saved), dy, grads),
    }
}

const REPLACE: Epilogue = Epilogue { bias: None, accumulate: false };

fn plain_forward(
    cpu: Cpu,
    layer: &FeedForward,
    biases: [&[f32]; 2],
    x: &[f32],
    saved: Option<&mut [f32]>,
    y: &mut [f32],
) {
    let &FeedForward { up, activation, down } = layer;
    let [up_bias, down_bias] = biases.map(|bias| Epilogue { bias: Some(bias), ..REPLACE });
    let rows = x.len() / up.rows;
    let mut room = Vec::new();
    let before = saved.unwrap_or_else(|| {
        room = unspecified(rows * up.cols);
        &mut room
    });
    matmul(cpu, MatRef::row_major(x, rows, up.rows), up, up_bias, before);
    let mut inner = unspecified(rows * up.cols);
    activation::forward(cpu, activation, before, &mut inner);
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
    let &FeedForward { up, activation, down } = layer;
    let rows = x.len() / up.rows;
    let (x, dy) = (MatRef::row_major(x, rows, up.rows), MatRef::row_major(dy, rows, down.cols));
    let mut inner = unspecified(saved.len());
    activation::forward(cpu, activation, saved, &mut inner);
    map_gradient(cpu, MatRef::row_major(&inner, rows, down.rows), dy, down, grads.ddown);
    let mut dinner = unspecified(saved.len());
    matmul(cpu, dy, down.t(), REPLACE, &mut dinner);
    let mut slopes = inner;
    activation::backward(cpu, activation, saved, &dinner, &mut slopes);
    reduce::column_sum(cpu, rows, up.cols, &slopes, grads.dup_bias);
    let slopes = MatRef::row_major(&slopes, rows, up.cols);
    map_gradient(cpu, x, slopes, up, grads.dup);
    matmul(cpu, slopes, up.t(), REPLACE, grads.dx);
}

/// `xᵀ dy` in the order in which `map` lies in memory.
fn map_gradient(cpu: Cpu, x: MatRef, dy: MatRef, map: MatRef, to: &mut [f32]) {
    match map.col_stride {
        1 => matmul(cpu, x.t(), dy, REPLACE, to),
        _ => matmul(cpu, dy.t(), x, REPLACE, to),
    }
}

#[cfg(test)]
mod tests;
