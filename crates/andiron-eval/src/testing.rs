//! A tiny model and a token stream for tests.

use andiron_core::{Backend, DeviceSpec};
use andiron_kernels::random::Seed;
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_models::{DecoderConfig, DecoderModel};
use burn::tensor::Device;

pub(crate) const VOCAB: usize = 11;
pub(crate) const CONTEXT: usize = 12;

pub(crate) fn device() -> Device {
    DeviceSpec { backend: Backend::Ndarray, index: None }.open().unwrap()
}

pub(crate) fn tiny() -> DecoderModel {
    // A wide initial spread, so that predictions differ visibly from a uniform guess.
    let config = Gpt2Config {
        n_positions: CONTEXT,
        n_embd: 16,
        n_layer: 2,
        n_head: 2,
        initializer_range: 0.3,
        ..Gpt2Config::nano(VOCAB)
    };
    DecoderConfig::Gpt2(config).init(Seed::new(5), &device())
}

pub(crate) fn stream(len: usize) -> Vec<u32> {
    (0..len as u64).map(|i| Seed::new(9).below(i, VOCAB as u64) as u32).collect()
}
