//! Helpers shared by the tests of several kernels.

use crate::gemm::panel_format;
use crate::random::Seed;
use crate::{Bf16Dot, Cpu, Isa, Precision};

/// Every instruction set of this machine on one thread: in f32, in mixed precision without bf16 instructions, and with them
/// where it has them.
pub(crate) fn every_cpu() -> impl Iterator<Item = Cpu> {
    Isa::supported().flat_map(|isa| {
        let cpu = Cpu::new(isa, 1);
        let mixed = |bf16_dot| cpu.at(Precision::Mixed).with_bf16_dot(bf16_dot);
        let native = isa.multiplies_bf16().then(|| mixed(Bf16Dot::Native));
        [cpu, mixed(Bf16Dot::Widened)].into_iter().chain(native)
    })
}

/// Requires that mixed precision without bf16 instructions gives the bits that f32 gives; to be called with each of
/// [`every_cpu`] in order.
pub(crate) struct WidenedIsF32<T>(Option<T>);

impl<T: PartialEq + std::fmt::Debug + Clone> WidenedIsF32<T> {
    pub(crate) fn new() -> Self {
        Self(None)
    }

    #[track_caller]
    pub(crate) fn check(&mut self, cpu: Cpu, found: &T) {
        match (cpu.precision, cpu.bf16_dot) {
            (Precision::F32, _) => self.0 = Some(found.clone()),
            (_, Bf16Dot::Widened) => assert_eq!(self.0.as_ref(), Some(found), "{cpu:?}"),
            _ => {}
        }
    }
}

/// The nearest bf16.
pub(crate) fn bf16(x: f32) -> f32 {
    f32::from_bits(u32::from(panel_format::bits(x)) << 16)
}

/// Normally distributed values, a function of the stream.
pub(crate) fn numbers(stream: u64, count: usize) -> Vec<f32> {
    let seed = Seed::new(99).at(stream);
    (0..count as u64).map(|i| seed.normal(i)).collect()
}

/// Requires `|found - wanted| <= tolerance * max(1, |wanted|)`, and the same special values.
#[track_caller]
pub(crate) fn assert_close(what: &str, found: &[f32], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}: lengths differ");
    for (i, (x, y)) in found.iter().zip(wanted).enumerate() {
        let x = f64::from(*x);
        let same = x == *y || x.is_nan() && y.is_nan();
        let error = (x - y).abs();
        assert!(same || error <= tolerance * y.abs().max(1.0), "{what}: element {i} is {x}, wanted {y}");
    }
}

/// Widens to f64.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}
