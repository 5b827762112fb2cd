//! `GET /tokenizer_info`: what `tokenizer_config.json` says, with the control tokens that lm-eval looks for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value};

use crate::http::{ApiError, App};

pub(super) async fn show(State(app): State<Arc<App>>) -> Result<Json<Map<String, Value>>, ApiError> {
    let served = app.served(None)?;
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
    info.insert("chat_template".to_owned(), tokenizer.chat_template().into());
    info.entry("tokenizer_class").or_insert_with(|| "PreTrainedTokenizerFast".into());
    Ok(Json(info))
}
