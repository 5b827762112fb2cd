//! Cross-origin requests (CORS): which web pages may use the server from a browser.
//!
//! Source: WHATWG Fetch, "CORS protocol", <https://fetch.spec.whatwg.org/#http-cors-protocol>.

use std::time::Duration;

use axum::http::{HeaderValue, Method, Uri, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders};

/// How long a browser may remember what it was allowed.
const REMEMBERED: Duration = Duration::from_secs(600);

/// A web origin, such as `https://chat.example.org`, or `*` for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsOrigin(HeaderValue);

impl CorsOrigin {
    /// An origin; `None` if `text` is neither `*` nor a scheme and a host, with or without a port.
    pub fn parse(text: &str) -> Option<Self> {
        let value = HeaderValue::from_str(text).ok()?;
        if text == "*" {
            return Some(Self(value));
        }
        let (uri, (_, host)) = (text.parse::<Uri>().ok()?, text.split_once("://")?);
        let bare = uri.scheme_str().is_some() && !host.is_empty() && !host.contains(['/', '?', '#', '@']);
        bare.then_some(Self(value))
    }
}

/// What answers preflight requests, and allows the answers of others; `None` without origins. It comes before the check of keys:
/// a browser asks without one.
pub(super) fn layer(origins: &[CorsOrigin]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origin = match origins.iter().any(|origin| origin.0 == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().map(|origin| origin.0.clone())),
    };
    let layer = CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST])
        // Official clients send many of their own.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list([header::RETRY_AFTER]))
        .max_age(REMEMBERED);
    Some(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for good in ["*", "https://chat.example.org", "http://localhost:3000", "http://[::1]:3000"] {
            assert!(CorsOrigin::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "chat.example.org",
            "https://",
            "https://a.example/",
            "https://a.example/x",
            "null",
            "a b",
            "http://u@h",
        ] {
            assert!(CorsOrigin::parse(bad).is_none(), "{bad}");
        }
    }
}
