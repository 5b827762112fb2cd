//! `POST /tokenize`: text to token ids, as vLLM has it and lm-eval asks for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};

use crate::http::fields::Fields;
use crate::http::limits::read_json;
use crate::http::text::Reading;
use crate::http::{ApiError, App};

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, ApiError> {
    let (head, body) = request.into_parts();
    let (body, reserved) = read_json(&app, &head.headers, body).await?;
    let (served, prompt, how, with_strings) = {
        let fields = Fields::parse(&body)?;
        if fields.raw("messages").is_some() {
            return Err(ApiError::unsupported("messages", "; send `prompt`"));
        }
        let how = Reading::parse(&fields)?;
        let served = app.served(fields.model()?.as_deref())?;
        (served, fields.required::<String>("prompt", "a string")?, how, fields.flag("return_token_strs")?)
    };
    drop(body);
    let ids = app.encode(&served, prompt, how).await?;
    drop(reserved);
    let strings = match with_strings {
        true => Some(app.names(&served, ids.clone()).await?),
        false => None,
    };
    let max_model_len = served.sizes().context_len;
    Ok(Json(
        json!({"count": ids.len(), "max_model_len": max_model_len, "tokens": ids, "token_strs": strings}),
    ))
}
