mod decode;
mod encode;
mod files;
mod special;
mod train;
mod validate;

use serde_json::{Value, json};

use super::*;

pub(super) const TEXT: &str =
    "the cat sat on the mat, and the other cat sat there.\nThe end?  No: the beginning!\n";

fn byte_level() -> Tokenizer {
    train_bpe([TEXT.repeat(4)], &BpeOptions { vocab_size: 320, ..BpeOptions::new(0) }).unwrap()
}

fn small_bpe() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": [["a", "b"]],
        }
    })
}

fn load(json: &Value) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_json(json.to_string().as_bytes())
}

pub(super) fn added(id: u64, content: &str) -> Value {
    json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
}

/// As in Llama 2: spaces are `▁`, unknown characters become byte tokens.
fn byte_fallback() -> Tokenizer {
    let mut json = small_bpe();
    let mut vocab: Map<String, Value> = Map::new();
    for (id, token) in ["<unk>", "▁", "a", "b", "▁a", "你"].into_iter().enumerate() {
        vocab.insert(token.into(), id.into());
    }
    for byte in 0..=255 {
        vocab.insert(format!("<0x{byte:02X}>"), (6 + byte).into());
    }
    json["model"]["vocab"] = vocab.into();
    json["model"]["merges"] = json!([["▁", "a"]]);
    json["model"]["byte_fallback"] = json!(true);
    json["model"]["unk_token"] = json!("<unk>");
    json["normalizer"] = json!({ "type": "Sequence", "normalizers": [
        { "type": "Prepend", "prepend": "▁" },
        { "type": "Replace", "pattern": { "String": " " }, "content": "▁" } ] });
    json["decoder"] = json!({ "type": "Sequence", "decoders": [
        { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
        { "type": "ByteFallback" }, { "type": "Fuse" },
        { "type": "Strip", "content": " ", "start": 1, "stop": 0 } ] });
    json["added_tokens"] = json!([added(0, "<unk>")]);
    load(&json).unwrap()
}

/// As in T5, except for the scores.
fn metaspace() -> Tokenizer {
    let mut json = small_bpe();
    let space = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
    json["model"] = json!({ "type": "Unigram", "unk_id": 0, "byte_fallback": false,
        "vocab": [["<unk>", 0.0], ["a", -1.0], ["▁a", -1.0], ["b", -1.0], ["▁ba", -1.0], ["▁", -2.0]] });
    json["pre_tokenizer"] = space.clone();
    json["decoder"] = space;
    json["added_tokens"] = json!([added(0, "<unk>")]);
    load(&json).unwrap()
}

/// As in BERT.
fn word_piece() -> Tokenizer {
    let mut json = small_bpe();
    json["model"] = json!({ "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": { "[UNK]": 0, "a": 1, "##a": 2, "b": 3, "##bab": 4 } });
    json["pre_tokenizer"] = json!({ "type": "BertPreTokenizer" });
    json["decoder"] = json!({ "type": "WordPiece", "prefix": "##", "cleanup": true });
    json["added_tokens"] = json!([added(0, "[UNK]")]);
    load(&json).unwrap()
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32], special: Special) -> (String, Vec<String>) {
    let mut stream = StreamDecoder::new(tokenizer, special);
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    (pieces.concat(), pieces)
}
