//! Fault injection for tests: the n-th file operation fails, alone or with all that follow.
//!
//! It is always compiled, so that tests run the same code as users. The check costs nothing measurable beside a system call.
//!
//! ```
//! use andiron_files::fault::{Fault, with_fault};
//! let path = std::path::Path::new("/dev/null");
//! let (result, seen) = with_fault(Fault::once(0, 5), || andiron_files::open(path).map(drop));
//! assert_eq!(result.unwrap_err().raw_os_error(), Some(5));
//! assert_eq!(seen[0].path, path);
//! ```

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use crate::Operation;

/// Which operations fail, and how. Operations are counted from 0, on the thread that does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    first: usize,
    last: usize,
    error: i32,
}

impl Fault {
    /// No operation fails; they are only counted.
    pub fn none() -> Self {
        Self { first: usize::MAX, last: usize::MAX, error: 0 }
    }

    /// Operation `at` fails with the system's error number `error`.
    pub fn once(at: usize, error: i32) -> Self {
        Self { first: at, last: at, error }
    }

    /// Every operation from `at` on fails: the disk is left as by a process killed there.
    pub fn killed_at(at: usize) -> Self {
        // 4 is "interrupted" on every Unix, but the standard library would try a read again; 5 is "input/output error".
        Self { first: at, last: usize::MAX, error: 5 }
    }
}

/// A requested operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The operation.
    pub operation: Operation,
    /// The path.
    pub path: PathBuf,
}

struct Plan {
    fault: Fault,
    seen: Vec<Seen>,
}

thread_local! {
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

/// Runs `work` under `fault`; returns its result and all requested operations, including failed ones.
///
/// # Panics
/// If calls are nested.
pub fn with_fault<T>(fault: Fault, work: impl FnOnce() -> T) -> (T, Vec<Seen>) {
    /// Takes the plan away again, even from work that panics.
    struct Taken;
    impl Drop for Taken {
        fn drop(&mut self) {
            PLAN.take();
        }
    }
    let before = PLAN.replace(Some(Plan { fault, seen: Vec::new() }));
    assert!(before.is_none(), "one fault at a time");
    let taken = Taken;
    let result = work();
    let plan = PLAN.take();
    drop(taken);
    (result, plan.map(|plan| plan.seen).unwrap_or_default())
}

pub(crate) fn next(operation: Operation, path: &Path) -> io::Result<()> {
    PLAN.with_borrow_mut(|plan| {
        let Some(Plan { fault, seen }) = plan else { return Ok(()) };
        let number = seen.len();
        seen.push(Seen { operation, path: path.to_owned() });
        match (fault.first..=fault.last).contains(&number) && fault.first != usize::MAX {
            true => Err(io::Error::from_raw_os_error(fault.error)),
            false => Ok(()),
        }
    })
}
