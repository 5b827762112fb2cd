//! `GET /metrics`: what Prometheus reads.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::http::App;
use crate::metrics::{self, Exposition, Shown};

pub(super) async fn show(State(app): State<Arc<App>>) -> impl IntoResponse {
    let models = app.registry.list();
    let shown = models.iter().map(|served| {
        let load = served.load();
        Shown { name: &served.info.id, metrics: served.metrics(), running: load.running, queued: load.queued }
    });
    let shown: Vec<_> = shown.collect();
    let mut page = Exposition::default();
    app.traffic.write(&mut page);
    metrics::write(&shown, &mut page);
    if app.config.vllm_metrics {
        metrics::write_as_vllm(&shown, &mut page);
    }
    ([(header::CONTENT_TYPE, Exposition::MEDIA_TYPE)], page.into_text())
}
