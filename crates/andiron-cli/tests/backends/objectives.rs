//! Short runs of every objective, from a configuration to validation. A software GPU takes many minutes for them all, so that GPU
//! backends are compared on demand:
//!
//! ```text
//! ANDIRON_WHOLE_MATRIX=1 cargo xtask test --backend wgpu
//! ```

#[path = "../../../andiron-training/tests/common/mod.rs"]
mod common;

use andiron_core::Backend;
use andiron_training::observe::StepRecord;
use andiron_training::{Evaluation, Observer, Requests, TrainConfig, start_or_resume};

use crate::{backends, open};
use common::{Form, NAMES, Place};

/// The variable that asks for GPU backends too.
const WHOLE: &str = "ANDIRON_WHOLE_MATRIX";

/// How far losses may be apart, in nats.
const LOSSES: f64 = 1e-3;

/// The losses of training and of validation.
#[derive(Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn on_step(&mut self, record: &StepRecord) {
        self.0.push(record.loss.into());
    }

    fn on_eval(&mut self, _: u64, evaluation: &Evaluation) {
        self.0.push(evaluation.loss);
    }
}

fn losses(config: &TrainConfig, backend: Backend) -> Vec<f64> {
    let mut losses = Losses::default();
    start_or_resume(config, &open(backend), &mut losses, &Requests::default()).unwrap();
    losses.0
}

/// Compares the losses of short runs, of a model and of an adapter, on every backend.
#[track_caller]
fn check(names: &[&'static str]) {
    let place = Place::of_all();
    let (first, mut others) = backends();
    if std::env::var_os(WHOLE).is_none() {
        others.retain(|&backend| matches!(backend, Backend::Ndarray | Backend::Flex));
    }
    for &name in names {
        let case = place.case(name);
        for form in [Form::Full, Form::Lora] {
            let run = |backend: Backend| {
                losses(&place.run(&case, form, &format!("{name}-{form:?}-{backend}")), backend)
            };
            let expected = run(first);
            // Six steps, and a validation after each third.
            assert_eq!(expected.len(), 8);
            for &backend in &others {
                for (at, (a, b)) in expected.iter().zip(run(backend)).enumerate() {
                    let close = (a - b).abs() <= LOSSES;
                    assert!(close, "{name}, {form:?}, loss {at}: {first} says {a}, {backend} says {b}");
                }
            }
        }
    }
}

#[test]
fn decoders_learn_the_same_on_every_backend() {
    check(&NAMES[..3]);
}

#[test]
fn encoders_learn_masked_tokens_the_same_on_every_backend() {
    check(&NAMES[3..5]);
}

#[test]
fn encoder_decoders_learn_the_same_on_every_backend() {
    check(&NAMES[5..9]);
}

#[test]
fn labels_are_learnt_the_same_on_every_backend() {
    check(&NAMES[9..12]);
}

#[test]
fn answers_embeddings_and_relevance_are_learnt_the_same_on_every_backend() {
    check(&NAMES[12..]);
}
