//! Metrics: plain functions of predictions and targets, one file each.

pub mod perplexity;
