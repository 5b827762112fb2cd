//! The program as people meet it: command lines in, output, files and exit codes out.

#![cfg(feature = "ndarray")]
// Clippy knows the functions marked as tests, not those they call.
#![allow(clippy::unwrap_used)]

mod adapter;
mod bad_input;
mod common;
#[cfg(unix)]
mod company;
mod configs;
mod evaluate;
mod files;
mod metric;
mod predict;
mod predict_any_row;
mod predict_encoder;
mod predict_sentence;
mod predict_seq2seq;
mod quickstart;
#[cfg(unix)]
mod readme;
#[cfg(unix)]
mod same_text;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod serve_families;
#[cfg(unix)]
mod signals;
mod tokenizer;
mod verbs;
