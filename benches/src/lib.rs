//! Models and devices shared by the benchmarks.
//!
//! There is one criterion target per subject: `cargo xtask bench tokenizer`, `train_step`, `decode`, `quant` or `metric`. They
//! detect regressions. Comparisons with other programs are made by `andiron bench` and the scripts in `benches/peers`; their results
//! are in `benches/RESULTS.md`.

use andiron_core::DeviceSpec;
use andiron_kernels::random::Seed;
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_models::{DecoderBundle, DecoderConfig};
use burn::tensor::Device;
use mimalloc::MiMalloc;

// As in the program: with the system's allocator a training step takes a quarter to a half longer, since every large
// buffer is fetched from the kernel and given back.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The example corpus.
pub const SHAKESPEARE: &str = include_str!("../../examples/data/shakespeare.txt");

/// The first device of this build.
///
/// # Panics
/// If the build has no backend.
pub fn device() -> Device {
    DeviceSpec::first_compiled().and_then(DeviceSpec::open).expect("benches are built with a backend")
}

/// The quickstart's model: 4 layers of width 128.
pub fn nano() -> Gpt2Config {
    Gpt2Config::nano(65)
}

/// nanoGPT's model for Shakespeare on a GPU: 6 layers of width 384, 256 positions.
pub fn baby() -> Gpt2Config {
    Gpt2Config { n_layer: 6, n_head: 6, n_embd: 384, n_positions: 256, ..Gpt2Config::nano(65) }
}

/// A model with random weights.
pub fn random(config: Gpt2Config) -> DecoderBundle {
    DecoderBundle::init(DecoderConfig::Gpt2(config), Seed::new(1), &device())
}
