//! One file, one story: how to use Andiron as libraries.
//!
//! | story | run it |
//! |---|---|
//! | a character model learns a few pages in seconds | `cargo run --release -p andiron-examples --example 01_train_tiny` |
//! | a model directory continues a text, piece by piece | `cargo run --release -p andiron-examples --example 02_generate` |
//! | what weights in few bits cost a model, format by format | `cargo run --release -p andiron-examples --example 03_formats -- DIR TEXT` |
//!
//! `examples/pretrain.toml` is a commented configuration for `andiron pretrain`; `examples/data` holds the text that
//! ships with Andiron and says where it comes from.
