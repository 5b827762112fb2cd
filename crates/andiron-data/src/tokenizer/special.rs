//! Special tokens and their roles.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Control tokens by role, as `tokenizer_config.json` names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpecialTokens {
    /// Begins a sequence.
    pub bos: Option<String>,
    /// Ends a sequence.
    pub eos: Option<String>,
    /// The unknown token, for text that the vocabulary cannot encode.
    pub unk: Option<String>,
    /// Separates two parts (BERT).
    pub sep: Option<String>,
    /// Padding.
    pub pad: Option<String>,
    /// Represents the whole sequence (BERT's `[CLS]`).
    pub cls: Option<String>,
    /// The mask token, at positions to predict.
    pub mask: Option<String>,
    /// Any others.
    pub additional: Vec<String>,
}

impl SpecialTokens {
    /// Only an end-of-sequence token, as in GPT-2.
    pub fn end_of_text(token: impl Into<String>) -> Self {
        Self { eos: Some(token.into()), ..Self::default() }
    }

    /// The control tokens of RoBERTa and BART, which encoders and encoder-decoders are trained with here.
    pub fn roberta() -> Self {
        let token = |token: &str| Some(token.to_owned());
        Self {
            bos: token("<s>"),
            eos: token("</s>"),
            unk: token("<unk>"),
            sep: token("</s>"),
            pad: token("<pad>"),
            cls: token("<s>"),
            mask: token("<mask>"),
            additional: Vec::new(),
        }
    }

    /// The control tokens of BERT: `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`.
    pub fn bert() -> Self {
        let token = |token: &str| Some(token.to_owned());
        Self {
            unk: token("[UNK]"),
            sep: token("[SEP]"),
            pad: token("[PAD]"),
            cls: token("[CLS]"),
            mask: token("[MASK]"),
            ..Self::default()
        }
    }

    /// The control tokens of T5, with its 100 sentinels. Their ids descend, as in T5's vocabulary.
    pub fn t5() -> Self {
        let token = |token: &str| Some(token.to_owned());
        Self {
            eos: token("</s>"),
            unk: token("<unk>"),
            pad: token("<pad>"),
            additional: (0..100).rev().map(|number| format!("<extra_id_{number}>")).collect(),
            ..Self::default()
        }
    }

    /// GPT-2's end of a text, and the tokens of StarCoder for filling in the middle.
    pub fn fill_in_the_middle() -> Self {
        let tokens = ["<fim_prefix>", "<fim_middle>", "<fim_suffix>"];
        Self { additional: tokens.map(str::to_owned).into(), ..Self::end_of_text("<|endoftext|>") }
    }

    pub(super) fn roles(&self) -> [(&'static str, &Option<String>); 7] {
        [
            ("bos_token", &self.bos),
            ("eos_token", &self.eos),
            ("unk_token", &self.unk),
            ("sep_token", &self.sep),
            ("pad_token", &self.pad),
            ("cls_token", &self.cls),
            ("mask_token", &self.mask),
        ]
    }

    /// Every token once, in the order of the ids of RoBERTa, BERT and T5.
    pub fn all(&self) -> Vec<&str> {
        let mut tokens: Vec<&str> = Vec::new();
        let named = [&self.bos, &self.pad, &self.eos, &self.unk, &self.cls, &self.sep, &self.mask];
        let named = named.into_iter().filter_map(|token| token.as_deref());
        for token in named.chain(self.additional.iter().map(String::as_str)) {
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
        tokens
    }

    /// Sets the roles that are still empty from a `tokenizer_config.json` or `special_tokens_map.json`. A token there is a
    /// string or an object with `content`.
    pub(super) fn fill_from(&mut self, json: &Map<String, Value>) {
        let content = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            other => other.get("content").and_then(Value::as_str).map(str::to_owned),
        };
        let fields = [
            ("bos_token", &mut self.bos),
            ("eos_token", &mut self.eos),
            ("unk_token", &mut self.unk),
            ("sep_token", &mut self.sep),
            ("pad_token", &mut self.pad),
            ("cls_token", &mut self.cls),
            ("mask_token", &mut self.mask),
        ];
        for (key, field) in fields {
            if field.is_none() {
                *field = json.get(key).and_then(content);
            }
        }
        if self.additional.is_empty() {
            let list = json.get("extra_special_tokens").or_else(|| json.get("additional_special_tokens"));
            if let Some(Value::Array(tokens)) = list {
                self.additional = tokens.iter().filter_map(content).collect();
            }
        }
    }

    /// The content of `special_tokens_map.json`; empty if there is no token.
    pub(super) fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        for (key, token) in self.roles() {
            if let Some(token) = token {
                map.insert(key.into(), token.as_str().into());
            }
        }
        if !self.additional.is_empty() {
            map.insert("additional_special_tokens".into(), self.additional.clone().into());
        }
        map
    }
}
