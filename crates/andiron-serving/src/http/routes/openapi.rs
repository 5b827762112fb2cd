//! `GET /openapi.json`: the description of this API.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::{about, endpoints};
use crate::http::{App, openapi};

pub(super) async fn show(State(app): State<Arc<App>>) -> Json<Value> {
    Json(openapi::document(&app, &endpoints(), about::about))
}
