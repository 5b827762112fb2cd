//! The files in which a tokenizer lies on the disk.

use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use super::error::TokenizerError;
use super::special::SpecialTokens;
use crate::files::{read_bounded, replace};

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";
const TEMPLATE: &str = "chat_template.jinja";

const TOKENIZER_LIMIT: u64 = 128 << 20;
const OTHER_LIMIT: u64 = 16 << 20;

/// The content of a tokenizer's files, as read or as they will be written.
pub(super) struct Files {
    pub(super) tokenizer: Vec<u8>,
    config: Option<(Vec<u8>, Map<String, Value>)>,
    special: Option<(Vec<u8>, Map<String, Value>)>,
    template: Option<String>,
    assigned: Option<SpecialTokens>,
}

impl Files {
    pub(super) fn of_json(tokenizer: Vec<u8>) -> Self {
        Self { tokenizer, config: None, special: None, template: None, assigned: None }
    }

    /// The files of a tokenizer made here, whose roles are known.
    pub(super) fn made(tokenizer: Vec<u8>, special: SpecialTokens) -> Self {
        Self { assigned: Some(special), ..Self::of_json(tokenizer) }
    }

    pub(super) fn with_config(mut self, config: Map<String, Value>) -> Self {
        self.config = Some((pretty(config.clone()), config));
        self
    }

    pub(super) fn config(&self, special: &SpecialTokens) -> Map<String, Value> {
        self.config.as_ref().map_or_else(|| config_of(special), |(_, config)| config.clone())
    }

    pub(super) fn read(path: &Path) -> Result<Self, TokenizerError> {
        let (file, dir) = if path.is_dir() {
            (path.join(TOKENIZER), Some(path))
        } else {
            (path.to_owned(), path.parent().filter(|_| path.file_name().is_some_and(|n| n == TOKENIZER)))
        };
        let tokenizer = read_bounded(&file, TOKENIZER_LIMIT)
            .map_err(|source| TokenizerError::Read { path: file.clone(), source })?;
        let mut files = Self::of_json(tokenizer);
        if let Some(dir) = dir {
            files.config = read_object(dir, CONFIG)?;
            files.special = read_object(dir, SPECIAL)?;
            files.template = read_optional(&dir.join(TEMPLATE))?
                .map(|bytes| {
                    let path = dir.join(TEMPLATE);
                    String::from_utf8(bytes).map_err(|e| TokenizerError::Read {
                        path,
                        source: io::Error::new(io::ErrorKind::InvalidData, e),
                    })
                })
                .transpose()?;
        }
        Ok(files)
    }

    pub(super) fn special_tokens(&self) -> Result<SpecialTokens, TokenizerError> {
        if let Some(special) = &self.assigned {
            return Ok(special.clone());
        }
        let mut special = SpecialTokens::default();
        for (_, json) in [&self.config, &self.special].into_iter().flatten() {
            special.fill_from(json);
        }
        Ok(special)
    }

    pub(super) fn chat_template(&self) -> Option<&str> {
        let inline = || self.config.as_ref()?.1.get("chat_template")?.as_str();
        self.template.as_deref().or_else(inline)
    }

    pub(super) fn write(&self, dir: &Path, special: &SpecialTokens) -> Result<(), TokenizerError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| TokenizerError::Write { path, source }
        };
        std::fs::create_dir_all(dir).map_err(failed(dir))?;
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            replace(&path, bytes).map_err(failed(&path))
        };
        write(TOKENIZER, &self.tokenizer)?;
        match &self.config {
            Some((bytes, _)) => write(CONFIG, bytes)?,
            None => write(CONFIG, &pretty(config_of(special)))?,
        }
        let map = special.to_map();
        match &self.special {
            Some((bytes, _)) => write(SPECIAL, bytes)?,
            None if !map.is_empty() => write(SPECIAL, &pretty(map))?,
            None => {}
        }
        match &self.template {
            Some(template) => write(TEMPLATE, template.as_bytes()),
            None => Ok(()),
        }
    }
}

/// The class that every version of `transformers` loads from `tokenizer.json` alone.
fn config_of(special: &SpecialTokens) -> Map<String, Value> {
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    // Else some versions drop spaces before punctuation when they decode.
    config.insert("clean_up_tokenization_spaces".into(), false.into());
    config.append(&mut special.to_map());
    config
}

fn pretty(map: Map<String, Value>) -> Vec<u8> {
    format!("{:#}\n", Value::Object(map)).into_bytes()
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    match read_bounded(path, OTHER_LIMIT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Read { path: path.to_owned(), source }),
    }
}

type JsonFile = (Vec<u8>, Map<String, Value>);

fn read_object(dir: &Path, name: &'static str) -> Result<Option<JsonFile>, TokenizerError> {
    let Some(bytes) = read_optional(&dir.join(name))? else { return Ok(None) };
    let json =
        serde_json::from_slice(&bytes).map_err(|source| TokenizerError::Json { file: name, source })?;
    Ok(Some((bytes, json)))
}
