//! `POST /tokenize`: a text or a conversation to token ids, as vLLM has it and lm-eval asks for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};

use crate::http::chat::{ConversationRequest, render};
use crate::http::fields::Fields;
use crate::http::limits::read_json;
use crate::http::text::Reading;
use crate::http::{ApiError, App};
use crate::registry::Served;

/// What is to be tokenized.
enum Text {
    Prompt(String, Reading),
    Chat(ConversationRequest),
}

/// A checked request.
struct TokenizeRequest {
    served: Arc<Served>,
    text: Text,
    with_strings: bool,
}

impl TokenizeRequest {
    fn parse(fields: &Fields<'_>, app: &App) -> Result<Self, ApiError> {
        let served = app.served(fields.model()?.as_deref())?;
        let text = match (fields.raw("messages"), fields.raw("prompt")) {
            (Some(_), Some(_)) => return Err(ApiError::invalid("messages", "not together with prompt")),
            (Some(_), None) => Text::Chat(ConversationRequest::parse(fields, app, &served)?),
            (None, _) => Text::Prompt(fields.required("prompt", "a string")?, Reading::parse(fields)?),
        };
        Ok(Self { served, text, with_strings: fields.flag("return_token_strs")? })
    }
}

/// Reads a request, for the description of the API.
pub(super) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    TokenizeRequest::parse(fields, app).map(drop)
}

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, ApiError> {
    let (head, body) = request.into_parts();
    let (body, reserved) = read_json(&app, &head.headers, body).await?;
    let TokenizeRequest { served, text, with_strings } =
        TokenizeRequest::parse(&Fields::parse(&body)?, &app)?;
    drop(body);
    let ids = match text {
        Text::Chat(conversation) => render(&app, &served, conversation).await?.ids,
        Text::Prompt(prompt, how) => app.encode(&served, prompt, how).await?,
    };
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
