//! Where a token stands, told to a model that would not notice otherwise.

pub mod relative;
pub mod rope_scaling;
pub mod rotary;
pub mod sinusoidal;
