//! The same work on every backend of this build gives the same numbers.
//!
//! `cargo xtask test --backend wgpu` builds this with `ndarray`, `flex` and `wgpu`; a build with one backend has
//! nothing to compare and leaves it out.

#![allow(clippy::unwrap_used)] // A test fails where it panics.
#![cfg(all(feature = "ndarray", feature = "flex"))]

mod inference;
mod objectives;
mod training;

use andiron_core::{Backend, DeviceSpec};
use andiron_models::generate::{CausalLm, Decoding, GenerateOptions, SamplingParams};
use burn::tensor::Device;

/// The backend that others are compared with, and the others.
fn backends() -> (Backend, Vec<Backend>) {
    let mut backends = Backend::compiled();
    assert!(backends.len() >= 2, "nothing to compare");
    (backends.remove(0), backends)
}

fn open(backend: Backend) -> Device {
    DeviceSpec { backend, index: None }.open().unwrap()
}

/// The most likely continuation, over a paged cache.
fn greedy<M: CausalLm>(model: &M, prompt: &[u32]) -> Vec<u32> {
    let options = GenerateOptions {
        sampling: SamplingParams::greedy(),
        max_new_tokens: 12,
        ..GenerateOptions::default()
    };
    let mut decoding = Decoding::new(model, prompt, options).unwrap();
    while decoding.next_token(model).unwrap().is_some() {}
    decoding.generated().to_vec()
}
