//! What the allocator keeps, and what it returns to the system.
#![cfg(all(feature = "allocator", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::thread;
use std::time::Duration;

use andiron_kernels::allocator::{self, MiMalloc};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const MIB: u64 = 1 << 20;

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Allocates and frees 64 MiB; gives the bytes in memory meanwhile.
fn use_and_free() -> u64 {
    let pages: Vec<Vec<u8>> = (0..64).map(|i| vec![i + 1; MIB as usize]).collect();
    let meanwhile = resident();
    drop(pages);
    meanwhile
}

#[test]
fn freed_pages_are_kept_as_long_as_asked_for() {
    allocator::keep_freed_memory();
    let meanwhile = use_and_free();
    thread::sleep(Duration::from_millis(50));
    allocator::return_freed_memory();
    assert!(resident() + 16 * MIB > meanwhile, "they are kept for good");

    allocator::keep_freed_memory_for(Duration::from_millis(20));
    let meanwhile = use_and_free();
    thread::sleep(Duration::from_millis(50));
    allocator::return_freed_memory();
    assert!(resident() + 48 * MIB < meanwhile, "their time is over");
}
