//! One model of a server.

use std::time::Duration;

use andiron_data::reply::ToolFormat;
use andiron_models::generate::SamplingParams;
use andiron_pipelines::TextProcessor;
use serde_json::{Map, Value};

use super::{Capability, Incapable};
use crate::engine::{Engine, EngineHandle, Load, ModelSizes};
use crate::metrics::ModelMetrics;
use crate::runner::{ModelShape, OneShot, Rewriter};

/// A model as the API describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServedModel {
    /// Its id in `/v1/models` and in requests.
    pub id: String,
    /// Unix time in seconds at which it was made or loaded.
    pub created: u64,
    /// Default sampling parameters: those of `generation_config.json`, else OpenAI's. The seed is ignored.
    pub sampling: SamplingParams,
    /// Stop strings of a request without `stop`: the `stop_strings` of `generation_config.json`.
    pub stop_strings: Vec<String>,
    /// The object in `tokenizer_config.json`, served at `/tokenizer_info`.
    pub tokenizer_config: Map<String, Value>,
    /// How the model writes calls of tools; `None` is as its chat template says.
    pub tool_format: Option<ToolFormat>,
    /// What it translates; empty if nothing is known about that.
    pub languages: Vec<LanguagePair>,
    /// The model that it is an adapter of.
    pub parent: Option<String>,
    /// What opening it took.
    pub cost: LoadCost,
}

/// What opening a model took, for the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadCost {
    /// The family of the model.
    pub family: String,
    /// Bytes of memory for its weights, estimated from its files; 0 if it shares those of another model.
    pub weight_bytes: u64,
    /// Time from its files to where it answers.
    pub time: Duration,
}

/// A direction of translation, as language codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguagePair {
    /// Language of the source, such as `en`.
    pub source: String,
    /// Language of the target.
    pub target: String,
}

impl ServedModel {
    /// The model `id`, with OpenAI's default sampling.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            created: 0,
            sampling: SamplingParams::default(),
            stop_strings: Vec::new(),
            tokenizer_config: Map::new(),
            tool_format: None,
            languages: Vec::new(),
            parent: None,
            cost: LoadCost::default(),
        }
    }
}

/// What runs a model's requests.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant)] // There is one for each model.
pub enum Runner {
    /// An engine decodes step by step.
    Decoder(EngineHandle),
    /// An engine and a beam search write targets of sources.
    EncoderDecoder(Rewriter),
    /// A whole text is answered at once.
    OneShot(OneShot),
}

/// A model of a server: its description, its text side, and what runs it.
#[derive(Debug)]
pub struct Served {
    /// Its description.
    pub info: ServedModel,
    /// Its tokenizer. Without one, prompts are token ids and texts are empty.
    pub text: TextProcessor,
    runner: Runner,
    can: Vec<Capability>,
    /// Shows its attention.
    view: Option<OneShot>,
    /// The engine, if it ends with this model.
    _engine: Option<Engine>,
}

/// Applies one expression to the engine or the one-shot model.
macro_rules! each {
    ($served:expr, $runner:ident => $do:expr) => {
        match &$served.runner {
            Runner::Decoder($runner) => $do,
            Runner::EncoderDecoder($runner) => $do,
            Runner::OneShot($runner) => $do,
        }
    };
}

impl Served {
    /// A model that `runner` runs for as long as its owner likes.
    pub fn new(info: ServedModel, text: TextProcessor, runner: Runner) -> Self {
        let can = match &runner {
            Runner::Decoder(_) if text.tokenizer().is_some_and(|text| text.chat_template().is_some()) => {
                vec![Capability::Generate, Capability::Chat]
            }
            Runner::Decoder(_) => vec![Capability::Generate],
            Runner::EncoderDecoder(rewriter) => rewriter.can().to_vec(),
            Runner::OneShot(model) => model.can().to_vec(),
        };
        Self { info, text, runner, can, view: None, _engine: None }
    }

    /// A decoder whose engine ends when this is dropped.
    pub fn owning(info: ServedModel, text: TextProcessor, engine: Engine) -> Self {
        Self::new(info, text, Runner::Decoder(engine.handle())).with_engine(engine)
    }

    /// The same model, which ends `engine` when it is dropped.
    #[must_use]
    pub fn with_engine(self, engine: Engine) -> Self {
        Self { _engine: Some(engine), ..self }
    }

    /// The same model, whose attention `view` shows: an [`AttentionView`](crate::runner::AttentionView) of the same weights.
    #[must_use]
    pub fn with_view(mut self, view: OneShot) -> Self {
        self.can.extend(view.can());
        Self { view: Some(view), ..self }
    }

    /// What it can do, its main task first.
    pub fn can(&self) -> &[Capability] {
        &self.can
    }

    /// Checks that it can do `wanted`.
    ///
    /// # Errors
    /// [`Incapable`].
    pub fn ensure(&self, wanted: Capability) -> Result<(), Incapable> {
        match self.can.contains(&wanted) {
            true => Ok(()),
            false => Err(self.incapable(wanted)),
        }
    }

    fn incapable(&self, wanted: Capability) -> Incapable {
        Incapable { model: self.info.id.clone(), wanted, can: self.can.clone() }
    }

    /// The engine of a decoder.
    ///
    /// # Errors
    /// [`Incapable`] if it is none.
    pub fn decoder(&self) -> Result<&EngineHandle, Incapable> {
        match &self.runner {
            Runner::Decoder(engine) => Ok(engine),
            Runner::EncoderDecoder(_) | Runner::OneShot(_) => Err(self.incapable(Capability::Generate)),
        }
    }

    /// What writes targets of sources, for a model with `wanted`.
    ///
    /// # Errors
    /// [`Incapable`] if this does not.
    pub fn rewriter(&self, wanted: Capability) -> Result<&Rewriter, Incapable> {
        match &self.runner {
            Runner::EncoderDecoder(rewriter) if self.can.contains(&wanted) => Ok(rewriter),
            _ => Err(self.incapable(wanted)),
        }
    }

    /// The one-shot model that does `wanted`.
    ///
    /// # Errors
    /// [`Incapable`] if this does not.
    pub fn one_shot(&self, wanted: Capability) -> Result<&OneShot, Incapable> {
        match (&self.runner, &self.view) {
            (_, Some(view)) if view.can().contains(&wanted) => Ok(view),
            (Runner::OneShot(model), _) if self.can.contains(&wanted) => Ok(model),
            (Runner::EncoderDecoder(rewriter), _) if self.can.contains(&wanted) => Ok(rewriter.search()),
            _ => Err(self.incapable(wanted)),
        }
    }

    /// What the API tells of a model that answers at once.
    pub fn shape(&self) -> Option<&ModelShape> {
        match &self.runner {
            Runner::OneShot(model) => Some(model.shape()),
            Runner::Decoder(_) | Runner::EncoderDecoder(_) => None,
        }
    }

    /// Sizes of the model.
    pub fn sizes(&self) -> ModelSizes {
        each!(self, runner => runner.sizes())
    }

    /// The current load.
    pub fn load(&self) -> Load {
        each!(self, runner => runner.load())
    }

    /// What it has done since it was loaded.
    pub fn metrics(&self) -> &ModelMetrics {
        each!(self, runner => runner.metrics())
    }

    /// Whether one more small request would be accepted now.
    pub fn accepts_work(&self) -> bool {
        each!(self, runner => runner.accepts_work())
    }

    /// Time since the runner's last sign of life.
    pub fn heartbeat_age(&self) -> Duration {
        each!(self, runner => runner.heartbeat_age())
    }

    /// Stops accepting work; running and queued requests are finished.
    pub fn drain(&self) {
        each!(self, runner => runner.drain());
        self.view.iter().for_each(OneShot::drain);
    }

    /// Waits until nothing is running or queued.
    pub async fn idle(&self) {
        each!(self, runner => runner.idle().await);
        if let Some(view) = &self.view {
            view.idle().await;
        }
    }

    /// Stops after the current step or batch.
    pub fn stop(&self) {
        each!(self, runner => runner.stop());
        self.view.iter().for_each(OneShot::stop);
    }
}
