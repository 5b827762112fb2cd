//! The `tokenizer.json` of a SentencePiece BPE tokenizer in a GGUF file, as of Llama 1 and 2, Mistral and TinyLlama.
//!
//! The file holds tokens with scores instead of merges. The adjacent pair whose union has the highest score is merged
//! first, so every split of a token into two is a merge with that token's rank. Unmerged characters fall back to
//! bytes. Source: `llm_tokenizer_spm` of llama.cpp, and `SentencePieceExtractor` of transformers for the merges.

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

use super::file::{GgufError, GgufFile};
use super::tokenizer::{
    ADD_BOS, ADD_EOS, BOS, CONTROL, EOS, NORMAL, TOKENS, Tokens, UNKNOWN, USER_DEFINED, added_token,
    begin_and_end, malformed,
};
use super::value::Value;

const SCORES: &str = "tokenizer.ggml.scores";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
const SPACE: &str = "▁";

/// Token type of the unknown token.
const IS_UNKNOWN: i64 = 2;
/// Maximum token length for which merges are searched, in bytes; `tokenizers` has no limit, but the work grows with
/// it.
const LONGEST: usize = 256;

pub(super) fn tokenizer_json(file: &GgufFile, tokens: &Tokens<'_>) -> Result<Json, GgufError> {
    let mut vocab = Map::new();
    let mut added = Vec::new();
    for (id, token, kind) in tokens.iter() {
        if vocab.insert(token.to_owned(), id.into()).is_some() {
            return Err(malformed(file, TOKENS, format!("token {token:?} is there twice")));
        }
        if [CONTROL, USER_DEFINED, IS_UNKNOWN].contains(&kind) {
            added.push(added_token(id, token, kind != USER_DEFINED));
        }
    }
    let flag = |key: &'static str, absent: bool| {
        file.optional(key, "true or false", Value::as_bool).map(|said| said.unwrap_or(absent))
    };
    let unknown = file.optional(UNKNOWN, "an id", Value::as_usize)?;
    let is_unknown =
        |&(id, _, kind): &(usize, &str, i64)| unknown.map_or(kind == IS_UNKNOWN, |wanted| wanted == id);
    let unknown = tokens.iter().find(is_unknown).map(|(_, token, _)| token);
    let spaced = flag(ADD_SPACE, true)?;
    let mut normalizers = vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE })];
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if spaced {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": SPACE }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let begin = flag(ADD_BOS, true)?.then_some(BOS);
    let end = flag(ADD_EOS, false)?.then_some(EOS);
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": null,
        "post_processor": begin_and_end(file, tokens, begin, end)?,
        "decoder": { "type": "Sequence", "decoders": decoders },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": merges(file, tokens)?,
        },
    }))
}

/// All merges, sorted by the score of the resulting token, highest first.
fn merges(file: &GgufFile, tokens: &Tokens<'_>) -> Result<Vec<Json>, GgufError> {
    let scores = file.wanted(SCORES, "a list of 32-bit floats", Value::as_f32s)?;
    let plain = || tokens.iter().filter(|&(_, _, kind)| kind == NORMAL);
    if scores.len() != tokens.iter().count() || scores.iter().any(|score| score.is_nan()) {
        return Err(malformed(file, SCORES, "it has not one number for each token".to_owned()));
    }
    let ids: HashMap<&str, usize> = plain().map(|(id, token, _)| (token, id)).collect();
    // By score of the union, then by the ids of the parts: independent of the order of the vocabulary.
    let mut found: Vec<(f32, [usize; 2], [&str; 2])> = Vec::new();
    for (id, token, _) in plain().filter(|(_, token, _)| token.len() <= LONGEST) {
        for (at, _) in token.char_indices().skip(1) {
            let (a, b) = token.split_at(at);
            if let (Some(&first), Some(&second)) = (ids.get(a), ids.get(b)) {
                found.push((scores[id], [first, second], [a, b]));
            }
        }
    }
    found.sort_by(|(score, parts, _), (other, others, _)| other.total_cmp(score).then(parts.cmp(others)));
    Ok(found.into_iter().map(|(_, _, [a, b])| json!([a, b])).collect())
}
