//! BERT: post-norm blocks, learned position and token type embeddings.
//!
//! Paper: Devlin et al. 2018, "BERT", <https://arxiv.org/abs/1810.04805>. Hugging Face: `BertModel`,
//! `BertForMaskedLM`, `BertForSequenceClassification`, `BertForTokenClassification`, `BertForQuestionAnswering`.
//! Sequence classification uses the pooled first token. The masked-LM head is tied to the token embeddings.
//!
//! Old files are supported: without the prefix `bert.`, with `gamma` and `beta` for norm weights and biases, with
//! pretraining heads that the configuration does not ask for. Not supported: use as a decoder, relative positions,
//! the next-sentence and multiple-choice heads.

mod config;
mod model;

pub use config::BertConfig;
pub(super) use config::{KEYS, RENAMED};
pub use model::Bert;
pub(super) use model::Body;
