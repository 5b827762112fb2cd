//! Settings of `tokenizer_config.json`: length limit, truncation side and input names.

use serde_json::{Map, Value};

use super::Tokenizer;

/// A `model_max_length` of at least this means no limit: `transformers` writes 1e30 then.
const NO_LIMIT: f64 = 1e20;

/// Default of `MarianTokenizer`.
const MARIAN_LIMIT: f64 = 512.0;

/// The end of a text, or of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// The beginning.
    Left,
    /// The end.
    #[default]
    Right,
}

impl Tokenizer {
    /// Maximum number of tokens of an input, including special tokens: `model_max_length`, or its older name `max_len`, or
    /// Marian's default of 512. `None` if there is no such key or its value means no limit.
    pub fn model_max_length(&self) -> Option<usize> {
        let files = &self.inner.files;
        let said = |key: &&str| files.given_config()?.get(*key)?.as_f64();
        let default = files.marian.is_some().then_some(MARIAN_LIMIT);
        let limit = ["model_max_length", "max_len"].iter().find_map(said).or(default)?;
        // Exact: a larger number is no limit.
        (1.0..NO_LIMIT).contains(&limit).then_some(limit as usize)
    }

    /// The names of the model's inputs (`input_ids`, `attention_mask`, `token_type_ids`): `model_input_names`, else those of
    /// the class in `tokenizer_class` in `transformers`; `None` if neither is given.
    pub fn model_input_names(&self) -> Option<Vec<String>> {
        let config = self.inner.files.given_config()?;
        if let Some(Value::Array(names)) = config.get("model_input_names") {
            return Some(names.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        }
        let class = config.get("tokenizer_class")?.as_str()?;
        Some(input_names_of(class).iter().map(|&name| name.to_owned()).collect())
    }

    /// Whether spaces before punctuation and contractions are removed from decoded text: `clean_up_tokenization_spaces`.
    /// `transformers` does not apply it to BPE models unless another key forces it.
    pub(super) fn cleans_up(&self) -> bool {
        let config = self.inner.files.given_config();
        let is_true = |key: &str| config.and_then(|config| config.get(key)) == Some(&Value::Bool(true));
        is_true("clean_up_tokenization_spaces")
            && (!self.inner.facts.is_bpe
                || is_true("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"))
    }

    /// Whether control tokens in a text are always ordinary text: `split_special_tokens`.
    pub(super) fn splits_special_tokens(&self) -> bool {
        let config = self.inner.files.given_config();
        config.and_then(|config| config.get("split_special_tokens")) == Some(&Value::Bool(true))
    }

    /// The side on which a text is truncated: `truncation_side`, else the direction of `truncation` in `tokenizer.json`, else
    /// the right.
    pub fn truncation_side(&self) -> Side {
        let said = self.inner.files.given_config().and_then(|config| side(config, "truncation_side"));
        said.or(self.inner.facts.truncation_side).unwrap_or_default()
    }
}

fn side(config: &Map<String, Value>, key: &str) -> Option<Side> {
    Side::named(config.get(key)?.as_str()?)
}

impl Side {
    /// The side with a name, in upper or lower case.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "left" => Some(Self::Left),
            "right" => Some(Self::Right),
            _ => None,
        }
    }
}

/// The `model_input_names` of a class of `transformers` 5.24.0.
fn input_names_of(class: &str) -> &'static [&'static str] {
    match class.strip_suffix("Fast").unwrap_or(class) {
        "BertTokenizer"
        | "ConvBertTokenizer"
        | "DPRContextEncoderTokenizer"
        | "DPRQuestionEncoderTokenizer"
        | "DebertaTokenizer"
        | "DebertaV2Tokenizer"
        | "ElectraTokenizer"
        | "LayoutLMTokenizer"
        | "LxmertTokenizer"
        | "MobileBertTokenizer"
        | "SqueezeBertTokenizer" => &["input_ids", "token_type_ids", "attention_mask"],
        _ => &["input_ids", "attention_mask"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{SpecialTokens, train_chars};
    use serde_json::json;

    fn with_config(config: Value) -> Tokenizer {
        let made = train_chars(["abc"], &SpecialTokens::default()).unwrap();
        Tokenizer::from_contents(made.json(), config.as_object().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_length_limit_is_a_number_that_a_text_can_have() {
        let limit = |config| with_config(config).model_max_length();
        assert_eq!(limit(json!({ "model_max_length": 512 })), Some(512));
        assert_eq!(limit(json!({ "model_max_length": 512.0 })), Some(512));
        assert_eq!(limit(json!({ "max_len": 512 })), Some(512));
        // What transformers writes for no limit.
        let none = serde_json::from_str(r#"{"model_max_length": 1000000000000000019884624838656}"#).unwrap();
        assert_eq!(limit(none), None);
        for none in [json!({}), json!({ "model_max_length": null }), json!({ "model_max_length": -1 })] {
            assert_eq!(limit(none), None);
        }
    }

    #[test]
    fn what_a_model_is_given_follows_from_the_list_or_the_class() {
        let names = |config| with_config(config).model_input_names();
        assert_eq!(
            names(json!({ "model_input_names": ["input_ids"], "tokenizer_class": "BertTokenizer" })),
            { Some(vec!["input_ids".to_owned()]) }
        );
        let types = |class: &str| {
            names(json!({ "tokenizer_class": class })).unwrap().contains(&"token_type_ids".to_owned())
        };
        assert!(types("BertTokenizer") && types("BertTokenizerFast") && types("DebertaV2Tokenizer"));
        assert!(!types("RobertaTokenizer") && !types("PreTrainedTokenizerFast"));
        assert_eq!(names(json!({})), None);
    }
}
