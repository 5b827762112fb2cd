//! `GET /health`: liveness of the process and of what runs its models.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::http::{ApiError, App};

pub(super) async fn show(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    for served in app.registry.list() {
        let age = served.heartbeat_age();
        if age >= app.config.limits.max_heartbeat_age {
            let (model, seconds) = (&served.info.id, age.as_secs());
            let message = format!("the engine of `{model}` has given no sign of life for {seconds} seconds");
            return Err(ApiError::unhealthy(message));
        }
    }
    Ok(Json(json!({"status": "ok"})))
}
