//! What the operating system says about this machine and this process.

use std::fs;

/// Main memory of the machine in bytes, where the system tells.
pub fn memory_bytes() -> Option<u64> {
    field("/proc/meminfo", "MemTotal:")
}

/// Memory that could be had now in bytes, where the system tells.
pub fn available_bytes() -> Option<u64> {
    field("/proc/meminfo", "MemAvailable:")
}

/// Free swap space in bytes, where the system tells.
pub fn free_swap_bytes() -> Option<u64> {
    field("/proc/meminfo", "SwapFree:")
}

/// Bytes that this process may at most still use under its limit of address space; `None` if it has none, or the system
/// does not tell. What the allocator has reserved and not used counts as free.
pub fn address_space_left() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(field("/proc/self/status", "VmRSS:")?))
}

/// The most memory that this process has held so far in bytes, where the system tells.
pub fn peak_rss_bytes() -> Option<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// The processor's own name, where the system tells.
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
