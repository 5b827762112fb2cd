//! From a TOML file and `a.b=c` overrides to a [`TrainConfig`], and back.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use super::{ConfigError, TrainConfig, foreign};

impl TrainConfig {
    /// Reads the TOML file at `path`, applies `overrides` in order and validates the result.
    ///
    /// An override is `key=value`, where the key is a dotted path such as `optimizer.lr`. The value is read as
    /// TOML; what is not TOML is taken as a string, so `run.output=runs/a` needs no quotes. `run.steps` takes the place of
    /// `run.epochs`, and the reverse.
    ///
    /// # Errors
    /// If the file cannot be read, is not TOML, has an unknown or missing key, or a value is invalid.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, overrides).map_err(|error| match error {
            ConfigError::Toml { hint, source, .. } => {
                ConfigError::Toml { origin: path.display().to_string(), hint, source }
            }
            other => other,
        })
    }

    /// The same as [`load`](Self::load) for TOML that is already in memory.
    ///
    /// # Errors
    /// As for [`load`](Self::load), except for reading.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let mut config: Self = if overrides.is_empty() {
            // Straight from the text, so that errors show the line.
            toml::from_str(without_mark(text)).map_err(not_ours)?
        } else {
            Self::deserialize(tree(text, overrides)?).map_err(not_ours)?
        };
        config.optimizer.resolve();
        config.validate()?;
        Ok(config)
    }

    /// The whole configuration as TOML, defaults included.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration is plain data")
    }
}

/// TOML with overrides, whatever its keys.
pub(super) fn tree(text: &str, overrides: &[String]) -> Result<Table, ConfigError> {
    let mut tree: Table = toml::from_str(without_mark(text)).map_err(not_ours)?;
    overrides.iter().try_for_each(|text| apply(&mut tree, text))?;
    Ok(tree)
}

/// Some editors put a byte order mark in front.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn not_ours(source: toml::de::Error) -> ConfigError {
    let hint = foreign::hint(source.message()).map(|hint| format!(": {hint}")).unwrap_or_default();
    ConfigError::Toml { origin: "the configuration".to_owned(), hint, source: Box::new(source) }
}

fn apply(tree: &mut Table, text: &str) -> Result<(), ConfigError> {
    let malformed = || ConfigError::Override { text: text.to_owned() };
    let (path, value) = text.split_once('=').ok_or_else(malformed)?;
    let mut keys = path.trim().split('.');
    let last = keys.next_back().filter(|key| !key.is_empty()).ok_or_else(malformed)?;
    let mut table = tree;
    for key in keys {
        if key.is_empty() {
            return Err(malformed());
        }
        let entry = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
        table = entry.as_table_mut().ok_or_else(malformed)?;
    }
    match path.trim() {
        "run.steps" => table.remove("epochs"),
        "run.epochs" => table.remove("steps"),
        _ => None,
    };
    table.insert(last.to_owned(), read_value(value.trim()));
    Ok(())
}

fn read_value(text: &str) -> Value {
    let parsed: Option<Table> = toml::from_str(&format!("value = {text}")).ok();
    // More than one key means that the text held a line break and a key of its own.
    match parsed {
        Some(mut table) if table.len() == 1 => {
            table.remove("value").unwrap_or_else(|| Value::String(text.to_owned()))
        }
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::testing::CONFIG;

    fn with(overrides: &[&str]) -> Result<TrainConfig, ConfigError> {
        TrainConfig::parse(CONFIG, &overrides.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[track_caller]
    fn check_error(overrides: &[&str], expected: &str) {
        let error = with(overrides).unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let config = with(&["model.resid_pdrop=0.1", "optimizer.lr=3e-2", "data.valid=v"]).unwrap();
        assert_eq!(TrainConfig::parse(&config.to_toml(), &[]).unwrap(), config);
        let marked = format!("\u{feff}{}", config.to_toml());
        assert_eq!(TrainConfig::parse(&marked, &[]).unwrap(), config);
    }

    #[test]
    fn overrides_are_toml_or_strings() {
        let config = with(&["run.steps=7", "run.output=runs/a b", "data.train=\"quoted\""]).unwrap();
        assert_eq!(config.run.steps, Some(7));
        assert_eq!(config.run.output, PathBuf::from("runs/a b"));
        assert_eq!(config.data.train, PathBuf::from("quoted"));
        let later = with(&["run.steps=7", "run.steps=8"]).unwrap();
        assert_eq!(later.run.steps, Some(8));
    }

    #[test]
    fn one_length_of_a_run_takes_the_place_of_the_other() {
        let config = with(&["data.order=epochs", "run.epochs=2.5"]).unwrap();
        assert_eq!((config.run.steps, config.run.epochs), (None, Some(2.5)));
        let back = with(&["run.epochs=2.5", "run.steps=9"]).unwrap();
        assert_eq!((back.run.steps, back.run.epochs), (Some(9), None));
        let both =
            TrainConfig::parse(&CONFIG.replace("steps = 20", "steps = 20\nepochs = 1.0"), &[]).unwrap_err();
        assert!(both.to_string().contains("run.epochs is 1"), "{both}");
    }

    #[test]
    fn malformed_overrides_are_named() {
        check_error(&["run.steps"], "run.steps");
        check_error(&["=3"], "=3");
        check_error(&["run..steps=3"], "run..steps=3");
        check_error(&["run.steps.deeper=3"], "run.steps.deeper=3");
    }

    #[test]
    fn unknown_and_missing_keys_are_named() {
        check_error(&["optimizer.learning_rate=3"], "learning_rate");
        check_error(&["model.sliding_window=3"], "sliding_window");
        check_error(&["model.model_type=abacus"], "abacus");
        let without = CONFIG.replace("steps = 20\n", "");
        let error = TrainConfig::parse(&without, &[]).unwrap_err();
        assert!(error.to_string().contains("set run.steps"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = TrainConfig::load(Path::new("no/such.toml"), &[]).unwrap_err();
        assert!(error.to_string().contains("no/such.toml"), "{error}");
    }
}
