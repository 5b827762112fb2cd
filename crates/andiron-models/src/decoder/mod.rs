//! Decoder architectures: one file each, wiring over shared layers.

pub mod gpt2;
