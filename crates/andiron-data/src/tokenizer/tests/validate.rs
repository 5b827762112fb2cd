//! Damaged, hostile and odd tokenizer files.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::*;
use super::{added, byte_level, load, small_bpe};

#[track_caller]
fn check_fault(change: impl FnOnce(&mut Value), expected: TokenizerFault) {
    let mut json = small_bpe();
    change(&mut json);
    match load(&json) {
        Err(TokenizerError::Invalid(fault)) => assert_eq!(fault, expected),
        other => panic!("expected {expected:?}, got {other:?}"),
    }
}

#[test]
fn merges_that_make_the_library_panic_are_refused() {
    check_fault(
        |j| {
            j["model"]["vocab"] = json!({ "aa": 0, "bb": 1 });
            j["model"]["merges"] = json!([["aa", "bb"]]);
        },
        TokenizerFault::MergeToken { rank: 0, token: "aabb".into() },
    );
    check_fault(
        |j| j["model"]["continuing_subword_prefix"] = json!("#####"),
        TokenizerFault::MergePrefix { rank: 0, token: "b".into(), prefix: "#####".into() },
    );
    check_fault(|j| j["model"]["merges"] = json!(["a b", "a b"]), TokenizerFault::DuplicateMerge { rank: 1 });
    check_fault(|j| j["model"]["merges"] = json!(["a b c"]), TokenizerFault::MergeForm { rank: 0 });
    check_fault(|j| j["model"]["merges"] = json!([["a"]]), TokenizerFault::MergeForm { rank: 0 });
    check_fault(
        |j| {
            j["model"]["vocab"] = json!({ "": 0, "a": 1 });
            j["model"]["merges"] = json!([["", "a"]]);
        },
        TokenizerFault::MergePrefix { rank: 0, token: "a".into(), prefix: String::new() },
    );
    check_fault(
        |j| j["model"]["merges"] = json!([["a", "c"]]),
        TokenizerFault::MergeToken { rank: 0, token: "c".into() },
    );
}

#[test]
fn ids_that_cannot_be_are_refused() {
    check_fault(|j| j["model"]["vocab"] = json!({}), TokenizerFault::EmptyVocabulary);
    check_fault(
        |j| j["model"]["vocab"]["z"] = json!(1u64 << 31),
        TokenizerFault::IdTooLarge { token: "z".into(), id: 1 << 31 },
    );
    check_fault(
        |j| j["model"]["vocab"]["z"] = json!(1_000_000),
        TokenizerFault::SparseIds { max_id: 1_000_000, tokens: 4 },
    );
    check_fault(
        |j| j["model"]["vocab"]["z"] = json!(2),
        TokenizerFault::DuplicateId { id: 2, first: "ab".into(), second: "z".into() },
    );
    check_fault(
        |j| j["added_tokens"] = json!([added(7, "<end>")]),
        TokenizerFault::AddedToken { token: "<end>".into(), id: 7, found: Some(3) },
    );
    check_fault(
        |j| j["added_tokens"] = json!([added(7, "")]),
        TokenizerFault::AddedToken { token: "".into(), id: 7, found: None },
    );
    let twice = br#"{"model":{"type":"BPE","vocab":{"a":0,"a":1},"merges":[]}}"#;
    assert!(matches!(
        Tokenizer::from_json(twice),
        Err(TokenizerError::Invalid(TokenizerFault::DuplicateToken { .. }))
    ));
}

#[test]
fn settings_that_misbehave_later_are_refused() {
    check_fault(|j| j["model"]["dropout"] = json!(0.5), TokenizerFault::Dropout);
    check_fault(|j| j["model"]["unk_token"] = json!("?"), TokenizerFault::UnknownToken { token: "?".into() });
    check_fault(
        |j| {
            j["pre_tokenizer"] =
                json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true })
        },
        // `a` and `b` are there; 29 control characters and 2 first bytes of empty planes need not be.
        TokenizerFault::MissingBytes { missing: 243 - 2 - 31, first: b'\t' },
    );
    check_fault(
        |j| {
            let double = json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aa" });
            j["normalizer"] = json!({ "type": "Sequence", "normalizers": vec![double; 30] });
        },
        TokenizerFault::Growth { times: 1 << 30, limit: 64 },
    );
    check_fault(
        |j| {
            let pattern = json!({ "Regex": "a".repeat(20_000) });
            j["pre_tokenizer"] =
                json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false });
        },
        TokenizerFault::PatternTooLong { bytes: 20_000, limit: 16 << 10 },
    );
    check_fault(
        |j| {
            j["model"] = json!({ "type": "WordPiece", "unk_token": "a", "vocab": { "a": 0 },
                "continuing_subword_prefix": "##", "max_input_chars_per_word": 1_000_000_000 });
        },
        TokenizerFault::WordTooLong { value: 1_000_000_000, limit: 1024 },
    );
}

#[test]
fn no_malformed_file_makes_it_panic() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_model = format!("{{\"model\":{deep}}}");
    let deep_normalizer = format!("{{\"normalizer\":{deep},\"model\":{{\"vocab\":{{\"a\":0}}}}}}");
    for bad in ["", "{", "null", "[]", "{}", "{\"model\":{}}", &deep, &deep_model, &deep_normalizer, "\u{0}"]
    {
        assert!(Tokenizer::from_json(bad.as_bytes()).is_err(), "{bad:.40}");
    }
    for (at, bad) in [
        ("model", json!({ "type": "Unigram", "unk_id": 9, "vocab": [["a", -1.0]] })),
        ("model", json!({ "type": "Unigram", "unk_id": 0, "vocab": [["", -1.0]] })),
        ("model", json!({ "type": "Nonsense", "vocab": { "a": 0 } })),
        ("normalizer", json!({ "type": "Precompiled", "precompiled_charsmap": "////" })),
        (
            "pre_tokenizer",
            json!({ "type": "Split", "pattern": { "Regex": "(" }, "behavior": "Isolated", "invert": false }),
        ),
        ("version", json!("9.9")),
        ("model", json!({ "type": "BPE", "vocab": { "a": -1 }, "merges": [] })),
        ("model", json!({ "type": "BPE", "vocab": { "a": 1.5 }, "merges": [] })),
    ] {
        let mut json = small_bpe();
        json[at] = bad;
        assert!(load(&json).is_err(), "{json}");
    }
    // Every truncation of a real file is an error.
    let json = byte_level().json().to_vec();
    for end in (0..json.len() - 1).step_by(97) {
        assert!(Tokenizer::from_json(&json[..end]).is_err());
    }
}

#[test]
fn a_panic_in_the_library_becomes_an_error() {
    // A template that refers to a token which is not described is not noticed at load.
    let mut json = small_bpe();
    json["post_processor"] = json!({ "type": "TemplateProcessing",
        "single": [{ "SpecialToken": { "id": "[CLS]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
        "pair": [], "special_tokens": {} });
    let tokenizer = load(&json).unwrap();
    assert_eq!(tokenizer.encode("ab").unwrap(), [2]);
    assert!(matches!(tokenizer.encode_framed("ab"), Err(TokenizerError::Failed { .. })));
}

#[test]
fn catastrophic_patterns_end() {
    let mut json = small_bpe();
    json["pre_tokenizer"] = json!({ "type": "Split", "pattern": { "Regex": "(?=a)(a+)+$" },
        "behavior": "Isolated", "invert": false });
    let tokenizer = load(&json).unwrap();
    let start = Instant::now();
    let _ = tokenizer.encode(&format!("{}b", "a".repeat(2000)));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn an_oversized_file_is_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(Tokenizer::load(&path), Err(TokenizerError::Read { .. })));
}

#[test]
fn bytes_that_nobody_writes_may_be_missing_and_are_dropped() {
    let mut json: Value = serde_json::from_slice(byte_level().json()).unwrap();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    // The byte 4, as such vocabularies spell it; SmolLM has no token for it.
    let id = vocab.remove("\u{104}").unwrap();
    vocab.insert("filling".to_owned(), id);
    let tokenizer = load(&json).unwrap();
    assert_eq!(
        tokenizer.encode("the\u{4} cat").unwrap(),
        tokenizer
            .encode("the")
            .unwrap()
            .into_iter()
            .chain(tokenizer.encode(" cat").unwrap())
            .collect::<Vec<_>>()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn mutated_files_never_panic(at in 0usize..700, byte in any::<u8>(), cut in 0usize..700) {
        let mut json = small_bpe().to_string().into_bytes();
        let n = json.len();
        json[at % n] = byte;
        let _ = Tokenizer::from_json(&json).map(|t| t.encode("abba"));
        json.truncate(cut % n);
        let _ = Tokenizer::from_json(&json);
    }
}
