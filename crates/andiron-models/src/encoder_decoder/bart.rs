//! BART: learned position embeddings, a norm after the embeddings, and token embeddings shared by encoder, decoder
//! and head.
//!
//! Paper: Lewis et al. 2019, "BART", <https://arxiv.org/abs/1910.13461>. Hugging Face:
//! `BartForConditionalGeneration`, and `BartModel`, whose head is tied to the token embeddings. Position embeddings
//! have two unused entries before position 0. `final_logits_bias` is added to the logits and not trained. Not
//! supported: classification and span heads, the pre-norm of mBART, and LayerDrop.

use super::bart_like::{BartLike, Differences, bart_like_config, bart_like_keys};
use crate::hf_config::Ids;
use crate::key_rules::{Inert, KeyRules};

bart_like_config! {
    /// `config.json` of a BART, in Hugging Face's field names.
    BartConfig {
        /// Beginning-of-text token id.
        #[serde(default = "bos")]
        bos_token_id: Option<u32>,
        /// Padding token id.
        #[serde(default = "pad")]
        pad_token_id: Option<u32>,
        /// End-of-text token ids.
        #[serde(default = "eos")]
        eos_token_id: Ids,
        /// Decoder start token id.
        #[serde(default = "start")]
        decoder_start_token_id: u32,
        /// Token id forced at the maximum target length.
        #[serde(default = "eos")]
        forced_eos_token_id: Ids,
    }
}

fn bos() -> Option<u32> {
    Some(0)
}

fn pad() -> Option<u32> {
    Some(1)
}

fn eos() -> Ids {
    Ids::One(2)
}

fn start() -> u32 {
    2
}

impl BartLike for BartConfig {
    const CLASSES: &'static str = "BartForConditionalGeneration, BartModel";
    const CLASS: &'static str = "BartForConditionalGeneration";
    const KEYS: KeyRules = bart_like_keys! {
        inert: [("normalize_embedding", Inert::Always), ("static_position_embeddings", Inert::Off)],
        defaults: [("vocab_size", 50_265)]
    };

    fn differences(&self) -> Differences<'_> {
        Differences {
            target_vocab_size: self.vocab_size,
            shared: true,
            learned_positions: true,
            bos_token_id: self.bos_token_id,
            eos_token_id: &self.eos_token_id,
        }
    }
}
