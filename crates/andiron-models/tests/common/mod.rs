//! What the tests of all architectures share.

#![allow(dead_code)] // Each test uses its part.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use andiron_core::DeviceSpec;
use andiron_models::AnyConfig;
use andiron_models::weights::ParamPath;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use serde_json::{Map, Value};

/// The default CPU device.
pub fn device() -> Device {
    DeviceSpec::parse("ndarray").and_then(DeviceSpec::open).expect("tests are built with ndarray")
}

/// Ids `[rows, columns]` on `device`.
pub fn ids(rows: &[Vec<u32>], device: &Device) -> Tensor<2, Int> {
    let columns = rows[0].len();
    let flat: Vec<i64> = rows.iter().flatten().map(|&id| i64::from(id)).collect();
    Tensor::from_data(TensorData::new(flat, [rows.len(), columns]), device)
}

/// The elements of a tensor, row-major.
pub fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("f32")
}

/// Fails if two lists differ anywhere by more than `tolerance`.
#[track_caller]
pub fn assert_close(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len(), "{what}: number of elements");
    for (at, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}[{at}]: {a} is not {b} within {tolerance}");
    }
}

/// The folder of a fixture.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Writes a `config.json` like a fixture's, eight times as wide: rows of 24 numbers are no whole blocks.
pub fn widen(name: &str, dir: &Path) {
    const WIDTHS: &[&str] = &[
        "hidden_size",
        "intermediate_size",
        "dim",
        "hidden_dim",
        "d_model",
        "encoder_ffn_dim",
        "decoder_ffn_dim",
        "d_ff",
        "d_kv",
    ];
    let text = std::fs::read(fixture(name).join("config.json")).expect("a fixture");
    let mut config: Value = serde_json::from_slice(&text).expect("an object");
    for width in WIDTHS {
        if let Some(value) = config.get_mut(width) {
            *value = (value.as_u64().expect("a width") * 8).into();
        }
    }
    std::fs::write(dir.join("config.json"), config.to_string()).expect("writable");
}

/// The configuration of a fixture with a rate of its own for every dropout key, and those keys with their rates.
pub fn with_dropout(name: &str) -> (AnyConfig, Vec<(String, f32)>) {
    let text = std::fs::read_to_string(fixture(name).join("config.json")).expect("a fixture");
    let mut fields: Map<String, Value> = serde_json::from_str(&text).expect("an object");
    let mut rates = Vec::new();
    for (key, value) in
        fields.iter_mut().filter(|(key, _)| key.contains("drop") && !key.contains("layerdrop"))
    {
        let rate = 0.01 * (rates.len() + 1) as f64;
        *value = rate.into();
        rates.push((key.clone(), rate as f32));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config.json");
    std::fs::write(&path, serde_json::to_string(&fields).expect("JSON")).expect("writable");
    (AnyConfig::read(&path).expect("a model"), rates)
}

/// Gradients of a model's parameters, by name.
pub fn by_name<M: Module>(model: &M, gradients: &Gradients) -> BTreeMap<String, Vec<f32>> {
    struct Collect<'a> {
        path: ParamPath,
        gradients: &'a Gradients,
        found: BTreeMap<String, Vec<f32>>,
    }

    impl ModuleVisitor for Collect<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(self.gradients) {
                self.found.insert(self.path.name(), floats(gradient));
            }
        }
    }

    let mut collect = Collect { path: ParamPath::default(), gradients, found: BTreeMap::new() };
    model.visit(&mut collect);
    collect.found
}
