//! `GET /health`: liveness of the process and of what runs its models.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::http::{ApiError, App};

pub(super) async fn show(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    app.check_health()?;
    Ok(Json(json!({"status": "ok"})))
}
