//! Signals become requests that a training run looks at after each step.

use std::process;
use std::sync::{Arc, Mutex};

use andiron_training::Requests;
use anyhow::Context as _;

use crate::lines::note;

/// 128 and the number of SIGINT, as shells report it.
const KILLED: i32 = 130;

/// Requests that signals make: SIGINT, SIGTERM and SIGHUP to stop, and a second of them ends the process at once; SIGUSR1
/// and SIGUSR2, which schedulers send some time before they take the machine away, to save and go on.
pub fn on_signal() -> anyhow::Result<Arc<Requests>> {
    let requests = Arc::new(Requests::default());
    let flag = Arc::clone(&requests);
    let said = "cannot watch for signals";
    ctrlc::set_handler(move || {
        if flag.stop() {
            process::exit(KILLED);
        }
        note!("\nstopping after this step; once more stops at once");
    })
    .context(said)?;
    #[cfg(unix)]
    watch_for_saves(Arc::clone(&requests)).context(said)?;
    Ok(requests)
}

/// Checks that there are file descriptors for a runtime that watches for signals, which panics without them.
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

/// Checks that the system starts `count` threads, for a runtime that panics without them. Their stacks stay mapped for those
/// that come.
pub fn ensure_threads(count: usize) -> std::io::Result<()> {
    let gate = Mutex::new(());
    std::thread::scope(|scope| {
        // All stay until the last is there: each stack takes memory of its own.
        let closed = gate.lock();
        let started = (0..count).try_for_each(|_| {
            let wait = || drop(gate.lock());
            std::thread::Builder::new().spawn_scoped(scope, wait).map(drop)
        });
        drop(closed);
        started
    })
}

/// From the return on, no SIGUSR1 or SIGUSR2 ends the process.
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
