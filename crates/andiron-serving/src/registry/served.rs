//! One model of a server.

use std::time::Duration;

use andiron_data::reply::ToolFormat;
use andiron_models::generate::SamplingParams;
use andiron_pipelines::TextProcessor;
use serde_json::{Map, Value};

use super::{Capability, Incapable};
use crate::engine::{Engine, EngineHandle, Load, ModelSizes};
use crate::metrics::ModelMetrics;

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
        }
    }
}

/// What runs a model's requests.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Runner {
    /// An engine decodes step by step.
    Decoder(EngineHandle),
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
    /// The engine, if it ends with this model.
    _engine: Option<Engine>,
}

impl Served {
    /// A model that `runner` runs for as long as its owner likes.
    pub fn new(info: ServedModel, text: TextProcessor, runner: Runner) -> Self {
        let can = match &runner {
            Runner::Decoder(_) => vec![Capability::Generate],
        };
        Self { info, text, runner, can, _engine: None }
    }

    /// A decoder whose engine ends when this is dropped.
    pub fn owning(info: ServedModel, text: TextProcessor, engine: Engine) -> Self {
        let served = Self::new(info, text, Runner::Decoder(engine.handle()));
        Self { _engine: Some(engine), ..served }
    }

    /// What it can do.
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
            false => Err(Incapable { model: self.info.id.clone(), wanted, can: self.can.clone() }),
        }
    }

    /// The engine of a decoder.
    ///
    /// # Errors
    /// [`Incapable`] if it is none.
    pub fn decoder(&self) -> Result<&EngineHandle, Incapable> {
        self.ensure(Capability::Generate)?;
        match &self.runner {
            Runner::Decoder(engine) => Ok(engine),
        }
    }

    /// Sizes of the model.
    pub fn sizes(&self) -> ModelSizes {
        match &self.runner {
            Runner::Decoder(engine) => engine.sizes(),
        }
    }

    /// The current load.
    pub fn load(&self) -> Load {
        match &self.runner {
            Runner::Decoder(engine) => engine.load(),
        }
    }

    /// What it has done since it was loaded.
    pub fn metrics(&self) -> &ModelMetrics {
        match &self.runner {
            Runner::Decoder(engine) => engine.metrics(),
        }
    }

    /// Whether one more small request would be accepted now.
    pub fn accepts_work(&self) -> bool {
        match &self.runner {
            Runner::Decoder(engine) => engine.accepts_work(),
        }
    }

    /// Time since the runner's last sign of life.
    pub fn heartbeat_age(&self) -> Duration {
        match &self.runner {
            Runner::Decoder(engine) => engine.heartbeat_age(),
        }
    }

    /// Stops accepting work; running and queued requests are finished.
    pub fn drain(&self) {
        match &self.runner {
            Runner::Decoder(engine) => engine.drain(),
        }
    }

    /// Waits until nothing is running or queued.
    pub async fn idle(&self) {
        match &self.runner {
            Runner::Decoder(engine) => engine.idle().await,
        }
    }

    /// Stops after the current step.
    pub fn stop(&self) {
        match &self.runner {
            Runner::Decoder(engine) => engine.stop(),
        }
    }
}
