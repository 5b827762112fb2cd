//! Facts about tokens that collators need: which begin words, which end sentences, which are special.

use tokenizers::ModelWrapper;

use super::validate::Decoding;
use super::{Tokenizer, TokenizerError, bytes};
use crate::collate::{Around, MiddleTokens, Sentinels};

/// SentencePiece's spelling of a space.
const SPACE: char = '▁';

/// Spellings of the tokens for filling in the middle, in the order prefix, middle, suffix: those of StarCoder, of Qwen and
/// others, of Code Llama, and of DeepSeek.
const MIDDLE: [[&str; 3]; 5] = [
    ["<fim_prefix>", "<fim_middle>", "<fim_suffix>"],
    ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"],
    ["<fim-prefix>", "<fim-middle>", "<fim-suffix>"],
    ["▁<PRE>", "▁<MID>", "▁<SUF>"],
    ["<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜fim▁hole｜>"],
];

impl Tokenizer {
    /// For each id, whether it is a special token, which masked language modeling never masks. The unknown token is not: it
    /// stands for text, and `transformers` masks it as well where the special tokens are those that the tokenizer added.
    pub fn never_masked(&self) -> Vec<bool> {
        self.table(|id| Some(id) != self.inner.unknown && self.is_special(id))
    }

    /// For each id, whether it begins a word, as the vocabulary spells it: without WordPiece's `##`, with a byte-level space
    /// (`Ġ`) or line break, or with SentencePiece's `▁`. `None` if the vocabulary does not tell.
    ///
    /// In WordPiece a punctuation mark begins a word of its own; in the others words end at white space.
    pub fn word_starts(&self) -> Option<Vec<bool>> {
        let token = |id| self.inner.decoded_token(id);
        if let ModelWrapper::WordPiece(model) = self.inner.literal.get_model() {
            let prefix = &model.continuing_subword_prefix;
            return Some(self.table(|id| token(id).is_some_and(|token| !token.starts_with(prefix.as_str()))));
        }
        if self.inner.decoding() == Decoding::ByteLevel {
            let begins = |token: String| bytes::spelled(&token).first().is_some_and(u8::is_ascii_whitespace);
            return Some(self.table(|id| token(id).is_some_and(begins)));
        }
        let starts = self.table(|id| token(id).is_some_and(|token| token.starts_with(SPACE)));
        starts.contains(&true).then_some(starts)
    }

    /// For each id, whether it ends a sentence: its last character, other than closing marks and white space, is a full stop,
    /// an exclamation mark or a question mark. The end-of-sequence token does too.
    pub fn sentence_ends(&self) -> Vec<bool> {
        let closing = |c: char| c.is_whitespace() || c == SPACE || "\"')]}’”»」』".contains(c);
        let ends = |token: String| {
            let text = String::from_utf8_lossy(&self.inner.bytes_of(&token)).into_owned();
            text.trim_end_matches(closing).ends_with(['.', '!', '?', '…', '。', '！', '？'])
        };
        let eos = self.eos_id();
        self.table(|id| {
            Some(id) == eos || (!self.is_special(id) && self.inner.decoded_token(id).is_some_and(ends))
        })
    }

    /// The special tokens that [`frame`](Self::frame) puts around a text.
    ///
    /// # Errors
    /// If the library fails.
    pub fn added_around(&self) -> Result<Around, TokenizerError> {
        let framed = self.inner.framed(vec![self.inner.token(0, (0, 1))], None, ["x", ""])?;
        let at = framed.places.iter().position(Option::is_some).unwrap_or(framed.ids.len());
        let after = framed.ids.get(at + 1..).unwrap_or_default().to_vec();
        Ok(Around { before: framed.ids[..at].to_vec(), after })
    }

    /// T5's sentinels: `<extra_id_0>`, and those after it as far as their ids descend. `None` if there is no such token.
    pub fn sentinels(&self) -> Option<Sentinels> {
        let id_of = |number: u32| self.token_to_id(&format!("<extra_id_{number}>"));
        let first = id_of(0)?;
        let follows = |number: &u32| id_of(*number).is_some_and(|id| Some(id) == first.checked_sub(*number));
        Some(Sentinels { first, count: (0..=first).take_while(follows).count() as u32 })
    }

    /// The control tokens for filling in the middle; `None` if the vocabulary has none of the known spellings.
    pub fn middle_tokens(&self) -> Option<MiddleTokens> {
        MIDDLE.iter().find_map(|[prefix, middle, suffix]| {
            let id = |token: &str| self.token_to_id(token);
            Some(MiddleTokens { prefix: id(prefix)?, middle: id(middle)?, suffix: id(suffix)? })
        })
    }

    /// The control tokens for filling in the middle that are missing, of the spelling of which most are there; none if
    /// [`middle_tokens`](Self::middle_tokens) finds them.
    pub fn missing_middle_tokens(&self) -> Vec<&'static str> {
        let missing = |spelling: &[&'static str; 3]| -> Vec<&'static str> {
            spelling.iter().copied().filter(|token| self.token_to_id(token).is_none()).collect()
        };
        MIDDLE.iter().map(missing).min_by_key(Vec::len).unwrap_or_default()
    }

    /// A fact about each id.
    fn table(&self, fact: impl Fn(u32) -> bool) -> Vec<bool> {
        (0..self.vocab_size() as u32).map(fact).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tokenizer::frame::tests::bert;
    use crate::tokenizer::{BpeOptions, SpecialTokens, train_bpe};

    fn of_model(model: Value, decoder: Value, added: &[(u64, &str)]) -> Tokenizer {
        let added: Vec<Value> = added
            .iter()
            .map(|(id, content)| {
                json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                        "normalized": false, "special": true })
            })
            .collect();
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": { "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true },
            "post_processor": null, "decoder": decoder, "model": model,
        });
        Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
    }

    /// The ids for which a fact holds.
    fn ids(table: &[bool]) -> impl Iterator<Item = u32> {
        (0..).zip(table).filter(|(_, holds)| **holds).map(|(id, _)| id)
    }

    #[track_caller]
    fn check(tokenizer: &Tokenizer, table: &[bool], expected: &[&str]) {
        assert_eq!(table.len(), tokenizer.vocab_size());
        let found: Vec<String> = ids(table).map(|id| tokenizer.id_to_token(id).unwrap_or_default()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn word_pieces_continue_words() {
        let tokenizer = bert();
        check(&tokenizer, &tokenizer.never_masked(), &["[PAD]", "[CLS]", "[SEP]", "[MASK]"]);
        let starts = tokenizer.word_starts().unwrap();
        let continuing: Vec<bool> = starts.iter().map(|begins| !begins).collect();
        check(&tokenizer, &continuing, &["##s"]);
        assert_eq!(tokenizer.added_around().unwrap(), Around { before: vec![2], after: vec![3] });
    }

    #[test]
    fn byte_level_words_begin_with_white_space() {
        let special = SpecialTokens::end_of_text("<|end|>");
        let options = BpeOptions { special_tokens: special, ..BpeOptions::new(262) };
        let tokenizer = train_bpe(["so it is. so it was."], &options).unwrap();
        let starts = tokenizer.word_starts().unwrap();
        let spelled: Vec<String> = ids(&starts).filter_map(|id| tokenizer.id_to_token(id)).collect();
        assert!(spelled.iter().any(|token| token == "Ġ") && spelled.iter().any(|token| token == "Ċ"));
        assert!(spelled.iter().any(|token| token.len() > "Ġ".len()), "{spelled:?}");
        assert!(spelled.iter().all(|token| token.starts_with(['Ġ', 'Ċ', 'ĉ', 'č', 'Č'])), "{spelled:?}");
        let ends = tokenizer.sentence_ends();
        check(&tokenizer, &ends, &["<|end|>", "!", ".", "?"]);
        assert!(tokenizer.added_around().unwrap().is_empty());
        assert_eq!((tokenizer.sentinels(), tokenizer.middle_tokens()), (None, None));
        assert_eq!(tokenizer.missing_middle_tokens(), ["<fim_prefix>", "<fim_middle>", "<fim_suffix>"]);
    }

    #[test]
    fn sentence_pieces_begin_with_their_mark() {
        let pieces = json!([
            ["<unk>", 0.0],
            ["▁", -1.0],
            ["▁one", -1.0],
            ["s", -1.0],
            [".", -1.0],
            [".▁", -1.0],
            ["?\"", -1.0]
        ]);
        let model = json!({ "type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": pieces });
        let decoder =
            json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
        let added = [(7, "<extra_id_2>"), (8, "<extra_id_1>"), (9, "<extra_id_0>")];
        let tokenizer = of_model(model, decoder, &added);
        check(&tokenizer, &tokenizer.word_starts().unwrap(), &["▁", "▁one"]);
        check(&tokenizer, &tokenizer.sentence_ends(), &[".", ".▁", "?\""]);
        assert_eq!(tokenizer.sentinels(), Some(Sentinels { first: 9, count: 3 }));
    }
}
