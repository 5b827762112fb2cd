//! From a TOML file to a [`PrepareConfig`], and back.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::PrepareConfig;
use crate::clean::FilterError;

/// The longest settings file read, in bytes.
const LIMIT: u64 = 4 << 20;

/// Why a file of settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown or missing key, or a value of another type.
    #[error("{origin}:{line}: {problem}")]
    Toml {
        /// The file.
        origin: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong, with the valid names.
        problem: String,
    },
    /// A value cannot be used.
    #[error("{key}: {problem}")]
    Value {
        /// The setting.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A filter cannot be made.
    #[error("filter {number}")]
    Filter {
        /// Its place in the chain, counted from 1.
        number: usize,
        /// Why.
        source: FilterError,
    },
}

impl PrepareConfig {
    /// Reads a TOML file and validates it.
    ///
    /// # Errors
    /// If the file cannot be read, is not TOML, has an unknown or missing key, or a value is invalid.
    pub fn load(path: &Path) -> Result<Self, PrepareConfigError> {
        let read = |source| PrepareConfigError::Read { path: path.to_owned(), source };
        let bytes = andiron_files::read_bounded(path, LIMIT).map_err(read)?;
        let text = String::from_utf8(bytes)
            .map_err(|error| read(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
        from_toml(&text, &path.display().to_string())
    }

    /// The same as [`load`](Self::load) for TOML that is already in memory.
    ///
    /// # Errors
    /// As for [`load`](Self::load), except for reading.
    pub fn parse(text: &str) -> Result<Self, PrepareConfigError> {
        from_toml(text, "the settings")
    }

    /// The settings as TOML, defaults included.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("settings are plain data")
    }

    /// Checks what the types do not say.
    ///
    /// # Errors
    /// [`PrepareConfigError::Value`] and [`PrepareConfigError::Filter`].
    pub fn validate(&self) -> Result<(), PrepareConfigError> {
        let value =
            |key: &str, problem: String| Err(PrepareConfigError::Value { key: key.to_owned(), problem });
        if self.sources.is_empty() {
            return value("source", "there is none; add a [[source]] with `paths`".to_owned());
        }
        let mut names = HashSet::new();
        for source in &self.sources {
            if source.paths.is_empty() {
                return value("source.paths", format!("source {:?} has no paths", source.name));
            }
            if !names.insert(&source.name) {
                return value("source.name", format!("two sources are called {:?}", source.name));
            }
        }
        let fraction = self.split.fraction;
        if !(0.0..1.0).contains(&fraction) {
            return value("split.fraction", format!("{fraction} is not at least 0 and below 1"));
        }
        let weighted = self.sources.iter().filter(|source| source.weight.is_some()).count();
        if weighted > 0 && weighted < self.sources.len() {
            let without = self.sources.iter().find(|source| source.weight.is_none());
            let name = without.map_or("", |source| &source.name);
            return value("source.weight", format!("source {name:?} has none, but others have one"));
        }
        for source in &self.sources {
            if source.weight.is_some_and(|weight| !(weight.is_finite() && weight > 0.0)) {
                return value("source.weight", format!("that of {:?} is not above 0", source.name));
            }
        }
        let max_repeat = self.mixture.max_repeat;
        if !(max_repeat.is_finite() && max_repeat > 0.0) {
            return value("mixture.max_repeat", format!("{max_repeat} is not above 0"));
        }
        if weighted == 0 && self.mixture.tokens.is_some() {
            return value("mixture.tokens", "it goes with a `weight` for each source".to_owned());
        }
        if let Some(minhash) = &self.dedup.minhash {
            minhash.validate().or_else(|error| value("dedup", error.to_string()))?;
        }
        if let Some(paragraphs) = &self.dedup.paragraphs {
            paragraphs.validate().or_else(|error| value("dedup.paragraphs", error.to_string()))?;
        }
        if self.shards.tokens_per_shard == 0 {
            return value("shards.tokens_per_shard", "it must be at least 1".to_owned());
        }
        for (number, filter) in (1..).zip(&self.filters) {
            filter.build().map_err(|source| PrepareConfigError::Filter { number, source })?;
        }
        Ok(())
    }
}

fn from_toml(text: &str, origin: &str) -> Result<PrepareConfig, PrepareConfigError> {
    // Some editors put a byte order mark in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let config: PrepareConfig = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(text.len(), |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        PrepareConfigError::Toml { origin: origin.to_owned(), line, problem: error.message().to_owned() }
    })?;
    config.validate()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "[[source]]\npaths = [\"a.txt\"]\n[tokenizer]\nkind = \"char\"\n";

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let error = PrepareConfig::parse(text).unwrap_err();
        let source = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        assert_eq!(format!("{error}{source}"), expected);
    }

    #[test]
    fn settings_written_out_read_back_the_same() {
        let mut config = PrepareConfig::parse(LEAST).unwrap();
        assert_eq!(PrepareConfig::parse(&config.to_toml()).unwrap(), config);
        let filter = toml::from_str("kind = \"unix-line-endings\"").unwrap();
        config.filters = vec![filter];
        config.output = Some("out".into());
        assert_eq!(PrepareConfig::parse(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn a_trained_vocabulary_ends_documents_unless_told_otherwise() {
        let text = LEAST.replace("\"char\"", "\"bpe\"\nvocab_size = 300");
        let config = PrepareConfig::parse(&text).unwrap();
        let expected = andiron_data::tokenizer::BpeOptions::new(300);
        assert_eq!(config.tokenizer, super::super::TokenizerChoice::Bpe(expected));
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line_and_the_valid_ones() {
        check_error(
            &format!("{LEAST}[split]\nfracton = 0.1\n"),
            "the settings:6: unknown field `fracton`, expected `fraction` or `by`",
        );
        let error = PrepareConfig::parse(&format!("{LEAST}[[filter]]\nkind = \"shout\"\n")).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("the settings:6: unknown variant `shout`, expected"), "{text}");
        assert!(text.contains("unix-line-endings"), "{text}");
        let misspelt = format!("{LEAST}[[filter]]\nkind = \"unix-line-endings\"\nmax = 1\n");
        check_error(&misspelt, "the settings:5: unknown field `max`, there are no fields");
        check_error("[tokenizer]\nkind = \"char\"\n", "the settings:1: missing field `source`");
    }

    #[test]
    fn impossible_values_are_named() {
        check_error(&LEAST.replace("[\"a.txt\"]", "[]"), "source.paths: source \"text\" has no paths");
        check_error(
            &format!("{LEAST}[[source]]\npaths = [\"b\"]\n"),
            "source.name: two sources are called \"text\"",
        );
        check_error(
            &format!("{LEAST}[split]\nfraction = 1.5\n"),
            "split.fraction: 1.5 is not at least 0 and below 1",
        );
        let second = "[[source]]\nname = \"b\"\npaths = [\"b\"]\nweight = 1.0\n";
        let weighted = |weight: &str| format!("{second}weight = {weight}\n").replace("weight = 1.0\n", "");
        check_error(
            &format!("{LEAST}{second}"),
            "source.weight: source \"text\" has none, but others have one",
        );
        check_error(
            &format!("{}[tokenizer]\nkind = \"char\"\n", weighted("-1.0")),
            "source.weight: that of \"b\" is not above 0",
        );
        check_error(
            &format!("{LEAST}[mixture]\ntokens = 5\n"),
            "mixture.tokens: it goes with a `weight` for each source",
        );
    }
}
