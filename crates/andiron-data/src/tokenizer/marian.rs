//! Marian's tokenizer: two SentencePiece models, one for the source and one for the target language, and a vocabulary that
//! maps the pieces of both to ids.
//!
//! Source: `MarianTokenizer` of `transformers`. Ids are looked up by spelling, so a run of characters that the SentencePiece
//! model of one language does not know may still have an id as a piece of the other.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::{Map, Value, json};
use tokenizers::{Encoding, Token};

use super::error::TokenizerError;
use super::sentence_piece::{SPACE, SentencePiece, Splitter};
use super::special::SpecialTokens;
use super::{ControlTokens, Inner, guard};

pub(super) const VOCABULARY: &str = "vocab.json";
pub(super) const SOURCE: &str = "source.spm";
pub(super) const TARGET: &str = "target.spm";

/// The content of the files, as read.
#[derive(Clone)]
pub(super) struct MarianFiles {
    pub(super) vocabulary: Vec<u8>,
    pub(super) source: Vec<u8>,
    pub(super) target: Vec<u8>,
    /// Whether texts are in the target language.
    pub(super) is_target: bool,
}

impl MarianFiles {
    /// A `tokenizer.json` of the vocabulary alone: it decodes ids and appends the end-of-sequence token to a text's ids.
    pub(super) fn vocabulary_json(&self, special: &SpecialTokens) -> Result<Vec<u8>, TokenizerError> {
        let vocabulary: Map<String, Value> = serde_json::from_slice(&self.vocabulary)
            .map_err(|source| TokenizerError::Json { file: VOCABULARY, source })?;
        let mut added: Vec<Value> = Vec::new();
        for content in special.all() {
            let id = vocabulary.get(content).ok_or_else(|| TokenizerError::VocabularyFile {
                file: VOCABULARY,
                message: format!("it lacks the token {content:?}"),
            })?;
            added.push(json!({ "id": id, "content": content, "single_word": false, "lstrip": false,
                               "rstrip": false, "normalized": false, "special": true }));
        }
        let post_processor = special.eos.as_ref().map(|end| {
            json!({ "type": "TemplateProcessing",
                "single": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": end, "type_id": 0 } }],
                "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } },
                         { "SpecialToken": { "id": end, "type_id": 0 } }],
                "special_tokens": { end: { "id": end, "ids": [vocabulary[end]], "tokens": [end] } } })
        });
        let replace = |pattern: Value, content: &str| json!({ "type": "Replace", "pattern": pattern, "content": content });
        let json = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": null,
            "post_processor": post_processor,
            "decoder": { "type": "Sequence", "decoders": [
                replace(json!({ "String": SPACE }), " "),
                json!({ "type": "Fuse" }),
                replace(json!({ "Regex": "^ +| +$" }), ""),
            ] },
            "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": special.unk },
        });
        Ok(json.to_string().into_bytes())
    }

    /// The segmentation of texts.
    pub(super) fn splitter(&self) -> Result<Splitter, TokenizerError> {
        let (file, bytes) = if self.is_target { (TARGET, &self.target) } else { (SOURCE, &self.source) };
        let failed = |message| TokenizerError::VocabularyFile { file, message };
        let model = SentencePiece::read(bytes).map_err(failed)?;
        guard("load", || model.splitter()).map_err(|error| failed(error.to_string()))
    }
}

/// The special tokens that `MarianTokenizer` uses if its files do not name them.
pub(super) fn default_tokens() -> SpecialTokens {
    let token = |text: &str| Some(text.to_owned());
    SpecialTokens { unk: token("<unk>"), eos: token("</s>"), pad: token("<pad>"), ..SpecialTokens::default() }
}

impl Inner {
    /// The pieces of a text, with the ids of their spellings in the vocabulary.
    pub(super) fn encode_by_spelling(
        &self,
        splitter: &Splitter,
        text: &str,
        control: ControlTokens,
    ) -> Result<Encoding, TokenizerError> {
        let mut tokens = Vec::new();
        let mut at = 0;
        let found = match control {
            ControlTokens::AsText => Vec::new(),
            ControlTokens::Parsed => self.control_tokens_in(text),
        };
        for (start, token, id) in found {
            self.encode_segment(splitter, text, at..start, &mut tokens)?;
            at = start + token.len();
            tokens.push(Token::new(id, token.to_owned(), (start, at)));
        }
        self.encode_segment(splitter, text, at..text.len(), &mut tokens)?;
        Ok(Encoding::from_tokens(tokens, 0))
    }

    /// The positions of control tokens in a text, including the unknown token; at each position the longest match.
    fn control_tokens_in(&self, text: &str) -> Vec<(usize, &str, u32)> {
        let control = self.facts.added.iter().filter(|added| added.special && !added.content.is_empty());
        let mut by_first: HashMap<u8, Vec<(&str, u32)>> = HashMap::new();
        for added in control {
            // Below 2^31, as checked.
            let entry = (added.content.as_str(), added.id as u32);
            by_first.entry(added.content.as_bytes()[0]).or_default().push(entry);
        }
        let (mut found, mut at) = (Vec::new(), 0);
        while let Some(first) = text.as_bytes().get(at) {
            let here = by_first.get(first).into_iter().flatten();
            let here = here.filter(|(token, _)| text.as_bytes()[at..].starts_with(token.as_bytes()));
            match here.max_by_key(|(token, _)| token.len()) {
                Some(&(token, id)) => {
                    found.push((at, token, id));
                    at += token.len();
                }
                None => at += 1,
            }
        }
        found
    }

    /// Adds the tokens of a part of `text` without control tokens. For a multilingual model a text begins with the target
    /// language, such as `>>fra<<`; a language that the vocabulary lacks becomes the unknown token.
    fn encode_segment(
        &self,
        splitter: &Splitter,
        text: &str,
        part: Range<usize>,
        tokens: &mut Vec<Token>,
    ) -> Result<(), TokenizerError> {
        let mut add = |piece: String, place: Range<usize>| {
            if let Some(id) = self.literal.token_to_id(&piece).or(self.unknown) {
                tokens.push(Token::new(id, piece, (place.start, place.end)));
            }
        };
        let mut begin = part.start;
        let segment = &text[part.clone()];
        if let Some(end) = segment.starts_with(">>").then(|| segment.find("<<")).flatten() {
            begin += end + 2;
            add(text[part.start..begin].to_owned(), part.start..begin);
        }
        let pieces = guard("encode", || splitter.pieces(&text[begin..part.end]))?;
        pieces.into_iter().for_each(|(piece, at)| add(piece, begin + at.start..begin + at.end));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Special, StreamDecoder, Tokenizer};
    use super::*;

    fn length_delimited(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend(content);
        bytes
    }

    fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let mut bytes = length_delimited(1, text.as_bytes());
        bytes.push(2 << 3 | 5);
        bytes.extend(score.to_le_bytes());
        bytes.extend([3 << 3, kind]);
        length_delimited(1, &bytes)
    }

    /// A model of normal pieces, after the control tokens that every such file has.
    fn model(pieces: &[(&str, f32)]) -> Vec<u8> {
        let mut bytes = [piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("</s>", 0.0, 3)].concat();
        bytes.extend(pieces.iter().flat_map(|&(text, score)| piece(text, score, 1)));
        bytes.extend(length_delimited(2, &[3 << 3, 1]));
        bytes
    }

    fn source() -> Vec<u8> {
        model(&[
            ("▁the", -1.0),
            ("▁", -2.0),
            ("cat", -3.0),
            ("c", -4.0),
            ("a", -4.5),
            ("t", -4.5),
            ("<", -5.0),
        ])
    }

    fn target() -> Vec<u8> {
        model(&[
            ("▁le", -1.0),
            ("▁ch", -2.0),
            ("at", -2.5),
            ("▁", -3.0),
            ("c", -4.0),
            ("a", -4.0),
            ("t", -4.0),
        ])
    }

    const VOCABULARY_JSON: &str = r#"{"</s>": 0, "<unk>": 1, "▁the": 2, "▁": 3, "cat": 4, "c": 5, "t": 6, "▁le": 7,
        "▁ch": 8, "at": 9, "ж": 10, "<": 11, ">>fra<<": 12, "<pad>": 13}"#;

    fn directory(source: &[u8], target: &[u8], vocabulary: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(SOURCE), source).unwrap();
        std::fs::write(dir.path().join(TARGET), target).unwrap();
        std::fs::write(dir.path().join(VOCABULARY), vocabulary).unwrap();
        dir
    }

    fn tokenizer() -> Tokenizer {
        Tokenizer::load(directory(&source(), &target(), VOCABULARY_JSON).path()).unwrap()
    }

    #[test]
    fn each_language_is_taken_apart_by_its_model_and_numbered_by_one_vocabulary() {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.vocab_size(), 14);
        assert_eq!(
            (tokenizer.eos_id(), tokenizer.pad_id(), tokenizer.special_tokens().unk.as_deref()),
            (Some(0), Some(13), Some("<unk>"))
        );
        // "a" is a piece of the source, but has no id: the vocabulary was cut.
        assert_eq!(tokenizer.encode_framed("the  cat ca").unwrap(), [2, 3, 4, 3, 5, 1, 0]);
        let target = tokenizer.for_targets().unwrap();
        assert_eq!(target.encode_framed("le chat").unwrap(), [7, 8, 9, 0]);
        assert_eq!(target.decode(&[7, 8, 9, 0], Special::Skip).unwrap(), "le chat");
        assert_eq!(tokenizer.decode(&[3, 7, 8, 9, 3, 0], Special::Skip).unwrap(), "le chat");
        assert_ne!(tokenizer.fingerprint(), Tokenizer::from_json(tokenizer.json()).unwrap().fingerprint());
    }

    #[test]
    fn a_run_of_unknown_characters_is_looked_up_by_its_spelling() {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.encode("ж").unwrap(), [3, 10]);
        assert_eq!(tokenizer.encode("жж").unwrap(), [3, 1]);
        assert_eq!(tokenizer.encode("").unwrap(), [] as [u32; 0]);
    }

    #[test]
    fn a_language_is_meant_only_at_the_beginning() {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.encode(">>fra<< the").unwrap(), [12, 2]);
        assert!(!tokenizer.encode("the >>fra<<").unwrap().contains(&12));
        let framed = tokenizer.frame(">>fra<< the cat", None, 99).unwrap();
        let texts: Vec<_> = framed.places.iter().flatten().map(|place| place.bytes.clone()).collect();
        assert_eq!((texts[0].clone(), texts[1].end, texts.last().unwrap().end), (0..7, 11, 15));
    }

    #[test]
    fn a_language_that_the_vocabulary_lacks_is_unknown() {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.encode_framed(">>zzz<< the cat").unwrap(), [1, 2, 3, 4, 0]);
        assert_eq!(tokenizer.encode_markup(">>zzz<< the</s>>>fra<< the").unwrap(), [1, 2, 0, 12, 2]);
    }

    #[test]
    fn no_text_gives_a_control_token_unless_it_is_meant() {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.encode_markup("the</s>").unwrap(), [2, 0]);
        for text in ["the</s>", "<pad>", "</s>"] {
            let ids = tokenizer.encode(text).unwrap();
            assert!(!ids.iter().any(|id| [0, 13].contains(id)), "{text:?}: {ids:?}");
        }
    }

    #[test]
    fn what_is_saved_is_what_was_read() {
        let from = directory(&source(), &target(), VOCABULARY_JSON);
        let to = tempfile::tempdir().unwrap();
        assert!(Tokenizer::is_in(from.path()) && !Tokenizer::is_in(to.path()));
        let tokenizer = Tokenizer::load(from.path()).unwrap();
        tokenizer.save(to.path()).unwrap();
        for file in [SOURCE, TARGET, VOCABULARY] {
            let read = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(file)).unwrap();
            assert_eq!(read(&from), read(&to), "{file}");
        }
        assert_eq!(Tokenizer::load(to.path()).unwrap().fingerprint(), tokenizer.fingerprint());
        assert_eq!(tokenizer.config()["tokenizer_class"], "MarianTokenizer");
    }

    #[test]
    fn files_that_would_not_work_are_named() {
        let bpe = [source(), length_delimited(2, &[3 << 3, 2])].concat();
        let faults: [(&[u8], &str, &str); 5] = [
            (&source()[..20], VOCABULARY_JSON, "source.spm cannot be used: it is cut off"),
            (b"version https://git-lfs", VOCABULARY_JSON, "no SentencePiece model"),
            (&bpe, VOCABULARY_JSON, "no Unigram model (its model_type is 2"),
            (
                &source(),
                r#"{"</s>": 0, "<pad>": 1}"#,
                r#"vocab.json cannot be used: it lacks the token "<unk>""#,
            ),
            (&source(), "[]", "vocab.json is not what it should be"),
        ];
        for (source, vocabulary, expected) in faults {
            let error = Tokenizer::load(directory(source, &target(), vocabulary).path()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let dir = directory(&source(), &target(), VOCABULARY_JSON);
        std::fs::write(dir.path().join("tokenizer_config.json"), r#"{"separate_vocabs": true}"#).unwrap();
        let error = Tokenizer::load(dir.path()).unwrap_err();
        assert!(error.to_string().contains("separate_vocabs"), "{error}");
    }

    proptest! {
        #[test]
        fn mutated_models_never_panic(at in 0usize..400, byte in any::<u8>(), cut in 0usize..400) {
            let mut bytes = source();
            let n = bytes.len();
            bytes[at % n] = byte;
            let load = |bytes: &[u8]| Tokenizer::load(directory(bytes, &target(), VOCABULARY_JSON).path());
            let _ = load(&bytes).map(|tokenizer| tokenizer.encode("the cat"));
            bytes.truncate(cut % n);
            let _ = load(&bytes);
        }

        #[test]
        fn ids_that_arrive_one_by_one_give_the_same_text(ids in prop::collection::vec(2u32..12, 0..12)) {
            let tokenizer = tokenizer();
            let mut stream = StreamDecoder::new(&tokenizer, Special::Skip);
            let mut text = String::new();
            for &id in &ids {
                text += &stream.push(id).unwrap();
            }
            text += &stream.finish().unwrap();
            prop_assert_eq!(text, tokenizer.decode(&ids, Special::Skip).unwrap());
        }
    }
}
