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
    if app.is_starting() {
        return Err(ApiError::loading());
    }
    let models = app.registry.list();
    if !models.iter().any(|served| served.accepts_work()) {
        return Err(ApiError::unhealthy(match models.is_empty() {
            true => "there is no model",
            false => "the queue is full",
        }));
    }
    let loads = models.iter().map(|served| served.load());
    let (running, queued) =
        loads.fold((0, 0), |(running, queued), load| (running + load.running, queued + load.queued));
    Ok(Json(json!({"status": "ready", "running": running, "queued": queued})))
}
