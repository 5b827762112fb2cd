//! The bundle of decoders: generation config, decoding, GGUF export.

use std::path::Path;

use andiron_core::{Forward, KernelChoice, KvCache, Weight};
use andiron_kernels::random::Seed;
use burn::tensor::{Device, Int, Tensor};
use serde_json::{Map, Value, json};

use crate::adapter::AdapterNames;
use crate::any::AnyBundle;
use crate::batch::{batch_over, floats, one_column, one_row, wanted_columns};
use crate::bundle::{Bundle, FamilyConfig, Settings};
use crate::catalog::{DecoderConfig, DecoderModel};
use crate::family::Decoder;
use crate::generate::{BatchedLm, CausalLm, GenerationConfig, Logits, StateBlocks};
use crate::hf_config::{ConfigError, Ids};
use crate::json_file::write_json;
use crate::key_rules::ConfigFile;
use crate::model_files::{GENERATION, ModelFiles};
use crate::weights::gguf::{self, GgufOptions};
use crate::weights::{self, FileError, LoadError, NameRules, SaveError};

/// A decoder with its configuration and settings, without the tokenizer.
pub type DecoderBundle = Bundle<DecoderConfig>;

impl FamilyConfig for DecoderConfig {
    type Model = DecoderModel;

    fn from_object(fields: Map<String, Value>, path: &Path) -> Result<ConfigFile<Self>, ConfigError> {
        Self::from_object(fields, path)
    }

    fn of_any(any: AnyBundle) -> Option<Bundle<Self>> {
        match any {
            AnyBundle::Decoder(bundle) => Some(bundle),
            _ => None,
        }
    }

    fn config_json(bundle: &DecoderBundle) -> Value {
        bundle.config.to_value()
    }

    fn init_model(&self, seed: Seed, device: &Device) -> DecoderModel {
        self.init(seed, device)
    }

    fn output_head(model: &DecoderModel) -> Option<Weight> {
        Some(model.head().clone())
    }

    fn name_rules(&self) -> NameRules {
        self.name_rules()
    }

    fn adapter_names(&self) -> AdapterNames {
        AdapterNames {
            class: self.class_name(),
            model_type: self.model_type(),
            rules: self.name_rules(),
            task: Some("CAUSAL_LM"),
            head: None,
        }
    }

    fn implied_settings(&self) -> Settings {
        let generation = GenerationConfig {
            bos_token_id: self.sizes().bos_token_id,
            eos_token_id: self.end_ids(),
            ..GenerationConfig::default()
        };
        Settings { generation, ..Settings::default() }
    }

    fn read_settings(&self, files: &ModelFiles) -> Result<Settings, LoadError> {
        let mut settings = self.implied_settings();
        let generation = &mut settings.generation;
        if let Some(file) = files.gguf() {
            let end_ids = gguf::end_ids(file).map_err(FileError::from)?;
            if end_ids.len() > 1 {
                generation.eos_token_id = Ids::Many(end_ids);
            }
        } else if let Some(fields) = files.generation_fields()? {
            *generation = GenerationConfig::from_fields(fields, &files.generation_path())?;
        } else {
            let ids = [
                ("bos_token_id", json!(generation.bos_token_id)),
                ("eos_token_id", json!(generation.eos_token_id)),
            ];
            let ids = ids.into_iter().map(|(key, ids)| (key.to_owned(), ids)).collect();
            *generation =
                GenerationConfig::of_model_config(ids, files.config_fields(), &files.config_path())?;
        }
        generation.drop_ids_outside(self.vocab_size())?;
        settings.unknown_keys.extend(settings.generation.unknown_keys());
        Ok(settings)
    }

    fn write_settings(bundle: &DecoderBundle, dir: &Path) -> Result<(), SaveError> {
        write_json(&dir.join(GENERATION), &bundle.generation)
    }
}

impl DecoderBundle {
    /// Writes the model as a GGUF file for llama.cpp; `options` holds the tokenizer and the chat template.
    ///
    /// # Errors
    /// If the model or its tokenizer cannot be expressed in GGUF, or the file cannot be written.
    pub fn save_gguf(&self, path: &Path, options: GgufOptions<'_>) -> Result<(), SaveError> {
        let GgufOptions { tokenizer, chat_template, half } = options;
        let model = gguf::GgufModel { config: &self.config, tokenizer, chat_template, half };
        let tensor = |(name, parameter): (String, weights::Parameter)| gguf::TensorToWrite {
            name,
            shape: parameter.shape,
            read: parameter.read,
        };
        let tensors: Vec<_> = weights::parameters(&self.plain_model()?).into_iter().map(tensor).collect();
        Ok(gguf::write(path, &model, &tensors)?)
    }

    /// Hidden states and logits in the bundle's precision, by these kernels.
    fn logits(
        &self,
        kernels: KernelChoice,
        ids_bt: Tensor<2, Int>,
        wanted: Logits,
        mut cx: Forward<'_>,
    ) -> Vec<f32> {
        self.precision.run_with(kernels, || {
            let hidden_btd = self.model.hidden(ids_bt, &mut cx);
            floats(self.model.logits(wanted_columns(hidden_btd, wanted, &cx)))
        })
    }
}

impl CausalLm for DecoderBundle {
    type State = KvCache;

    fn vocab_size(&self) -> usize {
        self.config.vocab_size()
    }

    fn context_len(&self) -> usize {
        self.config.max_positions()
    }

    fn begin(&self) -> KvCache {
        self.model.new_cache().with_dtype(self.kv_cache_dtype())
    }

    fn forward(&self, cache: &mut KvCache, ids: &[u32], wanted: Logits) -> Vec<f32> {
        self.logits(KernelChoice::Prefill, one_row(ids, &self.device), wanted, Forward::cached(cache))
    }

    fn decode(&self, cache: &mut KvCache, ids: &[u32], wanted: Logits) -> Vec<f32> {
        self.logits(KernelChoice::Decode, one_row(ids, &self.device), wanted, Forward::cached(cache))
    }

    fn forward_batch(&self, caches: &mut [&mut KvCache], ids: &[&[u32]]) -> Option<Vec<f32>> {
        assert_eq!(caches.len(), ids.len(), "ids for each sequence");
        let own = caches.iter_mut().map(|cache| std::mem::replace(*cache, self.begin()));
        let mut joined = KvCache::join(own.map(KvCache::into_row));
        let (ids_bt, cx) = batch_over(ids, &mut joined, &self.device);
        let logits = self.logits(KernelChoice::Prefill, ids_bt, Logits::Last, cx);
        for (cache, row) in caches.iter_mut().zip(joined.split()) {
            **cache = row;
        }
        Some(logits)
    }

    fn decode_batch(&self, caches: &mut [&mut KvCache], ids: &[u32]) -> Option<Vec<f32>> {
        assert_eq!(caches.len(), ids.len(), "an id for each sequence");
        let own = caches.iter_mut().map(|cache| std::mem::replace(*cache, self.begin()));
        let mut joined = KvCache::join(own);
        let cx = Forward::cached(&mut joined);
        let ids_bt = one_column(ids, &self.device);
        let logits = self.logits(KernelChoice::Decode, ids_bt, Logits::Last, cx);
        for (cache, row) in caches.iter_mut().zip(joined.split()) {
            **cache = row;
        }
        Some(logits)
    }

    fn generation_config(&self) -> Option<&GenerationConfig> {
        Some(&self.generation)
    }

    fn fork(&self, cache: &KvCache) -> Option<KvCache> {
        Some(cache.clone())
    }

    fn state_blocks(&self) -> Option<StateBlocks> {
        // A pass of one id makes one block for each layer, whatever their shapes.
        let mut cache = self.begin();
        self.forward(&mut cache, &[0], Logits::Last);
        Some(StateBlocks { len: KvCache::block_len(&self.device), bytes: cache.n_bytes(), source_bytes: 0 })
    }

    fn block(&self, cache: &KvCache, index: usize) -> KvCache {
        cache.block(index)
    }

    fn append_block(&self, cache: &mut KvCache, block: &KvCache) {
        cache.append_block(block);
    }

    fn rewind(&self, cache: &mut KvCache, len: usize) -> bool {
        cache.truncate(len);
        true
    }
}

impl BatchedLm for DecoderBundle {
    type State = KvCache;

    fn vocab_size(&self) -> usize {
        self.config.vocab_size()
    }

    fn context_len(&self) -> usize {
        self.config.max_positions()
    }

    fn prefill(&self, prompts: &[&[u32]]) -> (KvCache, Vec<f32>) {
        let mut cache = self.begin();
        let (ids_bt, cx) = batch_over(prompts, &mut cache, &self.device);
        let logits = self.logits(KernelChoice::Prefill, ids_bt, Logits::Last, cx);
        (cache, logits)
    }

    fn decode_step(&self, cache: &mut KvCache, rows: &[usize], ids: &[u32]) -> Vec<f32> {
        cache.select(rows);
        let ids_bt = one_column(ids, &self.device);
        self.logits(KernelChoice::Decode, ids_bt, Logits::Last, Forward::cached(cache))
    }

    fn generation_config(&self) -> Option<&GenerationConfig> {
        Some(&self.generation)
    }
}
