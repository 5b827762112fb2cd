//! Counts requests by route and status.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::http::Method;

use crate::metrics::{Exposition, Kind};

/// Status of a request whose client went away before there was one, as nginx logs it.
const CLIENT_GONE: u16 = 499;

/// Method, route and status.
type Key = (&'static str, String, u16);

/// Requests so far.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    requests: Mutex<BTreeMap<Key, u64>>,
}

/// A request being answered. Dropped without [`Passing::answered`], it counts as one whose client has gone.
#[derive(Debug)]
pub(super) struct Passing<'a> {
    traffic: &'a Traffic,
    method: &'static str,
    route: String,
    status: u16,
}

impl Traffic {
    /// A request for `route`, which is a path of the router and not one that a client chose.
    pub(super) fn passing(&self, method: &Method, route: String) -> Passing<'_> {
        Passing { traffic: self, method: known(method), route, status: CLIENT_GONE }
    }

    /// Writes the counts.
    pub(super) fn write(&self, page: &mut Exposition) {
        const NAME: &str = "http_requests_total";
        page.family(
            Kind::Counter,
            NAME,
            "Requests by route and status; 499 is a client that went away before the answer.",
        );
        for ((method, route, status), count) in self.lock().iter() {
            let status = status.to_string();
            page.sample(NAME, &[("method", method), ("route", route), ("status", &status)], *count as f64);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, u64>> {
        // Nothing panics while it is held but for lack of memory.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passing<'_> {
    /// Counts the request with the status of its response.
    pub(super) fn answered(mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        let key = (self.method, std::mem::take(&mut self.route), self.status);
        *self.traffic.lock().entry(key).or_default() += 1;
    }
}

/// A client may invent methods, and each would be a new time series.
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_methods_are_one_and_abandoned_requests_are_counted() {
        let traffic = Traffic::default();
        for method in ["GET", "GET", "BREW", "STEEP"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
            traffic.passing(&method, "/a".to_owned()).answered(200);
        }
        drop(traffic.passing(&Method::POST, "/b".to_owned()));
        let mut page = Exposition::default();
        traffic.write(&mut page);
        let text = page.into_text();
        for line in [
            r#"{method="GET",route="/a",status="200"} 2"#,
            r#"{method="other",route="/a",status="200"} 2"#,
            r#"{method="POST",route="/b",status="499"} 1"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
