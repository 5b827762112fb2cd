#![doc = include_str!("../README.md")]

pub mod clean;
pub mod dedup;
pub mod prepare;
pub mod report;
