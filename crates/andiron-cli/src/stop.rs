//! Signals to a training run, which checks for them after each step.

use std::process;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use andiron_training::Requests;
use anyhow::Context as _;

use crate::lines::note;

/// 128 and the number of SIGINT, as shells report it.
const KILLED: i32 = 130;

/// Requests set by signals. SIGINT, SIGTERM and SIGHUP stop the run; a second one ends the process at once. SIGUSR1 and SIGUSR2,
/// which schedulers send before they stop a job, save a checkpoint.
pub fn on_signal() -> anyhow::Result<Arc<Requests>> {
    on_signal_after(Duration::ZERO)
}

/// The same of a process that a launcher has started. A signal to all processes of a job comes twice, because the launcher passes its
/// own on: the second one ends the process only if it comes later than that.
pub fn on_forwarded_signal() -> anyhow::Result<Arc<Requests>> {
    on_signal_after(FORWARDED)
}

/// Time in which a launcher has passed a signal on.
const FORWARDED: Duration = Duration::from_secs(5);

/// [`on_signal`], where a second signal counts only so long after the first.
fn on_signal_after(pause: Duration) -> anyhow::Result<Arc<Requests>> {
    let requests = Arc::new(Requests::default());
    let flag = Arc::clone(&requests);
    let said = "cannot watch for signals";
    let mut first: Option<Instant> = None;
    ctrlc::set_handler(move || {
        if flag.stop() {
            if first.is_some_and(|first| first.elapsed() < pause) {
                return;
            }
            process::exit(KILLED);
        }
        first = Some(Instant::now());
        note!("\nstopping after this step; once more stops at once");
    })
    .context(said)?;
    #[cfg(unix)]
    watch_for_saves(Arc::clone(&requests)).context(said)?;
    Ok(requests)
}

/// Checks that there are enough file descriptors for a runtime that handles signals, which panics without them.
#[cfg(unix)]
pub fn ensure_files_for_signals() -> std::io::Result<()> {
    use std::os::unix::net::UnixStream;

    // Two ends for all of the process and two of the runtime's own, with its event queue and its alarm.
    let pairs = [(); 3].map(|()| UnixStream::pair());
    pairs.into_iter().try_for_each(|pair| pair.map(drop))
}

/// Other systems need none.
#[cfg(not(unix))]
pub fn ensure_files_for_signals() -> std::io::Result<()> {
    Ok(())
}

/// Checks that `count` threads can be started, for a runtime that panics or hangs if they cannot. The system keeps their stacks
/// for the next threads.
pub fn ensure_threads(count: usize) -> std::io::Result<()> {
    let gate = Mutex::new(());
    std::thread::scope(|scope| {
        // All run until the last has started, so that each needs a stack of its own.
        let closed = gate.lock();
        let started = (0..count).try_for_each(|_| {
            let wait = || drop(gate.lock());
            std::thread::Builder::new().spawn_scoped(scope, wait).map(drop)
        });
        drop(closed);
        started
    })
}

/// After this returns, SIGUSR1 and SIGUSR2 no longer end the process.
#[cfg(unix)]
fn watch_for_saves(requests: Arc<Requests>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    ensure_files_for_signals()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let guard = runtime.enter();
    let mut first = signal(SignalKind::user_defined1())?;
    let mut second = signal(SignalKind::user_defined2())?;
    drop(guard);
    let watch = async move {
        loop {
            let received = tokio::select! {
                received = first.recv() => received,
                received = second.recv() => received,
            };
            if received.is_none() {
                return;
            }
            requests.save();
            note!("\nsaving after this step, and going on");
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(watch))?;
    Ok(())
}
