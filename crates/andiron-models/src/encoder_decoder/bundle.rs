//! The bundle of encoder-decoders: generation config, sources.

use std::path::Path;

use andiron_core::cache::CrossAttentionCache;
use andiron_core::{KernelChoice, PaddingMask};
use andiron_kernels::random::Seed;
use burn::tensor::{Device, Int, Tensor};
use serde_json::{Map, Value};

use super::{Seq2SeqConfig, Seq2SeqModel, generation};
use crate::adapter::AdapterNames;
use crate::any::AnyBundle;
use crate::batch::{evaluation_over, pad_right};
use crate::bundle::{Bundle, FamilyConfig, Settings};
use crate::family::EncoderDecoder;
use crate::hf_config::ConfigError;
use crate::json_file::write_json;
use crate::key_rules::ConfigFile;
use crate::model_files::{GENERATION, ModelFiles};
use crate::weights::{FileError, LoadError, NameRules, SaveError, StoredTensors};

/// An encoder-decoder with its configuration and settings, without the tokenizer.
pub type Seq2SeqBundle = Bundle<Seq2SeqConfig>;

impl FamilyConfig for Seq2SeqConfig {
    type Model = Seq2SeqModel;

    fn from_object(fields: Map<String, Value>, path: &Path) -> Result<ConfigFile<Self>, ConfigError> {
        Self::from_object(fields, path)
    }

    fn of_any(any: AnyBundle) -> Option<Bundle<Self>> {
        match any {
            AnyBundle::EncoderDecoder(bundle) => Some(bundle),
            _ => None,
        }
    }

    fn config_json(bundle: &Seq2SeqBundle) -> Value {
        bundle.config.to_value()
    }

    fn init_model(&self, seed: Seed, device: &Device) -> Seq2SeqModel {
        self.init(seed, device)
    }

    fn name_rules(&self) -> NameRules {
        self.name_rules()
    }

    fn adapter_names(&self) -> AdapterNames {
        AdapterNames {
            class: self.class_name(),
            model_type: self.model_type(),
            rules: self.name_rules(),
            task: Some("SEQ_2_SEQ_LM"),
            head: None,
        }
    }

    fn infer_from_checkpoint(&mut self, stored: &mut StoredTensors<'_, '_>) -> Result<(), FileError> {
        self.infer_from_checkpoint(stored)
    }

    fn implied_settings(&self) -> Settings {
        Settings { generation: generation::of(self), ..Settings::default() }
    }

    fn read_settings(&self, files: &ModelFiles) -> Result<Settings, LoadError> {
        let generation = generation::read(self, files)?;
        let mut settings = Settings { generation, ..Settings::default() };
        settings.unknown_keys.extend(settings.generation.unknown_keys());
        Ok(settings)
    }

    fn write_settings(bundle: &Seq2SeqBundle, dir: &Path) -> Result<(), SaveError> {
        write_json(&dir.join(GENERATION), &bundle.generation)
    }
}

impl Seq2SeqBundle {
    /// Decoder start token id.
    pub fn start_id(&self) -> u32 {
        self.generation.decoder_start_token_id.unwrap_or_else(|| self.config.decoder_start_token_id())
    }

    /// Right-pads texts to one batch.
    ///
    /// # Shape
    /// `[texts, longest]`.
    ///
    /// # Panics
    /// If there is no text.
    pub fn batch<R: AsRef<[u32]>>(&self, texts: &[R]) -> (Tensor<2, Int>, PaddingMask) {
        pad_right(texts, self.config.pad_token_id(), &self.device)
    }

    /// Encodes sources, token ids with the special tokens that the model was trained with.
    ///
    /// # Panics
    /// If there is no source, or one exceeds the model's maximum length.
    pub fn encode<R: AsRef<[u32]>>(&self, sources: &[R]) -> CrossAttentionCache {
        let (ids_bs, rows) = self.batch(sources);
        let mut cx = evaluation_over(rows, ids_bs.dims()[1]);
        self.precision.run_with(KernelChoice::Prefill, || self.model.encode(ids_bs, &mut cx))
    }
}
