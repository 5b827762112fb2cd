//! Tokenizer classes of `transformers` whose settings override parts of `tokenizer.json`.
//!
//! BERT's class builds its normalizer from `do_lower_case`, `strip_accents` and `tokenize_chinese_chars`. Those of GPT-2 and
//! RoBERTa build their pre-tokenizer from `add_prefix_space`. Both ignore what the file says. Source: `tokenization_bert.py`,
//! `tokenization_gpt2.py` and `tokenization_roberta.py` of `transformers` 5.24.0.
//!
//! Releases 5 of `transformers` also replace any other normalizer, pre-tokenizer or post-processor in the file by the
//! class's own, such as the one that splits the digits of SmolLM. That is not followed here, nor by llama.cpp: models were
//! trained with what the file says.

use serde_json::{Map, Value};

use super::error::TokenizerError;

const CONFIG: &str = "tokenizer_config.json";

/// `tokenizer.json` with the settings of the class applied, if that changes it. `model_type` is that of the model in the same
/// directory, which implies a class if the settings name none.
pub(super) fn applied(
    json: &[u8],
    config: Option<&Map<String, Value>>,
    model_type: Option<&str>,
) -> Option<Vec<u8>> {
    let setting = |key: &str| config.and_then(|config| config.get(key)).filter(|value| !value.is_null());
    let class = setting("tokenizer_class").and_then(Value::as_str);
    let of_model = || match model_type? {
        "bert" => Some("BertTokenizer"),
        "distilbert" => Some("DistilBertTokenizer"),
        "electra" => Some("ElectraTokenizer"),
        "gpt2" => Some("GPT2Tokenizer"),
        "roberta" | "bart" => Some("RobertaTokenizer"),
        _ => None,
    };
    let class = class.map(|class| class.strip_suffix("Fast").unwrap_or(class)).or_else(of_model);
    let flag = |key: &str, absent: bool| Value::Bool(setting(key).and_then(Value::as_bool).unwrap_or(absent));
    let (part, kind, wanted) = match class? {
        "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" => (
            "normalizer",
            "BertNormalizer",
            vec![
                ("lowercase", flag("do_lower_case", true)),
                ("handle_chinese_chars", flag("tokenize_chinese_chars", true)),
                ("strip_accents", setting("strip_accents").cloned().unwrap_or_default()),
            ],
        ),
        "GPT2Tokenizer" | "RobertaTokenizer" | "BartTokenizer" | "LongformerTokenizer" => {
            ("pre_tokenizer", "ByteLevel", vec![("add_prefix_space", flag("add_prefix_space", false))])
        }
        _ => return None,
    };
    // What is no JSON is refused by whoever reads the file.
    let mut file: Map<String, Value> = serde_json::from_slice(json).ok()?;
    let fields = file.get_mut(part)?.as_object_mut().filter(|fields| fields["type"] == kind)?;
    let mut differs = false;
    for (key, value) in wanted {
        if fields.get(key).unwrap_or(&Value::Null) != &value {
            fields.insert(key.to_owned(), value);
            differs = true;
        }
    }
    differs.then(|| Value::Object(file).to_string().into_bytes())
}

/// Refuses settings that change the ids of a text and are not supported.
pub(super) fn refuse_unfollowed(config: &Map<String, Value>) -> Result<(), TokenizerError> {
    let is_true = |value: Option<&Value>| value == Some(&Value::Bool(true));
    let refused = [
        ("separate_vocabs", is_true(config.get("separate_vocabs")), "two vocabularies are not supported"),
        (
            "fix_mistral_regex",
            is_true(config.get("fix_mistral_regex")),
            "the splitting of tokenizer.json is used as it is: save the tokenizer with `transformers`, which writes the other",
        ),
        (
            "sp_model_kwargs.enable_sampling",
            is_true(config.get("sp_model_kwargs").and_then(|options| options.get("enable_sampling"))),
            "the same text would get different ids",
        ),
    ];
    match refused.into_iter().find(|(_, is_set, _)| *is_set) {
        Some((key, _, reason)) => {
            Err(TokenizerError::VocabularyFile { file: CONFIG, message: format!("{key} is true: {reason}") })
        }
        None => Ok(()),
    }
}

/// Settings that no class reads.
pub(super) fn unread(config: &Map<String, Value>) -> Vec<String> {
    config.keys().filter(|key| KNOWN.binary_search(&key.as_str()).is_err()).cloned().collect()
}

/// Keys of `tokenizer_config.json` that the classes of `transformers` 5.24.0 read, or that its versions have written, in
/// alphabetical order.
const KNOWN: &[&str] = &[
    "_commit_hash",
    "_from_auto",
    "_from_pipeline",
    "_name_or_path",
    "add_blank",
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "add_special_tokens",
    "added_tokens_decoder",
    "additional_special_tokens",
    "additional_special_tokens_ids",
    "audio_token",
    "auto_map",
    "backend",
    "bod_token",
    "boi_token",
    "bos_token",
    "bos_token_id",
    "cell_trim_length",
    "chain_break_token",
    "chat_control_tokens",
    "chat_template",
    "clean_text",
    "clean_up_tokenization_spaces",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
    "cls_token",
    "cls_token_box",
    "cls_token_id",
    "device",
    "device_map",
    "do_basic_tokenize",
    "do_clean_text",
    "do_lower_case",
    "do_lowercase",
    "do_lowercase_and_remove_accent",
    "do_phonemize",
    "do_subword_tokenize",
    "do_upper_case",
    "do_word_tokenize",
    "emoji_file",
    "empty_token",
    "entity_1_token",
    "entity_2_token",
    "entity_mask2_token",
    "entity_mask_token",
    "entity_pad_token",
    "entity_token_1",
    "entity_token_2",
    "entity_unk_token",
    "entity_vocab",
    "entity_vocab_file",
    "eod_token",
    "eoi_token",
    "eos_token",
    "eos_token_id",
    "eot_token",
    "errors",
    "extra_ids",
    "extra_special_tokens",
    "feature_extractor_class",
    "fill_token",
    "fix_mistral_regex",
    "gguf_file",
    "grounded_generation_template",
    "id2lang",
    "image_processor_class",
    "image_token",
    "image_token_id",
    "is_local",
    "is_uroman",
    "jumanpp_kwargs",
    "keep_accents",
    "lang2id",
    "lang_codes",
    "langs",
    "language",
    "language_codes",
    "legacy",
    "legacy_behaviour",
    "line_token",
    "local_files_only",
    "mask_token",
    "mask_token_id",
    "mask_token_sent",
    "max_column_id",
    "max_depth",
    "max_entity_length",
    "max_len",
    "max_length",
    "max_mention_length",
    "max_model_input_sizes",
    "max_question_length",
    "max_row_id",
    "max_target_length",
    "max_width",
    "mecab_kwargs",
    "merges",
    "merges_file",
    "middle_token",
    "min_question_length",
    "mistral_format",
    "model_input_names",
    "model_max_length",
    "model_specific_special_tokens",
    "monolingual_vocab_file",
    "name_or_path",
    "never_split",
    "normalization",
    "normalize",
    "normalizer_file",
    "num_madeup_words",
    "offset",
    "only_label_first_subword",
    "pad_to_multiple_of",
    "pad_token",
    "pad_token_box",
    "pad_token_id",
    "pad_token_label",
    "pad_token_type_id",
    "pad_width",
    "padding",
    "padding_side",
    "phone_delimiter_token",
    "phonemize",
    "phonemizer_backend",
    "phonemizer_lang",
    "post_processor",
    "predict_timestamps",
    "prefix_token",
    "processor_class",
    "question_token",
    "remove_space",
    "replace_word_delimiter_char",
    "response_schema",
    "response_template",
    "return_token_type_ids",
    "sanitize_control_tokens",
    "save_jinja_files",
    "sep_token",
    "sep_token_box",
    "sep_token_id",
    "separate_vocabs",
    "should_strip_spaces",
    "slow_tokenizer_class",
    "source_lang",
    "source_spm",
    "sp_model_kwargs",
    "space_token",
    "spaces_between_special_tokens",
    "special_tokens_map_file",
    "special_tokens_pattern",
    "split_by_punct",
    "split_special_tokens",
    "spm_file",
    "src_lang",
    "src_vocab_file",
    "stride",
    "strip_accents",
    "strip_column_names",
    "subword_tokenizer_type",
    "sudachi_kwargs",
    "suffix",
    "suffix_token",
    "tags_dict",
    "target_lang",
    "target_spm",
    "target_vocab_file",
    "task",
    "tgt_lang",
    "tgt_vocab_file",
    "token_type_ids_include_special_tokens",
    "token_type_ids_pattern",
    "tokenize_chinese_chars",
    "tokenizer_class",
    "tokenizer_file",
    "tokenizer_padding",
    "tokenizer_truncation",
    "tokenizer_type",
    "tool_use_template",
    "transformers_version",
    "trim_offsets",
    "truncation",
    "truncation_side",
    "truncation_strategy",
    "trust_remote_code",
    "unk_id",
    "unk_token",
    "unk_token_id",
    "update_answer_coordinates",
    "use_auth_token",
    "use_default_system_prompt",
    "use_fast",
    "use_source_tokenizer",
    "vocab",
    "vocab_file",
    "vocab_size",
    "word_delimiter_token",
    "word_pronunciation_file",
    "word_shape_file",
    "word_tokenizer_type",
    "wordpieces_prefix",
    "x_sep_token",
];

#[cfg(test)]
mod tests {
    use super::super::Tokenizer;
    use super::*;
    use serde_json::json;

    fn tokenizer(lowercase: bool, config: Option<Value>, model_type: Option<&str>) -> Tokenizer {
        let vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "Hello", "a", "é", "e"];
        let ids: Map<String, Value> =
            vocab.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
        let json = json!({
            "added_tokens": [], "pre_tokenizer": { "type": "BertPreTokenizer" },
            "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                            "strip_accents": null, "lowercase": lowercase },
            "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                       "max_input_chars_per_word": 100, "vocab": ids },
        });
        let dir = tempfile::tempdir().unwrap();
        let write =
            |name: &str, json: &Value| std::fs::write(dir.path().join(name), json.to_string()).unwrap();
        write("tokenizer.json", &json);
        if let Some(config) = config {
            write("tokenizer_config.json", &config);
        }
        if let Some(model_type) = model_type {
            write("config.json", &json!({ "model_type": model_type }));
        }
        Tokenizer::load(dir.path()).unwrap()
    }

    #[test]
    fn berts_class_goes_by_its_settings_and_others_by_the_file() {
        let class = |name: &str| json!({ "tokenizer_class": name });
        // Ids of "Hello é" of transformers 5.24.0.
        for lower in [true, false] {
            for (config, model_type, ids) in [
                (None, Some("bert"), [5, 9]),
                (Some(class("BertTokenizer")), Some("bert"), [5, 9]),
                (Some(class("DistilBertTokenizer")), Some("distilbert"), [5, 9]),
                (Some(json!({ "tokenizer_class": "BertTokenizer", "do_lower_case": false })), None, [6, 8]),
                (Some(json!({ "do_lower_case": false })), Some("bert"), [6, 8]),
                (
                    Some(json!({ "tokenizer_class": "BertTokenizerFast", "strip_accents": false })),
                    None,
                    [5, 8],
                ),
                (
                    Some(json!({ "tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": !lower })),
                    Some("bert"),
                    { if lower { [5, 9] } else { [6, 8] } },
                ),
                (None, None, if lower { [5, 9] } else { [6, 8] }),
            ] {
                let tokenizer = tokenizer(lower, config.clone(), model_type);
                assert_eq!(tokenizer.encode("Hello é").unwrap(), ids, "{lower} {config:?} {model_type:?}");
            }
        }
    }

    #[test]
    fn a_setting_that_is_not_followed_is_refused_and_one_that_nobody_reads_is_told() {
        let error = |config: Value| refuse_unfollowed(config.as_object().unwrap()).unwrap_err().to_string();
        assert!(error(json!({ "fix_mistral_regex": true })).contains("fix_mistral_regex is true"));
        assert!(error(json!({ "sp_model_kwargs": { "enable_sampling": true } })).contains("enable_sampling"));
        refuse_unfollowed(json!({ "fix_mistral_regex": false, "sp_model_kwargs": {} }).as_object().unwrap())
            .unwrap();
        let config =
            json!({ "tokenizer_class": "BertTokenizer", "model_max_length": 3, "colour": 1, "wrapped": {} });
        assert_eq!(unread(config.as_object().unwrap()), ["colour", "wrapped"]);
        assert!(KNOWN.is_sorted());
    }
}
