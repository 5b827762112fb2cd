//! How exact the matrix products of a piece of work are.
//!
//! As with PyTorch's `autocast`, the one who runs a model chooses, not the layers: [`with_precision`] holds for the
//! products that begin inside it, on this thread. A backward pass multiplies as its forward pass did, wherever it runs.

use std::cell::Cell;

pub use andiron_kernels::Precision;

thread_local! {
    static CURRENT: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// Runs `work` with this precision; without it, nothing is rounded.
///
/// # Example
/// ```
/// use andiron_core::precision::{Precision, current, with_precision};
/// assert_eq!(with_precision(Precision::Mixed, current), Precision::Mixed);
/// assert_eq!(current(), Precision::F32);
/// ```
pub fn with_precision<T>(precision: Precision, work: impl FnOnce() -> T) -> T {
    /// Puts the precision back, also when the work panics.
    struct Before(Precision);
    impl Drop for Before {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _before = Before(CURRENT.replace(precision));
    work()
}

/// The precision that holds here.
pub fn current() -> Precision {
    CURRENT.get()
}
