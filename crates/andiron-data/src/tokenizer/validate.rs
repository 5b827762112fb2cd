//! Validation of a `tokenizer.json` before the `tokenizers` library reads it.
//!
//! The library trusts its input: a merge longer than every token, or shorter than the continuation prefix, makes it panic
//! (its issue 2094). Checked here is whatever would make it fail, at load or later.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::byte_bpe::{ByteBpe, Parts};
use super::characters::Characters;
use super::error::{TokenizerError, TokenizerFault};
use super::settings::Side;

const ID_LIMIT: u64 = 1 << 31;
const WORD_LIMIT: u64 = 1024;
const PATTERN_LIMIT: usize = 16 << 10;
const GROWTH_LIMIT: u64 = 64;
/// The pattern that splits a text into its characters, in both regular expression engines that read it.
pub(super) const EACH_CHARACTER: &str = r"[\s\S]";

/// Facts about the file that allow paths faster than the library's.
pub(super) struct Facts {
    /// One more than the largest id.
    pub(super) n_ids: u32,
    /// The vocabulary, if each token is a character and a text is simply split into characters.
    pub(super) characters: Option<Characters>,
    /// Whether a text may be cut between lines without changing its ids.
    pub(super) cuts_at_lines: bool,
    /// The encoder of a byte-level BPE vocabulary with usual steps.
    pub(super) byte_bpe: Option<ByteBpe>,
    /// How tokens are decoded.
    pub(super) decoding: Decoding,
    /// Added tokens and the ids they must have.
    pub(super) added: Vec<AddedEntry>,
    /// The unknown token, if the model has one.
    pub(super) unknown: Option<String>,
    /// Whether the model is BPE.
    pub(super) is_bpe: bool,
    /// The side on which `truncation` cuts a text.
    pub(super) truncation_side: Option<Side>,
}

/// How tokens become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoding {
    /// Tokens spell bytes in GPT-2's byte-to-character table.
    ByteLevel,
    /// Tokens are concatenated as they are.
    Concatenate,
    /// Byte fallback: `<0xHH>` tokens are bytes, among other steps.
    ByteFallback,
    /// Anything else.
    Other,
}

#[derive(Deserialize)]
pub(super) struct AddedEntry {
    pub(super) id: u64,
    pub(super) content: String,
    #[serde(default)]
    pub(super) special: bool,
}

#[derive(Deserialize)]
struct RawTokenizer {
    added_tokens: Option<Vec<AddedEntry>>,
    truncation: Option<Value>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    decoder: Option<Value>,
    model: RawModel,
}

#[derive(Deserialize)]
struct RawModel {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Vocabulary,
    merges: Option<Vec<Merge>>,
    unk_token: Option<String>,
    /// The id of the unknown token in a Unigram model, which does not name the token.
    unk_id: Option<usize>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    max_input_chars_per_word: Option<u64>,
    dropout: Option<f64>,
}

/// Tokens with their ids; in a list (Unigram), the index is the id.
struct Vocabulary {
    tokens: Vec<(String, u64)>,
    is_list: bool,
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary: a map from token to id, or a list of tokens with scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut tokens = Vec::new();
                while let Some(entry) = map.next_entry::<String, u64>()? {
                    tokens.push(entry);
                }
                Ok(Vocabulary { tokens, is_list: false })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut tokens = Vec::new();
                while let Some((token, _score)) = seq.next_element::<(String, f64)>()? {
                    tokens.push((token, tokens.len() as u64));
                }
                Ok(Vocabulary { tokens, is_list: true })
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// A merge, from `["a", "b"]` or from `"a b"`; none if it is not a pair.
struct Merge(Option<(String, String)>);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge: two tokens in a list, or in a string with a space between them")
            }

            fn visit_str<E>(self, text: &str) -> Result<Merge, E> {
                let mut parts = text.split(' ');
                Ok(Merge(match (parts.next(), parts.next(), parts.next()) {
                    (Some(a), Some(b), None) => Some((a.to_owned(), b.to_owned())),
                    _ => None,
                }))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
                let mut parts: Vec<String> = Vec::new();
                while let Some(part) = seq.next_element()? {
                    parts.push(part);
                }
                Ok(Merge(<[String; 2]>::try_from(parts).ok().map(|[a, b]| (a, b))))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// Reads and checks the bytes of a `tokenizer.json`.
pub(super) fn validate(json: &[u8]) -> Result<Facts, TokenizerError> {
    let raw: RawTokenizer = serde_json::from_slice(json)
        .map_err(|source| TokenizerError::Json { file: "tokenizer.json", source })?;
    Ok(check(raw)?)
}

fn check(raw: RawTokenizer) -> Result<Facts, TokenizerFault> {
    let added = raw.added_tokens.unwrap_or_default();
    let model = raw.model;
    let ids = check_vocabulary(&model.vocab)?;
    let n_ids = check_ids(&ids, &model.vocab, &added)?;
    check_merges(&model, &ids)?;
    if model.dropout.is_some_and(|p| p != 0.0) {
        return Err(TokenizerFault::Dropout);
    }
    if let Some(value) = model.max_input_chars_per_word.filter(|&n| n > WORD_LIMIT) {
        return Err(TokenizerFault::WordTooLong { value, limit: WORD_LIMIT });
    }
    // Words are looked up whole, so a vocabulary may be meant to be complete. Others need the token.
    let is_words = model.kind.as_deref() == Some("WordLevel");
    if let Some(token) = model.unk_token.as_ref().filter(|t| !is_words && !ids.contains_key(t.as_str())) {
        return Err(TokenizerFault::UnknownToken { token: token.clone() });
    }
    for part in [&raw.normalizer, &raw.pre_tokenizer, &raw.decoder].into_iter().flatten() {
        check_patterns(part)?;
        let times = growth(part);
        if times > GROWTH_LIMIT {
            return Err(TokenizerFault::Growth { times, limit: GROWTH_LIMIT });
        }
    }
    let byte_level = |part: &Option<Value>| part.as_ref().is_some_and(|p| has_type(p, "ByteLevel"));
    if (byte_level(&raw.pre_tokenizer) || byte_level(&raw.normalizer))
        && model.unk_token.is_none()
        && model.byte_fallback != Some(true)
        && model.merges.is_some()
    {
        check_bytes(&ids, &added)?;
    }
    let byte_bpe = byte_bpe(&model, &ids, raw.normalizer.as_ref(), raw.pre_tokenizer.as_ref(), &added);
    Ok(Facts {
        n_ids,
        byte_bpe,
        characters: characters(&model, &raw.normalizer, &raw.pre_tokenizer, &added),
        cuts_at_lines: cuts_at_lines(&raw.normalizer, &raw.pre_tokenizer, &added),
        decoding: decoding(raw.decoder.as_ref()),
        unknown: unknown(&model, &ids),
        is_bpe: model.merges.is_some(),
        added,
        truncation_side: raw
            .truncation
            .and_then(|truncation| Side::named(text_of(&truncation, "direction")?)),
    })
}

/// The encoder of a byte-level BPE vocabulary, if all steps are usual ones.
fn byte_bpe(
    model: &RawModel,
    ids: &HashMap<&str, u64>,
    normalizer: Option<&Value>,
    pre_tokenizer: Option<&Value>,
    added: &[AddedEntry],
) -> Option<ByteBpe> {
    let is_empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
    let is_plain = matches!(model.kind.as_deref(), None | Some("BPE"))
        && is_empty(&model.continuing_subword_prefix)
        && is_empty(&model.end_of_word_suffix)
        && model.byte_fallback != Some(true);
    let merges = model.merges.as_ref().filter(|_| is_plain)?.iter().map(|merge| {
        let (a, b) = merge.0.as_ref()?;
        Some((a.as_str(), b.as_str()))
    });
    ByteBpe::new(&Parts {
        vocabulary: ids,
        merges: merges.collect::<Option<_>>()?,
        has_unknown: model.unk_token.is_some(),
        ignores_merges: model.ignore_merges == Some(true),
        normalizer,
        pre_tokenizer,
        found_in_text: added
            .iter()
            .filter(|added| !added.special)
            .map(|added| added.content.as_str())
            .collect(),
    })
}

fn unknown(model: &RawModel, ids: &HashMap<&str, u64>) -> Option<String> {
    let by_id = || Some(model.vocab.tokens.get(model.unk_id?)?.0.clone());
    let token = if model.vocab.is_list { by_id() } else { model.unk_token.clone() };
    token.filter(|token| ids.contains_key(token.as_str()))
}

fn check_vocabulary(vocab: &Vocabulary) -> Result<HashMap<&str, u64>, TokenizerFault> {
    if vocab.tokens.is_empty() {
        return Err(TokenizerFault::EmptyVocabulary);
    }
    let mut ids = HashMap::with_capacity(vocab.tokens.len());
    for (token, id) in &vocab.tokens {
        if *id >= ID_LIMIT {
            return Err(TokenizerFault::IdTooLarge { token: token.clone(), id: *id });
        }
        if token.is_empty() && vocab.is_list {
            return Err(TokenizerFault::EmptyToken);
        }
        if ids.insert(token.as_str(), *id).is_some() {
            return Err(TokenizerFault::DuplicateToken { token: token.clone() });
        }
    }
    Ok(ids)
}

fn check_ids(
    ids: &HashMap<&str, u64>,
    vocab: &Vocabulary,
    added: &[AddedEntry],
) -> Result<u32, TokenizerFault> {
    let mut owners: HashMap<u64, &str> = HashMap::with_capacity(ids.len() + added.len());
    let own = vocab.tokens.iter().map(|(token, id)| (token.as_str(), *id));
    for (token, id) in own.chain(added.iter().map(|a| (a.content.as_str(), a.id))) {
        if id >= ID_LIMIT {
            return Err(TokenizerFault::IdTooLarge { token: token.into(), id });
        }
        match owners.insert(id, token) {
            Some(first) if first != token => {
                return Err(TokenizerFault::DuplicateId { id, first: first.into(), second: token.into() });
            }
            _ => {}
        }
    }
    let max_id = owners.keys().copied().max().unwrap_or_default();
    if max_id >= 2 * owners.len() as u64 + 1024 {
        return Err(TokenizerFault::SparseIds { max_id, tokens: owners.len() });
    }
    // Below 2^31, as checked.
    Ok(max_id as u32 + 1)
}

fn check_merges(model: &RawModel, ids: &HashMap<&str, u64>) -> Result<(), TokenizerFault> {
    let prefix = model.continuing_subword_prefix.as_deref().unwrap_or_default();
    let mut seen = HashSet::new();
    for (rank, merge) in model.merges.iter().flatten().enumerate() {
        let (a, b) = merge.0.as_ref().ok_or(TokenizerFault::MergeForm { rank })?;
        let need = |token: &str| match ids.get(token) {
            Some(&id) => Ok(id),
            None => Err(TokenizerFault::MergeToken { rank, token: token.to_owned() }),
        };
        let pair = (need(a)?, need(b)?);
        // Both parts must add something: else merging would go round in circles.
        let rest =
            b.strip_prefix(prefix).filter(|rest| !rest.is_empty() && !a.is_empty()).ok_or_else(|| {
                TokenizerFault::MergePrefix { rank, token: b.clone(), prefix: prefix.to_owned() }
            })?;
        need(&format!("{a}{rest}"))?;
        if !seen.insert(pair) {
            return Err(TokenizerFault::DuplicateMerge { rank });
        }
    }
    Ok(())
}

/// Bytes that do not occur in written text: control characters, and the first bytes of planes without assigned characters.
/// Some published vocabularies lack a few of these and drop them from a text.
fn is_never_written(byte: u8) -> bool {
    (byte.is_ascii_control() && !byte.is_ascii_whitespace()) || matches!(byte, 0xf1 | 0xf2)
}

/// Every byte of written text must have a token.
fn check_bytes(ids: &HashMap<&str, u64>, added: &[AddedEntry]) -> Result<(), TokenizerFault> {
    let added: HashSet<&str> = added.iter().map(|a| a.content.as_str()).collect();
    let in_utf8 = (0x00..=0xbf).chain(0xc2..=0xf4);
    let missing: Vec<u8> = in_utf8
        .filter(|&byte| {
            let mut buffer = [0; 4];
            let token: &str = super::bytes::byte_to_char(byte).encode_utf8(&mut buffer);
            !is_never_written(byte) && !ids.contains_key(token) && !added.contains(token)
        })
        .collect();
    match missing.first() {
        Some(&first) => Err(TokenizerFault::MissingBytes { missing: missing.len(), first }),
        None => Ok(()),
    }
}

fn check_patterns(part: &Value) -> Result<(), TokenizerFault> {
    match part {
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| match value {
            Value::String(pattern) if key == "Regex" && pattern.len() > PATTERN_LIMIT => {
                Err(TokenizerFault::PatternTooLong { bytes: pattern.len(), limit: PATTERN_LIMIT })
            }
            other => check_patterns(other),
        }),
        Value::Array(items) => items.iter().try_for_each(check_patterns),
        _ => Ok(()),
    }
}

/// An upper bound of the factor by which the replacements in a normalizer or decoder lengthen a text.
fn growth(part: &Value) -> u64 {
    match part {
        Value::Object(fields) => {
            let inner = fields.values().map(growth).fold(1, u64::saturating_mul);
            let content = fields.get("content").and_then(Value::as_str);
            let own = match (content, fields.get("pattern")) {
                (Some(content), Some(pattern)) => {
                    let replaced = pattern.get("String").and_then(Value::as_str).map_or(0, str::len);
                    // A pattern may match nothing, between any two characters.
                    if replaced == 0 {
                        content.len() as u64 + 1
                    } else {
                        content.len().div_ceil(replaced) as u64
                    }
                }
                _ => 1,
            };
            inner.saturating_mul(own.max(1))
        }
        Value::Array(items) => items.iter().map(growth).fold(1, u64::saturating_mul),
        _ => 1,
    }
}

fn has_type(part: &Value, name: &str) -> bool {
    match part {
        Value::Object(fields) => {
            fields.get("type").and_then(Value::as_str) == Some(name)
                || fields
                    .values()
                    .any(|value| (value.is_object() || value.is_array()) && has_type(value, name))
        }
        Value::Array(items) => items.iter().any(|item| has_type(item, name)),
        _ => false,
    }
}

fn text_of<'a>(part: &'a Value, key: &str) -> Option<&'a str> {
    part.get(key).and_then(Value::as_str)
}

fn characters(
    model: &RawModel,
    normalizer: &Option<Value>,
    pre_tokenizer: &Option<Value>,
    added: &[AddedEntry],
) -> Option<Characters> {
    let split = pre_tokenizer.as_ref()?;
    let each_character = text_of(split, "type") == Some("Split")
        && split.get("pattern").and_then(|p| text_of(p, "Regex")) == Some(EACH_CHARACTER)
        && text_of(split, "behavior") == Some("Isolated")
        && split.get("invert").and_then(Value::as_bool) == Some(false);
    let complete = model.kind.as_deref() == Some("WordLevel")
        && model
            .unk_token
            .as_ref()
            .is_none_or(|unk| model.vocab.tokens.iter().all(|(token, _)| token != unk));
    if !each_character || !complete || normalizer.is_some() || added.iter().any(|a| !a.special) {
        return None;
    }
    let reserved: HashSet<u64> = added.iter().map(|a| a.id).collect();
    model
        .vocab
        .tokens
        .iter()
        .map(|(token, id)| {
            let mut chars = token.chars();
            let character = chars.next().filter(|_| chars.next().is_none() && !reserved.contains(id))?;
            Some((character, u32::try_from(*id).ok()?))
        })
        .collect()
}

/// GPT-2's pattern ends a match at a newline between two characters that are not white space, and looks no further ahead, so
/// each side of it can be encoded independently.
fn cuts_at_lines(normalizer: &Option<Value>, pre_tokenizer: &Option<Value>, added: &[AddedEntry]) -> bool {
    let flag = |key: &str, absent: bool| {
        pre_tokenizer.as_ref().map(|p| p.get(key).and_then(Value::as_bool).unwrap_or(absent))
    };
    normalizer.is_none()
        && pre_tokenizer.as_ref().and_then(|p| text_of(p, "type")) == Some("ByteLevel")
        && flag("add_prefix_space", true) == Some(false)
        && flag("use_regex", true) == Some(true)
        && added.iter().all(|a| a.special)
}

fn decoding(decoder: Option<&Value>) -> Decoding {
    match decoder {
        Some(decoder) if has_type(decoder, "ByteFallback") => Decoding::ByteFallback,
        Some(decoder) => match text_of(decoder, "type") {
            Some("ByteLevel") => Decoding::ByteLevel,
            Some("Fuse") => Decoding::Concatenate,
            _ => Decoding::Other,
        },
        None => Decoding::Other,
    }
}
