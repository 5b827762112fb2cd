//! Control tokens in texts and prompts.

use serde_json::json;

use super::super::*;
use super::{TEXT, added, load, small_bpe};

#[test]
fn text_that_spells_control_tokens_stays_text() {
    let special =
        SpecialTokens { additional: vec!["<|im_start|>".into()], ..SpecialTokens::end_of_text("<|end|>") };
    let bpe = train_bpe([TEXT], &BpeOptions { special_tokens: special.clone(), ..BpeOptions::new(300) });
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
fn control_tokens_in_a_prompt_are_read_as_transformers_does_unless_they_are_to_be_text() {
    let special =
        SpecialTokens { additional: vec!["<|im_start|>".into()], ..SpecialTokens::end_of_text("<|end|>") };
    let options = BpeOptions { special_tokens: special.clone(), ..BpeOptions::new(300) };
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
