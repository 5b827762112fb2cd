//! Tokenizers saved and loaded.

use serde_json::Value;

use super::super::*;
use super::byte_level;

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

/// A tokenizer and the reference ids of Korean and Japanese texts, composed and decomposed; written by
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
        serde_json::from_str(include_str!("../east_asian.json")).unwrap();
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
