//! Attention probabilities: ours against those of `transformers` on the fixture that `golden/attention.py` made.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use std::collections::BTreeMap;

use andiron_models::AnyBundle;
use andiron_models::attention::{Attention, AttentionLayers, LayerAttention};
use common::{assert_close, device, fixture};
use serde::Deserialize;

/// Probabilities, in f32 on both sides.
const PROBABILITIES: f32 = 1e-5;

#[derive(Deserialize)]
struct Golden {
    text: Vec<u32>,
    target: Vec<u32>,
    fixtures: BTreeMap<String, Vec<Layer>>,
}

#[derive(Deserialize)]
struct Layer {
    kind: String,
    layer: usize,
    shape: [usize; 3],
    probabilities: Vec<f32>,
}

fn golden() -> Golden {
    serde_json::from_slice(&std::fs::read(fixture("attention.json")).unwrap()).unwrap()
}

fn attention(name: &str, golden: &Golden, layers: AttentionLayers) -> Attention {
    match AnyBundle::open(&fixture(name), &device()).unwrap() {
        AnyBundle::Decoder(bundle) => bundle.attention(&golden.text, layers),
        AnyBundle::Classifier(bundle) => bundle.attention(&golden.text, layers),
        AnyBundle::Encoder(bundle) => bundle.attention(golden.text.as_slice().into(), layers),
        AnyBundle::EncoderDecoder(bundle) => bundle.attention(&golden.text, &golden.target, layers),
    }
}

#[test]
fn probabilities_equal_those_of_transformers() {
    let golden = golden();
    assert!(golden.fixtures.len() > 10);
    for (name, theirs) in &golden.fixtures {
        let Attention { n_layers, layers: ours } = attention(name, &golden, AttentionLayers::All);
        assert_eq!(Some(n_layers), theirs.iter().map(|layer| layer.layer + 1).max(), "{name}");
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for theirs in theirs {
            let is_same = |ours: &&LayerAttention| {
                ours.layer == theirs.layer && format!("{:?}", ours.kind) == theirs.kind
            };
            let ours = ours.iter().find(is_same).unwrap();
            let what = format!("{name}, {} {}", theirs.kind, theirs.layer);
            assert_eq!([ours.n_heads, ours.n_queries, ours.n_keys], theirs.shape, "{what}");
            assert_close(&what, &ours.probabilities, &theirs.probabilities, PROBABILITIES);
        }
    }
}

#[test]
fn only_the_layers_asked_for_are_recorded() {
    let golden = golden();
    for name in golden.fixtures.keys() {
        let second = attention(name, &golden, AttentionLayers::One(1));
        assert!(!second.layers.is_empty() && second.layers.iter().all(|layer| layer.layer == 1), "{name}");
        let none = attention(name, &golden, AttentionLayers::One(99));
        assert_eq!((none.n_layers, none.layers), (second.n_layers, Vec::new()), "{name}");
        let last = attention(name, &golden, AttentionLayers::Last);
        let all = attention(name, &golden, AttentionLayers::All).layers;
        for layer in &last.layers {
            let of_kind = all.iter().filter(|other| other.kind == layer.kind);
            assert_eq!(of_kind.max_by_key(|other| other.layer), Some(layer), "{name}");
        }
        assert_eq!(last.layers.len(), second.layers.len(), "{name}");
    }
}

#[test]
fn a_decoder_with_a_head_for_labels_attends_as_without() {
    let golden = golden();
    let AnyBundle::Classifier(bundle) = AnyBundle::open(&fixture("llama-classify"), &device()).unwrap()
    else {
        panic!("a classifier")
    };
    for layer in bundle.attention(&golden.text, AttentionLayers::All).layers {
        for query in 0..layer.n_queries {
            let row = layer.row(0, query);
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(row[query + 1..].iter().all(|&p| p == 0.0), "attention is causal");
        }
    }
}
