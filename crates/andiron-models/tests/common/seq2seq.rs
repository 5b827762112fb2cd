//! What the tests of encoder-decoders share: fixtures, edited copies of them, and a pass over one.

#![allow(dead_code)] // Each test uses its part.

use std::collections::BTreeMap;
use std::path::Path;

use andiron_core::{Forward, PaddingMask};
use andiron_models::{EncoderDecoder, Seq2SeqBundle};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::Deserialize;

use crate::common::{device, fixture, ids};

/// Hidden states and logits, in f32 on both sides.
pub const VALUES: f32 = 1e-4;

/// What `transformers` computes of a fixture.
#[derive(Deserialize)]
pub struct Expected {
    pub ids: Vec<Vec<u32>>,
    pub lengths: Vec<usize>,
    pub target: Vec<Vec<u32>>,
    pub encoder_hidden: Vec<f32>,
    pub logits: Vec<f32>,
    pub grads: BTreeMap<String, Vec<f32>>,
    pub greedy: Vec<Greedy>,
}

/// Greedy targets of both sources.
#[derive(Deserialize)]
pub struct Greedy {
    pub settings: BTreeMap<String, Option<usize>>,
    pub ids: Vec<Vec<u32>>,
}

/// What a fixture is compared with.
pub fn expected(name: &str) -> Expected {
    serde_json::from_slice(&std::fs::read(fixture(name).join("expected.json")).unwrap()).unwrap()
}

/// A fixture's model.
pub fn open(name: &str) -> Seq2SeqBundle {
    Seq2SeqBundle::open(&fixture(name), &device()).unwrap()
}

/// The vectors at the rows' own columns.
pub fn own(x_btd: Tensor<3>, lengths: &[usize]) -> Tensor<2> {
    let [b, t, d] = x_btd.dims();
    let at = lengths.iter().enumerate().flat_map(|(row, len)| (0..*len).map(move |column| row * t + column));
    let at: Vec<i32> = at.map(|at| at as i32).collect();
    let at: Tensor<1, Int> = Tensor::from_data(TensorData::new(at.clone(), [at.len()]), &x_btd.device());
    x_btd.reshape([b * t, d]).select(0, at)
}

/// Hidden states of the encoder and logits.
pub fn run(bundle: &Seq2SeqBundle, expected: &Expected, device: &Device) -> (Tensor<3>, Tensor<3>) {
    let rows = PaddingMask::padded_right(expected.lengths.clone());
    let mut cx = Forward::evaluation().with_padding_mask(rows.clone());
    let hidden_bsd = bundle.model.encoder_hidden(ids(&expected.ids, device), &mut cx);
    let cross_cache = bundle.model.cross_attention_cache(hidden_bsd.clone(), Some(rows));
    let target = ids(&expected.target, device);
    let hidden_btd = bundle.model.hidden(target, &cross_cache, &mut Forward::evaluation());
    (hidden_bsd, bundle.model.logits(hidden_btd))
}

/// A copy of a fixture with an edited `config.json`, without `generation_config.json`, and with other names of tensors:
/// each may become several or none.
pub fn edited(
    name: &str,
    edit: impl FnOnce(&mut serde_json::Value),
    rename: impl Fn(&str) -> Vec<String>,
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = std::fs::read(fixture(name).join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    edit(&mut config);
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(fixture(name).join("model.safetensors")).unwrap();
    let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensors = stored.iter().flat_map(|(name, view)| {
        rename(name).into_iter().map(move |name| (name, view.clone())).collect::<Vec<_>>()
    });
    let tensors: Vec<_> = tensors.collect();
    safetensors::serialize_to_file(tensors, None, &dir.path().join("model.safetensors")).unwrap();
    dir
}

/// A name as it was, for [`edited`].
pub fn same(stored: &str) -> Vec<String> {
    vec![stored.to_owned()]
}

/// Fails unless the directory is refused with an error that mentions `needle`.
#[track_caller]
pub fn check_refused(dir: &Path, needle: &str) {
    let error = Seq2SeqBundle::open(dir, &device()).unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    assert!(text.contains(needle), "{text:?} does not mention {needle:?}");
}
