//! Training of small models of each family, with dropout everywhere, attention probabilities included.

use andiron_core::{Forward, Precision, ids};
use andiron_data::batch::{HostBatch, Sequences};
use andiron_kernels::random::Seed;
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_models::encoder::{EncoderHead, Head};
use andiron_models::encoder_decoder::Seq2SeqGenerator;
use andiron_models::{
    DecoderBundle, DecoderConfig, Encoder as _, EncoderBundle, EncoderConfig, EncoderModel, Seq2SeqBundle,
    Seq2SeqConfig,
};
use andiron_training::objective::{Causal, Masked, ModelOf, Objective, Seq2Seq};
use andiron_training::optimizer::{Optimizer, OptimizerConfig, OptimizerKind, clip_scale};
use andiron_training::step::compute;
use burn::module::Module;
use burn::tensor::Device;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{backends, greedy, open};

const STEPS: u64 = 20;
/// How far losses may be apart, in nats.
const LOSSES: f32 = 1e-3;
const ROWS: usize = 4;
const COLUMNS: usize = 32;
const VOCABULARY: usize = 40;
/// Stands for a masked token, and before the first of a target; no text has it.
const SPECIAL: u32 = VOCABULARY as u32;
const PROMPT: [u32; 4] = [3, 24, 11, 0];

/// A sequence with something to learn: each id is followed by a fixed other one, most of the time.
fn batch(step: u64) -> HostBatch {
    let seed = Seed::new(9).at(step);
    let ids: Vec<u32> = (0..(ROWS * COLUMNS) as u64 + 1)
        .scan(0, |id, at| {
            *id = if seed.uniform(at) < 0.2 {
                seed.below(at, VOCABULARY as u64) as u32
            } else {
                (*id * 7 + 3) % VOCABULARY as u32
            };
            Some(*id)
        })
        .collect();
    let inputs = Sequences::full(ids[..ROWS * COLUMNS].to_vec(), [ROWS, COLUMNS]);
    HostBatch::tokens(inputs, ids[1..].to_vec(), vec![1.0; ROWS * COLUMNS])
}

/// The same sequence, some of whose tokens are masked and to be predicted.
fn masked_batch(step: u64) -> HostBatch {
    let (ids, seed) = (batch(step).inputs.ids, Seed::new(10).at(step));
    let is_masked: Vec<bool> = (0..ids.len() as u64).map(|at| seed.uniform(at) < 0.3).collect();
    let masked = ids.iter().zip(&is_masked).map(|(&id, &masked)| if masked { SPECIAL } else { id });
    let inputs = Sequences::full(masked.collect(), [ROWS, COLUMNS]);
    HostBatch::tokens(inputs, ids, is_masked.into_iter().map(|masked| f32::from(u8::from(masked))).collect())
}

/// The same sequence as a source, and what follows each of its tokens as a target.
fn pair_batch(step: u64) -> HostBatch {
    let batch = batch(step);
    let targets = &batch.token_labels().unwrap().ids;
    let shifted = targets.chunks_exact(COLUMNS).flat_map(|row| [&[SPECIAL], &row[..COLUMNS - 1]].concat());
    let decoder_inputs = Some(Sequences::full(shifted.collect(), [ROWS, COLUMNS]));
    HostBatch { decoder_inputs, ..batch }
}

/// Losses of the first steps, and the model after them.
fn train<O: Objective>(
    model: ModelOf<O>,
    objective: &O,
    kind: OptimizerKind,
    batch: fn(u64) -> HostBatch,
    device: &Device,
) -> (Vec<f32>, ModelOf<O>) {
    let settings = OptimizerConfig::constant(3e-3).with_kind(kind);
    let mut model = model.train();
    let mut optimizer = Optimizer::new(&model, &settings, device).unwrap();
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let computed = compute(&model, objective, &[batch(step)], Seed::new(4).at(step), Precision::F32);
        losses.push(computed.loss);
        let scale = clip_scale(computed.grad_norm, settings.clip_norm);
        model = optimizer.update(model, computed.gradients, settings.lr, scale);
    }
    (losses, model.valid())
}

/// Compares the losses of training on every backend, and what the model then writes.
#[track_caller]
fn check_training(train: impl Fn(&Device) -> (Vec<f32>, Vec<u32>)) {
    let (first, others) = backends();
    let (losses, text) = train(&open(first));
    assert!(losses[0] - losses.last().unwrap() > 0.5, "nothing was learnt: {losses:?}");
    for backend in others {
        let (other_losses, other_text) = train(&open(backend));
        for (step, (a, b)) in losses.iter().zip(&other_losses).enumerate() {
            assert!((a - b).abs() <= LOSSES, "step {step}: {first} says {a}, {backend} says {b}");
        }
        assert_eq!(text, other_text, "greedy text on {first} and on {backend}");
    }
}

/// A configuration whose other fields are what they are if absent from a file.
fn config<C: DeserializeOwned>(fields: Value) -> C {
    serde_json::from_value(fields).unwrap()
}

fn train_decoder(config: DecoderConfig, kind: OptimizerKind, device: &Device) -> (Vec<f32>, Vec<u32>) {
    let mut bundle = DecoderBundle::init(config, Seed::new(3), device);
    let (losses, model) = train(bundle.model.clone(), &Causal, kind, batch, device);
    bundle.model = model;
    (losses, greedy(&bundle, &PROMPT))
}

fn gpt2() -> DecoderConfig {
    DecoderConfig::Gpt2(Gpt2Config {
        n_positions: COLUMNS,
        n_embd: 64,
        n_layer: 2,
        n_head: 4,
        attn_pdrop: 0.1,
        resid_pdrop: 0.1,
        ..Gpt2Config::nano(VOCABULARY)
    })
}

#[test]
fn training_and_greedy_text_are_the_same_on_every_backend() {
    check_training(|device| train_decoder(gpt2(), OptimizerKind::Adamw, device));
}

#[test]
fn training_by_muon_is_the_same_on_every_backend() {
    check_training(|device| train_decoder(gpt2(), OptimizerKind::Muon, device));
}

#[test]
fn training_of_a_llama_is_the_same_on_every_backend() {
    let llama = || {
        DecoderConfig::Llama(config(json!({
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": COLUMNS,
            "initializer_range": 0.1,
            "attention_dropout": 0.1,
        })))
    };
    check_training(|device| train_decoder(llama(), OptimizerKind::Adamw, device));
}

#[test]
fn training_of_a_bert_is_the_same_on_every_backend() {
    let bert = || {
        EncoderConfig::Bert(config(json!({
            "vocab_size": VOCABULARY + 1,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 96,
            "max_position_embeddings": COLUMNS,
            "initializer_range": 0.1,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "head": EncoderHead::MaskedLm,
        })))
    };
    check_training(|device| {
        let bundle = EncoderBundle::init(bert(), Seed::new(3), device);
        let (losses, model) = train(bundle.model, &Masked, OptimizerKind::Adamw, masked_batch, device);
        (losses, fill(&model, device))
    });
}

/// The most likely token in place of each masked one.
fn fill(model: &EncoderModel, device: &Device) -> Vec<u32> {
    let batch = masked_batch(STEPS);
    let weights = &batch.token_labels().unwrap().weights;
    let ids_bt = ids::upload(&batch.inputs.ids, [batch.inputs.rows, batch.inputs.columns], device);
    let hidden_btd = model.hidden(ids_bt, None, &mut Forward::evaluation());
    let [b, t, d] = hidden_btd.dims();
    let Head::MaskedLm(head) = model.head() else { panic!("the model predicts masked tokens") };
    let logits_nv = head.forward(hidden_btd.reshape([b * t, d]));
    let best: Vec<u32> = logits_nv.argmax(1).into_data().iter::<i64>().map(|id| id as u32).collect();
    let masked = best.into_iter().zip(weights).filter(|(_, weight)| **weight > 0.0);
    masked.map(|(id, _)| id).collect()
}

#[test]
fn training_of_a_t5_is_the_same_on_every_backend() {
    let t5 = || {
        Seq2SeqConfig::T5(config(json!({
            "vocab_size": VOCABULARY + 1,
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 96,
            "num_layers": 2,
            "num_heads": 4,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 20,
            "feed_forward_proj": "gated-gelu",
            "dropout_rate": 0.1,
            "decoder_start_token_id": SPECIAL,
        })))
    };
    check_training(|device| {
        let mut bundle = Seq2SeqBundle::init(t5(), Seed::new(3), device);
        let kind = OptimizerKind::Adamw;
        let (losses, model) = train(bundle.model.clone(), &Seq2Seq::default(), kind, pair_batch, device);
        bundle.model = model;
        let reader = Seq2SeqGenerator::new(&bundle, &PROMPT);
        (losses, greedy(&reader, &[reader.start()]))
    });
}
