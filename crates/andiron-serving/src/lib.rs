#![doc = include_str!("../README.md")]

pub mod engine;
pub mod http;
pub mod metrics;
pub mod registry;
pub mod runner;
mod status;
