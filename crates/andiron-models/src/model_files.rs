//! The files of a model: a directory in the Hugging Face layout, or one GGUF file.
//!
//! [`ModelFiles`] reads `config.json`, or the header of the GGUF file, once. The choice of a task, the
//! [`Bundle`](crate::Bundle) and the tokenizer of a GGUF file all use it.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde_json::{Map, Value};

use crate::any::AnyConfig;
use crate::bundle::FamilyConfig;
use crate::encoder::EmbedPipeline;
use crate::generate::generation_config::WHAT as GENERATION_CONFIG;
use crate::hf_config::ConfigError;
use crate::json_file::{is_there, read_json};
use crate::key_rules::ConfigFile;
use crate::weights::gguf::{self, GgufFile, GgufWeights};
use crate::weights::{self, FileError, LoadError, TensorSource};

/// Name of the file with a model's configuration.
pub(crate) const CONFIG: &str = "config.json";
/// Name of the file with a model's generation config.
pub(crate) const GENERATION: &str = "generation_config.json";

/// Name of [`CONFIG`]'s content in errors.
const MODEL_CONFIG: &str = "model config";

/// A model directory or a GGUF file whose configuration has been read.
#[derive(Debug)]
pub struct ModelFiles {
    path: PathBuf,
    /// Where a directory has `config.json`, weights and tokenizer: itself, or a folder that `modules.json` names.
    folder: PathBuf,
    /// The object in `config.json`, or its equivalent from GGUF metadata.
    config: Map<String, Value>,
    gguf: Option<GgufFile>,
    /// The parsed configuration, once it was asked for.
    read: OnceCell<ConfigFile<AnyConfig>>,
}

impl ModelFiles {
    /// Reads the configuration of the model directory `path`, or the header of a file called `.gguf`.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
        let is_directory = andiron_files::is_directory(path).map_err(unreadable)?;
        let mut folder = path.to_owned();
        let (gguf, config) = if is_directory {
            if !is_there(&path.join(CONFIG))?
                && let Some(named) = EmbedPipeline::transformer_folder(path)?
            {
                folder = named;
            }
            (None, read_config(&folder.join(CONFIG))?)
        } else if gguf::is_gguf(path) {
            let file = GgufFile::open(path).map_err(FileError::from)?;
            let config = gguf::config_fields(&file).map_err(FileError::from)?;
            (Some(file), config)
        } else {
            return Err(LoadError::NotADirectory { path: path.to_owned() });
        };
        Ok(Self { path: path.to_owned(), folder, config, gguf, read: OnceCell::new() })
    }

    /// The directory, or the GGUF file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a directory has `config.json`, weights and tokenizer: itself, or, as the first versions of
    /// sentence-transformers wrote it, the folder of the Transformer in `modules.json`. A GGUF file itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The GGUF file, if it is one.
    pub fn gguf(&self) -> Option<&GgufFile> {
        self.gguf.as_ref()
    }

    /// The configuration of any family, and its unknown keys.
    ///
    /// # Errors
    /// If it does not describe a model that can be built here.
    pub fn config(&self) -> Result<&ConfigFile<AnyConfig>, LoadError> {
        if let Some(read) = self.read.get() {
            return Ok(read);
        }
        let read = self.with_gguf_keys(AnyConfig::from_object(self.config.clone(), &self.config_path())?)?;
        Ok(self.read.get_or_init(|| read))
    }

    /// The configuration as one of family `C`.
    pub(crate) fn config_of<C: FamilyConfig>(&self) -> Result<ConfigFile<C>, LoadError> {
        self.with_gguf_keys(C::from_object(self.config.clone(), &self.config_path())?)
    }

    fn with_gguf_keys<C>(&self, mut read: ConfigFile<C>) -> Result<ConfigFile<C>, LoadError> {
        if let Some(file) = &self.gguf {
            read.unknown_keys.extend(gguf::unknown_keys(file).map_err(FileError::from)?);
        }
        Ok(read)
    }

    /// The raw configuration.
    pub(crate) fn config_fields(&self) -> &Map<String, Value> {
        &self.config
    }

    /// Path of the configuration.
    pub(crate) fn config_path(&self) -> PathBuf {
        match self.gguf {
            Some(_) => self.path.clone(),
            None => self.folder.join(CONFIG),
        }
    }

    /// Path of `generation_config.json`.
    pub(crate) fn generation_path(&self) -> PathBuf {
        self.folder.join(GENERATION)
    }

    /// Reads `generation_config.json`, if the directory has it.
    pub(crate) fn generation_fields(&self) -> Result<Option<Map<String, Value>>, ConfigError> {
        let path = self.generation_path();
        if self.gguf.is_some() || !is_there(&path)? {
            return Ok(None);
        }
        read_json(&path, GENERATION_CONFIG).map(Some)
    }

    /// Opens the weight files.
    pub(crate) fn weights(&mut self) -> Result<Vec<Box<dyn TensorSource + '_>>, LoadError> {
        Ok(match &mut self.gguf {
            Some(file) => vec![Box::new(GgufWeights::new(file).map_err(FileError::from)?)],
            None => weights::open(&self.folder)?
                .into_iter()
                .map(|file| Box::new(file) as Box<dyn TensorSource>)
                .collect(),
        })
    }
}

/// Reads a `config.json`.
pub(crate) fn read_config(path: &Path) -> Result<Map<String, Value>, ConfigError> {
    match read_json(path, MODEL_CONFIG)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(ConfigError::Json {
            path: path.to_owned(),
            what: MODEL_CONFIG,
            source: serde_json::Error::custom("expected a JSON object"),
        }),
    }
}
