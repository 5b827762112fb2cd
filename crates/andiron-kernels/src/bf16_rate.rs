//! How fast this processor multiplies bf16, measured.
//!
//! AVX-512-BF16 has an instruction for dot products of bf16 pairs, `vdpbf16ps`, with twice the work of an f32 FMA. Some
//! processors have the throughput of FMA for it, others a quarter of that, and there bf16 operands make a matmul slower.
//! Neither feature bits nor the vendor tell which. A loop over registers measures it in less than a millisecond.

use std::sync::OnceLock;

/// The rates of bf16 and f32 multiplication on one core, both with AVX-512.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bf16Rate {
    /// bf16 dot products, in 10⁹ floating-point operations per second.
    pub bf16_gflops: f64,
    /// f32 FMA, in 10⁹ floating-point operations per second.
    pub f32_gflops: f64,
}

impl Bf16Rate {
    /// The least ratio at which bf16 pays off. Rounding and packing operands costs some of the gain. Processors are either
    /// twice as fast or not faster, so noise does not change the choice from one process to the next.
    const LEAST: f64 = 1.25;

    /// The rates of this machine; `None` if it has no AVX-512-BF16. Measured at the first call in a process, which takes
    /// about a millisecond.
    pub fn of_this_machine() -> Option<Self> {
        static RATE: OnceLock<Option<Bf16Rate>> = OnceLock::new();
        *RATE.get_or_init(measured)
    }

    /// Rate of bf16 relative to f32.
    pub fn ratio(self) -> f64 {
        self.bf16_gflops / self.f32_gflops
    }

    /// Whether bf16 is so much faster that matmuls at mixed precision use it.
    pub fn pays(self) -> bool {
        self.ratio() >= Self::LEAST
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn measured() -> Option<Bf16Rate> {
    None
}

#[cfg(target_arch = "x86_64")]
use x86::measured;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use super::Bf16Rate;
    use crate::Isa;

    /// Sums that do not wait for each other: as many as a matmul tile has, more than any latency needs.
    const SUMS: usize = 24;
    /// Steps of a round, each of which adds to every sum: 5 to 20 µs.
    const STEPS: usize = 768;
    /// Rounds of each instruction. The first ones find the core at a lower clock, and any may be interrupted: the fastest
    /// counts.
    const ROUNDS: usize = 24;
    /// Floating-point operations of an f32 FMA over 16 lanes; a bf16 dot product does twice as many.
    const FLOPS: usize = 2 * 16;

    pub(super) fn measured() -> Option<Bf16Rate> {
        if Isa::best() < Isa::Avx512Bf16 {
            return None;
        }
        // SAFETY: the machine has AVX-512 with F and BF16.
        let [bf16, f32] =
            fastest(|| unsafe { [timed(|x, y| bf16_round(x, y)), timed(|x, y| f32_round(x, y))] });
        let gflops = |flops, time: Duration| (flops * SUMS * STEPS) as f64 / time.as_secs_f64() / 1e9;
        Some(Bf16Rate { bf16_gflops: gflops(2 * FLOPS, bf16), f32_gflops: gflops(FLOPS, f32) })
    }

    /// The shortest time of each of two alternatives, run alternately so that disturbances affect both.
    pub(super) fn fastest(mut round: impl FnMut() -> [Duration; 2]) -> [Duration; 2] {
        let mut best = [Duration::MAX; 2];
        for _ in 0..ROUNDS {
            for (best, time) in best.iter_mut().zip(round()) {
                *best = time.min(*best);
            }
        }
        // A clock too coarse for a round would make a rate infinite.
        best.map(|time| time.max(Duration::from_nanos(1)))
    }

    fn timed(round: impl FnOnce(f32, f32) -> f32) -> Duration {
        // Opaque to the compiler, and never read.
        let (x, y) = black_box((1.0, 0.5));
        let start = Instant::now();
        black_box(round(x, y));
        start.elapsed()
    }

    /// # Safety
    /// The machine has AVX-512F.
    #[target_feature(enable = "avx512f")]
    fn f32_round(x: f32, y: f32) -> f32 {
        let (x, y) = (_mm512_set1_ps(x), _mm512_set1_ps(y));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(x, y, *sum);
            }
        }
        total(sums)
    }

    /// # Safety
    /// The machine has AVX-512 with F and BF16.
    #[target_feature(enable = "avx512bf16,avx512f")]
    fn bf16_round(x: f32, y: f32) -> f32 {
        let pair = |value: f32| {
            let bits = value.to_bits() >> 16;
            _mm512_set1_epi32((bits << 16 | bits) as i32)
        };
        // SAFETY: the types differ only in what their bits mean.
        let [x, y] = [x, y].map(|value| unsafe { std::mem::transmute::<__m512i, __m512bh>(pair(value)) });
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, x, y);
            }
        }
        total(sums)
    }

    /// # Safety
    /// The machine has AVX-512F.
    #[target_feature(enable = "avx512f")]
    fn total(sums: [__m512; SUMS]) -> f32 {
        let all = sums.into_iter().fold(_mm512_setzero_ps(), |all, sum| _mm512_add_ps(all, sum));
        _mm512_reduce_add_ps(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(bf16_gflops: f64, f32_gflops: f64) -> Bf16Rate {
        Bf16Rate { bf16_gflops, f32_gflops }
    }

    #[test]
    fn twice_as_fast_pays_and_as_fast_does_not() {
        assert!(rate(260.0, 131.0).pays());
        assert!(rate(200.0, 145.0).pays());
        assert!(!rate(141.0, 141.0).pays());
        assert!(!rate(160.0, 141.0).pays());
        assert!(!rate(79.0, 141.0).pays());
    }

    #[test]
    fn a_machine_has_one_rate() {
        let rate = Bf16Rate::of_this_machine();
        assert_eq!(rate, Bf16Rate::of_this_machine());
        assert_eq!(rate.is_some(), crate::Isa::best().multiplies_bf16());
        if let Some(rate) = rate {
            // No core of today does less than one, or more than a thousand, of these per nanosecond.
            assert!((1.0..1e4).contains(&rate.f32_gflops), "{rate:?}");
            assert!((0.1..4.0).contains(&rate.ratio()), "{rate:?}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn interrupted_rounds_do_not_count() {
        use std::time::Duration;
        let mut round = 0;
        let [bf16, f32] = x86::fastest(|| {
            round += 1;
            // Now the one, now the other is interrupted; the first rounds are slow for both.
            let warm_up = if round < 4 { 9 } else { 1 };
            let interrupted = |often| if round % often == 0 { 1000 } else { 0 };
            [10 * warm_up + interrupted(2), 20 * warm_up + interrupted(3)].map(Duration::from_micros)
        });
        assert_eq!([bf16, f32], [10, 20].map(Duration::from_micros));
    }
}
