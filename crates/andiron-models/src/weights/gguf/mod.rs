//! GGUF files, as llama.cpp reads and writes them.

mod blocks;
mod file;
mod value;

pub use blocks::ElementType;
pub use file::{GgufError, GgufFile, TensorEntry};
pub use value::{Array, Value};
