#![doc = include_str!("../README.md")]

pub mod adapter;
mod any;
pub mod attention;
mod batch;
pub mod bundle;
pub mod catalog;
pub mod decoder;
pub mod encoder;
pub mod encoder_decoder;
pub mod family;
pub mod generate;
pub mod hf_config;
mod json_file;
mod key_rules;
mod memory;
mod model_files;
mod named_fields;
mod param_init;
mod run_precision;
pub mod summary;
pub mod weights;

pub use adapter::{AdapterError, AdapterFiles, LoraConfig};
pub use any::{AnyBundle, AnyConfig, Family};
pub use bundle::{Bundle, FamilyConfig};
pub use catalog::{DecoderConfig, DecoderModel};
pub use decoder::DecoderBundle;
pub use decoder::classifier::{ClassifierBundle, ClassifierConfig};
pub use encoder::{EncoderBundle, EncoderConfig, EncoderHead, EncoderModel};
pub use encoder_decoder::{Seq2SeqBundle, Seq2SeqConfig, Seq2SeqModel};
pub use family::{Decoder, Encoder, EncoderDecoder};
pub use key_rules::{ConfigFile, Inert, KeyRules, UnknownKeys};
pub use memory::ModelMemory;
pub use model_files::ModelFiles;
pub use run_precision::RunPrecision;
