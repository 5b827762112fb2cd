//! The activations `x`, regrouped and quantized once per call.

use std::borrow::Cow;
use std::marker::PhantomData;

use super::bytes::{Bytes, Kernel, with_bytes};
use super::factors::{self, Exact, Factors, Rounded};
use crate::quant::{Format, QuantRef};
use crate::{Cpu, Isa, Precision};

/// The order and precision in which `x` is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Row-major for the plain version, and quantized if asked for.
    Plain,
    /// Row-major, for vectors of f16 or bf16 weights.
    SixteenBit,
    /// The order of [`Exact`].
    Exact,
    /// The order of [`Rounded`].
    Rounded,
}

/// `x`, ready to be multiplied.
pub(super) struct Activations<'a> {
    pub(super) how: Order,
    /// Words of a row.
    stride: usize,
    words: Cow<'a, [f32]>,
}

impl<'a> Activations<'a> {
    /// `x` for a matmul with `w`.
    pub(super) fn new(cpu: Cpu, x: &'a [f32], w: QuantRef) -> Self {
        let cols = w.cols();
        let has_blocks = !matches!(w.format(), Format::F16 | Format::Bf16);
        let rounded = has_blocks && cpu.precision == Precision::Mixed;
        match (cpu.isa.available(), has_blocks, rounded) {
            (Isa::Scalar, _, true) => {
                let mut words = x.to_vec();
                factors::round_all(&mut words);
                Self { how: Order::Plain, stride: cols, words: words.into() }
            }
            (Isa::Scalar, _, false) => Self { how: Order::Plain, stride: cols, words: x.into() },
            (_, false, _) => Self { how: Order::SixteenBit, stride: cols, words: x.into() },
            (isa, true, true) => Self::regrouped::<Rounded>(isa, Order::Rounded, x, cols),
            (isa, true, false) => Self::regrouped::<Exact>(isa, Order::Exact, x, cols),
        }
    }

    fn regrouped<X: Factors>(isa: Isa, how: Order, x: &[f32], cols: usize) -> Self {
        // Whole vectors of any instruction set: at most two groups of 32.
        let stride = (cols / 32).next_multiple_of(2) * X::RUN_WORDS;
        let mut words = vec![0.0; x.len() / cols.max(1) * stride];
        if cols > 0 {
            for (x, row) in x.chunks_exact(cols).zip(words.chunks_exact_mut(stride)) {
                with_bytes(isa, Regroup::<X> { x, row, factors: PhantomData });
            }
        }
        Self { how, stride, words: words.into() }
    }

    pub(super) fn row(&self, i: usize) -> &[f32] {
        &self.words[i * self.stride..][..self.stride]
    }
}

/// Writes a row of `x` in its format.
struct Regroup<'a, X> {
    x: &'a [f32],
    row: &'a mut [f32],
    factors: PhantomData<X>,
}

impl<X: Factors> Kernel for Regroup<'_, X> {
    #[inline(always)]
    fn run<B: Bytes>(self, b: B) {
        for (x, words) in self.x.chunks(B::RUNS * 32).zip(self.row.chunks_exact_mut(B::RUNS * X::RUN_WORDS)) {
            X::write(b, x, words);
        }
    }
}
