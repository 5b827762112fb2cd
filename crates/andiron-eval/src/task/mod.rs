//! Evaluation tasks.
//!
//! [`windows`] is the loss over a stream of tokens. The rest are tasks as [lm-evaluation-harness][harness] 0.4.13 has them, read
//! from its own YAML files over local data: [`TaskConfig`] is a file, [`Task`] the file with its rows and prompts,
//! [`TaskReport`] what a model reaches on it. [`TaskSet`] reads several files, and groups. [`compare`](mod@compare) tells whether
//! two models differ.
//!
//! With a [`Chat`], prompts are conversations by the model's chat template.
//!
//! Prompts, tokens, few-shot draws, filters, metrics and standard errors are those of the harness with its `hf` model. What
//! needs Python in a file is refused by the name of its key.
//!
//! [harness]: https://github.com/EleutherAI/lm-evaluation-harness

mod chat;
pub mod compare;
mod config;
mod dataset;
mod error;
mod filter;
mod group;
mod measure;
mod prompt;
mod python;
mod random;
mod report;
mod run;
pub mod windows;
mod yaml;

pub use andiron_pipelines::score;
pub use chat::Chat;
pub use config::{FewshotConfig, GenerationConfig, OutputType, TaskConfig};
pub use error::TaskError;
pub use filter::Filters;
pub use group::{Group, TaskSet};
pub use measure::MetricConfig;
pub use prompt::{Task, TaskOptions};
pub use report::{Report, ReportOptions, TaskMetric, TaskReport};
pub use yaml::YamlError;
