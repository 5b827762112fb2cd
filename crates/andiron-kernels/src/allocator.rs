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

use std::alloc::{GlobalAlloc, Layout};
use std::sync::OnceLock;

/// mimalloc, which calls what [`on_exhausted`] was given when the system has no more memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct MiMalloc;

static EXHAUSTED: OnceLock<extern "C" fn(usize)> = OnceLock::new();

/// Calls `hook` with the size in bytes of an allocation that failed. Without a hook, or where it returns, the allocation fails
/// as usual: for nearly all code the process then aborts. The first hook stays.
///
/// The hook should not allocate: that may fail as well, and calls it again. A panic in it aborts the process.
pub fn on_exhausted(hook: extern "C" fn(usize)) {
    let _ = EXHAUSTED.set(hook);
}

/// Tells the hook of a null pointer.
#[inline]
fn checked(start: *mut u8, bytes: usize) -> *mut u8 {
    if start.is_null()
        && let Some(hook) = EXHAUSTED.get()
    {
        hook(bytes);
    }
    start
}

// SAFETY: every call goes to mimalloc unchanged, and its pointers come back unchanged. Nothing unwinds: the hook is `extern "C"`,
// from which a panic does not get out.
unsafe impl GlobalAlloc for MiMalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that mimalloc asks for.
        checked(unsafe { mimalloc::MiMalloc.alloc(layout) }, layout.size())
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        checked(unsafe { mimalloc::MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    #[inline]
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`; `start` came from mimalloc.
        unsafe { mimalloc::MiMalloc.dealloc(start, layout) };
    }

    #[inline]
    unsafe fn realloc(&self, start: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`.
        checked(unsafe { mimalloc::MiMalloc.realloc(start, layout, bytes) }, bytes)
    }
}

/// Keeps freed pages for the rest of the process. By itself mimalloc gives them back after a hundredth of a second,
/// and a training step takes longer.
pub fn keep_freed_memory() {
    /// `mi_option_purge_delay`, which the bindings leave out, in milliseconds; -1 is never.
    const PURGE_DELAY: std::ffi::c_int = 15;
    // SAFETY: it sets a number that the allocator reads atomically.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}
