//! `GET /health`: liveness of the process and its engine.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::http::{ApiError, App};

pub(super) async fn show(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let age = app.engine.heartbeat_age();
    if age >= app.config.limits.max_heartbeat_age {
        let message = format!("the engine has given no sign of life for {} seconds", age.as_secs());
        return Err(ApiError::unhealthy(message));
    }
    Ok(Json(json!({"status": "ok"})))
}
