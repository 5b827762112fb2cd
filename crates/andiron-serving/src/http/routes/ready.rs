//! `GET /ready`: whether a request would be accepted now.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::http::{ApiError, App, Phase};

pub(super) async fn show(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    if app.shutdown.phase() != Phase::Serving {
        return Err(ApiError::shutting_down());
    }
    if !app.engine.accepts_work() {
        return Err(ApiError::unhealthy("the queue is full"));
    }
    let load = app.engine.load();
    Ok(Json(json!({"status": "ready", "running": load.running, "queued": load.queued})))
}
