//! Encoding.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::*;
use super::{added, byte_level, load, metaspace, small_bpe};

#[test]
fn byte_level_round_trips_hostile_text_in_time() {
    let tokenizer = byte_level();
    // Unoptimised builds are ten times slower.
    let long = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    for text in [
        "^".repeat(long),
        "A".repeat(long),
        "a".repeat(long) + "b",
        " ".repeat(long),
        "\u{301}".repeat(long),
        "\0".repeat(long),
        "👩‍👩‍👧‍👦\u{200f}".repeat(long / 20),
        "\n".repeat(long),
        "x\n".repeat(long / 2),
    ] {
        let start = Instant::now();
        let ids = tokenizer.encode(&text).unwrap();
        assert_eq!(tokenizer.decode(&ids, Special::Keep).unwrap(), text);
        // Generous, for busy machines; quadratic behaviour would take hours.
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}

#[test]
fn framing_adds_what_the_post_processor_says() {
    let mut json = small_bpe();
    json["added_tokens"] = json!([added(3, "[CLS]")]);
    json["post_processor"] = json!({ "type": "TemplateProcessing",
        "single": [{ "SpecialToken": { "id": "[CLS]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
        "pair": [], "special_tokens": { "[CLS]": { "id": "[CLS]", "ids": [3], "tokens": ["[CLS]"] } } });
    let tokenizer = load(&json).unwrap();
    assert_eq!(tokenizer.encode("aba").unwrap(), [2, 0]);
    assert_eq!(tokenizer.encode_framed("aba").unwrap(), [3, 2, 0]);
}

#[test]
fn a_tokenizer_may_have_ids_that_its_model_has_not() {
    let mut json = small_bpe();
    json["added_tokens"] = json!([added(3, "<image>")]);
    json["decoder"] = json!({ "type": "Fuse" });
    let config = json!({ "mask_token": "<image>" }).as_object().unwrap().clone();
    let tokenizer = Tokenizer::from_contents(json.to_string().as_bytes(), config).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.mask_id()), (4, Some(3)));
    let tokenizer = tokenizer.for_model(3);
    assert_eq!(tokenizer.encode("abba").unwrap(), [2, 1, 0]);
    assert_eq!(tokenizer.frame("abba", Some("a"), 3).unwrap().ids, [2, 1, 0]);
    assert_eq!(tokenizer.mask_id(), None);
    assert_eq!(tokenizer.spellings().unwrap().tokens, [b"a".to_vec(), b"b".to_vec(), b"ab".to_vec()]);
    let error = tokenizer.encode_markup("ab<image>").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the text has the token \"<image>\" with the id 3, which the model does not have: the tokenizer has 4 ids, the model 3"
    );
    assert!(error.is_about_text());
    // A token that the model itself finds in a text.
    let smaller = tokenizer.for_model(2);
    assert_eq!(smaller.encode("bba").unwrap(), [1, 1, 0]);
    for error in [smaller.encode("ab").unwrap_err(), smaller.frame("ab", None, 9).unwrap_err()] {
        assert!(matches!(error, TokenizerError::BeyondModel { id: 2, model: 2, .. }), "{error}");
    }
}

#[test]
fn characters_outside_a_unigram_vocabulary_are_unknown() {
    let tokenizer = metaspace();
    // Ids of tokenizers 0.23.3.
    for (text, ids) in [
        ("a!", &[2, 0][..]),
        ("a !ba", &[2, 5, 0, 3, 1]),
        ("a 한국어 b", &[2, 5, 0, 5, 3]),
        ("a<unk>b", &[2, 0, 3]),
    ] {
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text}");
        assert_eq!(tokenizer.encode_framed(text).unwrap(), ids, "{text}");
    }
}

#[test]
fn a_character_that_nothing_stands_for_is_named() {
    let mut json = small_bpe();
    let vocab: Vec<Value> = ["▁", "a", "▁b"].map(|token| json!([token, -1.0])).into();
    json["model"] = json!({ "type": "Unigram", "unk_id": null, "byte_fallback": false, "vocab": vocab });
    json["pre_tokenizer"] =
        json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true });
    let tokenizer = Tokenizer::from_contents(json.to_string().as_bytes(), Map::new()).unwrap();
    assert_eq!(tokenizer.encode("a ba").unwrap(), [1, 2, 1]);
    let text = "a ba é a!";
    let refusals = [tokenizer.encode(text), tokenizer.encode_prompt(text), tokenizer.encode_framed(text)];
    for refused in refusals.map(Result::unwrap_err) {
        assert!(
            matches!(refused, TokenizerError::UnknownCharacter { character: 'é', offset: 5 }),
            "{refused}"
        );
        assert!(refused.is_about_text());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn byte_level_is_exact(text in any::<String>(), words in "[a-z 0-9\n\t'é😀\\s]{0,60}") {
        let tokenizer = byte_level();
        for text in [text, words] {
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
            prop_assert_eq!(tokenizer.decode(&ids, Special::Keep).unwrap(), text);
        }
    }

    #[test]
    fn cutting_at_lines_changes_no_id(text in "[ab1 \n\r\t.\u{a0}é']{0,80}", size in 1usize..8) {
        let tokenizer = byte_level();
        prop_assert!(tokenizer.inner.facts.cuts_at_lines);
        let whole = tokenizer.inner.literal.encode_fast(text.as_str(), false).unwrap();
        let mut ids = Vec::new();
        for piece in pieces_at_lines(&text, size) {
            ids.extend_from_slice(tokenizer.inner.literal.encode_fast(piece, false).unwrap().get_ids());
        }
        prop_assert_eq!(pieces_at_lines(&text, size).collect::<String>(), text);
        prop_assert_eq!(ids, whole.get_ids());
    }
}
