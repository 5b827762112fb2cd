//! `GET /tokenizer_info`: what `tokenizer_config.json` says, with the control tokens that lm-eval looks for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde_json::{Map, Value};

use crate::http::{ApiError, App};

/// Of the first model, or of the one that the query names in `model`.
pub(super) async fn show(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let mut query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let model = query.find(|(name, _)| name == "model").map(|(_, model)| model);
    let served = app.served(model.as_deref())?;
    let tokenizer = served.text.tokenizer().ok_or_else(|| ApiError::no_tokenizer("tokenizer_info"))?;
    let special = tokenizer.special_tokens();
    let mut info = served.info.tokenizer_config.clone();
    // These as plain strings, whatever their form in the file.
    for (key, token) in [
        ("bos_token", &special.bos),
        ("eos_token", &special.eos),
        ("pad_token", &special.pad),
        ("unk_token", &special.unk),
    ] {
        info.insert(key.to_owned(), token.clone().into());
    }
    if let Some(mask) = tokenizer.mask_id().and_then(|id| tokenizer.id_to_token(id)) {
        info.insert("mask_token".to_owned(), mask.into());
    }
    info.insert("chat_template".to_owned(), tokenizer.chat_template().into());
    info.entry("tokenizer_class").or_insert_with(|| "PreTrainedTokenizerFast".into());
    Ok(Json(info))
}
