//! One file, one verb.

pub mod bench;
pub mod chat;
pub mod doctor;
pub mod evaluate;
pub mod export;
pub mod finetune;
pub mod generate;
pub mod inspect;
pub mod metric;
pub mod predict;
pub mod prepare;
pub mod pretrain;
pub mod quickstart;
pub mod serve;
pub mod tokenizer;
