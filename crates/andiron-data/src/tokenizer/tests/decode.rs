//! Decoding, at once and streamed.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::*;
use super::{byte_fallback, byte_level, metaspace, small_bpe, streamed, word_piece};

/// The text of the concatenated spellings.
fn spelled(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let spellings = tokenizer.spellings().unwrap();
    let bytes = ids.iter().flat_map(|&id| spellings.tokens[id as usize].clone()).collect();
    let text = String::from_utf8(bytes).unwrap();
    match spellings.drops_first_space {
        true => text.strip_prefix(' ').unwrap_or(&text).to_owned(),
        false => text,
    }
}

#[test]
fn streaming_shows_whole_characters_only() {
    for tokenizer in [byte_level(), byte_fallback()] {
        let text = "a é你 🔥 a👩‍👧b";
        let ids = tokenizer.encode(text).unwrap();
        let (all, pieces) = streamed(&tokenizer, &ids, Special::Skip);
        assert_eq!(all, text);
        assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')));
        assert!(pieces.iter().filter(|piece| !piece.is_empty()).count() > 3);
    }
}

#[test]
fn streaming_costs_the_same_at_any_length() {
    // Bytes that never become a character, the worst there is.
    let tokenizer = byte_fallback();
    let ids: Vec<u32> = std::iter::repeat_n([6 + 0x80, 2], 5_000).flatten().collect();
    assert_eq!(streamed(&tokenizer, &ids, Special::Keep).0, tokenizer.decode(&ids, Special::Keep).unwrap());
}

/// What `ids` add to the text of `prompt`.
fn continued(tokenizer: &Tokenizer, prompt: &[u32], ids: &[u32]) -> String {
    let mut stream = StreamDecoder::after(tokenizer, Special::Skip, prompt).unwrap();
    let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    pieces.concat() + &stream.finish().unwrap()
}

#[test]
fn a_continuation_has_the_space_that_a_beginning_drops() {
    // `a` and `▁a ▁a` of Llama 2's kind, `a` and `▁ba a` of T5's, `a` and `b ##a` of BERT's.
    assert_eq!(continued(&byte_fallback(), &[4], &[4, 4]), " a a");
    assert_eq!(continued(&metaspace(), &[2], &[4, 1]), " baa");
    assert_eq!(continued(&word_piece(), &[1], &[3, 2]), " ba");
    assert_eq!(continued(&byte_fallback(), &[], &[4, 4]), "a a");
    // A control token is no text, so what follows it begins one.
    assert_eq!(continued(&byte_fallback(), &[0], &[4, 4]), "a a");
}

#[test]
fn a_continuation_does_not_repeat_the_bytes_of_its_prompt() {
    let tokenizer = byte_fallback();
    let bytes = |text: &str| -> Vec<u32> { text.bytes().map(|byte| 6 + u32::from(byte)).collect() };
    assert_eq!(continued(&tokenizer, &[&[4], bytes("é").as_slice()].concat(), &[4]), " a");
    assert_eq!(continued(&tokenizer, &[&[4], bytes("é").as_slice()].concat(), &bytes("ü")), "ü");
    assert_eq!(continued(&tokenizer, &[&[4], bytes("\u{fffd}").as_slice()].concat(), &[4]), " a");
    // Half a character comes with its other half.
    let halved = bytes("é🔥");
    assert_eq!(continued(&tokenizer, &halved[..4], &halved[4..]), "🔥");
    let text = byte_level().encode("é🔥").unwrap();
    assert_eq!(continued(&byte_level(), &text[..4], &text[4..]), "🔥");
}

#[test]
fn spaces_before_punctuation_go_where_the_settings_say_so_but_not_of_pairs_that_merge() {
    let mut json = small_bpe();
    let vocab: Vec<Value> =
        ["▁va", "▁?", "▁do", "▁n't", "▁.", "▁", "<unk>"].map(|token| json!([token, -1.0])).into();
    json["model"] = json!({ "type": "Unigram", "unk_id": 6, "byte_fallback": false, "vocab": vocab });
    json["decoder"] =
        json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
    let with = |json: &Value, clean_up: bool| {
        let config = json!({ "clean_up_tokenization_spaces": clean_up }).as_object().unwrap().clone();
        Tokenizer::from_contents(json.to_string().as_bytes(), config).unwrap()
    };
    // Texts of transformers 5.24.0.
    for (clean_up, text) in [(true, "va? don't."), (false, "va ? do n't .")] {
        let tokenizer = with(&json, clean_up);
        assert_eq!(tokenizer.decode(&[0, 1, 2, 3, 4], Special::Skip).unwrap(), text);
        assert_eq!(streamed(&tokenizer, &[0, 1, 2, 3, 4], Special::Skip).0, text);
    }
    let mut json = small_bpe();
    json["model"]["vocab"] = json!({ "va": 0, " .": 1 });
    json["model"]["merges"] = json!([]);
    json["decoder"] = json!({ "type": "Fuse" });
    assert_eq!(with(&json, true).decode(&[0, 1], Special::Skip).unwrap(), "va .");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_continuation_is_what_decoding_all_adds(
        bytes_ids in prop::collection::vec(0u32..330, 1..40),
        fallback_ids in prop::collection::vec(prop_oneof![1u32..6, 0x26u32..0x80], 1..40),
        pieces in prop::collection::vec(1u32..5, 1..30),
        cut in 0usize..40,
    ) {
        let all = [(byte_level(), bytes_ids), (byte_fallback(), fallback_ids), (metaspace(), pieces.clone()), (word_piece(), pieces)];
        for (tokenizer, ids) in all {
            let (prompt, rest) = ids.split_at(cut % ids.len());
            let [before, whole] = [prompt, &ids].map(|ids| tokenizer.decode(ids, Special::Skip).unwrap());
            // What the prompt left unfinished comes whole.
            if let Some(added) = whole.strip_prefix(&before).filter(|_| !before.ends_with('\u{fffd}')) {
                prop_assert_eq!(continued(&tokenizer, prompt, rest), added);
            }
        }
    }

    #[test]
    fn streaming_gives_what_decoding_at_once_gives(
        bytes_ids in prop::collection::vec(0u32..330, 0..60),
        fallback_ids in prop::collection::vec(prop_oneof![0u32..6, 6u32..262, 0x7cu32..0x110], 0..40),
        special in prop::sample::select(vec![Special::Keep, Special::Skip]),
    ) {
        for (tokenizer, ids) in [(byte_level(), bytes_ids), (byte_fallback(), fallback_ids)] {
            let whole = tokenizer.decode(&ids, special).unwrap();
            prop_assert_eq!(streamed(&tokenizer, &ids, special).0, whole);
        }
    }

    #[test]
    fn spellings_put_together_are_the_text(text in "[ab 你é\n]{0,30}", pieces in prop::collection::vec(0u32..5, 0..20)) {
        for tokenizer in [byte_level(), byte_fallback()] {
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(spelled(&tokenizer, &ids), tokenizer.decode(&ids, Special::Skip).unwrap());
        }
        // A word begins the text: WordPiece shows the prefix of what only continues one.
        let pieces = [&[1], pieces.as_slice()].concat();
        for tokenizer in [metaspace(), word_piece()] {
            prop_assert_eq!(spelled(&tokenizer, &pieces), tokenizer.decode(&pieces, Special::Skip).unwrap());
        }
    }
}
