//! Connections without a request yet.
//!
//! Opening them is cheap for clients, so they are limited: when one address, or all together, has too many, the oldest one is
//! closed.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The silent connections of a server, those without a request yet.
#[derive(Clone, Debug)]
pub(super) struct Silence {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    by_address: usize,
    together: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// Oldest first.
    connections: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    address: IpAddr,
    close: Arc<Notify>,
}

/// A silent connection; dropping it or [`heard`](Self::heard) takes it off the list.
#[derive(Debug)]
pub(super) struct Silent {
    shared: Arc<Shared>,
    number: u64,
    close: Arc<Notify>,
}

impl Silence {
    pub(super) fn new(by_address: usize, together: usize) -> Self {
        let shared =
            Shared { waiting: Mutex::default(), by_address: by_address.max(1), together: together.max(1) };
        Self { shared: Arc::new(shared) }
    }

    /// Adds a connection from `address`; may close an older one.
    pub(super) fn begin(&self, address: IpAddr) -> Silent {
        let close = Arc::new(Notify::new());
        let mut waiting = self.shared.lock();
        let of_address = |entry: &Entry| entry.address == address;
        let crowded =
            waiting.connections.iter().filter(|entry| of_address(entry)).count() >= self.shared.by_address;
        let oldest = match crowded {
            true => waiting.connections.iter().position(of_address),
            false => (waiting.connections.len() >= self.shared.together).then_some(0),
        };
        if let Some(entry) = oldest.and_then(|at| waiting.connections.remove(at)) {
            entry.close.notify_one();
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.connections.push_back(Entry { number, address, close: Arc::clone(&close) });
        Silent { shared: Arc::clone(&self.shared), number, close }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Silent {
    /// A request came.
    pub(super) fn heard(&self) {
        // Numbers only grow from front to back.
        let mut waiting = self.shared.lock();
        if let Ok(at) = waiting.connections.binary_search_by_key(&self.number, |entry| entry.number) {
            waiting.connections.remove(at);
        }
    }

    /// Waits until this connection is to be closed.
    pub(super) async fn unwanted(&self) {
        self.close.notified().await;
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.heard();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::FutureExt;

    use super::*;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn unwanted(silent: &Silent) -> bool {
        silent.unwanted().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_silent_connection_of_a_crowding_address_goes() {
        let silence = Silence::new(2, 3);
        let stranger = silence.begin(address(1));
        let (first, second) = (silence.begin(address(2)), silence.begin(address(2)));
        second.heard();
        let third = silence.begin(address(2));
        assert!(!unwanted(&first) && !unwanted(&stranger), "one that has asked does not count");
        let fourth = silence.begin(address(2));
        assert!(unwanted(&first));
        assert!(![&stranger, &second, &third, &fourth].into_iter().any(unwanted));
        // All together are too many: the oldest goes, whoever's it is.
        let _other = silence.begin(address(3));
        assert!(unwanted(&stranger) && !unwanted(&third) && !unwanted(&fourth));
    }

    #[test]
    fn a_connection_that_ends_is_no_longer_counted() {
        let silence = Silence::new(1, 1);
        drop(silence.begin(address(1)));
        let first = silence.begin(address(1));
        assert!(!unwanted(&first));
        assert_eq!(silence.shared.lock().connections.len(), 1);
    }
}
