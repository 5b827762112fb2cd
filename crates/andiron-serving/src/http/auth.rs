//! Access control: API keys, and allowed `Host` headers.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::cors::CorsOrigin;
use super::routes::is_open;
use super::serve::Peer;
use super::{ApiError, App};

/// An API key. Never printed, not even by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key; `None` for an empty or blank one, and for one with spaces at its ends, which no client could send.
    pub fn new(key: impl Into<String>) -> Option<Self> {
        let key = key.into();
        (!key.is_empty() && key.trim() == key).then_some(Self(key))
    }

    /// Compares in time that depends on `presented` only.
    fn matches(&self, presented: &[u8]) -> bool {
        let key = self.0.as_bytes();
        let mut differs = u8::from(key.len() != presented.len());
        for (index, &byte) in presented.iter().enumerate() {
            differs |= std::hint::black_box(byte ^ key[index % key.len()]);
        }
        std::hint::black_box(differs) == 0
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// Who may use the server.
///
/// With keys, every path but `/health`, `/ready` and, if it is open, `/metrics` wants one, as `Authorization: Bearer KEY`, as `x-api-key: KEY`, or as the
/// password of HTTP Basic, so that a browser can open the web page. Without keys, only local clients are served: the socket must be on a loopback
/// address, and a `Host` header that names another machine is refused, which is what a web site that points its own
/// name at 127.0.0.1 ("DNS rebinding") would send.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Valid keys. Empty: no key is required.
    pub keys: Vec<ApiKey>,
    /// Serve without keys on any address. For closed networks, or behind an authenticating gateway.
    pub insecure_no_auth: bool,
    /// Additional allowed values of `Host` on a server without keys, besides `localhost` and loopback addresses.
    pub allowed_hosts: Vec<String>,
    /// Web origins whose pages may use the server from a browser (CORS). Empty: none but its own.
    pub cors_origins: Vec<CorsOrigin>,
    /// Serve `/metrics` without a key and whatever the `Host` header, for programs that read metrics and have no key. It tells the names
    /// of the models, counts of requests and tokens, and nothing of what they were.
    pub open_metrics: bool,
}

impl Access {
    /// Whether a path is served without a key.
    fn opens(&self, path: &str) -> bool {
        is_open(path) || (self.open_metrics && path == "/metrics")
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        if self.keys.is_empty() {
            return true;
        }
        let Some(presented) = presented(headers) else { return false };
        // Every key is compared, so that the time does not tell which one came close.
        self.keys.iter().fold(false, |found, key| found | key.matches(&presented))
    }

    /// Identifies the client of a request: by its key, else by its address.
    pub(super) fn client(&self, head: &Parts) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        match self.keys.is_empty() {
            true => head.extensions.get::<Peer>().map(|peer| peer.0).hash(&mut hasher),
            false => presented(&head.headers).hash(&mut hasher),
        }
        hasher.finish()
    }

    fn host_is_local(&self, headers: &HeaderMap) -> bool {
        if !self.keys.is_empty() || self.insecure_no_auth {
            return true;
        }
        // HTTP/1.0 clients send none; browsers always do.
        headers.get_all(header::HOST).iter().all(|host| host.to_str().is_ok_and(|host| self.names_us(host)))
    }

    fn names_us(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => host.rsplit_once(':').map_or(host, |(name, _port)| name),
        };
        let is_loopback = name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        let allowed = self.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        is_loopback || name.eq_ignore_ascii_case("localhost") || allowed
    }
}

/// Refuses unauthorized requests before their body is read.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let access = &app.config.access;
    if access.opens(request.uri().path()) {
        return next.run(request).await;
    }
    if !access.admits(request.headers()) {
        let scheme = match request.uri().path() {
            "/" => "Basic realm=\"andiron: any name, the API key as password\"",
            _ => "Bearer",
        };
        let mut response = ApiError::unauthorized().into_response();
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        return response;
    }
    if !access.host_is_local(request.headers()) {
        return ApiError::foreign_host().into_response();
    }
    next.run(request).await
}

/// The key of a request: a Bearer token, the password of HTTP Basic, or, without `Authorization`, Anthropic's `x-api-key`.
fn presented(headers: &HeaderMap) -> Option<Vec<u8>> {
    if !headers.contains_key(header::AUTHORIZATION) {
        let mut values = headers.get_all("x-api-key").iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        return Some(value.as_bytes().to_vec());
    }
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    match value.as_bytes().split_first_chunk::<7>() {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => Some(key.to_vec()),
        _ => match value.as_bytes().split_first_chunk::<6>() {
            Some((scheme, pair)) if scheme.eq_ignore_ascii_case(b"basic ") => {
                Some(password(pair).unwrap_or_default())
            }
            _ => None,
        },
    }
}

/// The password in the Base64 text of HTTP Basic. Source: RFC 7617, RFC 4648.
fn password(pair: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(pair.len());
    let (mut bits, mut held) = (0u32, 0);
    for &symbol in pair.strip_suffix(b"==").or(pair.strip_suffix(b"=")).unwrap_or(pair) {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            decoded.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    Some(decoded.split_off(colon + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(key: &str) -> Access {
        Access { keys: ApiKey::new(key).into_iter().collect(), ..Access::default() }
    }

    fn with_header(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("a valid header"))])
    }

    #[track_caller]
    fn check_admitted(value: &str, expected: bool) {
        assert_eq!(access("sesame").admits(&with_header(header::AUTHORIZATION, value)), expected, "{value}");
    }

    #[test]
    fn only_the_exact_key_is_admitted() {
        check_admitted("Bearer sesame", true);
        check_admitted("bearer sesame", true);
        for wrong in
            ["Bearer", "Bearer ", "Bearer sesam", "Bearer sesames", "Bearer sesamesesame", "Bearer Sesame"]
        {
            check_admitted(wrong, false);
        }
        for wrong in ["sesame", "Token sesame", "Bearer  sesame", "Basic sesame", "Basic !!!"] {
            check_admitted(wrong, false);
        }
        assert!(!access("sesame").admits(&HeaderMap::new()));
    }

    #[test]
    fn a_key_is_one_client_however_it_is_presented() {
        let client = |value: &str| {
            let request = axum::http::Request::builder().header(header::AUTHORIZATION, value).body(());
            access("sesame").client(&request.expect("a request").into_parts().0)
        };
        let one = client("Bearer sesame");
        assert_eq!([client("bEARER sesame"), client("Basic dXNlcjpzZXNhbWU=")], [one, one]);
        assert_ne!(client("Bearer other"), one);
    }

    #[test]
    fn the_password_of_basic_is_the_key() {
        check_admitted("Basic dXNlcjpzZXNhbWU=", true); // user:sesame
        check_admitted("Basic OnNlc2FtZQ==", true); // :sesame
        check_admitted("Basic dXNlcjpTZXNhbWU=", false); // user:Sesame
        check_admitted("Basic c2VzYW1l", false); // sesame
    }

    #[test]
    fn the_header_of_anthropics_client_counts_without_another() {
        let name = header::HeaderName::from_static("x-api-key");
        assert!(access("sesame").admits(&with_header(name.clone(), "sesame")));
        assert!(!access("sesame").admits(&with_header(name.clone(), "sesam")));
        let mut headers = with_header(name, "sesame");
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer wrong"));
        assert!(!access("sesame").admits(&headers));
    }

    #[test]
    fn two_authorization_headers_are_refused() {
        let mut headers = with_header(header::AUTHORIZATION, "Bearer wrong");
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer sesame"));
        assert!(!access("sesame").admits(&headers));
    }

    #[test]
    fn a_blank_key_is_no_key() {
        assert!(ApiKey::new("").is_none() && ApiKey::new(" ").is_none() && ApiKey::new("a ").is_none());
        assert_eq!(format!("{:?}", ApiKey::new("sesame")), "Some(ApiKey(…))");
    }

    #[track_caller]
    fn check_host(host: &str, expected: bool) {
        let access = Access { allowed_hosts: vec!["box.lan".to_owned()], ..Access::default() };
        assert_eq!(access.host_is_local(&with_header(header::HOST, host)), expected, "{host}");
    }

    #[test]
    fn without_a_key_the_host_must_be_local() {
        for host in
            ["localhost", "localhost:8080", "127.0.0.1:80", "[::1]:80", "[::1]", "127.9.9.9", "BOX.lan:1"]
        {
            check_host(host, true);
        }
        for host in
            ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1", "", "localhost.evil"]
        {
            check_host(host, false);
        }
        assert!(access("k").host_is_local(&with_header(header::HOST, "evil.example")));
        assert!(Access::default().host_is_local(&HeaderMap::new()));
    }
}
