//! Signals become a flag that long work looks at.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::lines::note;
use anyhow::Context as _;

/// 128 and the number of SIGINT, as shells report it.
const KILLED: i32 = 130;

/// A flag that SIGINT, SIGTERM and SIGHUP set; a second signal ends the process at once.
pub fn on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            process::exit(KILLED);
        }
        note!("\nstopping after this step; once more stops at once");
    })
    .context("cannot watch for signals")?;
    Ok(stop)
}
