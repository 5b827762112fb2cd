#![doc = include_str!("../README.md")]

pub mod axis;
pub mod document;
pub mod text;
