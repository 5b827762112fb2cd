//! The tokenizer of a run: the files of a directory, or what a GGUF file says.

use std::io;
use std::path::{Path, PathBuf};

use andiron_data::tokenizer::{Tokenizer, TokenizerError};
use andiron_models::ModelFiles;
use andiron_models::weights::gguf;

use crate::base::Base;
use crate::files::{self, FileError};
use crate::trainer::TrainError;

const MAX_TOKENIZER: u64 = 1 << 30;

/// Where the tokenizer of a run comes from.
#[derive(Clone, Debug)]
pub enum TokenizerSource {
    /// A directory with the files of a tokenizer, which are copied into every saved model.
    Directory(PathBuf),
    /// A GGUF file, and the tokenizer in it, which is saved with every model.
    Gguf(PathBuf, Box<Tokenizer>),
}

impl TokenizerSource {
    /// The tokenizer in the directory `named`, or else that of the model to begin with; `None` if neither has one.
    pub(crate) fn of(named: Option<&Path>, base: &Base) -> Result<Option<Self>, TrainError> {
        if let Some(path) = named {
            return Ok(Some(Self::Directory(path.to_owned())));
        }
        let Some(path) = &base.directory else { return Ok(None) };
        let failed = |source| TrainError::Init { path: path.clone(), source: Box::new(source) };
        let files = ModelFiles::open(path).map_err(failed)?;
        if Tokenizer::is_in(files.folder()) {
            return Ok(Some(Self::Directory(files.folder().to_owned())));
        }
        let Some(file) = files.gguf().filter(|file| file.metadata("tokenizer.ggml.tokens").is_some()) else {
            return Ok(None);
        };
        let in_file = |source| TrainError::GgufTokenizer { path: path.clone(), source: Box::new(source) };
        let json = gguf::tokenizer_json(file).map_err(in_file)?.to_string();
        let config = gguf::tokenizer_config_json(file).map_err(in_file)?;
        let tokenizer = Tokenizer::from_contents(json.as_bytes(), config)
            .map_err(|source| TrainError::Tokenizer { path: path.clone(), source: Box::new(source) })?;
        Ok(Some(Self::Gguf(path.clone(), Box::new(tokenizer))))
    }

    /// The directory or the file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Gguf(path, _) => path,
        }
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(&self) -> Result<Tokenizer, TokenizerError> {
        match self {
            Self::Directory(path) => Tokenizer::load(path),
            Self::Gguf(_, tokenizer) => Ok((**tokenizer).clone()),
        }
    }

    /// Checksum of what defines its ids.
    ///
    /// # Errors
    /// If a directory has no tokenizer.
    pub(crate) fn checksum(&self) -> Result<String, FileError> {
        let dir = match self {
            Self::Directory(dir) => dir,
            Self::Gguf(_, tokenizer) => return Ok(blake3::hash(tokenizer.json()).to_hex().to_string()),
        };
        let mut hasher = blake3::Hasher::new();
        let unreadable = |error| match error {
            TokenizerError::Read { path, source } => FileError { action: "read", path, source },
            error => FileError { action: "read", path: dir.clone(), source: io::Error::other(error) },
        };
        for name in Tokenizer::vocabulary_files(dir).map_err(unreadable)? {
            hasher.update(&files::read_bounded(&dir.join(name), MAX_TOKENIZER)?);
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Its files with their names, the chat template among them.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(crate) fn files(&self) -> Result<Vec<(&'static str, Vec<u8>)>, FileError> {
        let dir = match self {
            Self::Directory(dir) => dir,
            Self::Gguf(_, tokenizer) => return Ok(tokenizer.contents()),
        };
        let mut found = Vec::new();
        for name in Tokenizer::FILES {
            let file = dir.join(name);
            if files::is_there(&file)? {
                found.push((*name, files::read_bounded(&file, MAX_TOKENIZER)?));
            }
        }
        Ok(found)
    }
}
