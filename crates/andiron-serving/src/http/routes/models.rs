//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::http::{ApiError, App};

pub(super) async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [card(&app)]}))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    match id == app.config.model.id {
        true => Ok(Json(card(&app))),
        false => Err(ApiError::no_such_model(&id, &app.config.model.id)),
    }
}

fn card(app: &App) -> Value {
    let model = &app.config.model;
    json!({
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "andiron",
        "root": model.id,
        "parent": null,
        "max_model_len": app.engine.sizes().context_len,
    })
}
