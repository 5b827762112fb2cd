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
pub use embed::{Dense, DenseActivation, EmbedPipeline, EmbedStage, Pooling, Prompts, Similarity};
pub use head::{EncoderHead, Head, MaskedLmHead, Problem, SequenceHead, TokenHead};
pub use relevance::Relevance;
pub use tasks::{EncoderInput, Entity, Span};

use crate::catalog::{Architecture, architectures};
use crate::family::Encoder;
use crate::weights::StoredTensors;

/// What encoders' configurations say beyond those of all families.
pub(crate) trait EncoderArchitecture: Architecture {
    /// What stands on top.
    fn head(&self) -> EncoderHead;

    /// Names of the labels.
    fn labels(&self) -> &[String];

    /// Id that fills rows up.
    fn pad_token_id(&self) -> u32;

    /// Entries of the table of token types; 0 if the model has none.
    fn n_token_types(&self) -> usize;

    /// Decides by the names of the tensors in the files what `config.json` leaves open, before a model is built.
    fn infer_from_checkpoint(&mut self, _stored: &StoredTensors<'_, '_>) {}

    /// Puts another head on top.
    fn set_head(&mut self, head: EncoderHead, labels: Vec<String>);

    /// Replaces the weights of `model`'s backbone, all but the head, by those of `other`.
    fn load_backbone(model: &mut Self::Model, other: Self::Model);
}

/// Forwards what only encoders have from the enums to the architectures.
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
            /// What stands on top of the model.
            pub fn head(&self) -> EncoderHead {
                match self { $(Self::$variant(config) => config.head(),)+ }
            }

            /// Names of the labels, in the order of the head's outputs.
            pub fn labels(&self) -> &[String] {
                match self { $(Self::$variant(config) => config.labels(),)+ }
            }

            /// Id that fills rows up.
            pub fn pad_token_id(&self) -> u32 {
                match self { $(Self::$variant(config) => config.pad_token_id(),)+ }
            }

            /// Entries of the table of token types, which tell two texts apart; 0 if the model has none.
            pub fn n_token_types(&self) -> usize {
                match self { $(Self::$variant(config) => config.n_token_types(),)+ }
            }

            /// Width of the hidden states.
            pub fn d_model(&self) -> usize {
                self.sizes().d_model
            }

            /// The same configuration with another head; `labels` are the names of its outputs, if it has labels.
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

            /// A model of this configuration that has the weights of `backbone` below its head, and a fresh head.
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

/// [`EncoderArchitecture::load_backbone`], its type told by a value.
fn load_backbone<A: EncoderArchitecture>(_: &A, model: &mut A::Model, backbone: A::Model) {
    A::load_backbone(model, backbone);
}

architectures! { "an encoder", EncoderConfig, EncoderModel, forward_encoder;
    /// BERT, and what shares its shape, such as MiniLM.
    Bert, "bert", bert::BertConfig;
    /// DistilBERT.
    DistilBert, "distilbert", distilbert::DistilBertConfig;
    /// ModernBERT.
    ModernBert, "modernbert", modernbert::ModernBertConfig;
    /// RoBERTa.
    Roberta, "roberta", roberta::RobertaConfig;
    /// XLM-RoBERTa: RoBERTa over many languages.
    XlmRoberta, "xlm-roberta", roberta::XlmRobertaConfig;
}

impl EncoderConfig {
    /// Entries of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.sizes().vocab_size
    }

    /// Longest text, in tokens.
    pub fn max_positions(&self) -> usize {
        self.sizes().max_positions
    }
}
