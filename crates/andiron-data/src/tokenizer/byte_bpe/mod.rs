//! Encoding by byte-level BPE: the hot path of preparing a corpus.
//!
//! The `tokenizers` library builds a normalized copy of each text, strings of its own for every word, and offsets, to give ids
//! alone. Here a text is read once: [`pattern`] finds the next word by a hand-written match of the usual patterns, [`cache`]
//! remembers the ids of short words, and [`merges`] computes those of others. Ids are the library's, which is the oracle of
//! the tests. A tokenizer with any other step keeps the library, and so does a text that needs one: one that spells an added
//! token, or is not surely in normal form C where that is asked for.

mod cache;
mod classes;
mod merges;
mod pattern;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aho_corasick::AhoCorasick;
use serde_json::Value;

use super::bytes::char_to_byte;
use cache::Cache;
use merges::{Merges, Scratch};
use pattern::Words;

/// No id: a byte that has no token, which the library drops.
const NONE: u32 = u32::MAX;

/// The parts of a `tokenizer.json` that decide whether this encoder reads it.
pub(super) struct Parts<'a> {
    /// Tokens and ids.
    pub(super) vocabulary: &'a HashMap<&'a str, u64>,
    /// Pairs of tokens, the first merged first. All of them, and what they merge to, are in the vocabulary.
    pub(super) merges: Vec<(&'a str, &'a str)>,
    pub(super) has_unknown: bool,
    /// A word that is a token is that token, whatever the merges.
    pub(super) ignores_merges: bool,
    pub(super) normalizer: Option<&'a Value>,
    pub(super) pre_tokenizer: Option<&'a Value>,
    /// Added tokens that are found in any text: those that are no control tokens.
    pub(super) found_in_text: Vec<&'a str>,
}

/// A byte-level BPE vocabulary.
pub(super) struct ByteBpe {
    words: Words,
    merges: Merges,
    /// Tokens by their bytes, if a word that is a token is that token.
    whole: Option<HashMap<Box<[u8]>, u32>>,
    /// The id of each byte, or [`NONE`].
    bytes: [u32; 256],
    /// Whether texts must be in normal form C.
    composes: bool,
    found_in_text: Option<AhoCorasick>,
    /// What calls use and give back, so that words stay known between texts: one for each thread at most.
    idle: Mutex<Vec<State>>,
}

struct State {
    cache: Cache,
    scratch: Scratch,
}

impl ByteBpe {
    /// The encoder of a tokenizer, if it has no other step than those known here.
    pub(super) fn new(parts: &Parts<'_>) -> Option<Self> {
        let composes = match parts.normalizer {
            None => false,
            Some(normalizer) if normalizer.get("type")?.as_str()? == "NFC" => true,
            Some(_) => return None,
        };
        // The library normalizes added tokens too.
        if composes && !parts.found_in_text.iter().all(|token| token.is_ascii()) {
            return None;
        }
        let words = Words::new(parts.pre_tokenizer?)?;
        let id = |token: &str| parts.vocabulary.get(token).and_then(|&id| u32::try_from(id).ok());
        let mut bytes = [NONE; 256];
        for token in parts.vocabulary.keys() {
            let mut chars = token.chars();
            if let (Some(char), None) = (chars.next(), chars.next())
                && let Some(byte) = char_to_byte(char)
            {
                bytes[usize::from(byte)] = id(token)?;
            }
        }
        if parts.has_unknown && bytes.contains(&NONE) {
            return None;
        }
        let mut merges = Vec::with_capacity(parts.merges.len());
        let mut joined = String::new();
        for (a, b) in &parts.merges {
            joined.clear();
            joined.push_str(a);
            joined.push_str(b);
            merges.push(((id(a)?, id(b)?), id(&joined)?));
        }
        let whole = if parts.ignores_merges {
            let spelled = |(token, _): (&&str, _)| {
                // Tokens with other characters are no words of a text.
                let bytes: Option<Box<[u8]>> = token.chars().map(char_to_byte).collect();
                bytes.map(|bytes| Some((bytes, id(token)?)))
            };
            Some(parts.vocabulary.iter().filter_map(spelled).collect::<Option<_>>()?)
        } else {
            None
        };
        let found_in_text = match parts.found_in_text.as_slice() {
            [] => None,
            tokens => Some(AhoCorasick::new(tokens).ok()?),
        };
        let merges = Merges::new(&merges)?;
        Some(Self { words, merges, whole, bytes, composes, found_in_text, idle: Mutex::default() })
    }

    /// Whether some text gives one of these ids.
    pub(super) fn gives_any(&self, mut ids: impl Iterator<Item = u32>) -> bool {
        ids.any(|id| {
            self.bytes.contains(&id)
                || self.merges.give(id)
                || self.whole.iter().flatten().any(|(word, &token)| token == id && self.is_word(word))
        })
    }

    /// Whether a text may have this word.
    fn is_word(&self, bytes: &[u8]) -> bool {
        let mut words = 0;
        std::str::from_utf8(bytes).is_ok_and(|text| {
            self.words.of(text, |_| words += 1);
            words == 1
        })
    }

    /// Whether this encoder gives the library's ids of a text.
    pub(super) fn reads(&self, text: &str) -> bool {
        self.found_in_text.as_ref().is_none_or(|tokens| !tokens.is_match(text))
            && (!self.composes || is_surely_composed(text))
    }

    /// Appends the ids of a text that it [`reads`](Self::reads).
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let state = idle().pop();
        let mut state = state.unwrap_or_else(|| State { cache: Cache::new(), scratch: Scratch::default() });
        let State { cache, scratch } = &mut state;
        self.words.of(text, |word| cache.ids(&word, ids, |word, ids| self.merge(word, scratch, ids)));
        idle().push(state);
    }

    fn merge(&self, word: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        if let Some(&id) = self.whole.as_ref().and_then(|whole| whole.get(word)) {
            ids.push(id);
            return;
        }
        let symbols = word.iter().map(|&byte| self.bytes[usize::from(byte)]).filter(|&id| id != NONE);
        self.merges.apply(symbols, scratch, ids);
    }
}

/// Calls `each` with the words into which GPT-2's pattern splits a text.
pub(super) fn gpt2_words(text: &str, each: &mut dyn FnMut(&str)) {
    Words::gpt2().of(text, |word| each(word.text()));
}

/// Whether a text is in normal form C for sure: it has only characters that compose with nothing and are composed.
///
/// Source: `NFC_Quick_Check` in Unicode's `DerivedNormalizationProps.txt`.
fn is_surely_composed(text: &str) -> bool {
    text.is_ascii()
        || text.chars().all(|c| {
            matches!(c,
                '\0'..='\u{2ff}'
                | '\u{400}'..='\u{481}'
                | '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}' | '\u{20a0}'..='\u{20c0}'
                | '\u{2190}'..='\u{2328}' | '\u{2500}'..='\u{27bf}'
                | '\u{3000}'..='\u{3029}' | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fe}'
                | '\u{3131}'..='\u{318e}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
                | '\u{ac00}'..='\u{d7a3}' | '\u{ff01}'..='\u{ff5e}'
                | '\u{1f300}'..='\u{1faff}')
        })
}

#[cfg(test)]
mod tests;
