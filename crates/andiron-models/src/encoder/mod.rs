//! Encoder architectures: one file each, wiring over shared layers.

pub mod bert;
mod bundle;
pub mod distilbert;
mod embed;
pub(crate) mod head;
pub(crate) mod layers;
pub mod modernbert;
mod relevance;
pub mod roberta;
mod tasks;

use andiron_core::Forward;
use andiron_kernels::random::Seed;
use burn::tensor::{Device, Int, Tensor};

pub use bundle::EncoderBundle;
pub use embed::{Dense, EmbedPipeline, EmbedStage, Pooling, Prompts, Similarity};
pub use head::{EncoderHead, Head, MaskedLmHead, Problem, SequenceHead, TokenHead};
pub use relevance::Relevance;
pub use tasks::{EncoderInput, Entity, Span};

use crate::catalog::{Architecture, architectures};
use crate::family::Encoder;
use crate::weights::StoredTensors;

/// Methods of encoder configurations.
pub(crate) trait EncoderArchitecture: Architecture {
    /// The head.
    fn head(&self) -> EncoderHead;

    /// Label names.
    fn labels(&self) -> &[String];

    /// Padding token id.
    fn pad_token_id(&self) -> u32;

    /// Number of token types; 0 if the model has none.
    fn n_token_types(&self) -> usize;

    /// Infers from the names of the stored tensors what `config.json` leaves open, before the model is built.
    fn infer_from_checkpoint(&mut self, _stored: &StoredTensors<'_, '_>) {}

    /// Replaces the head.
    fn set_head(&mut self, head: EncoderHead, labels: Vec<String>);

    /// Replaces the backbone weights of `model`, all but the head, by those of `other`.
    fn load_backbone(model: &mut Self::Model, other: Self::Model);
}

/// Implements the encoder-only methods of the enums.
macro_rules! forward_encoder {
    ($($variant:ident),+) => {
        impl Encoder for EncoderModel {
            fn hidden(
                &self,
                ids_bt: Tensor<2, Int>,
                types_bt: Option<Tensor<2, Int>>,
                cx: &mut Forward<'_>,
            ) -> Tensor<3> {
                match self { $(Self::$variant(model) => model.hidden(ids_bt, types_bt, cx),)+ }
            }

            fn head(&self) -> Head<'_> {
                match self { $(Self::$variant(model) => model.head(),)+ }
            }
        }

        impl EncoderConfig {
            /// The model's head.
            pub fn head(&self) -> EncoderHead {
                match self { $(Self::$variant(config) => config.head(),)+ }
            }

            /// Label names, in the order of the head's outputs.
            pub fn labels(&self) -> &[String] {
                match self { $(Self::$variant(config) => config.labels(),)+ }
            }

            /// Padding token id.
            pub fn pad_token_id(&self) -> u32 {
                match self { $(Self::$variant(config) => config.pad_token_id(),)+ }
            }

            /// Number of token types; 0 if the model has none.
            pub fn n_token_types(&self) -> usize {
                match self { $(Self::$variant(config) => config.n_token_types(),)+ }
            }

            /// Width of the hidden states.
            pub fn d_model(&self) -> usize {
                self.sizes().d_model
            }

            /// The same configuration with another head; `labels` names its outputs if it is a classification head.
            ///
            /// # Errors
            /// If the head has labels and none are given.
            pub fn with_head(
                mut self,
                head: EncoderHead,
                labels: Vec<String>,
            ) -> Result<Self, crate::hf_config::ConfigError> {
                match &mut self { $(Self::$variant(config) => config.set_head(head, labels),)+ }
                self.validate()?;
                Ok(self)
            }

            fn infer_from_checkpoint(&mut self, stored: &StoredTensors<'_, '_>) {
                match self { $(Self::$variant(config) => config.infer_from_checkpoint(stored),)+ }
            }

            /// A model of this configuration with the backbone weights of `backbone` and a newly initialized head.
            ///
            /// # Panics
            /// If `backbone` is of another architecture.
            pub(crate) fn init_head(&self, backbone: EncoderModel, seed: Seed, device: &Device) -> EncoderModel {
                let mut model = self.init(seed, device);
                match (self, &mut model, backbone) {
                    $((Self::$variant(config), EncoderModel::$variant(model), EncoderModel::$variant(backbone)) => {
                        load_backbone(config, model, backbone);
                    })+
                    _ => panic!("the backbone of a {} has another architecture", self.model_type()),
                }
                model
            }
        }
    };
}

/// [`EncoderArchitecture::load_backbone`], with the type inferred from a value.
fn load_backbone<A: EncoderArchitecture>(_: &A, model: &mut A::Model, backbone: A::Model) {
    A::load_backbone(model, backbone);
}

architectures! { "an encoder", EncoderConfig, EncoderModel, forward_encoder;
    /// BERT and models of the same architecture, such as MiniLM.
    Bert, "bert", bert::BertConfig;
    /// DistilBERT.
    DistilBert, "distilbert", distilbert::DistilBertConfig;
    /// ModernBERT.
    ModernBert, "modernbert", modernbert::ModernBertConfig;
    /// RoBERTa.
    Roberta, "roberta", roberta::RobertaConfig;
    /// XLM-RoBERTa, multilingual.
    XlmRoberta, "xlm-roberta", roberta::XlmRobertaConfig;
}

impl EncoderConfig {
    /// Vocabulary size.
    pub fn vocab_size(&self) -> usize {
        self.sizes().vocab_size
    }

    /// Longest sequence, in tokens.
    pub fn max_positions(&self) -> usize {
        self.sizes().max_positions
    }
}
