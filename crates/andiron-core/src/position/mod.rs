//! Position encodings: rotary, relative and sinusoidal.

pub mod relative;
pub mod rope_scaling;
pub mod rotary;
pub mod sinusoidal;
