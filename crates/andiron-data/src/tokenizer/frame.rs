//! Inputs of encoders: one or two texts with the special tokens that the model was trained with, truncated to fit.

use std::ops::Range;

use tokenizers::{Encoding, PostProcessor as _, Token};

use super::{ControlTokens, Inner, Offsets, Side, Tokenizer, TokenizerError, guard};

/// One or two encoded texts with the special tokens around them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Framed {
    /// The ids, including those of the special tokens.
    pub ids: Vec<u32>,
    /// Token type ids: which of two texts each id belongs to.
    pub type_ids: Vec<u32>,
    /// The place of each id in the texts; `None` for special tokens.
    pub places: Vec<Option<Place>>,
    /// Whether a text was truncated.
    pub truncated: bool,
}

/// The place of a token in its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// 0 for the first text, 1 for the second.
    pub text: usize,
    /// The byte range of the token in that text, at character boundaries.
    pub bytes: Range<usize>,
}

impl Tokenizer {
    /// Encodes a text or a pair of texts with the special tokens that the tokenizer's post-processor adds (`[CLS]` …
    /// `[SEP]` and the like). Control tokens in the texts are ordinary text.
    ///
    /// The result has at most `limit` ids: a longer text is truncated on its [`truncation_side`](Self::truncation_side), and
    /// of two texts the longer one first, as in Hugging Face's `longest_first`.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn frame(&self, text: &str, pair: Option<&str>, limit: usize) -> Result<Framed, TokenizerError> {
        self.frame_reading(text, pair, limit, ControlTokens::AsText)
    }

    /// [`frame`](Self::frame) of a raw prompt, in which control tokens are read as
    /// [`with_control_tokens`](Self::with_control_tokens) says.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn frame_prompt(&self, text: &str, limit: usize) -> Result<Framed, TokenizerError> {
        self.frame_reading(text, None, limit, self.control_in_prompts())
    }

    fn frame_reading(
        &self,
        text: &str,
        pair: Option<&str>,
        limit: usize,
        control: ControlTokens,
    ) -> Result<Framed, TokenizerError> {
        let inner = &*self.inner;
        let mut first = inner.tokens(text, control)?;
        let mut second = pair.map(|pair| inner.tokens(pair, control)).transpose()?;
        let room = limit.saturating_sub(inner.n_added(pair.is_some()));
        let (n_first, n_second) = (first.len(), second.as_ref().map_or(0, Vec::len));
        let truncated = n_first + n_second > room;
        if truncated {
            let shorter = n_first.min(n_second).min(room / 2);
            let longer = room - shorter;
            let keep = if n_first <= n_second { (shorter, longer) } else { (longer, shorter) };
            let side = self.truncation_side();
            cut(&mut first, keep.0, side);
            if let Some(second) = &mut second {
                cut(second, keep.1, side);
            }
        }
        Ok(Framed { truncated, ..self.framed(first, second, [text, pair.unwrap_or_default()])? })
    }

    /// Pairs of a short text and each window of a long one, such as a question and its context. Consecutive windows share
    /// `overlap` tokens. There is at least one window.
    ///
    /// # Errors
    /// [`TokenizerError::NoRoom`] if the short text leaves at most `overlap` tokens for a window, and as for
    /// [`encode`](Self::encode).
    pub fn frame_windows(
        &self,
        short: &str,
        long: &str,
        limit: usize,
        overlap: usize,
    ) -> Result<Vec<Framed>, TokenizerError> {
        let inner = &*self.inner;
        let (first, second) =
            (inner.tokens(short, ControlTokens::AsText)?, inner.tokens(long, ControlTokens::AsText)?);
        let room = limit.saturating_sub(inner.n_added(true) + first.len());
        if room <= overlap {
            return Err(TokenizerError::NoRoom { tokens: first.len(), limit });
        }
        let mut windows = Vec::new();
        let mut start = 0;
        loop {
            let end = second.len().min(start + room);
            windows.push(self.framed(first.clone(), Some(second[start..end].to_vec()), [short, long])?);
            if end == second.len() {
                return Ok(windows);
            }
            start = end - overlap;
        }
    }

    /// [`frame`](Self::frame) of a text in which the tokenizer's mask token is a control token.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode), and [`TokenizerError::ControlToken`] if the text holds another control token.
    pub fn frame_masked(&self, text: &str, limit: usize) -> Result<Framed, TokenizerError> {
        let inner = &*self.inner;
        let mask = self.mask_id();
        let encoding = inner.run(ControlTokens::Parsed, text, Offsets::Wanted)?;
        let foreign = |id: &&u32| Some(**id) != mask && inner.reserved.contains_key(id);
        if let Some(id) = encoding.get_ids().iter().find(foreign) {
            return Err(TokenizerError::ControlToken { token: inner.reserved[id].clone() });
        }
        let mut tokens = tokens_of(&encoding, 0);
        let room = limit.saturating_sub(inner.n_added(false));
        let truncated = tokens.len() > room;
        cut(&mut tokens, room, self.truncation_side());
        Ok(Framed { truncated, ..self.framed(tokens, None, [text, ""])? })
    }

    fn framed(
        &self,
        first: Vec<Token>,
        second: Option<Vec<Token>>,
        texts: [&str; 2],
    ) -> Result<Framed, TokenizerError> {
        let framed = self.inner.framed(first, second, texts)?;
        Ok(Framed { ids: self.known(framed.ids)?, ..framed })
    }
}

impl Inner {
    /// The tokens of a text with their places; without control tokens unless they are parsed.
    pub(super) fn tokens(&self, text: &str, control: ControlTokens) -> Result<Vec<Token>, TokenizerError> {
        if control == ControlTokens::Parsed {
            let encoding = self.run(control, text, Offsets::Wanted);
            return Ok(tokens_of(&encoding.map_err(|error| self.say_character(text, error))?, 0));
        }
        if let Some(characters) = &self.facts.characters {
            let ids = characters.encode(text)?;
            let places = text.char_indices().map(|(at, c)| (at, at + c.len_utf8()));
            return Ok(ids.iter().zip(places).map(|(&id, place)| self.token(id, place)).collect());
        }
        let encoding = self.run(ControlTokens::AsText, text, Offsets::Wanted)?;
        if !encoding.get_ids().iter().any(|id| self.reserved.contains_key(id)) {
            return Ok(tokens_of(&encoding, 0));
        }
        let mut tokens = Vec::new();
        for piece in self.pieces_around_reserved(text, &encoding)? {
            let encoding = self.encode_piece(&text[piece.clone()])?;
            tokens.extend(tokens_of(&encoding, piece.start));
        }
        Ok(tokens)
    }

    pub(super) fn token(&self, id: u32, place: (usize, usize)) -> Token {
        Token::new(id, self.literal.id_to_token(id).unwrap_or_default(), place)
    }

    /// Number of tokens that the post-processor adds.
    fn n_added(&self, is_pair: bool) -> usize {
        self.literal.get_post_processor().map_or(0, |processor| processor.added_tokens(is_pair))
    }

    pub(super) fn framed(
        &self,
        first: Vec<Token>,
        second: Option<Vec<Token>>,
        texts: [&str; 2],
    ) -> Result<Framed, TokenizerError> {
        let encoding = guard("add the tokens around a text", || {
            let first = Encoding::from_tokens(first, 0);
            self.literal.post_process(first, second.map(|tokens| Encoding::from_tokens(tokens, 1)), true)
        })?;
        let spots = encoding.get_sequence_ids().into_iter().zip(encoding.get_offsets());
        let places = spots.zip(encoding.get_special_tokens_mask()).map(|((text, &(start, end)), &added)| {
            let text = text.filter(|_| added == 0)?;
            Some(Place { text, bytes: whole_characters(texts.get(text)?, start..end) })
        });
        Ok(Framed {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            places: places.collect(),
            truncated: false,
        })
    }
}

/// Truncates tokens on `side` to at most `keep`.
fn cut(tokens: &mut Vec<Token>, keep: usize, side: Side) {
    match side {
        Side::Right => tokens.truncate(keep),
        Side::Left => drop(tokens.drain(..tokens.len().saturating_sub(keep))),
    }
}

/// The tokens of an encoding, `base` bytes further on.
fn tokens_of(encoding: &Encoding, base: usize) -> Vec<Token> {
    let parts = encoding.get_ids().iter().zip(encoding.get_tokens()).zip(encoding.get_offsets());
    parts.map(|((&id, token), &(s, e))| Token::new(id, token.clone(), (base + s, base + e))).collect()
}

/// A range within `text`, widened to whole characters: a byte-level token may be a part of one.
fn whole_characters(text: &str, bytes: Range<usize>) -> Range<usize> {
    let end = bytes.end.min(text.len());
    let start = bytes.start.min(end);
    let start = (0..=start).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let end = (end..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    start..end
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Words and word pieces with BERT's frame.
    pub(crate) fn bert() -> Tokenizer {
        bert_with(json!({}))
    }

    fn bert_with(settings: Value) -> Tokenizer {
        let added = |id: u64, content: &str| {
            json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true })
        };
        let vocab = [
            "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "né", "[", "]", "mask",
        ];
        let ids: Value =
            vocab.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
        let special = |token: &str, id: u64| json!({ "id": token, "ids": [id], "tokens": [token] });
        let sequence = |id: &str, type_id: u64| json!({ "Sequence": { "id": id, "type_id": type_id } });
        let token = |id: &str, type_id: u64| json!({ "SpecialToken": { "id": id, "type_id": type_id } });
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [added(0, "[PAD]"), added(2, "[CLS]"), added(3, "[SEP]"), added(4, "[MASK]")],
            "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                            "strip_accents": false, "lowercase": true },
            "pre_tokenizer": { "type": "BertPreTokenizer" },
            "post_processor": { "type": "TemplateProcessing",
                "single": [token("[CLS]", 0), sequence("A", 0), token("[SEP]", 0)],
                "pair": [token("[CLS]", 0), sequence("A", 0), token("[SEP]", 0), sequence("B", 1), token("[SEP]", 1)],
                "special_tokens": { "[CLS]": special("[CLS]", 2), "[SEP]": special("[SEP]", 3) } },
            "decoder": null,
            "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                       "max_input_chars_per_word": 100, "vocab": ids },
        });
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        let mut config = json!({ "mask_token": "[MASK]", "unk_token": "[UNK]" });
        config.as_object_mut().unwrap().append(&mut settings.as_object().unwrap().clone());
        std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        Tokenizer::load(dir.path()).unwrap()
    }

    fn pieces<'a>(framed: &Framed, texts: [&'a str; 2]) -> Vec<&'a str> {
        let piece = |place: &Option<Place>| place.as_ref().map_or("", |p| &texts[p.text][p.bytes.clone()]);
        framed.places.iter().map(piece).collect()
    }

    #[test]
    fn places_lead_back_to_the_texts() {
        let tokenizer = bert();
        let texts = ["The né cats", "SAT"];
        let framed = tokenizer.frame(texts[0], Some(texts[1]), 99).unwrap();
        assert_eq!(framed.ids, [2, 5, 9, 6, 7, 3, 8, 3]);
        assert_eq!(framed.type_ids, [0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(pieces(&framed, texts), ["", "The", "né", "cat", "s", "", "SAT", ""]);
        assert!(!framed.truncated);
        assert_eq!(tokenizer.encode_framed("cats").unwrap(), [2, 6, 7, 3]);
    }

    #[test]
    fn the_longer_text_is_cut_first() {
        let tokenizer = bert();
        let cut = |first: &str, second: Option<&str>, limit| {
            let framed = tokenizer.frame(first, second, limit).unwrap();
            assert!(framed.truncated && framed.ids.len() <= limit.max(3), "{framed:?}");
            framed.ids
        };
        assert_eq!(cut("the cat sat", None, 4), [2, 5, 6, 3]);
        assert_eq!(cut("the cat sat the cat", Some("sat"), 7), [2, 5, 6, 8, 3, 8, 3]);
        assert_eq!(cut("sat", Some("the cat sat the cat"), 7), [2, 8, 3, 5, 6, 8, 3]);
        assert_eq!(cut("the cat sat", Some("sat the cat"), 8), [2, 5, 6, 3, 8, 5, 6, 3]);
        assert_eq!(cut("the cat sat", Some("sat the cat"), 3), [2, 3, 3]);
        assert!(!tokenizer.frame("the cat", Some("sat"), 6).unwrap().truncated);
    }

    #[test]
    fn a_text_is_cut_at_the_side_that_the_tokenizer_names() {
        let tokenizer = bert_with(json!({ "truncation_side": "left" }));
        let cut =
            |first: &str, second: Option<&str>, limit| tokenizer.frame(first, second, limit).unwrap().ids;
        assert_eq!(cut("the cat sat", None, 4), [2, 6, 8, 3]);
        assert_eq!(cut("the cat sat", Some("sat the cat"), 8), [2, 6, 8, 3, 8, 5, 6, 3]);
        assert_eq!(tokenizer.frame_masked("the [MASK] sat", 4).unwrap().ids, [2, 4, 8, 3]);
    }

    #[test]
    fn windows_overlap_and_cover_the_long_text() {
        let tokenizer = bert();
        let texts = ["sat", "the cat sat the cats"];
        let windows = tokenizer.frame_windows(texts[0], texts[1], 7, 1).unwrap();
        let found: Vec<_> = windows.iter().map(|window| pieces(window, texts).join(" ")).collect();
        assert_eq!(found, [" sat  the cat sat ", " sat  sat the cat ", " sat  cat s "]);
        assert_eq!(tokenizer.frame_windows("sat", "", 7, 1).unwrap().len(), 1);
        let error = tokenizer.frame_windows("the cat sat", "the", 7, 1).unwrap_err();
        assert!(matches!(error, TokenizerError::NoRoom { tokens: 3, limit: 7 }));
    }

    #[test]
    fn only_the_mask_may_be_said() {
        let tokenizer = bert();
        let text = "the [MASK] sat";
        assert_eq!(tokenizer.frame_masked(text, 9).unwrap().ids, [2, 5, 4, 8, 3]);
        assert_eq!(tokenizer.frame(text, None, 9).unwrap().ids, [2, 5, 10, 12, 11, 8, 3]);
        let error = tokenizer.frame_masked("the [MASK] [SEP]", 9).unwrap_err();
        assert!(matches!(error, TokenizerError::ControlToken { token } if token == "[SEP]"));
    }
}
