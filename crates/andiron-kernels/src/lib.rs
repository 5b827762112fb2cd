#![doc = include_str!("../README.md")]
// Needed for vector instructions and for writing one slice from several threads. Public functions check every length before
// they enter unsafe code.
#![allow(unsafe_code)]
// On architectures without a vector type the vector versions are compiled, but not called.
#![cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]

mod bf16_rate;
mod cpu;
pub mod random;

mod parallel;
mod simd;

#[cfg(feature = "allocator")]
pub mod allocator;
pub mod bf16;
pub mod gemm;
pub mod mapped;
pub mod memory;
pub mod quant;

pub mod attention;

pub mod activation;
pub mod adafactor;
pub mod adamw;
pub mod affine;
pub mod average;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod feed_forward;
pub mod lion;
pub mod logits;
pub mod minhash;
pub mod muon;
pub mod norm;
pub mod reduce;
pub mod residual;
pub mod rotary;
mod softmax;

#[cfg(test)]
mod testing;

pub use bf16_rate::Bf16Rate;
pub use cpu::{Bf16Dot, Cpu, Isa, KernelChoice, Precision};
