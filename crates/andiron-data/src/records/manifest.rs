//! The manifest of a record dataset.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::shard::DatasetError;

pub(super) const FORMAT: &str = "andiron-records";
pub(super) const VERSION: u32 = 1;

const NAME_LIMIT: usize = 64;

/// The content of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordManifest {
    /// Always `andiron-records`.
    pub format: String,
    /// The version of the layout, 1.
    pub version: u32,
    /// Number of records.
    pub records: u64,
    /// What the records were made from: whatever their maker needs to know whether they are still right.
    pub settings: Value,
    /// The columns, in the order in which the writer was given them.
    pub columns: Vec<ColumnEntry>,
}

/// One column in a [`RecordManifest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnEntry {
    /// Its name, also of its files.
    pub name: String,
    /// What it holds.
    pub holds: ColumnType,
    /// Values in all records.
    pub values: u64,
    /// The BLAKE3 hash of the file of values.
    pub values_blake3: String,
    /// The BLAKE3 hash of the file of offsets.
    pub offsets_blake3: String,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Token ids, class ids, positions: `u32`.
    Ids,
    /// Numbers: `f32`.
    Numbers,
}

impl RecordManifest {
    /// The bytes of `manifest.json`.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a manifest holds nothing that JSON cannot say")
    }

    /// The BLAKE3 hash of `manifest.json` in hexadecimal. It covers the hashes of all files and so identifies the content of
    /// the dataset.
    pub fn fingerprint(&self) -> String {
        blake3::hash(&self.to_json()).to_hex().to_string()
    }
}

impl ColumnType {
    /// Name of the file with the values of a column.
    pub(super) fn values_file(self, column: &str) -> String {
        match self {
            Self::Ids => format!("{column}.u32"),
            Self::Numbers => format!("{column}.f32"),
        }
    }
}

/// Name of the file with the offsets of a column.
pub(super) fn offsets_file(column: &str) -> String {
    format!("{column}.offsets")
}

/// Checks that names can name files, and differ.
pub(super) fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), DatasetError> {
    let mut seen = HashSet::new();
    let fits = |name: &str| {
        (1..=NAME_LIMIT).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    for name in names {
        if !fits(name) || !seen.insert(name) {
            return Err(DatasetError::ColumnName { name: name.chars().take(NAME_LIMIT + 1).collect() });
        }
    }
    Ok(())
}
