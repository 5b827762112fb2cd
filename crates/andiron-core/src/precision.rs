//! Precision of matmuls: f32, or mixed with bf16 operands.
//!
//! As with PyTorch's `autocast`, the caller of a model chooses, not the layers: [`with_precision`] applies to the
//! operations called inside it, on this thread. A backward pass has the precision of its forward pass.

use std::cell::Cell;

pub use andiron_kernels::Precision;

thread_local! {
    static CURRENT: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// Runs `work` at this precision. The default is f32.
///
/// # Example
/// ```
/// use andiron_core::precision::{Precision, current, with_precision};
/// assert_eq!(with_precision(Precision::Mixed, current), Precision::Mixed);
/// assert_eq!(current(), Precision::F32);
/// ```
pub fn with_precision<T>(precision: Precision, work: impl FnOnce() -> T) -> T {
    /// Restores the precision, also when the work panics.
    struct Before(Precision);
    impl Drop for Before {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _before = Before(CURRENT.replace(precision));
    work()
}

/// The current precision.
pub fn current() -> Precision {
    CURRENT.get()
}
