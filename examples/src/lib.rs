//! Examples of Andiron's libraries, one file each.
//!
//! | example | run it |
//! |---|---|
//! | trains a character model in seconds | `cargo run --release -p andiron-examples --example 01_train_tiny` |
//! | continues a prompt with a model directory and streams the text | `cargo run --release -p andiron-examples --example 02_generate` |
//! | measures the perplexity of a model with its matrices quantized to each format | `cargo run --release -p andiron-examples --example 03_formats -- DIR TEXT` |
//!
//! `examples/pretrain.toml` is a commented configuration for `andiron pretrain`; `examples/data` holds the example corpus and
//! its provenance.
