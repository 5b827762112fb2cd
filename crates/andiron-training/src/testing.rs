//! A tiny run for tests.

use std::path::Path;

use andiron_core::{Backend, DeviceSpec};
use andiron_data::shard::{DatasetWriter, WriterOptions};
use andiron_kernels::random::Seed;
use andiron_models::DecoderConfig;
use burn::tensor::Device;

use crate::config::{ModelConfig, TrainConfig};
use crate::objective::{Causal, CausalConfig, FromConfig as _, Objective};
use crate::observe::Observer;
use crate::plan::{Plan, Setup};
use crate::trainer::{Outcome, Requests, TrainError, Trainer};

/// A configuration whose paths do not exist.
pub(crate) const CONFIG: &str = r#"
[run]
output = "out"
seed = 7
steps = 20

[model]
model_type = "gpt2"
vocab_size = 13
n_positions = 8
n_embd = 16
n_layer = 2
n_head = 2
attn_pdrop = 0.0
resid_pdrop = 0.1
embd_pdrop = 0.1

[data]
train = "train"
rows = 3
context = 8
order = "windows"

[optimizer]
schedule = "cosine"
lr = 1e-2
min_lr = 1e-3
warmup_steps = 4
beta2 = 0.95
weight_decay = 0.1

[checkpoint]
every = 5
"#;

pub(crate) fn device() -> Device {
    DeviceSpec { backend: Backend::Ndarray, index: None }.open().unwrap()
}

/// The tiny run, with data, in `dir`.
pub(crate) fn config_in(dir: &Path, overrides: &[&str]) -> TrainConfig {
    for (name, len) in [("train", 400), ("valid", 50)] {
        if !dir.join(name).exists() {
            write_data(&dir.join(name), len);
        }
    }
    let path = |key: &str, name: &str| format!("{key}={:?}", dir.join(name).display().to_string());
    let mut all = vec![path("run.output", "out"), path("data.train", "train"), path("data.valid", "valid")];
    all.extend(overrides.iter().map(|text| (*text).to_owned()));
    TrainConfig::parse(CONFIG, &all).unwrap()
}

/// Tokens with something to learn: each is its predecessor plus one or two.
pub(crate) fn write_data(path: &Path, len: u64) {
    let mut writer = DatasetWriter::create(path, WriterOptions::new(13, "no tokenizer")).unwrap();
    let seed = Seed::new(len);
    let ids: Vec<u32> = (0..len)
        .scan(0, |at, i| {
            *at = (*at + 1 + seed.below(i, 2) as u32) % 13;
            Some(*at)
        })
        .collect();
    writer.push("all", &ids, "").unwrap();
    writer.finish().unwrap();
}

/// The decoder of a configuration.
pub(crate) fn decoder(config: &TrainConfig) -> &DecoderConfig {
    match &config.model {
        Some(ModelConfig::Decoder(config)) => config,
        other => panic!("{other:?} is no decoder"),
    }
}

/// A run of a configuration by an objective for decoders, with the data of next-token prediction.
pub(crate) fn open<O>(config: &TrainConfig, objective: O) -> Result<Trainer<O>, TrainError>
where
    O: Objective<Family = DecoderConfig>,
{
    let device = device();
    let setup = Setup::open(config, &device)?;
    let Plan { start, data, .. } = Causal::plan(&CausalConfig::default(), &setup)?;
    Trainer::open(&setup, Plan { objective, start, data }, &device)
}

pub(crate) fn train<O>(
    config: &TrainConfig,
    objective: O,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError>
where
    O: Objective<Family = DecoderConfig>,
{
    open(config, objective)?.run(observer, &Requests::default())
}
