//! The model that a run begins with: random weights, or those of a model directory.

use std::path::{Path, PathBuf};

use andiron_kernels::random::Seed;
use andiron_models::encoder::EmbedPipeline;
use andiron_models::weights::ParamInfo;
use andiron_models::{
    AnyConfig, Bundle, ClassifierBundle, ClassifierConfig, ConfigFile, DecoderBundle, DecoderConfig,
    EncoderBundle, EncoderConfig, EncoderHead, Family, FamilyConfig, ModelFiles, Seq2SeqConfig,
};
use burn::tensor::Device;

use crate::config::{ConfigError, TrainConfig};
use crate::plan::Start;
use crate::trainer::TrainError;

/// The model that a run begins with, before its weights are made or read.
#[derive(Clone, Debug)]
pub struct Base {
    /// The model directory; absent, weights are random.
    pub directory: Option<PathBuf>,
    /// Its configuration.
    pub config: AnyConfig,
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
                Ok(Self { directory: Some(path.clone()), config })
            }
            (None, Some(model)) => Ok(Self { directory: None, config: model.clone().into() }),
            (None, None) => Err(ConfigError::NoModel.into()),
        }
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
        let make = move |seed: Seed, device: &Device| match &base.directory {
            Some(path) => open(path, device),
            None => Ok(Bundle::init(config.clone(), seed, device)),
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
            let Some(path) = &base.directory else { return Ok(Bundle::init(target.clone(), seed, device)) };
            let mut bundle: EncoderBundle = open(path, device)?;
            // What pools and projects embeddings is no part of a model with this head.
            bundle.embedding = None;
            if kept {
                bundle.config = target.clone();
                return Ok(bundle);
            }
            bundle.with_head(head, target.labels().to_vec(), seed).map_err(model_error)
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
            let mut bundle: EncoderBundle = match &base.directory {
                Some(path) => open(path, device)?,
                None => Bundle::init(target.clone(), seed, device),
            };
            if bundle.config.head() != head {
                bundle = bundle.with_head(head, Vec::new(), seed).map_err(model_error)?;
            }
            bundle.embedding = Some(pipeline.clone());
            Ok(bundle)
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
            let Some(path) = &base.directory else { return Ok(Bundle::init(wanted, seed, device)) };
            if let AnyConfig::Classifier(_) = base.config {
                let mut bundle: ClassifierBundle = open(path, device)?;
                if !kept {
                    return Ok(bundle.with_head(wanted, seed));
                }
                bundle.config = wanted;
                return Ok(bundle);
            }
            let bundle: DecoderBundle = open(path, device)?;
            Ok(ClassifierBundle::of_decoder(&bundle, wanted, seed))
        };
        Ok(Start::new(make).with_new_head((self.directory.is_some() && !kept).then_some(class)))
    }

    fn unfit(&self, wanted: &'static str) -> TrainError {
        TrainError::Unfit { model: self.name(), class: self.config.class_name(), wanted }
    }
}

fn open<C: FamilyConfig>(path: &Path, device: &Device) -> Result<Bundle<C>, TrainError> {
    Bundle::open(path, device)
        .map_err(|source| TrainError::Init { path: path.to_owned(), source: Box::new(source) })
}

/// A head that its family refuses.
pub(crate) fn model_error(source: andiron_models::hf_config::ConfigError) -> TrainError {
    ConfigError::Model { source: Box::new(source) }.into()
}
