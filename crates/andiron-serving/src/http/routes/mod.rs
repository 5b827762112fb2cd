//! The routes, one file each, and their common layers.

mod about;
mod apply_template;
mod chat;
mod completions;
mod decisions;
mod detokenize;
mod health;
mod load;
mod messages;
mod metrics;
mod models;
mod openapi;
mod page;
mod ready;
mod responses;
mod tasks;
mod tokenize;
mod tokenizer_info;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use futures_util::FutureExt;

use super::{ApiError, App, auth, cors};

/// A path of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// The path as axum writes it.
    pub path: &'static str,
    /// Whether it is served without a key.
    pub open: bool,
}

/// Every path a server has.
pub fn endpoints() -> Vec<Endpoint> {
    table().into_iter().map(|(endpoint, _)| endpoint).collect()
}

/// One row per endpoint; [`router`], the key check and the tests are made from it.
fn table() -> Vec<(Endpoint, MethodRouter<Arc<App>>)> {
    let read = |path| Endpoint { method: "GET", path, open: false };
    api().into_iter().chain(page::routes().map(|(path, method)| (read(path), method))).collect()
}

/// The endpoints of the API.
fn api() -> Vec<(Endpoint, MethodRouter<Arc<App>>)> {
    let open = |path| Endpoint { method: "GET", path, open: true };
    let read = |path| Endpoint { method: "GET", path, open: false };
    let send = |path| Endpoint { method: "POST", path, open: false };
    vec![
        (open("/health"), get(health::show)),
        (open("/ready"), get(ready::show)),
        (read("/openapi.json"), get(openapi::show)),
        (read("/metrics"), get(metrics::show)),
        (read("/v1/models"), get(models::list)),
        (read("/v1/models/{*id}"), get(models::show)),
        (read("/models"), get(load::statuses)),
        (send("/models/load"), post(load::load)),
        (send("/models/unload"), post(load::unload)),
        (send("/v1/completions"), post(completions::create)),
        (send("/v1/chat/completions"), post(chat::create)),
        (send("/v1/responses"), post(responses::create)),
        (send("/v1/responses/input_tokens"), post(responses::count)),
        (send("/v1/decisions"), post(decisions::create)),
        (send("/v1/messages"), post(messages::create)),
        (send("/v1/messages/count_tokens"), post(messages::count)),
        (send("/v1/embeddings"), post(tasks::embeddings::create)),
        (send("/v1/rerank"), post(tasks::rerank::create)),
        (send("/v2/rerank"), post(tasks::rerank::create)),
        (send("/rerank"), post(tasks::rerank::create_either)),
        (send("/embed"), post(tasks::tei::embed)),
        (send("/predict"), post(tasks::tei::predict)),
        (read("/info"), get(tasks::tei::info)),
        (send("/classify"), post(tasks::classify::create)),
        (send("/token-classify"), post(tasks::token_classify::create)),
        (send("/answer"), post(tasks::answer::create)),
        (send("/fill-mask"), post(tasks::fill_mask::create)),
        (send("/summarize"), post(tasks::summarize::create)),
        (send("/attention"), post(tasks::attention::create)),
        (send("/translate"), post(tasks::translate::create)),
        (read("/languages"), get(tasks::translate::languages)),
        (send("/tokenize"), post(tokenize::create)),
        (send("/detokenize"), post(detokenize::create)),
        (send("/apply-template"), post(apply_template::create)),
        (read("/tokenizer_info"), get(tokenizer_info::show)),
    ]
}

/// Whether a path is always served without a key.
pub(super) fn is_open(path: &str) -> bool {
    matches!(path, "/health" | "/ready")
}

pub(super) fn router(app: Arc<App>) -> Router {
    let routes = table()
        .into_iter()
        .fold(Router::new(), |router, (endpoint, method)| router.route(endpoint.path, method));
    let routes = routes
        .fallback(|| async { ApiError::no_such_route() })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(from_fn_with_state(Arc::clone(&app), auth::guard))
        .layer(from_fn_with_state(Arc::clone(&app), observe));
    match cors::layer(&app.config.access.cors_origins) {
        Some(cors) => routes.layer(cors).with_state(app),
        None => routes.with_state(app),
    }
}

/// Turns panics into 500, counts requests, and logs one line for each. Of what the client sent, the line holds only the method and a known path.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.extensions().get::<axum::extract::MatchedPath>().map(|path| path.as_str().to_owned());
    let path = path.unwrap_or_else(|| "(none)".to_owned());
    let passing = app.traffic.passing(&method, path.clone());
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = answered.unwrap_or_else(|_| {
        tracing::error!(%method, path, "a handler panicked");
        ApiError::internal("the server failed on this request").into_response()
    });
    let (status, ms) = (response.status().as_u16(), started.elapsed().as_millis());
    passing.answered(status);
    tracing::info!(%method, path, status, ms, "request");
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_described() {
        for endpoint in endpoints().into_iter().filter(|endpoint| !endpoint.path.starts_with("/web/")) {
            let about = about::about(endpoint.path)
                .unwrap_or_else(|| panic!("{} has no entry in about.rs", endpoint.path));
            assert_eq!(about.body.is_some(), endpoint.method == "POST", "{endpoint:?}");
        }
    }

    #[test]
    fn exactly_the_open_endpoints_need_no_key() {
        for endpoint in endpoints() {
            assert_eq!(endpoint.open, is_open(endpoint.path), "{endpoint:?}");
        }
        let open: Vec<&str> = endpoints().iter().filter(|e| e.open).map(|e| e.path).collect();
        assert_eq!(open, ["/health", "/ready"]);
    }
}
