//! Weights in several files.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use std::collections::BTreeMap;

use andiron_models::{Decoder, DecoderBundle};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::json;

use crate::common::{device, fixture, floats, ids};

const TENSOR: &str = "model.layers.0.input_layernorm.weight";

#[test]
fn of_a_tensor_in_two_shards_the_one_counts_that_the_index_names() {
    let whole = std::fs::read(fixture("llama").join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&whole).unwrap();
    let stale: Vec<u8> = tensors.tensor(TENSOR).unwrap().data().iter().map(|_| 0).collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("llama").join("config.json"), dir.path().join("config.json")).unwrap();
    let mut weight_map = BTreeMap::new();
    let mut first = BTreeMap::new();
    for (name, view) in tensors.tensors() {
        let data = if name == TENSOR { &stale[..] } else { view.data() };
        first.insert(name.clone(), TensorView::new(view.dtype(), view.shape().to_vec(), data).unwrap());
        weight_map.insert(name, "model-00001.safetensors");
    }
    weight_map.insert(TENSOR.to_owned(), "model-overlay.safetensors");
    let overlay = BTreeMap::from([(TENSOR.to_owned(), tensors.tensor(TENSOR).unwrap())]);
    for (file, tensors) in [("model-00001.safetensors", &first), ("model-overlay.safetensors", &overlay)] {
        let bytes = safetensors::serialize(tensors, None).unwrap();
        std::fs::write(dir.path().join(file), bytes).unwrap();
    }
    let index = json!({ "metadata": {}, "weight_map": weight_map }).to_string();
    std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();

    let logits = |bundle: DecoderBundle| {
        let mut cx = andiron_core::Forward::evaluation();
        let hidden_btd = bundle.model.hidden(ids(&[vec![3, 1, 4]], &device()), &mut cx);
        floats(bundle.model.logits(hidden_btd))
    };
    let overlaid = logits(DecoderBundle::open(dir.path(), &device()).unwrap());
    assert_eq!(overlaid, logits(DecoderBundle::open(&fixture("llama"), &device()).unwrap()));
}
