//! Activation checkpointing changes no bit of a gradient: for every architecture, with dropout, in both precisions, and with an
//! adapter over dense and over quantized weights.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use std::collections::BTreeMap;

use andiron_core::precision::{Precision, with_precision};
use andiron_core::{Forward, PaddingMask};
use andiron_kernels::random::Seed;
use andiron_models::{
    AnyConfig, Bundle, Decoder, Encoder, EncoderDecoder, FamilyConfig, LoraConfig, RunPrecision,
};
use burn::module::Module as _;
use burn::tensor::{Device, Int, Tensor};
use common::{by_name, device, fixture, ids, with_dropout};

const FIXTURES: &[&str] = &[
    "gpt2",
    "llama",
    "mistral",
    "qwen3",
    "gemma3",
    "neox",
    "bert-classify",
    "roberta-classify",
    "distilbert-classify",
    "modernbert-classify",
    "bart",
    "marian",
    "t5",
];

type Bits = BTreeMap<String, Vec<u32>>;

/// Gradients of a sum over the hidden states, each with another weight.
fn bits<M: burn::module::Module>(model: &M, hidden_btd: Tensor<3>) -> Bits {
    let n = hidden_btd.shape().num_elements();
    let weights = Tensor::<1, Int>::arange(0..n as i64, &hidden_btd.device()).float().cos();
    let loss = (hidden_btd.reshape([n]) * weights).sum();
    let gradients = by_name(model, &loss.backward());
    gradients
        .into_iter()
        .map(|(name, values)| (name, values.into_iter().map(f32::to_bits).collect()))
        .collect()
}

fn context(checkpointing: bool) -> Forward<'static> {
    let cx = Forward::training(Seed::new(3)).with_padding_mask(PaddingMask::padded_right([6, 4]));
    if checkpointing { cx.with_checkpointing() } else { cx }
}

fn text(device: &Device) -> Tensor<2, Int> {
    ids(&[vec![4, 5, 6, 7, 8, 9], vec![9, 5, 4, 4, 0, 0]], device)
}

/// The gradients of the model of `config`, with an adapter of rank 2 if `adapted`.
fn gradients(config: &AnyConfig, adapted: bool, checkpointing: bool) -> Bits {
    let mut cx = context(checkpointing);
    let device = device();
    let text = text(&device.clone().autodiff());
    match config {
        AnyConfig::Decoder(config) => {
            let model = model(config.clone(), adapted, &device);
            bits(&model, model.hidden(text, &mut cx))
        }
        AnyConfig::Encoder(config) => {
            let model = model(config.clone(), adapted, &device);
            bits(&model, model.hidden(text, None, &mut cx))
        }
        AnyConfig::EncoderDecoder(config) => {
            let model = model(config.clone(), adapted, &device);
            let cross_cache = model.encode(text.clone(), &mut cx);
            bits(&model, model.hidden(text, &cross_cache, &mut cx))
        }
        AnyConfig::Classifier(_) => unreachable!("no fixture is one"),
    }
}

fn model<C: FamilyConfig>(config: C, adapted: bool, device: &Device) -> C::Model {
    let bundle = Bundle::init(config, Seed::new(1), device);
    let bundle = if adapted {
        bundle.with_lora(&LoraConfig { dropout: 0.2, ..LoraConfig::new(2, 4.0) }, Seed::new(2)).unwrap()
    } else {
        bundle
    };
    bundle.model.train()
}

#[track_caller]
fn check(name: &str, kept: &Bits, again: &Bits) {
    assert!(!kept.is_empty(), "{name}");
    for (parameter, values) in kept {
        assert!(again.get(parameter) == Some(values), "{name} {parameter}");
    }
    assert_eq!(kept.len(), again.len(), "{name}");
}

#[test]
fn every_architecture_has_the_same_gradients() {
    for name in FIXTURES {
        let (config, _) = with_dropout(name);
        for precision in [Precision::F32, Precision::Mixed] {
            let of = |checkpointing| with_precision(precision, || gradients(&config, false, checkpointing));
            check(&format!("{name} {precision}"), &of(false), &of(true));
        }
    }
}

#[test]
fn adapters_have_the_same_gradients() {
    for name in ["gpt2", "llama", "bert-classify", "t5"] {
        let (config, _) = with_dropout(name);
        let of = |checkpointing| with_precision(Precision::Mixed, || gradients(&config, true, checkpointing));
        check(name, &of(false), &of(true));
    }
}

#[test]
fn so_do_adapters_with_magnitudes_over_quantized_weights() {
    let device = device();
    let config = LoraConfig { dora: true, ..LoraConfig::new(2, 4.0) };
    let bundle =
        andiron_models::DecoderBundle::open_at(&fixture("llama"), RunPrecision::Int8, &device).unwrap();
    let model = bundle.with_lora(&config, Seed::new(2)).unwrap().model.train();
    let text = text(&device.autodiff());
    let of = |checkpointing| bits(&model, model.hidden(text.clone(), &mut context(checkpointing)));
    check("llama int8", &of(false), &of(true));
}
