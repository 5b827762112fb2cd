//! Numbers that say how good predictions are: plain functions of text and numbers, one file each.

pub mod perplexity;
