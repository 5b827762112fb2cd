//! The `tokenizer.json` of BERT's WordPiece tokenizer in a GGUF file.
//!
//! The file prefixes word beginnings with `▁`, where `vocab.txt` prefixes continuations with `##`. It does not
//! specify normalization: as in llama.cpp, text is lower-cased and accents are stripped. Source: `llm_tokenizer_wpm`
//! of llama.cpp and its converter.

use serde_json::{Map, Value as Json, json};

use super::file::{GgufError, GgufFile};
use super::tokenizer::{BOS, CONTROL, Tokens, UNKNOWN, added_token, malformed};
use super::value::Value;

const CLS: &str = "tokenizer.ggml.cls_token_id";
/// Literal token.
const SEP: &str = "tokenizer.ggml.seperator_token_id";
const WORD: char = '▁';

pub(super) fn tokenizer_json(file: &GgufFile, tokens: &Tokens<'_>) -> Result<Json, GgufError> {
    let names: Vec<String> = tokens.iter().map(|(_, token, kind)| spelt(token, kind)).collect();
    let mut vocab = Map::new();
    for (id, name) in names.iter().enumerate() {
        if vocab.insert(name.clone(), id.into()).is_some() {
            return Err(malformed(file, super::tokenizer::TOKENS, format!("token {name:?} is there twice")));
        }
    }
    let added = tokens.iter().filter(|&(_, _, kind)| kind == CONTROL);
    let added: Vec<Json> = added.map(|(id, _, _)| added_token(id, &names[id], true)).collect();
    let id_of = |key: &'static str| -> Result<Option<usize>, GgufError> {
        let Some(id) = file.optional(key, "an id", Value::as_usize)? else { return Ok(None) };
        match names.get(id) {
            Some(_) => Ok(Some(id)),
            None => Err(malformed(file, key, format!("there is no token {id}"))),
        }
    };
    let wanted = |id: Option<usize>, key: &str| {
        id.ok_or_else(|| malformed(file, key, "the file does not name this token".to_owned()))
    };
    let cls = wanted(id_of(CLS)?.or(id_of(BOS)?), CLS)?;
    let sep = wanted(id_of(SEP)?, SEP)?;
    let unknown = wanted(id_of(UNKNOWN)?, UNKNOWN)?;
    let special = |id: usize| json!({ "id": names[id], "ids": [id], "tokens": [names[id]] });
    let token = |id: usize, type_id: u64| json!({ "SpecialToken": { "id": names[id], "type_id": type_id } });
    let (first, second) = (
        json!({ "Sequence": { "id": "A", "type_id": 0 } }),
        json!({ "Sequence": { "id": "B", "type_id": 1 } }),
    );
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true,
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token(cls, 0), first, token(sep, 0)],
            "pair": [token(cls, 0), first, token(sep, 0), second, token(sep, 1)],
            "special_tokens": { names[cls].as_str(): special(cls), names[sep].as_str(): special(sep) },
        },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece", "unk_token": names[unknown], "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab,
        },
    }))
}

/// A token in the form of `vocab.txt`.
pub(super) fn spelt(token: &str, kind: i64) -> String {
    match token.strip_prefix(WORD) {
        _ if kind == CONTROL => token.to_owned(),
        Some(word) => word.to_owned(),
        None => format!("##{token}"),
    }
}
