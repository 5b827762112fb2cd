//! Profiling: time by kind of operation.
//!
//! On the CPU backends an operation is complete when its function returns, so its time can be measured. Other backends run
//! asynchronously; nothing is counted for them.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Kind of an operation, forward or backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// Linear layers: matmuls with weights, and their biases.
    Matmul,
    /// Fused feed-forward layers: matmuls and activations.
    FeedForward,
    /// Attention: scores, softmax and the weighted sum of values.
    Attention,
    /// Activation functions and gates.
    Activations,
    /// Layer norms and RMS norms.
    Norms,
    /// The output head together with its loss.
    CrossEntropy,
    /// Embedding lookups.
    Embedding,
    /// Rotary position embeddings.
    Rotary,
    /// Residual sums.
    Residuals,
    /// Dropout.
    Dropout,
    /// Gradient norms and parameter updates.
    Optimizer,
}

impl OpKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Matmul,
        Self::FeedForward,
        Self::Attention,
        Self::Activations,
        Self::Norms,
        Self::CrossEntropy,
        Self::Embedding,
        Self::Rotary,
        Self::Residuals,
        Self::Dropout,
        Self::Optimizer,
    ];

    /// The kind's key in reports, in snake case. Keys are stable.
    pub fn name(self) -> &'static str {
        match self {
            Self::Matmul => "products",
            Self::FeedForward => "feed_forward",
            Self::Attention => "attention",
            Self::Activations => "activations",
            Self::Norms => "norms",
            Self::CrossEntropy => "cross_entropy",
            Self::Embedding => "embedding",
            Self::Rotary => "rotary",
            Self::Residuals => "residuals",
            Self::Dropout => "dropout",
            Self::Optimizer => "optimizer",
        }
    }

    /// Counts the time until it is dropped, if this thread is inside [`with_op_times`] and not inside another counted
    /// operation.
    #[cfg_attr(not(any(feature = "flex", feature = "ndarray")), allow(dead_code))]
    pub(super) fn timer(self) -> Option<Timer> {
        (STATE.get() == State::Ready).then(|| {
            STATE.set(State::Counting);
            Timer { kind: self, start: Instant::now() }
        })
    }
}

/// Wall time of the operations of each kind, on the calling thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpTimes([Duration; OpKind::ALL.len()]);

impl OpTimes {
    /// Time of one kind.
    pub fn of(&self, kind: OpKind) -> Duration {
        self.0[kind as usize]
    }

    /// Time of all kinds; at most the time of the work.
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    Ready,
    Counting,
}

thread_local! {
    static STATE: Cell<State> = const { Cell::new(State::Off) };
    static TIMES: Cell<OpTimes> = const { Cell::new(OpTimes([Duration::ZERO; OpKind::ALL.len()])) };
}

/// Runs `work` and returns the times of the operations that this thread called in it. Nothing is counted outside.
///
/// # Example
/// ```
/// use andiron_core::ops::{OpTimes, with_op_times};
/// assert_eq!(with_op_times(|| 2 + 2), (4, OpTimes::default()));
/// ```
pub fn with_op_times<T>(work: impl FnOnce() -> T) -> (T, OpTimes) {
    /// Restores state and times, also when the work panics.
    struct Before(State, OpTimes);
    impl Drop for Before {
        fn drop(&mut self) {
            STATE.set(self.0);
            TIMES.set(self.1);
        }
    }
    let _before = Before(STATE.replace(State::Ready), TIMES.take());
    let output = work();
    (output, TIMES.get())
}

/// An operation that is being counted.
pub(super) struct Timer {
    kind: OpKind,
    start: Instant,
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut times = TIMES.get();
        times.0[self.kind as usize] += self.start.elapsed();
        TIMES.set(times);
        STATE.set(State::Ready);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: Duration = Duration::from_millis(2);

    /// Takes so long, or longer.
    fn work() {
        let start = Instant::now();
        while start.elapsed() < PART {}
    }

    /// An operation of two parts, of which one is an operation of another kind, something that is none, and one more
    /// operation.
    fn nested() {
        let outer = OpKind::Norms.timer();
        work();
        let inner = OpKind::Matmul.timer();
        work();
        drop(inner);
        drop(outer);
        work();
        let _timer = OpKind::Rotary.timer();
        work();
    }

    #[test]
    fn kinds_stand_in_their_own_places() {
        for (at, kind) in OpKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at, "{}", kind.name());
        }
    }

    #[test]
    fn an_operation_inside_another_is_not_counted_twice() {
        let start = Instant::now();
        let ((), times) = with_op_times(nested);
        assert!(times.total() + PART <= start.elapsed(), "work between operations is counted");
        assert!(times.of(OpKind::Norms) >= 2 * PART, "{times:?}");
        assert!(times.of(OpKind::Rotary) >= PART, "{times:?}");
        assert_eq!(times.of(OpKind::Matmul), Duration::ZERO);
        assert_eq!(times.total(), times.of(OpKind::Norms) + times.of(OpKind::Rotary));
    }

    #[cfg(any(feature = "flex", feature = "ndarray"))]
    #[test]
    fn both_passes_are_counted_on_a_cpu() {
        use crate::ops::{self, Activation, WeightLayout};
        use burn::tensor::Tensor;

        let cpu = crate::Backend::compiled().into_iter().find(|backend| backend.is_cpu());
        let spec = crate::DeviceSpec { backend: cpu.expect("one is compiled in"), index: None };
        let device = spec.open().expect("a CPU opens").autodiff();
        let x: Tensor<2> = Tensor::ones([512, 512], &device).require_grad();
        let weight: Tensor<2> = Tensor::ones([512, 512], &device).require_grad();
        let start = Instant::now();
        let (y, forward) = with_op_times(|| {
            ops::activate(ops::linear(x, weight, None, WeightLayout::InOut), Activation::Relu)
        });
        let forward_time = start.elapsed();
        let (_, backward) = with_op_times(|| y.sum().backward());
        for (times, elapsed) in [(forward, forward_time), (backward, start.elapsed() - forward_time)] {
            assert!(times.total() <= elapsed, "{times:?} of {elapsed:?}");
            let [products, activations] = [OpKind::Matmul, OpKind::Activations].map(|kind| times.of(kind));
            assert!(products > Duration::ZERO && activations > Duration::ZERO, "{times:?}");
            assert_eq!(times.total(), products + activations);
        }
    }

    #[test]
    fn nothing_is_counted_when_nobody_asks() {
        nested();
        assert!(OpKind::Norms.timer().is_none());
        assert_eq!(with_op_times(|| ()).1, OpTimes::default());
        let caught = std::panic::catch_unwind(|| with_op_times(|| panic!("on purpose")));
        assert!(caught.is_err() && OpKind::Norms.timer().is_none());
    }
}
