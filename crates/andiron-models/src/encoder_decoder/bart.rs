//! BART: learned positions and a norm after the embeddings, one table for sources, targets and head.
//!
//! Paper: Lewis et al. 2019, "BART", <https://arxiv.org/abs/1910.13461>. Hugging Face: `BartForConditionalGeneration`,
//! and `BartModel`, whose head is the table of tokens. A position table has two entries before position 0, which are
//! never read. `final_logits_bias` is added to the logits and not trained. Not supported: the heads for labels and
//! spans, the norms before the blocks that mBART has, and leaving layers out in training.

use super::bart_like::{BartLike, Differences, bart_like_config, bart_like_keys};
use crate::hf_config::Ids;
use crate::key_rules::{Inert, KeyRules};

bart_like_config! {
    /// `config.json` of a BART, in Hugging Face's field names.
    BartConfig {
        /// Id that begins a text.
        #[serde(default = "bos")]
        bos_token_id: Option<u32>,
        /// Id that fills rows up.
        #[serde(default = "pad")]
        pad_token_id: Option<u32>,
        /// Ids that end a text.
        #[serde(default = "eos")]
        eos_token_id: Ids,
        /// Id before the first of a target.
        #[serde(default = "start")]
        decoder_start_token_id: u32,
        /// The last id of a target of the greatest length.
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
