use super::super::bytes::byte_to_char;
use super::super::{Special, Tokenizer, TokenizerError};
use super::*;

fn write(dir: &Path, name: &str, content: &str) {
    std::fs::write(dir.join(name), content).unwrap();
}

/// BERT's words, with the settings if there are any.
fn bert(config: Option<Value>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nhe\n##llo\nhéllo\nhel\n##lo\nworld\n##s\n日\n本\n!\n日本\nHello\na\n";
    write(dir.path(), WORDS, &format!("\u{feff}{}", words.replace('\n', "\r\n")));
    write(dir.path(), "config.json", r#"{"model_type": "bert"}"#);
    if let Some(config) = config {
        write(dir.path(), "tokenizer_config.json", &config.to_string());
    }
    dir
}

/// Tokens for the 256 bytes and some of several, after `first`.
fn pairs(model_type: &str, first: &[&str], config: Option<Value>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut tokens: Vec<String> = first.iter().map(|&token| token.to_owned()).collect();
    tokens.extend((0..=255).map(|byte| byte_to_char(byte).to_string()));
    tokens.extend(["he", "ll", "hell", "hello", "Ġhello", "Ġw"].map(str::to_owned));
    let vocab: Map<String, Value> =
        tokens.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    write(dir.path(), PAIRS, &Value::Object(vocab).to_string());
    write(dir.path(), MERGES, "#version: 0.2\nh e\nl l\nhe ll\nhell o\nĠ hello\nĠ w\n");
    write(dir.path(), "config.json", &json!({ "model_type": model_type }).to_string());
    if let Some(config) = config {
        write(dir.path(), "tokenizer_config.json", &config.to_string());
    }
    dir
}

// The ids below are those of `AutoTokenizer` of transformers 5.24.0 for the same files.

#[test]
fn a_vocabulary_of_words_is_berts() {
    let texts = ["Hello worlds!", "héllo 日本", "HE\u{301}LLO [MASK] a", "unknownx"];
    let hello: &[u32] = &[2, 5, 11, 12, 15, 3];
    let cases: [(Option<Value>, [&[u32]; 4]); 5] = [
        (None, [hello, &[2, 5, 13, 14, 3], &[2, 5, 4, 18, 3], &[2, 1, 3]]),
        (
            Some(json!({ "do_lower_case": false })),
            [&[2, 17, 11, 12, 15, 3], &[2, 8, 13, 14, 3], &[2, 1, 4, 18, 3], &[2, 1, 3]],
        ),
        (
            Some(json!({ "do_lower_case": false, "strip_accents": true })),
            [&[2, 17, 11, 12, 15, 3], &[2, 5, 13, 14, 3], &[2, 1, 4, 18, 3], &[2, 1, 3]],
        ),
        (
            Some(json!({ "tokenize_chinese_chars": false, "tokenizer_class": "BertTokenizer" })),
            [hello, &[2, 5, 16, 3], &[2, 5, 4, 18, 3], &[2, 1, 3]],
        ),
        (Some(json!({ "strip_accents": false })), [hello, &[2, 8, 13, 14, 3], &[2, 1, 4, 18, 3], &[2, 1, 3]]),
    ];
    for (config, expected) in cases {
        let tokenizer = Tokenizer::load(bert(config.clone()).path()).unwrap();
        for (text, ids) in texts.iter().zip(expected) {
            assert_eq!(tokenizer.encode_prompt(text).unwrap(), ids, "{config:?} {text}");
        }
        let pair = tokenizer.frame("a", Some("a"), 9).unwrap();
        assert_eq!((pair.ids, pair.type_ids), (vec![2, 18, 3, 18, 3], vec![0, 0, 0, 1, 1]));
        assert_eq!(
            (tokenizer.mask_id(), tokenizer.pad_id(), tokenizer.special_tokens().unk.as_deref()),
            (Some(4), Some(0), Some("[UNK]"))
        );
    }
}

#[test]
fn a_vocabulary_with_merges_is_that_of_the_models_type() {
    let texts = ["hello hello w", "é <mask> hello", "a <mask>."];
    let roberta = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];
    let mask = json!({ "content": "<mask>", "lstrip": true, "normalized": true });
    let gpt2: [&[u32]; 3] = [
        &[260, 261, 262],
        &[196, 170, 33, 61, 110, 98, 116, 108, 63, 261],
        &[98, 33, 61, 110, 98, 116, 108, 63, 47],
    ];
    type Case<'a> = (&'a str, &'a [&'a str], Option<Value>, [&'a [u32]; 3], &'a [u32]);
    let cases: [Case<'_>; 6] = [
        ("gpt2", &["<|endoftext|>"], None, gpt2, &[98, 99]),
        ("qwen2", &["<|endoftext|>"], None, gpt2, &[98, 99]),
        (
            "gpt2",
            &["<|endoftext|>"],
            Some(json!({ "add_prefix_space": true })),
            [
                &[261, 261, 262],
                &[33, 196, 170, 33, 61, 110, 98, 116, 108, 63, 261],
                &[33, 98, 33, 61, 110, 98, 116, 108, 63, 47],
            ],
            &[33, 98, 33, 99],
        ),
        (
            "gpt2",
            &["<|endoftext|>"],
            Some(json!({ "add_bos_token": true })),
            [
                &[0, 260, 261, 262],
                &[0, 196, 170, 33, 61, 110, 98, 116, 108, 63, 261],
                &[0, 98, 33, 61, 110, 98, 116, 108, 63, 47],
            ],
            &[0, 98, 0, 99],
        ),
        (
            "roberta",
            &roberta,
            None,
            [&[0, 264, 265, 266, 2], &[0, 200, 174, 37, 4, 265, 2], &[0, 102, 37, 4, 51, 2]],
            &[0, 102, 2, 2, 103, 2],
        ),
        (
            "roberta",
            &roberta,
            Some(json!({ "add_prefix_space": true, "mask_token": mask })),
            [&[0, 265, 265, 266, 2], &[0, 37, 200, 174, 4, 265, 2], &[0, 37, 102, 4, 37, 51, 2]],
            &[0, 37, 102, 2, 2, 37, 103, 2],
        ),
    ];
    for (model_type, first, config, expected, pair) in cases {
        let dir = pairs(model_type, first, config.clone());
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        for (text, ids) in texts.iter().zip(expected) {
            assert_eq!(tokenizer.encode_prompt(text).unwrap(), ids, "{model_type} {config:?} {text}");
        }
        assert_eq!(tokenizer.frame("a", Some("b"), 99).unwrap().ids, pair, "{model_type} {config:?}");
        assert_eq!(tokenizer.decode(expected[0], Special::Skip).unwrap().trim_start(), texts[0]);
        // Without the model's type, the tokens tell.
        std::fs::remove_file(dir.path().join("config.json")).unwrap();
        if model_type != "qwen2" {
            let guessed = Tokenizer::load(dir.path()).unwrap();
            assert_eq!(guessed.encode_prompt(texts[0]).unwrap(), expected[0], "{model_type} {config:?}");
        }
    }
}

#[test]
fn what_is_saved_has_the_files_in_one() {
    let copy = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::load(bert(None).path()).unwrap();
    tokenizer.save(copy.path()).unwrap();
    let copied = Tokenizer::load(copy.path()).unwrap();
    assert_eq!(copied.fingerprint(), tokenizer.fingerprint());
    assert_eq!(copied.special_tokens(), tokenizer.special_tokens());
}

#[test]
fn files_that_no_class_reads_are_named() {
    let refused = |dir: &Path| Tokenizer::load(dir).unwrap_err().to_string();
    let dir = bert(Some(json!({ "tokenizer_class": "PhobertTokenizer" })));
    assert!(refused(dir.path()).contains("tokenizers of PhobertTokenizer are not read from it"));
    let dir = pairs("clip", &[], None);
    assert!(refused(dir.path()).contains("vocab.json cannot be used: tokenizers of clip"));
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), WORDS, "[PAD]\n[UNK]\n[CLS]\na\n");
    // BERT's class gives the separator an id of its own then; transformers does too.
    assert_eq!(Tokenizer::load(dir.path()).unwrap().encode_prompt("a").unwrap(), [2, 3, 4]);
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "spiece.model", "x");
    assert!(!Tokenizer::is_in(dir.path()));
    assert_eq!(Tokenizer::unread_files(dir.path()), ["spiece.model"]);
    let error = Tokenizer::load(dir.path()).unwrap_err();
    assert!(
        matches!(&error, TokenizerError::NoTokenizer { found, .. } if found == &["spiece.model"]),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn a_tokenizer_that_cannot_be_looked_at_is_not_absent() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("tokenizer.json", dir.path().join("tokenizer.json")).unwrap();
    assert!(Tokenizer::is_in(dir.path()));
    let error = Tokenizer::load(dir.path()).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
}
