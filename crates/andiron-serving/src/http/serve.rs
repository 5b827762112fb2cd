//! Serving a router on a socket: bounded connections, time limits, bounded shutdown.
//!
//! `axum::serve` waits forever for open event streams at shutdown, and limits neither the size of request heads nor the time they
//! take, so this is our own accept loop.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::delivery::{self, Outbox};
use super::silent::Silence;
use super::{Access, Phase, Server};

/// Time for connections to close after the last response was delivered, or to flush after a cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The same after a second stop signal.
const HASTY_WORDS: Duration = Duration::from_millis(250);

/// Pause after a failed accept, usually for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Send buffer of a socket, in bytes; Linux doubles it.
const SEND_BUFFER: usize = 64 << 10;

/// Why a server cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be used.
    #[error("cannot listen there; choose another address or port")]
    Bind {
        /// Cause.
        source: io::Error,
    },
    /// The address is reachable from other machines, and no key is set.
    #[error(
        "{address} can be reached from other machines and no API key is set: set a key, listen on 127.0.0.1, or say that \
         serving everyone is meant (`--insecure-no-auth`, the setting `insecure_no_auth`)"
    )]
    Unprotected {
        /// The address asked for.
        address: SocketAddr,
    },
}

/// How a service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// All running requests were finished.
    Drained,
    /// Some were ended early, by the drain timeout or a second stop signal.
    Cut,
}

impl Server {
    /// Opens a socket that [`serve`](Self::serve) will accept.
    ///
    /// # Errors
    /// [`ServeError::Bind`], [`ServeError::Unprotected`].
    pub async fn bind(&self, address: impl ToSocketAddrs) -> Result<TcpListener, ServeError> {
        let addresses =
            tokio::net::lookup_host(address).await.map_err(|source| ServeError::Bind { source })?;
        let addresses: Vec<SocketAddr> = addresses.collect();
        addresses.iter().try_for_each(|&address| check_protected(address, &self.app.config.access))?;
        let bound = |source| ServeError::Bind { source };
        let listener = TcpListener::bind(&addresses[..]).await.map_err(bound)?;
        // Accepted sockets inherit it. In what the system would take otherwise, megabytes, a stream that nobody reads would
        // seem to be read to its end.
        SockRef::from(&listener).set_send_buffer_size(SEND_BUFFER).map_err(bound)?;
        Ok(listener)
    }

    /// Serves `router` (usually [`Server::router`]) until [`Shutdown`](super::Shutdown) is triggered.
    ///
    /// While it drains, `/ready` and new requests get 503, connections close after their answer, and running requests go on, to the last byte of their answers, for at
    /// most the drain timeout; then what still runs ends with an error event and `[DONE]`. Returns within the drain timeout and about a
    /// second, whatever the clients do, and within half a second of [`Shutdown::cut`](super::Shutdown::cut). A text that is being
    /// tokenized cannot be interrupted and outlasts this call: end a program that must not wait
    /// for it with [`Runtime::shutdown_background`](tokio::runtime::Runtime::shutdown_background).
    ///
    /// # Errors
    /// [`ServeError::Unprotected`] if the socket is open to other machines and nothing protects it.
    pub async fn serve(&self, listener: TcpListener, router: axum::Router) -> Result<Stopped, ServeError> {
        let address = listener.local_addr().map_err(|source| ServeError::Bind { source })?;
        check_protected(address, &self.app.config.access)?;
        tracing::info!(%address, "serving");
        let closing = watch::Sender::new(false);
        let hurried = AtomicBool::new(false);
        let mut connections = JoinSet::new();
        let stopped = {
            let mut end = pin!(self.end_of_service(&hurried));
            let mut accepting = pin!(self.accept(&listener, &router, &closing, &mut connections));
            tokio::select! {
                stopped = &mut end => stopped,
                never = &mut accepting => match never {},
            }
        };
        drop(listener);
        closing.send_replace(true);
        let hasty = hurried.load(Ordering::Relaxed);
        let deadline = Instant::now() + if hasty { HASTY_WORDS } else { LAST_WORDS };
        while let Ok(Some(_)) = timeout_at(deadline, connections.join_next()).await {}
        connections.shutdown().await;
        tracing::info!(?stopped, "stopped");
        Ok(stopped)
    }

    /// Waits for the shutdown to start, then for the work to end or the drain timeout.
    async fn end_of_service(&self, hurried: &AtomicBool) -> Stopped {
        let (shutdown, registry) = (&self.app.shutdown, &self.app.registry);
        shutdown.reached(Phase::Draining).await;
        for served in registry.list() {
            served.drain();
            tracing::info!(model = served.info.id, load = ?served.load(), "draining");
        }
        let stopped = tokio::select! {
            () = self.app.idle() => Stopped::Drained,
            () = tokio::time::sleep(self.app.config.drain_timeout) => Stopped::Cut,
            () = shutdown.reached(Phase::Cut) => {
                hurried.store(true, Ordering::Relaxed);
                Stopped::Cut
            }
        };
        if stopped == Stopped::Cut {
            shutdown.cut();
            registry.list().iter().for_each(|served| served.stop());
        }
        stopped
    }

    async fn accept(
        &self,
        listener: &TcpListener,
        router: &axum::Router,
        closing: &watch::Sender<bool>,
        connections: &mut JoinSet<()>,
    ) -> Infallible {
        let limits = &self.app.config.limits;
        let places = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_headers(limits.max_headers)
            .max_buf_size(limits.max_header_bytes.max(8 << 10));
        let silence = Silence::new(limits.max_silent_connections, (limits.max_connections / 2).max(1));
        loop {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await;
            while connections.try_join_next().is_some() {}
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Tokens are small and should leave at once.
            drop(stream.set_nodelay(true));
            let silent = Arc::new(silence.begin(peer.ip()));
            let outbox = Outbox::default();
            let io = TokioIo::new(Impatient::new(stream, limits.write_timeout, outbox.clone()));
            let (app, heard) = (Arc::clone(&self.app), Arc::clone(&silent));
            let router = TowerToHyperService::new(router.clone());
            let answer = service_fn(move |mut request: Request<Incoming>| {
                heard.heard();
                request.extensions_mut().insert(Peer(peer.ip()));
                // What comes during the drain is refused, and nobody waits for that.
                let answering = (app.shutdown.phase() == Phase::Serving).then(|| app.answering());
                let (answer, outbox, shutdown) = (router.call(request), outbox.clone(), app.shutdown.clone());
                async move {
                    let mut response = answer.await?;
                    // The client's next request should find another server.
                    if shutdown.phase() != Phase::Serving {
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(match answering {
                        Some(answering) => delivery::track(response, answering, outbox),
                        None => response,
                    })
                }
            });
            let connection = http.serve_connection(io, answer);
            let mut closing = closing.subscribe();
            connections.spawn(async move {
                let mut connection = pin!(connection);
                let ended = tokio::select! {
                    ended = connection.as_mut() => Some(ended),
                    // Fails only if the sender is gone, which closes as well.
                    () = async { drop(closing.wait_for(|&closing| closing).await) } => None,
                    () = silent.unwanted() => {
                        tracing::debug!("a silent connection makes room for others");
                        return;
                    }
                };
                let ended = match ended {
                    Some(ended) => ended,
                    None => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                drop(place);
            });
        }
    }
}

/// The address a request came from, among its extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

fn check_protected(address: SocketAddr, access: &Access) -> Result<(), ServeError> {
    match address.ip().is_loopback() || !access.keys.is_empty() || access.insecure_no_auth {
        true => Ok(()),
        false => Err(ServeError::Unprotected { address }),
    }
}

/// A socket with a write timeout.
struct Impatient {
    stream: TcpStream,
    patience: Duration,
    /// Running while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
    outbox: Outbox,
}

impl Impatient {
    fn new(stream: TcpStream, patience: Duration, outbox: Outbox) -> Self {
        Self { stream, patience, deadline: None, outbox }
    }

    /// The outcome of a write, or a timeout.
    fn judge<T>(&mut self, outcome: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.deadline = None;
            return outcome;
        }
        let patience = self.patience;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        std::task::ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped reading")))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(outcome, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection flushes the socket when its own buffer is empty.
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(outcome, Poll::Ready(Ok(()))) {
            self.outbox.flushed();
        }
        self.judge(outcome, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(outcome, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
