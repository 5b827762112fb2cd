use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const TEXT: &str = "the cat sat on the mat, and the other cat sat there.\nThe end?  No: the beginning!\n";

fn byte_level() -> Tokenizer {
    train_bpe([TEXT.repeat(4)], &BpeOptions { vocab_size: 320, ..BpeOptions::new(0) }).unwrap()
}

fn small_bpe() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": [["a", "b"]],
        }
    })
}

fn load(json: &Value) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_json(json.to_string().as_bytes())
}

fn added(id: u64, content: &str) -> Value {
    json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
}

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
fn text_that_spells_control_tokens_stays_text() {
    let special =
        SpecialTokens { additional: vec!["<|im_start|>".into()], ..SpecialTokens::end_of_text("<|end|>") };
    let bpe =
        train_bpe([TEXT], &BpeOptions { vocab_size: 300, min_frequency: 2, special_tokens: special.clone() });
    let chars = train_chars([TEXT.to_owned() + "<|im_start|>end"], &special);
    for tokenizer in [bpe.unwrap(), chars.unwrap()] {
        let text = "the <|im_start|>cat<|end|>";
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.iter().all(|&id| !tokenizer.is_special(id)));
        assert_eq!(tokenizer.decode(&ids, Special::Skip).unwrap(), text);
        let markup = tokenizer.encode_markup(text).unwrap();
        assert_eq!(markup.iter().filter(|&&id| tokenizer.is_special(id)).count(), 2);
        assert_eq!(markup.last().copied(), tokenizer.eos_id());
        assert_eq!(tokenizer.decode(&markup, Special::Keep).unwrap(), text);
        assert_eq!(tokenizer.decode(&markup, Special::Skip).unwrap(), "the cat");
    }
}

#[test]
fn control_tokens_inside_a_models_own_vocabulary_are_avoided() {
    // Like T5: the model itself knows `</s>` and would find it in any text.
    let mut json = small_bpe();
    json["model"] = json!({ "type": "Unigram", "unk_id": 0, "vocab": [
        ["<unk>", 0.0], ["</s>", 0.0], ["<", -2.0], ["/", -2.0], ["s", -2.0], [">", -2.0], ["a", -2.0],
    ]});
    json["added_tokens"] = json!([added(0, "<unk>"), added(1, "</s>")]);
    json["decoder"] = json!({ "type": "Fuse" });
    let tokenizer = load(&json).unwrap();
    let ids = tokenizer.encode("a</s>a</s>").unwrap();
    assert!(!ids.contains(&1), "{ids:?}");
    assert_eq!(tokenizer.decode(&ids, Special::Keep).unwrap(), "a</s>a</s>");
    assert!(tokenizer.encode_markup("a</s>").unwrap().contains(&1));
}

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
fn training_gives_the_same_bytes_and_the_size_asked_for() {
    let options = BpeOptions::new(280);
    let text = std::iter::repeat_n(TEXT, 50).collect::<String>();
    let first = train_bpe([&text], &options).unwrap();
    assert_eq!(first.vocab_size(), 280);
    for _ in 0..4 {
        assert_eq!(train_bpe([&text], &options).unwrap().json(), first.json());
    }
    let again = Tokenizer::from_json(first.json()).unwrap();
    assert_eq!(again.fingerprint(), first.fingerprint());
    assert!(first.encode(TEXT).unwrap().len() < TEXT.len() * 2 / 3);
}

#[test]
fn training_refuses_what_cannot_be() {
    let small = train_bpe([TEXT], &BpeOptions::new(256)).unwrap_err();
    assert!(matches!(small, TrainError::VocabularyTooSmall { asked: 256, least: 257 }));
    assert!(matches!(train_bpe([""], &BpeOptions::new(300)), Err(TrainError::NoText)));
    assert!(matches!(train_chars([""; 0], &SpecialTokens::default()), Err(TrainError::NoText)));
    let special = SpecialTokens::end_of_text("a");
    assert!(matches!(train_chars(["a"], &special), Err(TrainError::ControlToken { .. })));
    let special = SpecialTokens::end_of_text("");
    assert!(matches!(train_chars(["a"], &special), Err(TrainError::ControlToken { .. })));
}

#[test]
fn characters_are_numbered_in_order() {
    let tokenizer = train_chars(["b é\n", "a"], &SpecialTokens::end_of_text("<end>")).unwrap();
    let spelled: Vec<_> = (0..6).map(|id| tokenizer.id_to_token(id).unwrap()).collect();
    assert_eq!(spelled, ["\n", " ", "a", "b", "é", "<end>"]);
    assert_eq!((tokenizer.vocab_size(), tokenizer.eos_id()), (6, Some(5)));
    assert!(tokenizer.inner.facts.characters.is_some());
    let unknown = tokenizer.encode("ab\u{1F525}").unwrap_err();
    assert!(matches!(unknown, TokenizerError::UnknownCharacter { character: '🔥', offset: 2 }));
    assert!(matches!(tokenizer.encode_markup("a<end>x"), Err(TokenizerError::UnknownCharacter { .. })));
}

#[test]
fn the_fast_path_for_characters_gives_what_the_library_gives() {
    let tokenizer = train_chars([TEXT], &SpecialTokens::default()).unwrap();
    let library = tokenizer.inner.literal.encode(TEXT, false).unwrap();
    assert_eq!(tokenizer.encode(TEXT).unwrap(), library.get_ids());
    assert!(tokenizer.inner.literal.encode("#", false).is_err());
}

#[test]
fn a_saved_tokenizer_is_the_same_when_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = byte_level();
    tokenizer.save(dir.path()).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]);
    for path in [dir.path().to_owned(), dir.path().join("tokenizer.json")] {
        let loaded = Tokenizer::load(&path).unwrap();
        assert_eq!(loaded.fingerprint(), tokenizer.fingerprint());
        assert_eq!(loaded.special_tokens(), tokenizer.special_tokens());
        assert_eq!(loaded.eos_id(), Some(0));
    }
    // What was read is written back byte for byte.
    let config =
        r#"{"eos_token": {"content": "<|endoftext|>", "lstrip": false}, "chat_template": "inline", "x": 1}"#;
    std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    std::fs::remove_file(dir.path().join("special_tokens_map.json")).unwrap();
    let loaded = Tokenizer::load(dir.path()).unwrap();
    assert_eq!((loaded.eos_id(), loaded.chat_template()), (Some(0), Some("inline")));
    std::fs::write(dir.path().join("chat_template.jinja"), "file").unwrap();
    let loaded = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(loaded.chat_template(), Some("file"));
    let other = tempfile::tempdir().unwrap();
    loaded.save(other.path()).unwrap();
    assert_eq!(std::fs::read_to_string(other.path().join("tokenizer_config.json")).unwrap(), config);
    assert_eq!(std::fs::read_to_string(other.path().join("chat_template.jinja")).unwrap(), "file");

    std::fs::write(dir.path().join("tokenizer_config.json"), "[]").unwrap();
    assert!(matches!(Tokenizer::load(dir.path()), Err(TokenizerError::Json { .. })));
    assert!(matches!(Tokenizer::load(&dir.path().join("none")), Err(TokenizerError::Read { .. })));
}

#[test]
fn an_oversized_file_is_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(Tokenizer::load(&path), Err(TokenizerError::Read { .. })));
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

/// Llama 2's way: spaces are `▁`, unknown characters become byte tokens.
fn byte_fallback() -> Tokenizer {
    let mut json = small_bpe();
    let mut vocab: Map<String, Value> = Map::new();
    for (id, token) in ["<unk>", "▁", "a", "b", "▁a", "你"].into_iter().enumerate() {
        vocab.insert(token.into(), id.into());
    }
    for byte in 0..=255 {
        vocab.insert(format!("<0x{byte:02X}>"), (6 + byte).into());
    }
    json["model"]["vocab"] = vocab.into();
    json["model"]["merges"] = json!([["▁", "a"]]);
    json["model"]["byte_fallback"] = json!(true);
    json["model"]["unk_token"] = json!("<unk>");
    json["normalizer"] = json!({ "type": "Sequence", "normalizers": [
        { "type": "Prepend", "prepend": "▁" },
        { "type": "Replace", "pattern": { "String": " " }, "content": "▁" } ] });
    json["decoder"] = json!({ "type": "Sequence", "decoders": [
        { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
        { "type": "ByteFallback" }, { "type": "Fuse" },
        { "type": "Strip", "content": " ", "start": 1, "stop": 0 } ] });
    json["added_tokens"] = json!([added(0, "<unk>")]);
    load(&json).unwrap()
}

/// T5's way, but for the scores.
fn metaspace() -> Tokenizer {
    let mut json = small_bpe();
    let space = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
    json["model"] = json!({ "type": "Unigram", "unk_id": 0, "byte_fallback": false,
        "vocab": [["<unk>", 0.0], ["a", -1.0], ["▁a", -1.0], ["b", -1.0], ["▁ba", -1.0], ["▁", -2.0]] });
    json["pre_tokenizer"] = space.clone();
    json["decoder"] = space;
    json["added_tokens"] = json!([added(0, "<unk>")]);
    load(&json).unwrap()
}

/// BERT's way.
fn word_piece() -> Tokenizer {
    let mut json = small_bpe();
    json["model"] = json!({ "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": { "[UNK]": 0, "a": 1, "##a": 2, "b": 3, "##bab": 4 } });
    json["pre_tokenizer"] = json!({ "type": "BertPreTokenizer" });
    json["decoder"] = json!({ "type": "WordPiece", "prefix": "##", "cleanup": true });
    json["added_tokens"] = json!([added(0, "[UNK]")]);
    load(&json).unwrap()
}

/// The text that the spellings make.
fn spelled(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let spellings = tokenizer.spellings().unwrap();
    let bytes = ids.iter().flat_map(|&id| spellings.tokens[id as usize].clone()).collect();
    let text = String::from_utf8(bytes).unwrap();
    match spellings.drops_first_space {
        true => text.strip_prefix(' ').unwrap_or(&text).to_owned(),
        false => text,
    }
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32], special: Special) -> (String, Vec<String>) {
    let mut stream = StreamDecoder::new(tokenizer, special);
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    (pieces.concat(), pieces)
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

    #[test]
    fn characters_are_exact(text in any::<String>()) {
        prop_assume!(!text.is_empty());
        let tokenizer = train_chars([&text], &SpecialTokens::default()).unwrap();
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(ids.len(), text.chars().count());
        prop_assert_eq!(tokenizer.decode(&ids, Special::Skip).unwrap(), text);
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

#[test]
fn control_tokens_in_a_prompt_are_read_as_transformers_does_unless_they_are_to_be_text() {
    let special =
        SpecialTokens { additional: vec!["<|im_start|>".into()], ..SpecialTokens::end_of_text("<|end|>") };
    let options = BpeOptions { vocab_size: 300, min_frequency: 2, special_tokens: special.clone() };
    let chars = train_chars([TEXT.to_owned() + "<|im_start|>end"], &special).unwrap();
    for tokenizer in [train_bpe([TEXT], &options).unwrap(), chars] {
        let text = "<|im_start|>the cat<|end|>";
        let parsed = tokenizer.encode_prompt(text).unwrap();
        assert_eq!(parsed, tokenizer.encode_markup(text).unwrap());
        assert_eq!(parsed, tokenizer.encode_bare_prompt(text).unwrap());
        assert_eq!(parsed.iter().filter(|&&id| tokenizer.is_special(id)).count(), 2);
        let as_text = tokenizer.clone().with_control_tokens(ControlTokens::AsText);
        let literal = as_text.encode_prompt(text).unwrap();
        assert_eq!(literal, tokenizer.encode(text).unwrap());
        assert_eq!(literal, as_text.encode_bare_prompt(text).unwrap());
        let split = json!({ "split_special_tokens": true }).as_object().unwrap().clone();
        let split = Tokenizer::from_contents(tokenizer.json(), split).unwrap();
        assert_eq!(split.encode_prompt(text).unwrap(), literal);
    }
    let unknown = train_chars(["ab"], &special).unwrap().encode_prompt("a<|end|>c");
    assert!(matches!(unknown, Err(TokenizerError::UnknownCharacter { character: 'c', .. })));
}

/// A tokenizer and what the reference program makes of Korean and Japanese, composed and decomposed; written by
/// `tests/golden/east_asian_cases.py`.
#[derive(serde::Deserialize)]
struct EastAsian {
    files: std::collections::BTreeMap<String, Value>,
    /// Marian's model, in hexadecimal.
    spm: Option<String>,
    cases: Vec<(String, Vec<u32>)>,
}

#[test]
fn korean_and_japanese_have_the_references_ids_in_every_form_and_through_every_kind() {
    let kinds: std::collections::BTreeMap<String, EastAsian> =
        serde_json::from_str(include_str!("east_asian.json")).unwrap();
    assert_eq!(kinds.len(), 5);
    for (kind, EastAsian { files, spm, cases }) in kinds {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content.to_string()).unwrap();
        }
        if let Some(spm) = spm {
            let byte = |at: usize| u8::from_str_radix(&spm[at..at + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..spm.len()).step_by(2).map(byte).collect();
            std::fs::write(dir.path().join("source.spm"), &bytes).unwrap();
            std::fs::write(dir.path().join("target.spm"), &bytes).unwrap();
        }
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        for (text, ids) in cases {
            assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{kind}: {text:?}");
            assert_eq!(tokenizer.encode_bare_prompt(&text).unwrap(), ids, "{kind}: {text:?}");
        }
    }
}

#[test]
fn a_token_with_a_role_is_a_control_token_whether_or_not_the_file_says_so() {
    let mut json = small_bpe();
    json["model"]["vocab"]["<s>"] = json!(3);
    json["decoder"] = json!({ "type": "Fuse" });
    let config = json!({ "bos_token": "<s>" }).as_object().unwrap().clone();
    let tokenizer = Tokenizer::from_contents(json.to_string().as_bytes(), config).unwrap();
    // Ids of transformers 5.24.0.
    assert_eq!(tokenizer.encode_prompt("ab<s>a").unwrap(), [2, 3, 0]);
    assert_eq!(tokenizer.decode(&[2, 3, 0], Special::Skip).unwrap(), "aba");
    assert!(tokenizer.is_special(3) && !tokenizer.encode("ab<s>a").unwrap().contains(&3));
    // An ordinary token that fills rows remains one in what users write.
    let config = json!({ "pad_token": "b" }).as_object().unwrap().clone();
    let tokenizer = Tokenizer::from_contents(json.to_string().as_bytes(), config).unwrap();
    assert_eq!((tokenizer.encode("abb").unwrap(), tokenizer.pad_id()), (vec![2, 1], Some(1)));
}
