//! Checks before loading whether a model fits into the available memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use andiron_models::{ModelFiles, ModelMemory, RunPrecision};
use anyhow::bail;

use crate::exit;
use crate::flags::Common;
use crate::lines::note;
use crate::machine;

/// Memory of the program and its threads, besides the model's.
const ROOM: u64 = 16 << 20;

/// A limit on the available memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    bytes: u64,
    what: &'static str,
    /// Whether memory-mapped files count.
    counts_mapped: bool,
}

/// The limits reported by the system.
fn bounds() -> Vec<Bound> {
    let machine = machine::available_bytes().map(|bytes| Bound {
        bytes: bytes.saturating_add(machine::free_swap_bytes().unwrap_or(0)),
        what: "are free on this machine, swap included",
        counts_mapped: false,
    });
    let group = group_bytes().map(|bytes| Bound {
        bytes,
        what: "are left under the memory limit of this container or control group",
        counts_mapped: false,
    });
    let process = machine::address_space_left().map(|bytes| Bound {
        bytes,
        what: "of address space are left under this process' limit (ulimit -v)",
        counts_mapped: true,
    });
    [machine, group, process].into_iter().flatten().collect()
}

/// The smallest limit that the system reports, in bytes.
pub fn free_bytes() -> Option<u64> {
    bounds().into_iter().map(|bound| bound.bytes).min()
}

/// Whether the verb has `--precision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Precision,
    Nothing,
}

/// Whether to check: the device uses the memory of this process, and the check is not switched off.
fn is_checked(common: &Common) -> bool {
    !common.no_memory_check && common.device_spec().is_ok_and(|spec| spec.backend.is_cpu())
}

/// Refuses the model in `files` if it certainly does not fit at `precision`. What cannot be measured or estimated passes.
pub fn ensure_model_fits(
    files: &ModelFiles,
    precision: RunPrecision,
    choice: Choice,
    common: &Common,
) -> anyhow::Result<()> {
    if !is_checked(common) {
        return Ok(());
    }
    let Ok(needed) = ModelMemory::of_files(files, precision) else { return Ok(()) };
    let Some(bound) = exceeded(needed, &bounds()) else { return Ok(()) };
    let smaller = RunPrecision::ALL.into_iter().filter(|&other| other != precision).find_map(|other| {
        let other_needed = ModelMemory::of_files(files, other).ok()?;
        (other_needed.weights < needed.weights && exceeded(other_needed, &[bound]).is_none())
            .then(|| format!("choose --precision {other}, which needs {}", size(total(other_needed, bound))))
    });
    let advice = smaller
        .filter(|_| choice == Choice::Precision)
        .unwrap_or_else(|| "choose a smaller model".to_owned());
    bail!(
        "{} needs about {} of memory at {precision}, and {} {}: {advice}, free memory or raise the limit, or try all the \
         same with --no-memory-check",
        files.path().display(),
        size(total(needed, bound)),
        size(bound.bytes),
        bound.what
    );
}

/// Refuses work that needs `bytes` if it certainly does not fit; `what` names it, `advice` tells how to make it smaller.
pub fn ensure_fits(what: &str, bytes: u64, advice: &str, common: &Common) -> anyhow::Result<()> {
    if !is_checked(common) {
        return Ok(());
    }
    let needed = ModelMemory { weights: bytes, mapped: 0 };
    let Some(bound) = exceeded(needed, &bounds()) else { return Ok(()) };
    bail!(
        "{what} needs about {} of memory, and {} {}: {advice}, free memory or raise the limit, or try all the same with \
         --no-memory-check",
        size(total(needed, bound)),
        size(bound.bytes),
        bound.what
    );
}

/// Ends the program with an error after a failed allocation of `bytes`. Allocates nothing itself.
pub extern "C" fn end_exhausted(bytes: usize) {
    static ENDING: AtomicBool = AtomicBool::new(false);
    if ENDING.swap(true, Ordering::Relaxed) {
        // Another thread is ending the program; going on would abort it first.
        std::thread::sleep(Duration::from_secs(5));
        return;
    }
    note!(
        "error: out of memory: the system gave no {bytes} bytes more; free memory, raise the limit of this process (ulimit -v) \
         or of its container, or choose a smaller model or smaller batches"
    );
    process::exit(exit::FAILED.into());
}

fn total(needed: ModelMemory, bound: Bound) -> u64 {
    let mapped = if bound.counts_mapped { needed.mapped } else { 0 };
    needed.weights.saturating_add(mapped)
}

/// The smallest limit that is exceeded.
fn exceeded(needed: ModelMemory, bounds: &[Bound]) -> Option<Bound> {
    let too_small = |bound: &&Bound| total(needed, **bound).saturating_add(ROOM) > bound.bytes;
    bounds.iter().filter(too_small).min_by_key(|bound| bound.bytes).copied()
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Memory left under the limits of this process's control group and its ancestors.
fn group_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let lines = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    lines
        .filter_map(|(controllers, path)| match controllers {
            "" => left_in(
                Path::new("/sys/fs/cgroup"),
                path,
                ["memory.max", "memory.current", "inactive_file", "active_file"],
            ),
            _ if controllers.split(',').any(|name| name == "memory") => left_in(
                Path::new("/sys/fs/cgroup/memory"),
                path,
                [
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                    "total_inactive_file",
                    "total_active_file",
                ],
            ),
            _ => None,
        })
        .min()
}

/// The least memory left in the group `path` below `root` and its ancestors. Cached files are reclaimable, so they count as
/// free.
fn left_in(root: &Path, path: &str, [max, current, inactive, active]: [&str; 4]) -> Option<u64> {
    let group: PathBuf = root.join(path.trim_start_matches('/'));
    let left = |dir: &Path| {
        let number = |name: &str| fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
        let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
        let cached = [inactive, active].map(|key| {
            let line = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            line.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
        });
        let used = number(current)?.saturating_sub(cached.iter().sum());
        Some(number(max)?.saturating_sub(used))
    };
    // In a container the path may be that of the machine outside; the root is then the container's own group.
    let above = group.ancestors().take_while(|dir| dir.starts_with(root)).filter_map(left);
    above.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(bytes: u64, counts_mapped: bool) -> Bound {
        Bound { bytes, what: "are left", counts_mapped }
    }

    #[test]
    fn the_tightest_bound_decides_and_mapped_files_take_address_space() {
        let needed = ModelMemory { weights: 100 << 20, mapped: 50 << 20 };
        let roomy = bound(1 << 30, false);
        assert_eq!(exceeded(needed, &[roomy]), None);
        assert_eq!(exceeded(needed, &[]), None);
        let tight = bound(110 << 20, false);
        assert_eq!(exceeded(needed, &[roomy, tight]), Some(tight));
        assert_eq!(exceeded(needed, &[bound(120 << 20, false)]), None);
        assert!(exceeded(needed, &[bound(120 << 20, true)]).is_some());
        let endless = ModelMemory { weights: u64::MAX, mapped: u64::MAX };
        assert_eq!(exceeded(endless, &[roomy]), Some(roomy));
    }

    #[test]
    fn the_limit_of_a_group_above_counts_and_cached_files_are_free() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        let names = ["memory.max", "memory.current", "inactive_file", "active_file"];
        let left = || left_in(root.path(), "/outer/inner", names);
        assert_eq!(left(), None);
        for (file, content) in [
            ("outer/memory.max", "1000"),
            ("outer/memory.current", "700"),
            ("outer/memory.stat", "anon 5\ninactive_file 100\nactive_file 50\n"),
            ("outer/inner/memory.max", "max"),
            ("outer/inner/memory.current", "10"),
        ] {
            fs::write(root.path().join(file), content).unwrap();
        }
        assert_eq!(left(), Some(450));
        fs::write(inner.join("memory.max"), "300\n").unwrap();
        assert_eq!(left(), Some(290));
    }

    #[test]
    fn sizes_are_said_in_mb_and_gb() {
        assert_eq!(size(12_300_000), "12 MB");
        assert_eq!(size(2_540_000_000), "2.5 GB");
    }
}
