//! Runs of 200 steps against the same in PyTorch, for a model of each kind of pretraining; `golden/steps.py` makes the fixture.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use andiron_core::{Backend, DeviceSpec, Precision};
use andiron_data::Seed;
use andiron_data::batch::{HostBatch, Sequences};
use andiron_data::collate::{self, CollateRecords as _, Sample};
use andiron_data::loader::{BatchSource, EpochLength};
use andiron_data::records::{Record, columns};
use andiron_models::{Bundle, EncoderHead};
use andiron_training::observe::StepRecord;
use andiron_training::optimizer::OptimizerConfig;
use andiron_training::plan::{Plan, Setup, Start, TrainingData};
use andiron_training::step::{compute, with_gradients};
use andiron_training::{Objective, Observer, Requests, TrainConfig, Trainer, objective};
use burn::module::Module as _;
use burn::tensor::Device;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::{Map, Value};

/// How far losses may be apart, in nats.
const LOSSES: f64 = 1e-3;

/// How far a gradient may be away, in parts of its norm.
const GRADIENTS: f64 = 1e-3;

// As in the script.
const STEPS: usize = 200;
const MICRO_BATCHES: u64 = 2;
const ROWS: u64 = 3;
const COLUMNS: usize = 16;
const SPECIAL: usize = 4;
const MASK: u32 = 3;
const VALUES: usize = 24;

#[derive(Deserialize)]
struct Fixture {
    optimizer: Map<String, Value>,
    runs: BTreeMap<String, Run>,
}

#[derive(Deserialize)]
struct Run {
    dropouts: Vec<String>,
    lr: f64,
    losses: Vec<f64>,
    float32_error: f64,
    gradients: BTreeMap<String, Gradient>,
}

#[derive(Deserialize)]
struct Gradient {
    norm: f64,
    values: Vec<f64>,
}

/// Sequences of ids out of a text, whose bytes are folded into a vocabulary.
#[derive(Clone, Copy, Debug)]
struct Text {
    vocabulary: usize,
}

impl Text {
    fn ids(self, start: usize, length: usize) -> Vec<u32> {
        let text = include_bytes!("../../../examples/data/shakespeare.txt");
        let id = |byte: &u8| (SPECIAL + usize::from(*byte) % (self.vocabulary - SPECIAL)) as u32;
        text[start..start + length].iter().map(id).collect()
    }

    fn source(self, row: usize) -> Vec<u32> {
        self.ids(row * COLUMNS, COLUMNS - row % 4)
    }

    fn next(self, row: usize) -> Vec<u32> {
        self.ids(row * COLUMNS + 1, COLUMNS - row % 4)
    }

    fn target(self, row: usize) -> Vec<u32> {
        self.ids(row * COLUMNS + COLUMNS - row % 4, COLUMNS - 3 - row % 3)
    }
}

/// What a micro-batch is made of.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Causal,
    Masked { pad: u32 },
    Seq2Seq(collate::Seq2Seq),
}

#[derive(Debug)]
struct Batches {
    kind: Kind,
    text: Text,
}

impl BatchSource for Batches {
    fn batch_at(&self, index: u64) -> HostBatch {
        self.rows_at(index, 0..ROWS as usize)
    }

    fn rows_at(&self, index: u64, rows: Range<usize>) -> HostBatch {
        let rows: Vec<usize> = rows.map(|row| (index * ROWS) as usize + row).collect();
        let sources: Vec<Vec<u32>> = rows.iter().map(|&row| self.text.source(row)).collect();
        let padded = |rows: Vec<Vec<u32>>| Sequences::padded(&rows, 0).ids;
        let weights = |of: &dyn Fn(usize, usize) -> bool| {
            let row =
                |(&row, ids): (&usize, &Vec<u32>)| (0..ids.len()).map(|at| of(row, at).into()).collect();
            padded(rows.iter().zip(&sources).map(row).collect())
                .into_iter()
                .map(|weight| weight as f32)
                .collect()
        };
        match self.kind {
            Kind::Causal => {
                let next = padded(rows.iter().map(|&row| self.text.next(row)).collect());
                HostBatch::tokens(Sequences::padded(&sources, 0), next, weights(&|_, _| true))
            }
            Kind::Masked { pad } => {
                let is_masked = |row: usize, at: usize| (row + at).is_multiple_of(5);
                let hidden = rows.iter().zip(&sources).map(|(&row, ids)| {
                    let id = |(at, &id): (usize, &u32)| if is_masked(row, at) { MASK } else { id };
                    ids.iter().enumerate().map(id).collect::<Vec<u32>>()
                });
                let inputs = Sequences::padded(&hidden.collect::<Vec<_>>(), pad);
                HostBatch::tokens(inputs, padded(sources.clone()), weights(&is_masked))
            }
            Kind::Seq2Seq(collator) => {
                let record = |(&row, source): (&usize, &Vec<u32>)| {
                    let record = Record::default().with_ids(columns::IDS, source.clone());
                    let data = record.with_ids(columns::TARGET_IDS, self.text.target(row));
                    Sample { data, seed: Seed::new(0) }
                };
                collator.collate(&rows.iter().zip(&sources).map(record).collect::<Vec<_>>())
            }
        }
    }

    fn n_batches(&self) -> Option<u64> {
        None
    }

    fn n_rows_at(&self, _index: u64) -> u64 {
        ROWS
    }

    fn epoch(&self) -> Option<EpochLength> {
        None
    }
}

fn device() -> Device {
    DeviceSpec { backend: Backend::Ndarray, index: None }.open().unwrap()
}

/// The model of the fixture, without dropout.
fn write_model(name: &str, dropouts: &[String], to: &Path) {
    let from = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../andiron-models/tests/golden").join(name);
    let mut config: Value = serde_json::from_slice(&fs::read(from.join("config.json")).unwrap()).unwrap();
    for dropout in dropouts {
        assert!(config[dropout].as_f64().unwrap() > 0.0, "{dropout}");
        config[dropout] = 0.0.into();
    }
    fs::create_dir(to).unwrap();
    fs::write(to.join("config.json"), config.to_string()).unwrap();
    fs::copy(from.join("model.safetensors"), to.join("model.safetensors")).unwrap();
}

/// The losses of a run.
#[derive(Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn on_step(&mut self, record: &StepRecord) {
        self.0.push(record.loss.into());
    }
}

/// Trains the model `name` by the objective `kind`, which `plan` makes, from the weights of the fixture.
#[track_caller]
fn check<O: Objective>(
    name: &str,
    kind: &str,
    plan: impl Fn(&Setup<'_>) -> (O, Start<O::Family>, Kind, usize),
) {
    let fixture: Fixture = serde_json::from_str(include_str!("golden/steps.json")).unwrap();
    let run = &fixture.runs[name];
    let dir = tempfile::tempdir().unwrap();
    write_model(name, &run.dropouts, &dir.path().join("start"));
    let text = format!(
        r#"
            run = {{ output = {:?}, seed = 1, steps = {STEPS}, accumulate = {MICRO_BATCHES}, precision = "f32" }}
            init = {{ from = {:?} }}
            objective = {{ kind = {kind:?} }}
            data = {{ train = "nothing", rows = {ROWS} }}
            checkpoint = {{ every = 100 }}
            [optimizer]
            lr = 1e-3
            beta2 = 0.9
            weight_decay = 0.0
            schedule = "cosine"
        "#,
        dir.path().join("run").display().to_string(),
        dir.path().join("start").display().to_string(),
    );
    let mut optimizer = fixture.optimizer.clone();
    optimizer.extend([("schedule".to_owned(), "cosine".into()), ("lr".to_owned(), run.lr.into())]);
    optimizer.insert("min_lr".to_owned(), (run.lr / 10.0).into());
    let optimizer: OptimizerConfig = serde_json::from_value(Value::Object(optimizer)).unwrap();
    let config = TrainConfig { optimizer, ..TrainConfig::parse(&text, &[]).unwrap() };

    let device = device();
    let setup = Setup::open(&config, &device).unwrap();
    let (objective, start, kind, vocabulary) = plan(&setup);
    let batches = Batches { kind, text: Text { vocabulary } };
    check_gradients(name, run, &start, &objective, &batches, dir.path());

    let data = TrainingData {
        has_rows: false,
        train: Arc::new(batches),
        valid: None,
        fingerprints: Vec::new(),
        bytes_per_target: None,
        skipped: Vec::new(),
    };
    let mut losses = Losses::default();
    let trainer = Trainer::open(&setup, Plan { objective, start, data }, &device).unwrap();
    trainer.run(&mut losses, &Requests::default()).unwrap();
    assert_eq!((losses.0.len(), run.losses.len()), (STEPS, STEPS));
    // PyTorch itself is no nearer in f32.
    assert!(run.float32_error < LOSSES);
    for (step, (found, expected)) in losses.0.iter().zip(&run.losses).enumerate() {
        assert!((found - expected).abs() <= LOSSES, "{name}, step {step}: {found} for {expected}");
    }
    assert!(run.losses[STEPS - 1] < run.losses[0] - 0.3, "{name} learns");
}

/// Compares the gradients of the first step.
#[track_caller]
fn check_gradients<O: Objective>(
    name: &str,
    run: &Run,
    start: &Start<O::Family>,
    objective: &O,
    batches: &Batches,
    dir: &Path,
) {
    let device = device();
    let bundle: Bundle<O::Family> = start.model(Seed::new(0), &device).unwrap().bundle;
    let model = bundle.model.clone().train();
    let micro_batches: Vec<HostBatch> = (0..MICRO_BATCHES).map(|index| batches.batch_at(index)).collect();
    let computed = compute(&model, objective, &micro_batches, Seed::new(0), Precision::F32);
    let gradients = with_gradients(model, computed.gradients).valid();
    Bundle::<O::Family>::of_model(bundle.config.clone(), gradients, &device)
        .save(&dir.join("gradients"))
        .unwrap();

    let bytes = fs::read(dir.join("gradients/model.safetensors")).unwrap();
    let found = SafeTensors::deserialize(&bytes).unwrap();
    // BART's is no parameter: it stays as it is.
    let others: Vec<&str> =
        found.names().into_iter().filter(|name| !run.gradients.contains_key(*name)).collect();
    assert!(others.iter().all(|other| *other == "final_logits_bias"), "{name}: {others:?}");
    let total = run.gradients.values().map(|gradient| gradient.norm.powi(2)).sum::<f64>().sqrt();
    for (parameter, expected) in &run.gradients {
        let of = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
        let values: Vec<f64> = found.tensor(parameter).unwrap().data().chunks_exact(4).map(of).collect();
        // The gradient of a key's bias is 0 but for rounding.
        let bound = GRADIENTS * expected.norm.max(1e-4 * total);
        let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
        assert!((norm - expected.norm).abs() <= bound, "{name}, {parameter}: {norm} for {}", expected.norm);
        assert_eq!(expected.values.len(), VALUES.min(values.len()));
        for (at, expected) in expected.values.iter().enumerate() {
            let found = values[at * values.len() / VALUES.min(values.len())];
            assert!((found - expected).abs() <= bound, "{name}, {parameter}: {found} for {expected}");
        }
    }
}

#[test]
fn a_decoder_learns_next_tokens_as_in_pytorch() {
    check("gpt2", "causal", |setup| {
        let model = setup.base.decoder().unwrap();
        (objective::Causal, setup.base.start(model.clone()), Kind::Causal, model.vocab_size())
    });
}

#[test]
fn an_encoder_learns_masked_tokens_as_in_pytorch() {
    check("bert-masked-lm", "masked", |setup| {
        let (model, start) = setup.base.start_encoder(EncoderHead::MaskedLm, &[]).unwrap();
        (objective::Masked, start, Kind::Masked { pad: model.pad_token_id() }, model.vocab_size())
    });
}

#[track_caller]
fn check_encoder_decoder(name: &str) {
    check(name, "seq2seq", |setup| {
        let model = setup.base.encoder_decoder().unwrap();
        let (decoder_start, pad) = (model.decoder_start_token_id(), model.pad_token_id());
        let kind = Kind::Seq2Seq(collate::Seq2Seq { decoder_start, pad });
        (objective::Seq2Seq::default(), setup.base.start(model.clone()), kind, model.vocab_size())
    });
}

#[test]
fn a_t5_learns_targets_as_in_pytorch() {
    check_encoder_decoder("t5");
}

#[test]
fn a_bart_learns_targets_as_in_pytorch() {
    check_encoder_decoder("bart");
}
