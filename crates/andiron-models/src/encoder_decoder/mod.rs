//! Encoder-decoder architectures: one file each, wiring over shared layers.

pub mod bart;
pub(crate) mod bart_like;
mod bundle;
mod generation;
pub mod marian;
mod seq2seq_batch;
mod seq2seq_generator;
pub mod t5;
mod targets;

use andiron_core::cache::CrossAttentionCache;
use andiron_core::{Forward, KvCache, PaddingMask, Weight};
use burn::tensor::{Int, Tensor};
use serde_json::{Map, Value};

pub use bart_like::BartModel;
pub use bundle::Seq2SeqBundle;
pub use seq2seq_batch::Seq2SeqBatch;
pub use seq2seq_generator::Seq2SeqGenerator;
pub use targets::{TargetState, Targets};

use crate::catalog::{Architecture, architectures};
use crate::family::EncoderDecoder;
use crate::hf_config::ConfigError;
use crate::weights::{FileError, StoredTensors};

/// Methods of encoder-decoder configurations.
pub(crate) trait Seq2SeqArchitecture: Architecture {
    /// Size of the target vocabulary.
    fn target_vocab_size(&self) -> usize {
        self.sizes().vocab_size
    }

    /// Padding token id.
    fn pad_token_id(&self) -> u32;

    /// Decoder start token id.
    fn decoder_start_token_id(&self) -> u32;

    /// Infers from the stored tensors what `config.json` leaves open, before the model is built.
    ///
    /// # Errors
    /// If a file cannot be read.
    fn infer_from_checkpoint(&mut self, _stored: &mut StoredTensors<'_, '_>) -> Result<(), FileError> {
        Ok(())
    }
}

/// Implements the methods of the enums that only encoder-decoders have.
macro_rules! forward_encoder_decoder {
    ($($variant:ident),+) => {
        impl EncoderDecoder for Seq2SeqModel {
            fn encoder_hidden(&self, ids_bs: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3> {
                match self { $(Self::$variant(model) => model.encoder_hidden(ids_bs, cx),)+ }
            }

            fn cross_attention_cache(&self, hidden_bsd: Tensor<3>, rows: Option<PaddingMask>) -> CrossAttentionCache {
                match self { $(Self::$variant(model) => model.cross_attention_cache(hidden_bsd, rows),)+ }
            }

            fn hidden(&self, ids_bt: Tensor<2, Int>, cross_cache: &CrossAttentionCache, cx: &mut Forward<'_>) -> Tensor<3> {
                match self { $(Self::$variant(model) => model.hidden(ids_bt, cross_cache, cx),)+ }
            }

            fn head(&self) -> &Weight {
                match self { $(Self::$variant(model) => model.head(),)+ }
            }

            fn head_bias(&self) -> Option<Tensor<1>> {
                match self { $(Self::$variant(model) => model.head_bias(),)+ }
            }

            fn new_cache(&self) -> KvCache {
                match self { $(Self::$variant(model) => model.new_cache(),)+ }
            }
        }

        impl Seq2SeqConfig {
            /// Size of the target vocabulary; [`Self::vocab_size`] is the source's.
            pub fn target_vocab_size(&self) -> usize {
                match self { $(Self::$variant(config) => config.target_vocab_size(),)+ }
            }

            /// Width of the hidden states.
            pub fn d_model(&self) -> usize {
                self.sizes().d_model
            }

            /// Padding token id.
            pub fn pad_token_id(&self) -> u32 {
                match self { $(Self::$variant(config) => config.pad_token_id(),)+ }
            }

            /// Decoder start token id, unless a [`GenerationConfig`](crate::generate::GenerationConfig) overrides it.
            pub fn decoder_start_token_id(&self) -> u32 {
                match self { $(Self::$variant(config) => config.decoder_start_token_id(),)+ }
            }

            fn infer_from_checkpoint(&mut self, stored: &mut StoredTensors<'_, '_>) -> Result<(), FileError> {
                match self { $(Self::$variant(config) => config.infer_from_checkpoint(stored),)+ }
            }
        }
    };
}

architectures! { "an encoder-decoder", Seq2SeqConfig, Seq2SeqModel, forward_encoder_decoder;
    /// BART.
    Bart, "bart", bart::BartConfig;
    /// Marian, the models of OPUS-MT.
    Marian, "marian", marian::MarianConfig;
    /// T5, its version 1.1 and Flan-T5.
    T5, "t5", t5::T5Config;
}

impl Seq2SeqConfig {
    /// Size of the source vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.sizes().vocab_size
    }

    /// Longest source and longest target, in tokens; `usize::MAX` if unlimited.
    pub fn max_positions(&self) -> usize {
        self.sizes().max_positions
    }
}

/// Checks that `architectures`, if present, names one of the classes `known`, separated by commas. It may name others
/// as well, as some BART files do.
fn check_class(fields: &Map<String, Value>, known: &'static str) -> Result<(), ConfigError> {
    let classes = fields.get("architectures").and_then(Value::as_array).into_iter().flatten();
    let classes: Vec<&str> = classes.filter_map(Value::as_str).collect();
    let is_known = |class: &&str| known.split(", ").any(|known| known == *class);
    match classes.first() {
        Some(class) if !classes.iter().any(is_known) => {
            Err(ConfigError::UnknownHead { class: (*class).to_owned(), known })
        }
        _ => Ok(()),
    }
}
