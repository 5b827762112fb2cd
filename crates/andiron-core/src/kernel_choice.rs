//! Batch invariance: a row's results do not depend on the rows that are computed with it.
//!
//! CPU kernels for few rows and for many round differently. Whoever runs a model fixes the choice by what the rows are, a
//! prompt or generated tokens; then a sequence has the same logits, bit for bit, whatever else is decoded with it and however
//! its prompt is divided into chunks. As with [`precision`](crate::precision), the choice applies to the operations called
//! inside [`with_kernels`], on this thread. Other backends compute as they do without it.

use std::cell::Cell;

pub use andiron_kernels::KernelChoice;

thread_local! {
    static CURRENT: Cell<KernelChoice> = const { Cell::new(KernelChoice::Fastest) };
}

/// Runs `work` with this choice of kernels. The default is [`KernelChoice::Fastest`], which training needs.
///
/// # Example
/// ```
/// use andiron_core::kernel_choice::{KernelChoice, current, with_kernels};
/// assert_eq!(with_kernels(KernelChoice::Decode, current), KernelChoice::Decode);
/// assert_eq!(current(), KernelChoice::Fastest);
/// ```
pub fn with_kernels<T>(kernels: KernelChoice, work: impl FnOnce() -> T) -> T {
    /// Restores the choice, also when the work panics.
    struct Before(KernelChoice);
    impl Drop for Before {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _before = Before(CURRENT.replace(kernels));
    work()
}

/// The current choice.
pub fn current() -> KernelChoice {
    CURRENT.get()
}
