//! The files in which a tokenizer lies on the disk.

use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use super::error::TokenizerError;
use super::marian::{self, MarianFiles};
use super::special::SpecialTokens;
use crate::files::{read_bounded, replace};

pub(super) const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";
const TEMPLATE: &str = "chat_template.jinja";

const TOKENIZER_LIMIT: u64 = 128 << 20;
const OTHER_LIMIT: u64 = 16 << 20;

/// The content of a tokenizer's files, as read or as they will be written.
#[derive(Clone)]
pub(super) struct Files {
    pub(super) tokenizer: Vec<u8>,
    /// The files that stand in the place of `tokenizer.json`, which is made of them.
    pub(super) marian: Option<MarianFiles>,
    config: Option<(Vec<u8>, Map<String, Value>)>,
    special: Option<(Vec<u8>, Map<String, Value>)>,
    template: Option<String>,
    assigned: Option<SpecialTokens>,
}

impl Files {
    pub(super) fn of_json(tokenizer: Vec<u8>) -> Self {
        Self { tokenizer, marian: None, config: None, special: None, template: None, assigned: None }
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
        let class = if self.marian.is_some() { "MarianTokenizer" } else { "PreTrainedTokenizerFast" };
        self.config.as_ref().map_or_else(|| config_of(class, special), |(_, config)| config.clone())
    }

    pub(super) fn read(path: &Path) -> Result<Self, TokenizerError> {
        let file = if path.is_dir() { path.join(TOKENIZER) } else { path.to_owned() };
        let dir = file.parent().filter(|_| file.file_name().is_some_and(|name| name == TOKENIZER));
        let Some(dir) = dir else { return Ok(Self::of_json(read_whole(&file)?)) };
        let mut files = Self::of_json(Vec::new());
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
        if file.exists() || !MarianFiles::are_in(dir) {
            files.tokenizer = read_whole(&file)?;
            return Ok(files);
        }
        if files
            .config
            .as_ref()
            .is_some_and(|(_, config)| config.get("separate_vocabs") == Some(&Value::Bool(true)))
        {
            let message = "separate_vocabs is true: two vocabularies are not supported".to_owned();
            return Err(TokenizerError::VocabularyFile { file: CONFIG, message });
        }
        files.marian = Some(MarianFiles {
            vocabulary: read_whole(&dir.join(marian::VOCABULARY))?,
            source: read_whole(&dir.join(marian::SOURCE))?,
            target: read_whole(&dir.join(marian::TARGET))?,
            is_target: false,
        });
        if let Some(marian) = &files.marian {
            files.tokenizer = marian.vocabulary_json(&files.special_tokens())?;
        }
        Ok(files)
    }

    /// The same for the texts that are written, if they are another's.
    pub(super) fn for_targets(&self) -> Option<Self> {
        let marian = MarianFiles { is_target: true, ..self.marian.clone()? };
        Some(Self { marian: Some(marian), ..self.clone() })
    }

    /// The hash of all that decides how a text is taken apart.
    pub(super) fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.tokenizer);
        for part in self.marian.iter().flat_map(|marian| [&marian.source, &marian.target]) {
            hasher.update(part);
        }
        hasher.finalize().to_hex().to_string()
    }

    pub(super) fn special_tokens(&self) -> SpecialTokens {
        if let Some(special) = &self.assigned {
            return special.clone();
        }
        let mut special = SpecialTokens::default();
        for (_, json) in [&self.config, &self.special].into_iter().flatten() {
            special.fill_from(json);
        }
        if self.marian.is_some() {
            special.fill_from(&marian::default_tokens().to_map());
        }
        special
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
        match &self.marian {
            Some(marian) => {
                write(marian::VOCABULARY, &marian.vocabulary)?;
                write(marian::SOURCE, &marian.source)?;
                write(marian::TARGET, &marian.target)?;
            }
            None => write(TOKENIZER, &self.tokenizer)?,
        }
        match &self.config {
            Some((bytes, _)) => write(CONFIG, bytes)?,
            None => write(CONFIG, &pretty(self.config(special)))?,
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

/// For a class of `transformers`; `PreTrainedTokenizerFast` is what every version loads from `tokenizer.json` alone.
fn config_of(class: &str, special: &SpecialTokens) -> Map<String, Value> {
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), class.into());
    // Else some versions drop spaces before punctuation when they decode.
    config.insert("clean_up_tokenization_spaces".into(), false.into());
    config.append(&mut special.to_map());
    config
}

fn pretty(map: Map<String, Value>) -> Vec<u8> {
    format!("{:#}\n", Value::Object(map)).into_bytes()
}

fn read_whole(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    read_bounded(path, TOKENIZER_LIMIT)
        .map_err(|source| TokenizerError::Read { path: path.to_owned(), source })
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
