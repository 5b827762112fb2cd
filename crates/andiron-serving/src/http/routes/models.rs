//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::http::{ApiError, App};
use crate::registry::Served;

pub(super) async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    let cards: Vec<Value> = app.registry.list().iter().map(|served| card(served)).collect();
    Json(json!({"object": "list", "data": cards}))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(card(&*app.served(Some(&id))?)))
}

fn card(served: &Served) -> Value {
    let capabilities: Vec<&str> = served.can().iter().map(|capability| capability.name()).collect();
    json!({
        "id": served.info.id,
        "object": "model",
        "created": served.info.created,
        "owned_by": "andiron",
        "root": served.info.id,
        "parent": served.info.parent,
        "max_model_len": served.sizes().context_len,
        "capabilities": capabilities,
    })
}
