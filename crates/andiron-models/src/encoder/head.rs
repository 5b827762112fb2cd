//! The head of an encoder, from `architectures`, `problem_type` and `id2label` of a `config.json`.

mod layers;

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use layers::{Head, MaskedLmHead, SequenceHead, TokenHead};
pub(crate) use layers::{HeadActivation, HeadNorm, Transform};

use crate::hf_config::ConfigError;

/// Maximum number of labels accepted from a file.
const MAX_LABELS: u64 = 1 << 16;

const KNOWN: &str =
    "…Model, …ForMaskedLM, …ForSequenceClassification, …ForTokenClassification, …ForQuestionAnswering";

/// The kind of an encoder's head; [`Head`] is the head itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderHead {
    /// None: hidden states, for embeddings.
    #[default]
    None,
    /// Masked-language-model head.
    MaskedLm,
    /// Sequence-classification head.
    Classify {
        /// Problem type.
        problem: Problem,
    },
    /// Token-classification head.
    TokenClassify,
    /// Span (question-answering) head.
    Span,
}

/// Problem type of a sequence-classification head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// Single label: softmax.
    SingleLabel,
    /// Multiple labels: sigmoid of each.
    MultiLabel,
    /// Regression: raw outputs.
    Regression,
    /// One label and no `problem_type`: sigmoid, as Hugging Face's pipeline has it. Trained as a regression.
    OneLabel,
}

impl EncoderHead {
    /// Whether the head has one output per label.
    pub(crate) fn has_labels(self) -> bool {
        matches!(self, Self::Classify { .. } | Self::TokenClassify)
    }
}

impl Problem {
    /// Label scores of each text in a batch: probabilities, or raw outputs for regression.
    ///
    /// # Shape
    /// `[texts, labels]`.
    pub(crate) fn scores(self, logits_bl: Tensor<2>) -> Vec<Vec<f32>> {
        let n_labels = logits_bl.dims()[1];
        let scores_bl = match self {
            // Softmax over one label is always 1.
            Self::SingleLabel if n_labels > 1 => activation::softmax(logits_bl, 1),
            Self::SingleLabel | Self::MultiLabel | Self::OneLabel => activation::sigmoid(logits_bl),
            Self::Regression => logits_bl,
        };
        let scores = scores_bl.into_data().try_into_vec::<f32>().expect("scores are f32");
        scores.chunks_exact(n_labels).map(<[f32]>::to_vec).collect()
    }
}

/// Hugging Face's classes of one architecture.
pub(crate) struct Classes {
    pub(crate) none: &'static str,
    pub(crate) masked_lm: &'static str,
    pub(crate) classify: &'static str,
    pub(crate) token_classify: &'static str,
    pub(crate) span: &'static str,
}

/// The classes whose names begin with `$prefix`.
macro_rules! classes {
    ($prefix:literal) => {
        $crate::encoder::head::Classes {
            none: concat!($prefix, "Model"),
            masked_lm: concat!($prefix, "ForMaskedLM"),
            classify: concat!($prefix, "ForSequenceClassification"),
            token_classify: concat!($prefix, "ForTokenClassification"),
            span: concat!($prefix, "ForQuestionAnswering"),
        }
    };
}
pub(crate) use classes;

impl Classes {
    pub(crate) fn of(&self, head: EncoderHead) -> &'static str {
        match head {
            EncoderHead::None => self.none,
            EncoderHead::MaskedLm => self.masked_lm,
            EncoderHead::Classify { .. } => self.classify,
            EncoderHead::TokenClassify => self.token_classify,
            EncoderHead::Span => self.span,
        }
    }
}

/// Sets `head` and `labels` in `fields` from the keys that Hugging Face writes.
pub(crate) fn read(fields: &mut Map<String, Value>) -> Result<(), ConfigError> {
    let stated = read_labels(fields)?;
    if class_of(fields).is_some() {
        let (head, labels) = read_classes(fields)?;
        fields.insert("head".to_owned(), serde_json::to_value(head).expect("plain data"));
        if stated.is_some() || head.has_labels() {
            fields.insert("labels".to_owned(), labels.into());
        }
    } else if let Some(labels) = stated {
        fields.insert("labels".to_owned(), labels.into());
    }
    fields.shift_remove("num_labels");
    Ok(())
}

/// Head and labels of the class in `fields`; `LABEL_0` and `LABEL_1` by default.
pub(crate) fn read_classes(fields: &Map<String, Value>) -> Result<(EncoderHead, Vec<String>), ConfigError> {
    let labels = read_labels(fields)?.unwrap_or_else(|| numbered(2));
    let head = match class_of(fields) {
        Some(class) => head_of(class.to_owned(), fields.get("problem_type"), labels.len())?,
        None => EncoderHead::None,
    };
    validate(head, &labels)?;
    Ok((head, labels))
}

fn class_of(fields: &Map<String, Value>) -> Option<&str> {
    fields.get("architectures")?.get(0)?.as_str()
}

/// Writes the keys that Hugging Face reads in place of `head` and `labels`.
pub(crate) fn write(head: EncoderHead, labels: &[String], fields: &mut Map<String, Value>) {
    fields.shift_remove("head");
    fields.shift_remove("labels");
    if head != EncoderHead::None {
        // Only a model without a head has a choice; whether its files have a pooler says no more of another one.
        fields.shift_remove("pooler");
    }
    if let EncoderHead::Classify { problem } = head {
        let name = match problem {
            Problem::SingleLabel => Some("single_label_classification"),
            Problem::MultiLabel => Some("multi_label_classification"),
            Problem::Regression => Some("regression"),
            Problem::OneLabel => None,
        };
        fields.insert("problem_type".to_owned(), name.into());
    }
    if !labels.is_empty() {
        let by_id = labels.iter().enumerate().map(|(id, label)| (id.to_string(), label.as_str().into()));
        let by_label = labels.iter().enumerate().map(|(id, label)| (label.clone(), id.into()));
        fields.insert("id2label".to_owned(), Value::Object(by_id.collect()));
        fields.insert("label2id".to_owned(), Value::Object(by_label.collect()));
    }
}

/// Checks that a classification head has labels.
pub(crate) fn validate(head: EncoderHead, labels: &[String]) -> Result<(), ConfigError> {
    if head.has_labels() && labels.is_empty() {
        return Err(ConfigError::Labels { reason: "it names none".to_owned() });
    }
    Ok(())
}

fn head_of(class: String, problem: Option<&Value>, n_labels: usize) -> Result<EncoderHead, ConfigError> {
    if class.ends_with("ForMaskedLM") || class.ends_with("ForPreTraining") {
        Ok(EncoderHead::MaskedLm)
    } else if class.ends_with("ForSequenceClassification") {
        let problem = match problem.and_then(Value::as_str) {
            Some("multi_label_classification") => Problem::MultiLabel,
            Some("regression") => Problem::Regression,
            Some("single_label_classification") => Problem::SingleLabel,
            _ if n_labels == 1 => Problem::OneLabel,
            _ => Problem::SingleLabel,
        };
        Ok(EncoderHead::Classify { problem })
    } else if class.ends_with("ForTokenClassification") {
        Ok(EncoderHead::TokenClassify)
    } else if class.ends_with("ForQuestionAnswering") {
        Ok(EncoderHead::Span)
    } else if class.ends_with("Model") && !class.ends_with("LMHeadModel") {
        Ok(EncoderHead::None)
    } else {
        Err(ConfigError::UnknownHead { class, known: KNOWN })
    }
}

fn read_labels(fields: &Map<String, Value>) -> Result<Option<Vec<String>>, ConfigError> {
    let bad = |reason: String| ConfigError::Labels { reason };
    let by_id = match (fields.get("id2label"), fields.get("num_labels").and_then(Value::as_u64)) {
        (Some(Value::Object(by_id)), _) => by_id,
        (_, Some(n)) if n <= MAX_LABELS => return Ok(Some(numbered(n as usize))),
        (_, Some(n)) => {
            return Err(bad(format!("num_labels is {n}, of which at most {MAX_LABELS} are believed")));
        }
        _ => return Ok(None),
    };
    let label = |id: usize| match by_id.get(&id.to_string()) {
        Some(Value::String(label)) => Ok(label.clone()),
        Some(other) => Ok(other.to_string()),
        None => Err(bad(format!("it has {} entries and none is {id}", by_id.len()))),
    };
    (0..by_id.len()).map(label).collect::<Result<_, _>>().map(Some)
}

fn numbered(n: usize) -> Vec<String> {
    (0..n).map(|id| format!("LABEL_{id}")).collect()
}
