use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::tests::TEXT;
use super::super::{BpeOptions, Tokenizer, pieces_at_lines, train_bpe};

fn split(regex: &str) -> Value {
    let by_bytes =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    let split =
        json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false });
    json!({ "type": "Sequence", "pretokenizers": [split, by_bytes] })
}

/// The ways of splitting a text that are known, as Hugging Face's files have them.
fn ways() -> Vec<Value> {
    let by_bytes =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let digits = json!({ "type": "Digits", "individual_digits": true });
    let tail = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    vec![
        by_bytes.clone(),
        json!({ "type": "Sequence", "pretokenizers": [digits, by_bytes] }),
        split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
        split(&tail.replace("DIGITS", "{1,3}")),
        split(&tail.replace("DIGITS", "")),
        split(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
    ]
}

/// A vocabulary that splits texts in one of these ways, with merges of every kind of character.
fn tokenizer(way: &Value, edit: impl Fn(&mut Value)) -> Tokenizer {
    let text =
        format!("{TEXT} \r\n  a's 'll DON'T 1234 한국어는 국어 déjà ... ----- !!! ((( éé ×2 \t\t\n\n\n")
            .repeat(3);
    let trained = train_bpe([text], &BpeOptions::new(700)).unwrap();
    let mut json: Value = serde_json::from_slice(trained.json()).unwrap();
    json["pre_tokenizer"] = way.clone();
    edit(&mut json);
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

#[track_caller]
fn check(tokenizer: &Tokenizer, text: &str) {
    assert!(tokenizer.inner.facts.byte_bpe.is_some());
    let library = tokenizer.inner.literal.encode_fast(text, false).unwrap();
    assert_eq!(tokenizer.encode(text).unwrap(), library.get_ids(), "{text:?}");
}

#[test]
fn ids_are_those_of_the_library() {
    let hostile = [
        "",
        " ",
        "\n",
        "a  b   c \n d\n\n e \r\n f\r\r\n\t g   ",
        "it's IT'S it'S we'Re we'RE x'll 'x 'ſ 'lL 'l ''s '' ' 's'",
        "1 12 123 1234 12345678 a1b22c333 ½ ²³ Ⅷ ٣٤٥",
        "e\u{301}e\u{301} \u{301}a \u{301}\u{301} ก็ नमस्ते",
        "!!\n!!\r\n\n(a) (1) - -a ... .a .1 ...\n\n\n \u{a0}\u{a0}x \u{3000}한국",
        "\u{85}\u{2028}\u{1680} a\u{200b}b \u{feff}",
        "안녕하세요 세계, 東京 1234 👩‍👩‍👧‍👦🔥 \0\u{1}",
        &"A".repeat(3000),
        &"ab".repeat(700),
        &" ".repeat(500),
        &"-=".repeat(50),
    ];
    for tokenizer in &*TOKENIZERS {
        for text in hostile {
            check(tokenizer, text);
            // Words that are known by now.
            check(tokenizer, text);
        }
        check(tokenizer, &hostile.concat());
    }
}

#[test]
fn every_character_has_the_class_that_the_library_gives_it() {
    let few = (0..0x400).chain((0x400..0x3100).step_by(7)).chain((0x3100..=0x10_ffff).step_by(211));
    let few = few.filter_map(char::from_u32);
    let text: String = few.flat_map(|c| ['a', c, 'b', ' ', c, '1', '\'', c, '!', c, c, '\n']).collect();
    for tokenizer in &*TOKENIZERS {
        // In pieces, of which a wrong one is shown.
        for piece in pieces_at_lines(&text, 2000) {
            check(tokenizer, piece);
        }
    }
}

#[test]
fn what_needs_the_library_keeps_it() {
    let llama = &ways()[3];
    let given_up = |edit: &dyn Fn(&mut Value)| tokenizer(llama, edit).inner.facts.byte_bpe.is_none();
    assert!(!given_up(&|_| {}));
    assert!(given_up(&|json| json["normalizer"] = json!({ "type": "Lowercase" })));
    assert!(given_up(&|json| json["model"]["end_of_word_suffix"] = json!("</w>")));
    assert!(given_up(&|json| json["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = json!(true)));
    assert!(given_up(&|json| json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("a+")));
    // The model itself gives the control token.
    assert!(given_up(&|json| {
        let merge = json["model"]["merges"][0].as_array().unwrap();
        let joined = format!("{}{}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap());
        let id = json["model"]["vocab"][&joined].as_u64().unwrap();
        json["added_tokens"] = json!([super::super::tests::added(id, &joined)]);
    }));
}

#[test]
fn added_tokens_are_found() {
    let tokenizer = tokenizer(&ways()[3], |json| {
        let next = json["model"]["vocab"].as_object().unwrap().len() as u64;
        let mut added = super::super::tests::added(next, "<think>");
        added["special"] = json!(false);
        added["normalized"] = json!(false);
        json["added_tokens"].as_array_mut().unwrap().push(added);
    });
    check(&tokenizer, "a <think> b<|endoftext|><think>");
    let think = tokenizer.token_to_id("<think>").unwrap();
    assert!(tokenizer.encode("a<think>").unwrap().contains(&think));
    check(&tokenizer, "a <thin b<|endoftext|>");
}

#[test]
fn words_that_are_tokens_ignore_merges() {
    let tokenizer = tokenizer(&ways()[3], |json| {
        json["model"]["ignore_merges"] = json!(true);
        // A token that no merge gives.
        json["model"]["vocab"]["Ġxyzzy"] = json!(700);
    });
    assert_eq!(tokenizer.encode(" xyzzy").unwrap(), [700]);
    // The control token is in the vocabulary, but no word.
    for text in [" xyzzy xyzzy", TEXT, "한국어는 xyzzyxyzzy", "<|endoftext|> a<|endoftext|>"] {
        check(&tokenizer, text);
    }
}

#[test]
fn texts_are_composed_if_asked() {
    let tokenizer = tokenizer(&ways()[4], |json| json["normalizer"] = json!({ "type": "NFC" }));
    for text in [
        "déjà vu",
        "de\u{301}ja\u{300}",
        "한국어",
        "\u{1112}\u{1161}\u{11ab}",
        "\u{2126} \u{212b}",
        "か\u{3099}",
        TEXT,
    ] {
        check(&tokenizer, text);
    }
}

#[test]
fn batches_are_texts_in_their_order() {
    let tokenizer = tokenizer(&ways()[0], |_| {});
    let texts: Vec<String> = (0..100).map(|n| format!("{n} {TEXT}")).collect();
    let ids = tokenizer.encode_batch(&texts).unwrap();
    for (text, ids) in texts.iter().zip(ids) {
        assert_eq!(tokenizer.encode(text).unwrap(), ids);
    }
}

static TOKENIZERS: LazyLock<Vec<Tokenizer>> =
    LazyLock::new(|| ways().iter().map(|way| tokenizer(way, |_| {})).collect());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_text_has_the_ids_of_the_library(
        texts in prop::collection::vec("[a-cA-C 0-9\n\r\t'sStTlLdmveE!.,(é한글́²ſ\u{a0}\u{3000}👩]{0,60}", 8),
        other in any::<String>(),
    ) {
        for tokenizer in &*TOKENIZERS {
            for text in texts.iter().chain([&other]) {
                let library = tokenizer.inner.literal.encode_fast(text.as_str(), false).unwrap();
                prop_assert_eq!(tokenizer.encode(text).unwrap(), library.get_ids());
            }
        }
    }
}
