//! What systemd is told of a service of `Type=notify`: that it is ready, that it stops, and that it is alive, for `WatchdogSec=`.
//!
//! Source: sd_notify(3), sd_watchdog_enabled(3).

use std::env;
use std::time::Duration;

use andiron_serving::http::{Phase, Server};

/// The socket of the service manager, if there is one.
#[derive(Debug)]
pub struct Notifier {
    #[cfg(unix)]
    socket: std::os::unix::net::UnixDatagram,
    /// How often it wants a sign of life.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The socket that the environment names, `None` outside of systemd or if nobody listens there.
    pub fn from_environment() -> Option<Self> {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        let period = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        let process = env::var("WATCHDOG_PID").ok();
        let is_ours = process.is_none_or(|process| process == std::process::id().to_string());
        let watchdog = period.filter(|&period| period > 0 && is_ours).map(Duration::from_micros);
        Self::connect(&name, watchdog)
    }

    #[cfg(unix)]
    fn connect(name: &std::ffi::OsStr, watchdog: Option<Duration>) -> Option<Self> {
        let connected = socket(name);
        match connected {
            Ok(socket) => Some(Self { socket, watchdog }),
            Err(error) => {
                tracing::warn!(%error, socket = %name.display(), "cannot notify the service manager");
                None
            }
        }
    }

    #[cfg(not(unix))]
    fn connect(_: &std::ffi::OsStr, _: Option<Duration>) -> Option<Self> {
        None
    }

    /// Tells that `server` is ready, then, until the program ends, that it is alive and that it stops. The server is alive as long as
    /// `/health` says so.
    pub async fn follow(self, server: Server) {
        self.send("READY=1");
        // A sign of life that comes late would end the service; half the time is what systemd recommends.
        let mut alive = self.watchdog.map(|period| tokio::time::interval(period / 2));
        let shutdown = server.shutdown();
        let mut stopping = std::pin::pin!(shutdown.reached(Phase::Draining));
        let mut is_stopping = false;
        loop {
            tokio::select! {
                () = &mut stopping, if !is_stopping => {
                    self.send("STOPPING=1");
                    is_stopping = true;
                }
                () = tick(&mut alive) => match server.check_health() {
                    Ok(()) => self.send("WATCHDOG=1"),
                    Err(error) => tracing::error!(%error, "no sign of life for the service manager"),
                },
            }
        }
    }

    #[cfg(unix)]
    fn send(&self, message: &str) {
        if let Err(error) = self.socket.send(message.as_bytes()) {
            tracing::warn!(%error, message, "cannot notify the service manager");
        }
    }

    #[cfg(not(unix))]
    fn send(&self, _: &str) {}
}

/// Waits for the next tick; for ever if there is none.
async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// A socket connected to `name`: a path, or with `@` a name of Linux's abstract namespace.
#[cfg(unix)]
fn socket(name: &std::ffi::OsStr) -> std::io::Result<std::os::unix::net::UnixDatagram> {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let socket = UnixDatagram::unbound()?;
    let address = match name.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(rest) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    socket.connect_addr(&address)?;
    // The server must not wait for a manager that does not read.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    #[test]
    fn both_kinds_of_names_are_reached() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("a socket");
        let hidden = format!("andiron-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&hidden).expect("an address");
        let hidden_listener = UnixDatagram::bind_addr(&address).expect("a socket");
        for (name, listener) in
            [(path.into_os_string(), listener), (format!("@{hidden}").into(), hidden_listener)]
        {
            let notifier = Notifier::connect(&name, None).expect("it is there");
            notifier.send("READY=1");
            let mut received = [0; 64];
            let n = listener.recv(&mut received).expect("a message");
            assert_eq!(&received[..n], b"READY=1", "{}", name.display());
        }
        assert!(Notifier::connect(folder.path().join("nobody").as_os_str(), None).is_none());
    }
}
