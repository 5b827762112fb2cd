//! JSON files, read and written whole.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::hf_config::ConfigError;
use crate::weights::SaveError;

/// Whether an optional file exists; one that cannot be examined is an error, not absent.
pub(crate) fn is_there(path: &Path) -> Result<bool, ConfigError> {
    andiron_files::is_there(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// Reads a JSON file; `what` names its content in errors.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<T, ConfigError> {
    let text =
        andiron_files::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let path = || path.to_owned();
    serde_json::from_slice(andiron_files::without_mark(&text)).map_err(|source| ConfigError::Json {
        path: path(),
        what,
        source,
    })
}

/// Writes a JSON file atomically.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), SaveError> {
    let mut text = serde_json::to_string_pretty(value).expect("plain data serializes");
    text.push('\n');
    andiron_files::replace(path, text.as_bytes())
        .map_err(|source| SaveError::Io { path: path.to_owned(), source })
}
