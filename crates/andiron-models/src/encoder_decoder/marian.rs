//! Marian: sinusoidal positions that are not stored, and optionally separate encoder and decoder token embeddings.
//!
//! Paper: Junczys-Dowmunt et al. 2018, "Marian", <https://arxiv.org/abs/1804.00344>; the models of OPUS-MT are of
//! this kind. Hugging Face: `MarianMTModel`, and `MarianModel`, whose head is tied to the decoder's token embeddings.
//! Otherwise as BART, without its norm after the embeddings. Targets begin with the padding id, which `bad_words_ids`
//! masks afterwards. Not supported: pre-norm and LayerDrop.

use serde_json::{Map, Value};

use super::bart_like::{BartLike, Differences, bart_like_config, bart_like_keys};
use crate::hf_config::Ids;
use crate::key_rules::{Inert, KeyRules};

bart_like_config! {
    /// `config.json` of a Marian, in Hugging Face's field names.
    MarianConfig {
        /// Size of a separate target vocabulary; `vocab_size` if absent.
        #[serde(default)]
        decoder_vocab_size: Option<usize>,
        /// Whether source and target share a vocabulary, and their token embeddings unless `tie_word_embeddings` is
        /// false.
        #[serde(default = "crate::encoder_decoder::bart_like::defaults::yes")]
        share_encoder_decoder_embeddings: bool,
        /// Beginning-of-text token id.
        #[serde(default)]
        bos_token_id: Option<u32>,
        /// Padding token id.
        pad_token_id: Option<u32>,
        /// End-of-text token ids.
        #[serde(default = "eos")]
        eos_token_id: Ids,
        /// Decoder start token id.
        decoder_start_token_id: u32,
        /// Token id forced at the maximum target length.
        #[serde(default = "eos")]
        forced_eos_token_id: Ids,
    }
}

fn eos() -> Ids {
    Ids::One(0)
}

impl BartLike for MarianConfig {
    const CLASSES: &'static str = "MarianMTModel, MarianModel";
    const CLASS: &'static str = "MarianMTModel";
    const KEYS: KeyRules = bart_like_keys! {
        inert: [("normalize_embedding", Inert::Off), ("static_position_embeddings", Inert::Always)],
        defaults: [("vocab_size", 58_101), ("decoder_start_token_id", 58_100), ("pad_token_id", 58_100)]
    };

    fn differences(&self) -> Differences<'_> {
        let shared = self.share_encoder_decoder_embeddings;
        Differences {
            target_vocab_size: self.decoder_vocab_size.filter(|_| !shared).unwrap_or(self.vocab_size),
            shared,
            learned_positions: false,
            bos_token_id: self.bos_token_id,
            eos_token_id: &self.eos_token_id,
        }
    }

    fn supplement_own(&self, fields: &mut Map<String, Value>) {
        // In one place, whether a file had it or not.
        fields.shift_remove("decoder_vocab_size");
        fields.insert("decoder_vocab_size".to_owned(), self.differences().target_vocab_size.into());
    }
}
