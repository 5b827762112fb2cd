#![doc = include_str!("../README.md")]
// Vector instructions and writing one slice from several threads need it. It is kept in `simd`, `parallel`
// and the inner loops of `gemm` and `attention`; the public functions check every length before they enter.
#![allow(unsafe_code)]
// Where there is no vector type, nothing calls the vector versions; they are compiled all the same.
#![cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]

mod bf16_rate;
mod cpu;
pub mod random;

mod parallel;
mod simd;

#[cfg(feature = "allocator")]
pub mod allocator;
pub mod gemm;
pub mod mapped;
pub mod memory;
pub mod quant;

pub mod attention;

pub mod activation;
pub mod adamw;
pub mod affine;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod feed_forward;
pub mod muon;
pub mod norm;
pub mod reduce;
pub mod residual;
pub mod rotary;
mod softmax;

#[cfg(test)]
mod testing;

pub use bf16_rate::Bf16Rate;
pub use cpu::{Bf16Dot, Cpu, Isa, Precision};
