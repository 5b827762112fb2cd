//! What a generated text may be, on the command line and in rows.

use std::cell::OnceCell;
use std::fs;

use andiron_data::tokenizer::Tokenizer;
use andiron_models::generate::{Constraint, Grammar, Vocabulary};
use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use crate::exit::Usage;

/// What the text may be, on the command line.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Constraint")]
#[group(id = "grammar", multiple = false)]
pub struct Holding {
    /// Only this text, or another one so given; may be given several times
    #[arg(long, value_name = "TEXT")]
    choice: Vec<String>,
    /// Only a text that this regular expression matches from beginning to end
    #[arg(long, value_name = "PATTERN")]
    regex: Option<String>,
    /// Only JSON that fits this JSON schema; `@FILE` reads it from a file
    #[arg(long, value_name = "JSON|@FILE")]
    json_schema: Option<String>,
}

impl Holding {
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

/// Makes constraints for the texts of one tokenizer.
#[derive(Debug, Default)]
pub struct Constraints {
    /// For texts of which nothing else is said.
    usual: Option<Constraint>,
    /// Made when first needed.
    vocabulary: OnceCell<Vocabulary>,
}

impl Constraints {
    /// Holds texts to `grammar` unless something else is said.
    ///
    /// # Errors
    /// If there is a grammar but no tokenizer, or the grammar has a mistake.
    pub fn new(tokenizer: Option<&Tokenizer>, grammar: Option<Grammar>) -> anyhow::Result<Self> {
        let mut constraints = Self::default();
        constraints.usual = grammar.map(|grammar| constraints.make(tokenizer, grammar)).transpose()?;
        Ok(constraints)
    }

    /// What texts are held to unless something else is said.
    pub fn usual(&self) -> Option<Constraint> {
        self.usual.clone()
    }

    /// Holds a text to `grammar`.
    ///
    /// # Errors
    /// If there is no tokenizer, or the grammar has a mistake.
    pub fn make(&self, tokenizer: Option<&Tokenizer>, grammar: Grammar) -> anyhow::Result<Constraint> {
        let vocabulary = match self.vocabulary.get() {
            Some(vocabulary) => vocabulary,
            None => {
                let spellings = tokenizer
                    .context("a choice, regex or JSON schema needs a tokenizer, which the model directory does not have")?
                    .spellings()?;
                let vocabulary = Vocabulary::new(&spellings.tokens, spellings.drops_first_space)?;
                self.vocabulary.get_or_init(|| vocabulary)
            }
        };
        Ok(Constraint::new(vocabulary, grammar)?)
    }
}
