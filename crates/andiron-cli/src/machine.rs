//! The machine and the process, as reported by the operating system.

use std::fs;

/// Main memory in bytes; `None` if the system does not report it.
pub fn memory_bytes() -> Option<u64> {
    field("/proc/meminfo", "MemTotal:")
}

/// Available memory in bytes; `None` if the system does not report it.
pub fn available_bytes() -> Option<u64> {
    field("/proc/meminfo", "MemAvailable:")
}

/// Free swap space in bytes; `None` if the system does not report it.
pub fn free_swap_bytes() -> Option<u64> {
    field("/proc/meminfo", "SwapFree:")
}

/// Bytes left under this process's limit of address space; `None` without a limit, or if the system does not report it.
/// Memory that the allocator has reserved and not used counts as free.
pub fn address_space_left() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(field("/proc/self/status", "VmRSS:")?))
}

/// Peak resident memory of this process in bytes; `None` if the system does not report it.
pub fn peak_rss_bytes() -> Option<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// The name of the processor; `None` if the system does not report it.
pub fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Logical processors this process may use.
pub fn n_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The value of a `Key: 123 kB` line in bytes.
fn field(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}
