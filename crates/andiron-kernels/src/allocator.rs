//! A global allocator for training and inference: mimalloc, which keeps freed memory.
//!
//! Tensors freed in one step are allocated again in the next. Returning their pages to the system in between costs more
//! than the arithmetic on them: fresh pages come at about 3 GB/s.
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
use std::time::Duration;

/// mimalloc, which calls the hook of [`on_exhausted`] when the system is out of memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct MiMalloc;

static EXHAUSTED: OnceLock<extern "C" fn(usize)> = OnceLock::new();

/// Calls `hook` with the size in bytes of an allocation that failed. Without a hook, or where it returns, the allocation fails
/// as usual: for nearly all code the process then aborts. The first hook stays.
///
/// The hook should not allocate: if that fails, the hook is called again. A panic in it aborts the process.
pub fn on_exhausted(hook: extern "C" fn(usize)) {
    let _ = EXHAUSTED.set(hook);
}

/// Calls the hook if `start` is null.
#[inline]
fn checked(start: *mut u8, bytes: usize) -> *mut u8 {
    if start.is_null()
        && let Some(hook) = EXHAUSTED.get()
    {
        hook(bytes);
    }
    start
}

// SAFETY: every call and its result are passed through unchanged. Nothing unwinds: the hook is `extern "C"`, where a panic
// aborts.
unsafe impl GlobalAlloc for MiMalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: mimalloc has the requirements that the caller promised.
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

/// `mi_option_purge_delay`, which the bindings leave out, in milliseconds; -1 is never.
const PURGE_DELAY: std::ffi::c_int = 15;

/// Keeps pages that are freed from now on, for the rest of the process. By default mimalloc returns them after a second, which
/// may be less than a training step.
pub fn keep_freed_memory() {
    // SAFETY: it sets an option that the allocator reads atomically.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

/// Keeps pages that are freed from now on for about `kept`, at most an hour: for programs that run on after a model is gone.
///
/// Later allocations and [`return_freed_memory`] then return them to the system.
pub fn keep_freed_memory_for(kept: Duration) {
    let kept = kept.min(Duration::from_secs(3600)).as_millis();
    // SAFETY: as in `keep_freed_memory`.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, kept as std::ffi::c_long) };
}

/// Returns the pages whose time after [`keep_freed_memory_for`] is over. Where nothing allocates, nothing else does.
pub fn return_freed_memory() {
    // SAFETY: it may be called by any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(false) };
}
