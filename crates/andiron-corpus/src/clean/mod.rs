//! What happens to one document before it becomes tokens: filters, which change it or remove it; one file each.
//!
//! A filter's settings are a struct with the published defaults; [`FilterSettings`] names each of them, as a file of settings does.

mod decontaminate;
mod line_endings;

use andiron_data::Document;
use serde::{Deserialize, Serialize};

pub use decontaminate::{Decontaminate, RemoveContaminated};
pub use line_endings::LineEndings;

/// A step that sees one document at a time.
pub trait Filter: Send + Sync {
    /// Changes the document, or says why it goes. A function of the document alone.
    fn apply(&self, document: &mut Document) -> Verdict;
}

/// What becomes of a document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It goes on.
    Keep,
    /// It is left out.
    Remove(Removal),
}

/// Why a document is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Removal {
    /// A short fixed name, by which removed documents are counted, such as `too-few-words`.
    pub reason: &'static str,
    /// The number that the rule looked at, where there is one.
    pub score: Option<f64>,
}

/// The settings of one filter, told apart by `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum FilterSettings {
    /// `\r\n` and a lone `\r` become `\n`.
    UnixLineEndings {},
    /// Documents that are in an evaluation go.
    Decontaminate(Decontaminate),
}

impl FilterSettings {
    /// The name of the filter: its `kind`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::UnixLineEndings {} => "unix-line-endings",
            Self::Decontaminate(_) => "decontaminate",
        }
    }

    /// The filter with these settings.
    ///
    /// # Errors
    /// If a setting is out of its range, or a file that it names cannot be read.
    pub fn build(&self) -> Result<Box<dyn Filter>, FilterError> {
        Ok(match self {
            Self::UnixLineEndings {} => Box::new(LineEndings::Unix),
            Self::Decontaminate(settings) => Box::new(settings.build()?),
        })
    }
}

/// Why a filter cannot be made from its settings.
#[derive(Debug, thiserror::Error)]
#[error("filter {filter}: {problem}")]
pub struct FilterError {
    /// The filter's name.
    pub filter: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}
