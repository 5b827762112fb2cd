//! The model that a run begins with: random weights, or those of a model directory.

use std::path::{Path, PathBuf};

use andiron_kernels::random::Seed;
use andiron_models::encoder::EmbedPipeline;
use andiron_models::weights::{ParamInfo, names};
use andiron_models::{
    AdapterError, AdapterFiles, AnyBundle, AnyConfig, Bundle, ClassifierBundle, ClassifierConfig, ConfigFile,
    DecoderConfig, EncoderConfig, EncoderHead, Family, FamilyConfig, ModelFiles, RunPrecision, Seq2SeqConfig,
};
use burn::tensor::Device;

use crate::config::{ConfigError, TrainConfig};
use crate::files;
use crate::plan::{Beginning, Start};
use crate::trainer::TrainError;

/// The model that a run begins with, before its weights are made or read.
#[derive(Clone, Debug)]
pub struct Base {
    /// The model directory; absent, weights are random.
    pub directory: Option<PathBuf>,
    /// Its configuration.
    pub config: AnyConfig,
    /// How its weights are stored.
    pub precision: RunPrecision,
    /// The directory of an adapter, which is added to the model.
    adapter: Option<PathBuf>,
}

impl Base {
    /// Reads the configuration of `[init] from`, or takes that of `[model]`.
    ///
    /// # Errors
    /// If there is none, or the directory cannot be read.
    pub fn open(config: &TrainConfig) -> Result<Self, TrainError> {
        match (&config.init, &config.model) {
            (Some(init), _) => {
                let path = &init.from;
                let failed = |source| TrainError::Init { path: path.clone(), source: Box::new(source) };
                let files = ModelFiles::open(path).map_err(failed)?;
                let ConfigFile { config, .. } = files.config().map_err(failed)?.clone();
                Ok(Self { directory: Some(path.clone()), config, precision: init.precision, adapter: None })
            }
            (None, Some(model)) => {
                let (config, precision) = (model.clone().into(), RunPrecision::F32);
                Ok(Self { directory: None, config, precision, adapter: None })
            }
            (None, None) => Err(ConfigError::NoModel.into()),
        }
    }

    /// The same with the adapter in the directory `dir`, and the head that it was trained with.
    ///
    /// # Errors
    /// If the directory is no adapter.
    pub(crate) fn with_adapter(mut self, dir: &Path) -> Result<Self, TrainError> {
        let files = AdapterFiles::open(dir).map_err(|source| adapter_error(dir, source))?;
        if let Some(config) = files.model_config() {
            self.config = config.clone();
        }
        self.adapter = Some(dir.to_owned());
        Ok(self)
    }

    /// The family of the model.
    pub fn family(&self) -> Family {
        self.config.family()
    }

    /// What the model is called in errors: its directory or its `model_type`.
    pub fn name(&self) -> String {
        match &self.directory {
            Some(path) => path.display().to_string(),
            None => self.config.model_type().to_owned(),
        }
    }

    /// The parameters of the model; draws no weights.
    pub fn parameters(&self, device: &Device) -> Vec<ParamInfo> {
        self.config.parameters(device)
    }

    /// The names of the labels, if the model has a head for labels of texts or of tokens.
    pub fn labels(&self) -> &[String] {
        match &self.config {
            AnyConfig::Classifier(config) => config.labels(),
            AnyConfig::Encoder(config) => match config.head() {
                EncoderHead::Classify { .. } | EncoderHead::TokenClassify => config.labels(),
                _ => &[],
            },
            _ => &[],
        }
    }

    /// The configuration of a decoder with its language-model head.
    ///
    /// # Errors
    /// If it is another model.
    pub fn decoder(&self) -> Result<&DecoderConfig, TrainError> {
        match &self.config {
            AnyConfig::Decoder(config) => Ok(config),
            _ => Err(self.unfit("a decoder with a language-model head")),
        }
    }

    /// The configuration of an encoder-decoder.
    ///
    /// # Errors
    /// If it is another model.
    pub fn encoder_decoder(&self) -> Result<&Seq2SeqConfig, TrainError> {
        match &self.config {
            AnyConfig::EncoderDecoder(config) => Ok(config),
            _ => Err(self.unfit("an encoder-decoder")),
        }
    }

    /// The configuration of an encoder.
    ///
    /// # Errors
    /// If it is another model.
    pub fn encoder(&self) -> Result<&EncoderConfig, TrainError> {
        match &self.config {
            AnyConfig::Encoder(config) => Ok(config),
            _ => Err(self.unfit("an encoder")),
        }
    }

    /// The start of a run of the model as it is.
    pub fn start<C: FamilyConfig + 'static>(&self, config: C) -> Start<C> {
        let base = self.clone();
        let make = move |seed: Seed, device: &Device| match base.open_weights(device)? {
            Some(bundle) => Ok(Beginning::whole(bundle)),
            None => Ok(Beginning::whole(Bundle::init(config.clone(), seed, device))),
        };
        Start::new(make)
    }

    /// The start of a run of the encoder with `head`. The head is new if the directory has another one, or another number of
    /// labels.
    ///
    /// # Errors
    /// If the model is no encoder, or the head has labels and none are given.
    pub fn start_encoder(
        &self,
        head: EncoderHead,
        labels: &[String],
    ) -> Result<(EncoderConfig, Start<EncoderConfig>), TrainError> {
        let config = self.encoder()?;
        let kept = config.head() == head && config.labels().len() == labels.len();
        let wanted = config.clone().with_head(head, labels.to_vec()).map_err(model_error)?;
        let (base, target) = (self.clone(), wanted.clone());
        let make = move |seed: Seed, device: &Device| {
            let Some(mut bundle) = base.open_weights::<EncoderConfig>(device)? else {
                return Ok(Beginning::whole(Bundle::init(target.clone(), seed, device)));
            };
            // What pools and projects embeddings is no part of a model with this head.
            bundle.embedding = None;
            if kept {
                bundle.config = target.clone();
                return Ok(Beginning::whole(bundle));
            }
            let before = names(&bundle.model);
            let bundle = bundle.with_head(head, target.labels().to_vec(), seed).map_err(model_error)?;
            Ok(Beginning::with_new_head(bundle, &before))
        };
        let new_head = (self.directory.is_some() && !kept).then(|| wanted.class_name());
        Ok((wanted, Start::new(make).with_new_head(new_head)))
    }

    /// How the encoder makes an embedding of hidden states: as its directory says, or the mean of all tokens.
    ///
    /// # Errors
    /// If the model is no encoder, or the files of its directory cannot be read.
    pub fn embed_pipeline(&self) -> Result<EmbedPipeline, TrainError> {
        let config = self.encoder()?;
        let Some(path) = &self.directory else { return Ok(EmbedPipeline::default()) };
        let failed = |source| TrainError::Init { path: path.clone(), source: Box::new(source) };
        let settings = config.read_settings(&ModelFiles::open(path).map_err(failed)?).map_err(failed)?;
        Ok(settings.embedding.unwrap_or_default())
    }

    /// The start of a run of the encoder without a head, whose embeddings `pipeline` makes.
    ///
    /// # Errors
    /// If the model is no encoder.
    pub fn start_embedder(
        &self,
        pipeline: EmbedPipeline,
    ) -> Result<(EncoderConfig, Start<EncoderConfig>), TrainError> {
        let head = EncoderHead::None;
        let wanted = self.encoder()?.clone().with_head(head, Vec::new()).map_err(model_error)?;
        let (base, target) = (self.clone(), wanted.clone());
        let make = move |seed: Seed, device: &Device| {
            let mut bundle = match base.open_weights::<EncoderConfig>(device)? {
                Some(bundle) => bundle,
                None => Bundle::init(target.clone(), seed, device),
            };
            if bundle.config.head() != head {
                bundle = bundle.with_head(head, Vec::new(), seed).map_err(model_error)?;
            }
            bundle.embedding = Some(pipeline.clone());
            Ok(Beginning::whole(bundle))
        };
        Ok((wanted, Start::new(make)))
    }

    /// The start of a run of the decoder with a head for labels of texts, which is new as in
    /// [`start_encoder`](Self::start_encoder).
    ///
    /// # Errors
    /// As [`start_encoder`](Self::start_encoder).
    pub fn start_classifier(&self, wanted: ClassifierConfig) -> Result<Start<ClassifierConfig>, TrainError> {
        let base = self.clone();
        let kept = matches!(&self.config, AnyConfig::Classifier(config)
            if config.problem() == wanted.problem() && config.labels().len() == wanted.labels().len());
        let class = wanted.class_name();
        let make = move |seed: Seed, device: &Device| {
            let wanted = wanted.clone();
            if let AnyConfig::Classifier(_) = base.config
                && let Some(mut bundle) = base.open_weights::<ClassifierConfig>(device)?
            {
                if kept {
                    bundle.config = wanted;
                    return Ok(Beginning::whole(bundle));
                }
                let before = names(&bundle.model);
                return Ok(Beginning::with_new_head(bundle.with_head(wanted, seed), &before));
            }
            let Some(bundle) = base.open_weights::<DecoderConfig>(device)? else {
                return Ok(Beginning::whole(Bundle::init(wanted, seed, device)));
            };
            let before = names(&bundle.model);
            let bundle = ClassifierBundle::of_decoder(&bundle, wanted, seed);
            Ok(Beginning::with_new_head(bundle, &before))
        };
        Ok(Start::new(make).with_new_head((self.directory.is_some() && !kept).then_some(class)))
    }

    /// Checksum of the files with the weights, if the model is read from any.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(crate) fn checksum(&self) -> Result<Option<String>, TrainError> {
        let Some(path) = &self.directory else { return Ok(None) };
        let failed = |source| TrainError::Init { path: path.clone(), source: Box::new(source) };
        let files = ModelFiles::open(path).map_err(failed)?;
        let weights = match files.gguf() {
            Some(_) => vec![path.clone()],
            None => andiron_models::weights::paths(files.folder()).map_err(failed)?,
        };
        let mut hasher = blake3::Hasher::new();
        for file in weights {
            let opened = andiron_files::open(&file).map_err(files::failed("read", &file))?;
            hasher.update_reader(opened).map_err(files::failed("read", &file))?;
        }
        Ok(Some(hasher.finalize().to_hex().to_string()))
    }

    /// The model of the directory; `None` if there is no directory.
    fn open_weights<C: FamilyConfig>(&self, device: &Device) -> Result<Option<Bundle<C>>, TrainError> {
        let Some(path) = &self.directory else { return Ok(None) };
        let failed = |source| TrainError::Init { path: path.clone(), source: Box::new(source) };
        let Some(adapter) = &self.adapter else {
            return Bundle::open_at(path, self.precision, device).map(Some).map_err(failed);
        };
        let plain = AnyBundle::open_at(path, self.precision, device).map_err(failed)?;
        let adapted = plain.with_adapter(adapter).map_err(|source| adapter_error(adapter, source))?;
        C::of_any(adapted).map(Some).ok_or_else(|| self.unfit("a model of another kind"))
    }

    fn unfit(&self, wanted: &'static str) -> TrainError {
        TrainError::Unfit { model: self.name(), class: self.config.class_name(), wanted }
    }
}

/// An adapter that cannot be used.
fn adapter_error(path: &Path, source: AdapterError) -> TrainError {
    TrainError::AdapterFiles { path: path.to_owned(), source: Box::new(source) }
}

/// A head that its family refuses.
pub(crate) fn model_error(source: andiron_models::hf_config::ConfigError) -> TrainError {
    ConfigError::Model { source: Box::new(source) }.into()
}
