//! The `tokenizer.json` and the chat template from a GGUF file's metadata.
//!
//! Byte-level BPE (`tokenizer.ggml.model` is `gpt2`), SentencePiece BPE (`llama`) and BERT's WordPiece (`bert`). For
//! byte-level BPE the file holds only the name of the pre-tokenizer; the patterns are those of the published
//! tokenizers of that name.

use std::collections::HashSet;

use serde_json::{Map, Value as Json, json};

use super::file::{GgufError, GgufFile};
use super::value::Value;
use super::{sentence_piece, word_piece};

pub(super) const MODEL: &str = "tokenizer.ggml.model";
pub(super) const PRE: &str = "tokenizer.ggml.pre";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(super) const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
pub(super) const MERGES: &str = "tokenizer.ggml.merges";
pub(super) const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
pub(super) const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
pub(super) const BOS: &str = "tokenizer.ggml.bos_token_id";
pub(super) const EOS: &str = "tokenizer.ggml.eos_token_id";
pub(super) const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
pub(super) const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Special tokens of `tokenizer_config.json`, and the metadata keys of their ids.
const ROLES: [(&str, &str); 5] = [
    ("bos_token", BOS),
    ("eos_token", EOS),
    ("unk_token", UNKNOWN),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
    ("mask_token", "tokenizer.ggml.mask_token_id"),
];

/// Value of [`MODEL`] for BERT's WordPiece.
const WORD_PIECE: &str = "bert";

/// Token types.
pub(super) const NORMAL: i64 = 1;
pub(super) const CONTROL: i64 = 3;
pub(super) const USER_DEFINED: i64 = 4;
pub(super) const UNUSED: i64 = 5;

/// llama.cpp's default pre-tokenizer, for files that name none: patterns applied in sequence.
const DEFAULT_PATTERNS: [&str; 4] = [
    r"[\p{P}$+<=>^~|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
];
/// Llama 3's pre-tokenizer pattern.
pub(super) const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's pre-tokenizer pattern: Llama 3's, but with single digits.
pub(super) const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The chat template in a GGUF file, in Jinja.
///
/// # Errors
/// If the key is not a string.
pub fn chat_template(file: &GgufFile) -> Result<Option<&str>, GgufError> {
    file.optional(CHAT_TEMPLATE, "a string", Value::as_str)
}

/// The `tokenizer_config.json` of the tokenizer in a GGUF file: special tokens and chat template.
///
/// # Errors
/// If an id is outside the vocabulary, or a key has the wrong type.
pub fn tokenizer_config_json(file: &GgufFile) -> Result<Map<String, Json>, GgufError> {
    let tokens = Tokens::of(file)?;
    let is_bert = file.optional(MODEL, "a string", Value::as_str)? == Some(WORD_PIECE);
    let mut config = Map::new();
    config.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
    config.insert("clean_up_tokenization_spaces".to_owned(), false.into());
    for (role, key) in ROLES {
        let Some(id) = file.optional(key, "an id", Value::as_usize)? else { continue };
        let missing = || malformed(file, key, format!("there is no token {id}"));
        let (_, token, kind) = tokens.iter().nth(id).ok_or_else(missing)?;
        let token = if is_bert { word_piece::spelt(token, kind) } else { token.to_owned() };
        config.insert(role.to_owned(), token.into());
    }
    if let Some(add) = file.optional(ADD_BOS, "true or false", Value::as_bool)? {
        config.insert("add_bos_token".to_owned(), add.into());
    }
    if let Some(template) = chat_template(file)? {
        config.insert("chat_template".to_owned(), template.into());
    }
    Ok(config)
}

/// The `tokenizer.json` of the tokenizer in a GGUF file.
///
/// # Errors
/// If the file has none or its parts contradict each other, or if it is neither WordPiece (`bert`) nor SentencePiece
/// BPE (`llama`) nor byte-level BPE (`gpt2`) with a known pre-tokenizer: `default` (also if the key is missing),
/// `gpt-2`, `smollm`, `llama-bpe`, `smaug-bpe`, `qwen2`, or another name that llama.cpp has for one of these.
pub fn tokenizer_json(file: &GgufFile) -> Result<Json, GgufError> {
    let tokens = Tokens::of(file)?;
    match file.wanted(MODEL, "a string", Value::as_str)? {
        WORD_PIECE => word_piece::tokenizer_json(file, &tokens),
        "gpt2" => byte_level(file, &tokens),
        "llama" => sentence_piece::tokenizer_json(file, &tokens),
        model => Err(not_supported(file, MODEL, &format!("{model} is none of gpt2, llama and {WORD_PIECE}"))),
    }
}

/// Tokens and their types.
pub(super) struct Tokens<'a> {
    names: &'a [String],
    types: Option<Vec<i64>>,
}

impl<'a> Tokens<'a> {
    fn of(file: &'a GgufFile) -> Result<Self, GgufError> {
        let names = file.wanted(TOKENS, "a list of strings", Value::as_strings)?;
        let types = file.optional(TOKEN_TYPE, "a list of integers", Value::as_integers)?;
        if types.as_ref().is_some_and(|types| types.len() != names.len()) {
            return Err(malformed(file, TOKEN_TYPE, "it has not one entry for each token".to_owned()));
        }
        Ok(Self { names, types })
    }

    /// Ids, tokens and types.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &'a str, i64)> {
        let kind = |id: usize| self.types.as_ref().map_or(NORMAL, |types| types[id]);
        self.names.iter().enumerate().map(move |(id, name)| (id, name.as_str(), kind(id)))
    }
}

fn byte_level(file: &GgufFile, tokens: &Tokens<'_>) -> Result<Json, GgufError> {
    let pre = file.optional(PRE, "a string", Value::as_str)?.unwrap_or(DEFAULT_PRE);
    let Some(splitting) = Splitting::of(pre) else {
        let known: Vec<&str> = Splitting::KNOWN.iter().map(|&(name, _)| name).collect();
        return Err(not_supported(file, PRE, &format!("{pre} is none of {}", known.join(", "))));
    };
    let mut vocab = Map::new();
    let mut added = Vec::new();
    for (id, token, kind) in tokens.iter() {
        if kind == CONTROL || kind == USER_DEFINED {
            added.push(added_token(id, token, kind == CONTROL));
        }
        // Padding entries are not part of the vocabulary.
        if kind != UNUSED && vocab.insert(token.to_owned(), id.into()).is_some() {
            return Err(malformed(file, TOKENS, format!("token {token:?} is there twice")));
        }
    }
    let merges = merges(file, &vocab)?;
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": splitting.normalizer(),
        "pre_tokenizer": splitting.pre_tokenizer(),
        "post_processor": post_processor(file, tokens, splitting)?,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            // Llama 3 takes a word that is a token as a whole, whether or not merges lead to it.
            "ignore_merges": splitting == Splitting::Llama3,
            "vocab": vocab,
            "merges": merges,
        },
    }))
}

fn not_supported(file: &GgufFile, key: &str, reason: &str) -> GgufError {
    let path = file.path().to_owned();
    GgufError::NotSupported { path, what: key.to_owned(), reason: reason.to_owned() }
}

pub(super) fn malformed(file: &GgufFile, key: &str, reason: String) -> GgufError {
    GgufError::Malformed { path: file.path().to_owned(), what: key.to_owned(), reason }
}

pub(super) fn added_token(id: usize, token: &str, special: bool) -> Json {
    json!({
        "id": id,
        "content": token,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": special,
    })
}

/// Merges whose parts and result are all in the vocabulary.
fn merges(file: &GgufFile, vocab: &Map<String, Json>) -> Result<Vec<Json>, GgufError> {
    let merges = file.wanted(MERGES, "a list of strings", Value::as_strings)?;
    let mut seen = HashSet::new();
    let mut pairs = Vec::with_capacity(merges.len());
    for merge in merges {
        let known = |(a, b): &(&str, &str)| {
            vocab.contains_key(*a) && vocab.contains_key(*b) && vocab.contains_key(&format!("{a}{b}"))
        };
        match merge.split_once(' ').filter(known) {
            Some((a, b)) if seen.insert(merge) => pairs.push(json!([a, b])),
            Some(_) => return Err(malformed(file, MERGES, format!("merge {merge:?} is there twice"))),
            None => return Err(malformed(file, MERGES, format!("merge {merge:?} is not one of tokens"))),
        }
    }
    Ok(pairs)
}

/// The post-processor: adds the special tokens that the file asks for. Without `add_bos_token`, a begin token is
/// added only with Llama 3's pre-tokenizer, as in llama.cpp.
fn post_processor(file: &GgufFile, tokens: &Tokens<'_>, splitting: Splitting) -> Result<Json, GgufError> {
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true,
    });
    let flag = |key: &'static str| file.optional(key, "true or false", Value::as_bool);
    let begins = match flag(ADD_BOS)? {
        Some(said) => said,
        None => splitting == Splitting::Llama3 && file.metadata(BOS).is_some(),
    };
    let ends = flag(ADD_EOS)? == Some(true);
    Ok(match begin_and_end(file, tokens, begins.then_some(BOS), ends.then_some(EOS))? {
        Json::Null => bytes,
        template => json!({ "type": "Sequence", "processors": [bytes, template] }),
    })
}

/// A post-processor that adds the tokens under these metadata keys around each text; null if there are none.
pub(super) fn begin_and_end(
    file: &GgufFile,
    tokens: &Tokens<'_>,
    begin: Option<&'static str>,
    end: Option<&'static str>,
) -> Result<Json, GgufError> {
    let mut special = Map::new();
    let mut named = |key: Option<&'static str>| -> Result<Option<&str>, GgufError> {
        let Some(key) = key else { return Ok(None) };
        let id = file.wanted(key, "the id of a token", |value| {
            value.as_usize().filter(|&id| id < tokens.names.len())
        })?;
        let token = tokens.names[id].as_str();
        special.insert(token.to_owned(), json!({ "id": token, "ids": [id], "tokens": [token] }));
        Ok(Some(token))
    };
    let (begin, end) = (named(begin)?, named(end)?);
    if special.is_empty() {
        return Ok(Json::Null);
    }
    let around = |sequence: &str, type_id: u64| {
        let token = |token: &str| json!({ "SpecialToken": { "id": token, "type_id": type_id } });
        let text = json!({ "Sequence": { "id": sequence, "type_id": type_id } });
        begin.map(token).into_iter().chain([text]).chain(end.map(token)).collect::<Vec<_>>()
    };
    let pair = [around("A", 0), around("B", 1)].concat();
    Ok(json!({
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": pair,
        "special_tokens": special,
    }))
}

/// The pre-tokenizer of files that name none.
const DEFAULT_PRE: &str = "default";

/// Pre-tokenizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Splitting {
    Default,
    Gpt2,
    SmolLm,
    Llama3,
    /// As above, but words that are tokens are merged like others, and no begin token is added by default.
    Smaug,
    Qwen2,
}

impl Splitting {
    /// Names in GGUF, as known to llama.cpp; the first of each is the one to write.
    pub(super) const KNOWN: &'static [(&'static str, Self)] = &[
        (DEFAULT_PRE, Self::Default),
        ("gpt-2", Self::Gpt2),
        ("phi-2", Self::Gpt2),
        ("exaone4", Self::Gpt2),
        ("gigachat", Self::Gpt2),
        ("a.x-4.0", Self::Gpt2),
        ("mellum", Self::Gpt2),
        ("modern-bert", Self::Gpt2),
        ("jina-es", Self::Gpt2),
        ("jina-de", Self::Gpt2),
        ("jina-v2-es", Self::Gpt2),
        ("jina-v2-de", Self::Gpt2),
        ("mpt", Self::Gpt2),
        ("olmo", Self::Gpt2),
        ("jais", Self::Gpt2),
        ("trillion", Self::Gpt2),
        ("granite-docling", Self::Gpt2),
        ("smollm", Self::SmolLm),
        ("starcoder", Self::SmolLm),
        ("refact", Self::SmolLm),
        ("command-r", Self::SmolLm),
        ("codeshell", Self::SmolLm),
        ("exaone", Self::SmolLm),
        ("minerva-7b", Self::SmolLm),
        ("llama-bpe", Self::Llama3),
        ("llama3", Self::Llama3),
        ("llama-v3", Self::Llama3),
        ("falcon3", Self::Llama3),
        ("falcon-h1", Self::Llama3),
        ("pixtral", Self::Llama3),
        ("midm-2.0", Self::Llama3),
        ("lfm2", Self::Llama3),
        ("jina-v5-nano", Self::Llama3),
        ("smaug-bpe", Self::Smaug),
        ("dbrx", Self::Smaug),
        ("glm4", Self::Smaug),
        ("chatglm-bpe", Self::Smaug),
        ("qwen2", Self::Qwen2),
        ("deepseek-r1-qwen", Self::Qwen2),
        ("kormo", Self::Qwen2),
        ("f2llmv2", Self::Qwen2),
        ("megrez", Self::Qwen2),
        ("stablelm2", Self::Qwen2),
        ("hunyuan", Self::Qwen2),
    ];

    fn of(pre: &str) -> Option<Self> {
        Self::KNOWN.iter().find(|(name, _)| *name == pre).map(|&(_, splitting)| splitting)
    }

    pub(super) fn normalizer(self) -> Json {
        if self == Self::Qwen2 { json!({ "type": "NFC" }) } else { Json::Null }
    }

    pub(super) fn pre_tokenizer(self) -> Json {
        let bytes = |use_regex: bool| {
            json!({
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex,
            })
        };
        let split = |patterns: &[&str]| {
            let split = |pattern: &&str| {
                json!({
                    "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false,
                })
            };
            let steps: Vec<Json> = patterns.iter().map(split).chain([bytes(false)]).collect();
            json!({ "type": "Sequence", "pretokenizers": steps })
        };
        match self {
            Self::Default => split(&DEFAULT_PATTERNS),
            Self::Gpt2 => bytes(true),
            Self::SmolLm => {
                let digits = json!({ "type": "Digits", "individual_digits": true });
                json!({ "type": "Sequence", "pretokenizers": [digits, bytes(true)] })
            }
            Self::Llama3 | Self::Smaug => split(&[LLAMA3_PATTERN]),
            Self::Qwen2 => split(&[QWEN2_PATTERN]),
        }
    }
}
