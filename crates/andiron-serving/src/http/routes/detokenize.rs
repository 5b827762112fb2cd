//! `POST /detokenize`: token ids to text, as vLLM has it (`prompt`) and llama.cpp's server (`content`).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};

use crate::http::fields::Fields;
use crate::http::limits::read_json;
use crate::http::{ApiError, App};

/// What the field `tokens` holds.
const TOKENS: &str = "an array of token ids";

/// Reads a request, for the description of the API.
pub(super) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    app.served(fields.model()?.as_deref())?;
    fields.required::<Vec<u32>>("tokens", TOKENS).map(drop)
}

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, ApiError> {
    let (head, body) = request.into_parts();
    let (body, reserved) = read_json(&app, &head.headers, body).await?;
    let (served, ids) = {
        let fields = Fields::parse(&body)?;
        let served = app.served(fields.model()?.as_deref())?;
        (served, fields.required::<Vec<u32>>("tokens", TOKENS)?)
    };
    drop(body);
    let vocab_size = served.sizes().vocab_size;
    if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
        return Err(ApiError::outside_vocabulary("tokens", id, vocab_size));
    }
    let text = app.decode(&served, ids).await?;
    drop(reserved);
    Ok(Json(json!({"prompt": text, "content": text})))
}
