//! Tokenizers stored as a vocabulary only: BERT's `vocab.txt`, and `vocab.json` with `merges.txt` of GPT-2, RoBERTa and
//! Qwen 2. The rest (normalizer, pre-tokenizer, special tokens) is defined by the class of the tokenizer.
//!
//! Source: `BertTokenizer`, `GPT2Tokenizer`, `RobertaTokenizer` and `Qwen2Tokenizer` of `transformers` 5.24.0.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::error::TokenizerError;
use super::files::{model_type, read_object, read_text};
use super::special::SpecialTokens;

pub(super) const WORDS: &str = "vocab.txt";
pub(super) const PAIRS: &str = "vocab.json";
pub(super) const MERGES: &str = "merges.txt";
/// Added tokens and their ids, as older versions wrote them.
pub(super) const ADDED: &str = "added_tokens.json";

const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The class of the tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Bert,
    Gpt2,
    Roberta,
    Qwen2,
}

/// The special tokens of the class, used if the files do not name them, and the `tokenizer.json` equivalent to the files.
/// `settings` are `tokenizer_config.json` and `special_tokens_map.json`.
pub(super) fn tokenizer_json(
    dir: &Path,
    settings: [Option<&Map<String, Value>>; 2],
) -> Result<(SpecialTokens, Vec<u8>), TokenizerError> {
    let class = class_of(dir, settings[0])?;
    let mut special = SpecialTokens::default();
    settings.into_iter().flatten().for_each(|json| special.fill_from(json));
    special.fill_from(&class.default_tokens().to_map());
    let (vocab, merges) = match class {
        Class::Bert => (read_words(dir)?, Vec::new()),
        _ => (read_vocabulary(dir)?, read_merges(dir)?),
    };
    let added = added_tokens(dir, settings, &special, &vocab)?;
    let setting = |key: &str| settings[0].and_then(|config| config.get(key)).filter(|value| !value.is_null());
    let flag = |key: &str, absent: bool| setting(key).and_then(Value::as_bool).unwrap_or(absent);
    let spaced = flag("add_prefix_space", false);
    let bytes = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": spaced, "trim_offsets": true, "use_regex": use_regex });
    let (normalizer, pre_tokenizer) = match class {
        Class::Bert => (
            json!({
                "type": "BertNormalizer", "clean_text": true,
                "handle_chinese_chars": flag("tokenize_chinese_chars", true),
                "strip_accents": setting("strip_accents"), "lowercase": flag("do_lower_case", true),
            }),
            json!({ "type": "BertPreTokenizer" }),
        ),
        Class::Qwen2 => {
            let split = json!({ "type": "Split", "pattern": { "Regex": QWEN2_PATTERN }, "behavior": "Isolated", "invert": false });
            (json!({ "type": "NFC" }), json!({ "type": "Sequence", "pretokenizers": [split, bytes(false)] }))
        }
        Class::Gpt2 | Class::Roberta => (Value::Null, bytes(true)),
    };
    let id_of = |token: &Option<String>| {
        let token = token.as_deref().unwrap_or_default();
        let entry = added.iter().find(|entry| entry["content"] == token);
        let id = entry.and_then(|entry| entry["id"].as_u64());
        id.map(|id| (token.to_owned(), id)).ok_or_else(|| TokenizerError::VocabularyFile {
            file: if class == Class::Bert { WORDS } else { PAIRS },
            message: format!("it lacks the token {token:?}"),
        })
    };
    let post_processor = match class {
        Class::Bert => {
            let (cls, sep) = (id_of(&special.cls)?, id_of(&special.sep)?);
            template([Some(&cls), Some(&sep)], [None, Some(&sep)], 1)
        }
        Class::Roberta => {
            let (cls, sep) = (id_of(&special.cls)?, id_of(&special.sep)?);
            json!({ "type": "RobertaProcessing", "sep": [sep.0, sep.1], "cls": [cls.0, cls.1],
                    "trim_offsets": flag("trim_offsets", true), "add_prefix_space": spaced })
        }
        Class::Gpt2 | Class::Qwen2 => {
            let around =
                |key: &str, token: &Option<String>| flag(key, false).then(|| id_of(token)).transpose();
            let (bos, eos) = (around("add_bos_token", &special.bos)?, around("add_eos_token", &special.eos)?);
            template([bos.as_ref(), eos.as_ref()], [bos.as_ref(), eos.as_ref()], 1)
        }
    };
    let model = match class {
        Class::Bert => {
            json!({ "type": "WordPiece", "unk_token": special.unk, "continuing_subword_prefix": "##",
                               "max_input_chars_per_word": 100, "vocab": vocab })
        }
        _ => json!({ "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                     "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
                     "merges": merges }),
    };
    let decoder = match class {
        Class::Bert => json!({ "type": "WordPiece", "prefix": "##", "cleanup": true }),
        _ => {
            json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true })
        }
    };
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": decoder, "model": model,
    });
    Ok((special, json.to_string().into_bytes()))
}

/// The class, by `tokenizer_class`, else by `model_type` in `config.json`, else by the content of the vocabulary.
fn class_of(dir: &Path, config: Option<&Map<String, Value>>) -> Result<Class, TokenizerError> {
    let is_words = dir.join(WORDS).exists();
    let refuse = |name: &str| TokenizerError::VocabularyFile {
        file: if is_words { WORDS } else { PAIRS },
        message: format!(
            "tokenizers of {name} are not read from it: save one with `transformers`, which writes tokenizer.json"
        ),
    };
    let class = config.and_then(|config| config.get("tokenizer_class")?.as_str());
    if let Some(class) =
        class.filter(|class| !class.starts_with("PreTrainedTokenizer") && *class != "TokenizersBackend")
    {
        return match class.strip_suffix("Fast").unwrap_or(class) {
            "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" | "MobileBertTokenizer"
                if is_words =>
            {
                Ok(Class::Bert)
            }
            "GPT2Tokenizer" if !is_words => Ok(Class::Gpt2),
            "RobertaTokenizer" | "BartTokenizer" | "LongformerTokenizer" if !is_words => Ok(Class::Roberta),
            "Qwen2Tokenizer" if !is_words => Ok(Class::Qwen2),
            _ => Err(refuse(class)),
        };
    }
    match model_type(dir).as_deref() {
        Some("bert" | "distilbert" | "electra" | "mobilebert") if is_words => Ok(Class::Bert),
        Some("gpt2") if !is_words => Ok(Class::Gpt2),
        Some("roberta" | "bart" | "longformer") if !is_words => Ok(Class::Roberta),
        Some("qwen2" | "qwen3" | "qwen2_moe" | "qwen3_moe") if !is_words => Ok(Class::Qwen2),
        Some(other) => Err(refuse(other)),
        None if is_words => Ok(Class::Bert),
        None => {
            let vocab = read_vocabulary(dir)?;
            let is_roberta = ["<s>", "</s>", "<mask>"].iter().all(|token| vocab.contains_key(*token));
            Ok(if is_roberta { Class::Roberta } else { Class::Gpt2 })
        }
    }
}

impl Class {
    fn default_tokens(self) -> SpecialTokens {
        let token = |text: &str| Some(text.to_owned());
        match self {
            Self::Bert => SpecialTokens {
                unk: token("[UNK]"),
                sep: token("[SEP]"),
                pad: token("[PAD]"),
                cls: token("[CLS]"),
                mask: token("[MASK]"),
                ..SpecialTokens::default()
            },
            Self::Gpt2 => SpecialTokens {
                unk: token("<|endoftext|>"),
                bos: token("<|endoftext|>"),
                eos: token("<|endoftext|>"),
                ..SpecialTokens::default()
            },
            Self::Roberta => SpecialTokens::roberta(),
            Self::Qwen2 => SpecialTokens {
                unk: token("<|endoftext|>"),
                eos: token("<|endoftext|>"),
                pad: token("<|endoftext|>"),
                ..SpecialTokens::default()
            },
        }
    }
}

/// One token per line; if a token occurs twice, its last line counts.
fn read_words(dir: &Path) -> Result<Map<String, Value>, TokenizerError> {
    let text = read_lines(dir, WORDS)?;
    Ok(text.lines().enumerate().map(|(id, line)| (line.trim_end().to_owned(), id.into())).collect())
}

fn read_vocabulary(dir: &Path) -> Result<Map<String, Value>, TokenizerError> {
    let bytes = read_text(&dir.join(PAIRS))?;
    serde_json::from_slice(&bytes).map_err(|source| TokenizerError::Json { file: PAIRS, source })
}

fn read_merges(dir: &Path) -> Result<Vec<Value>, TokenizerError> {
    let text = read_lines(dir, MERGES)?;
    let merges = text.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    Ok(merges.map(Value::from).collect())
}

fn read_lines(dir: &Path, file: &'static str) -> Result<String, TokenizerError> {
    String::from_utf8(read_text(&dir.join(file))?)
        .map_err(|error| TokenizerError::VocabularyFile { file, message: error.utf8_error().to_string() })
}

/// Added tokens: those of the files with their ids, then special tokens, which get the next free ids if they have none.
fn added_tokens(
    dir: &Path,
    settings: [Option<&Map<String, Value>>; 2],
    special: &SpecialTokens,
    vocab: &Map<String, Value>,
) -> Result<Vec<Value>, TokenizerError> {
    let mut added: Vec<Value> = Vec::new();
    let entry = |id: u64, content: &str, given: &Value, is_special: bool| {
        let flag = |key: &str, absent: bool| given.get(key).and_then(Value::as_bool).unwrap_or(absent);
        json!({ "id": id, "content": content, "single_word": flag("single_word", false), "lstrip": flag("lstrip", false),
                "rstrip": flag("rstrip", false), "normalized": flag("normalized", !is_special),
                "special": flag("special", is_special) })
    };
    let by_id = settings[0].and_then(|config| config.get("added_tokens_decoder")?.as_object());
    for (id, token) in by_id.into_iter().flatten() {
        if let (Ok(id), Some(content)) = (id.parse(), token.get("content").and_then(Value::as_str)) {
            added.push(entry(id, content, token, false));
        }
    }
    let has = |added: &[Value], token: &str| added.iter().any(|entry| entry["content"] == token);
    if let Some((_, tokens)) = read_object(dir, ADDED)? {
        for (token, id) in tokens {
            if let Some(id) = id.as_u64().filter(|_| !has(&added, &token)) {
                added.push(entry(id, &token, &Value::Null, special.all().contains(&token.as_str())));
            }
        }
    }
    let ids =
        vocab.values().filter_map(Value::as_u64).chain(added.iter().filter_map(|entry| entry["id"].as_u64()));
    let mut next = ids.max().map_or(0, |id| id.saturating_add(1));
    for token in special.all() {
        if has(&added, token) {
            continue;
        }
        let id = vocab.get(token).and_then(Value::as_u64).unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        // A role may come with how its token is found in a text.
        let is_role = |value: &&Value| value.get("content").and_then(Value::as_str) == Some(token);
        let given = settings.into_iter().flatten().flat_map(Map::values).find(is_role);
        added.push(entry(id, token, given.unwrap_or(&Value::Null), true));
    }
    added.sort_by_key(|entry| entry["id"].as_u64());
    Ok(added)
}

/// A template post-processor, with the special tokens around the first and the second text.
fn template(
    first: [Option<&(String, u64)>; 2],
    second: [Option<&(String, u64)>; 2],
    second_type: u64,
) -> Value {
    let around = |[begin, end]: [Option<&(String, u64)>; 2], sequence: &str, type_id: u64| {
        let token =
            |(token, _): &(String, u64)| json!({ "SpecialToken": { "id": token, "type_id": type_id } });
        let text = json!({ "Sequence": { "id": sequence, "type_id": type_id } });
        begin.map(token).into_iter().chain([text]).chain(end.map(token)).collect::<Vec<_>>()
    };
    let tokens = first.into_iter().chain(second).flatten();
    let special: Map<String, Value> = tokens
        .map(|(token, id)| (token.clone(), json!({ "id": token, "ids": [id], "tokens": [token] })))
        .collect();
    let pair = [around(first, "A", 0), around(second, "B", second_type)].concat();
    json!({ "type": "TemplateProcessing", "single": around(first, "A", 0), "pair": pair, "special_tokens": special })
}

#[cfg(test)]
mod tests;
