//! BERT: post-norm blocks, learned positions, and a vector for which of two texts a token belongs to.
//!
//! Paper: Devlin et al. 2018, "BERT", <https://arxiv.org/abs/1810.04805>. Hugging Face: `BertModel`,
//! `BertForMaskedLM`, `BertForSequenceClassification`, `BertForTokenClassification`, `BertForQuestionAnswering`. Texts
//! are classified by a pooled first token. The head for masked tokens has the embedding table as its last map.
//!
//! Files of any age open: without the prefix `bert.`, with `gamma` and `beta` for gains and offsets, with parts of
//! the pretraining's heads that the configuration does not ask for. Not supported: use as a decoder, relative
//! positions, the next-sentence and multiple-choice heads.

mod config;
mod model;

pub use config::BertConfig;
pub(super) use config::{KEYS, RENAMED};
pub use model::Bert;
pub(super) use model::Body;
