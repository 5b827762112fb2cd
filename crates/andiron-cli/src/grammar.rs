//! Constrained output, on the command line.

use std::fs;

use andiron_models::generate::{Constraint, Grammar};
use andiron_pipelines::TextProcessor;
use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use crate::exit::Usage;

/// The grammar that constrains the output, on the command line.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Constrained output (tokens that would violate it are masked)")]
#[group(id = "grammar", multiple = false)]
pub struct ConstraintArgs {
    /// Output exactly one of these texts; repeat the option for each
    #[arg(long, value_name = "TEXT")]
    choice: Vec<String>,
    /// Output a text that this regular expression matches as a whole
    #[arg(long, value_name = "PATTERN")]
    regex: Option<String>,
    /// Output JSON that is valid for this JSON schema; `@FILE` reads the schema from a file
    #[arg(long, value_name = "JSON|@FILE")]
    json_schema: Option<String>,
}

impl ConstraintArgs {
    /// The grammar, if one is given.
    ///
    /// # Errors
    /// If a schema cannot be read or is not JSON.
    pub fn grammar(&self) -> anyhow::Result<Option<Grammar>> {
        Ok(match (&self.regex, &self.json_schema) {
            (Some(pattern), _) => Some(Grammar::Regex(pattern.clone())),
            (None, Some(schema)) => Some(Grammar::JsonSchema(read_schema(schema)?)),
            (None, None) if self.choice.is_empty() => None,
            (None, None) => Some(Grammar::Choice(self.choice.clone())),
        })
    }
}

/// Compiles the grammar, if there is one.
///
/// # Errors
/// If there is no tokenizer, or the grammar is invalid.
pub fn constraint(text: &TextProcessor, grammar: Option<Grammar>) -> anyhow::Result<Option<Constraint>> {
    Ok(grammar.map(|grammar| text.constraint(grammar)).transpose()?)
}

fn read_schema(given: &str) -> anyhow::Result<Value> {
    let text = match given.strip_prefix('@') {
        Some(path) => {
            &fs::read_to_string(path).with_context(|| format!("cannot read the JSON schema {path}"))?
        }
        None => given,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str(text).map_err(|error| Usage(format!("--json-schema is not JSON: {error}")).into())
}
