//! The global allocator of a program that computes: mimalloc, keeping what is freed.
//!
//! Tensors of one step are freed and asked for again in the next. To hand their pages back to the system in between
//! costs more than the arithmetic on them: fresh memory comes at about 3 GB/s.
//!
//! # Example
//! ```
//! #[global_allocator]
//! static ALLOCATOR: andiron_kernels::allocator::MiMalloc = andiron_kernels::allocator::MiMalloc;
//!
//! andiron_kernels::allocator::keep_freed_memory();
//! ```

pub use mimalloc::MiMalloc;

/// Keeps freed pages for the rest of the process. By itself mimalloc gives them back after a hundredth of a second,
/// and a training step takes longer.
pub fn keep_freed_memory() {
    /// `mi_option_purge_delay`, which the bindings leave out, in milliseconds; -1 is never.
    const PURGE_DELAY: std::ffi::c_int = 15;
    // SAFETY: it sets a number that the allocator reads atomically.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}
