//! Reading and writing the files of a tokenizer.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use super::error::TokenizerError;
use super::layout::Layout;
use super::marian::{self, MarianFiles};
use super::special::SpecialTokens;
use super::vocab_files;
use crate::files::{read_bounded, replace, without_mark};

pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const SPECIAL: &str = "special_tokens_map.json";
pub(super) const TEMPLATE: &str = "chat_template.jinja";
/// A folder of named templates, one file each.
const MORE_TEMPLATES: &str = "additional_chat_templates";
const TEMPLATE_EXTENSION: &str = "jinja";
const DEFAULT_TEMPLATE: &str = "default";
/// The template for conversations with tools.
const TOOL_TEMPLATE: &str = "tool_use";
/// Maximum number of files in that folder.
const MOST_TEMPLATES: usize = 64;

const TOKENIZER_LIMIT: u64 = 128 << 20;
const OTHER_LIMIT: u64 = 16 << 20;

/// The content of a tokenizer's files, as read or as they will be written.
#[derive(Clone)]
pub(super) struct Files {
    pub(super) tokenizer: Vec<u8>,
    /// Marian's files, from which `tokenizer` was built.
    pub(super) marian: Option<MarianFiles>,
    config: Option<(Vec<u8>, Map<String, Value>)>,
    special: Option<(Vec<u8>, Map<String, Value>)>,
    /// Templates stored in files, by name; `chat_template.jinja` is the default.
    templates: BTreeMap<String, String>,
    assigned: Option<SpecialTokens>,
    /// The special tokens of the tokenizer's class, used if the files do not name them.
    defaults: SpecialTokens,
    /// `model_type` of the `config.json` in the same directory.
    pub(super) model_type: Option<String>,
}

impl Files {
    pub(super) fn of_json(tokenizer: Vec<u8>) -> Self {
        Self {
            tokenizer,
            marian: None,
            config: None,
            special: None,
            templates: BTreeMap::new(),
            assigned: None,
            defaults: SpecialTokens::default(),
            model_type: None,
        }
    }

    /// The files of a tokenizer trained here, whose special tokens are known.
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

    /// The content of `tokenizer_config.json`, if it was given.
    pub(super) fn given_config(&self) -> Option<&Map<String, Value>> {
        self.config.as_ref().map(|(_, config)| config)
    }

    pub(super) fn read(path: &Path) -> Result<Self, TokenizerError> {
        let file = if path.is_dir() { path.join(TOKENIZER) } else { path.to_owned() };
        let dir = file.parent().filter(|_| file.file_name().is_some_and(|name| name == TOKENIZER));
        let Some(dir) = dir else { return Ok(Self::of_json(read_text(&file)?)) };
        let layout = Layout::of(dir)?;
        let mut files = Self::of_json(Vec::new());
        files.config = read_object(dir, CONFIG)?;
        files.special = read_object(dir, SPECIAL)?;
        files.templates = read_templates(dir)?;
        files.model_type = model_type(dir);
        match layout {
            Some(Layout::Json) => files.tokenizer = read_text(&file)?,
            Some(Layout::Marian) => {
                let marian = MarianFiles {
                    vocabulary: read_text(&dir.join(marian::VOCABULARY))?,
                    source: read_whole(&dir.join(marian::SOURCE))?,
                    target: read_whole(&dir.join(marian::TARGET))?,
                    is_target: false,
                };
                files.defaults = marian::default_tokens();
                files.tokenizer = marian.vocabulary_json(&files.special_tokens())?;
                files.marian = Some(marian);
            }
            Some(Layout::Words | Layout::Merges) => {
                let object = |json: &Option<JsonFile>| json.as_ref().map(|(_, json)| json.clone());
                let settings = [object(&files.config), object(&files.special)];
                let (special, json) =
                    vocab_files::tokenizer_json(dir, [settings[0].as_ref(), settings[1].as_ref()])?;
                files.tokenizer = json;
                files.defaults = special;
            }
            None => {
                let found = other_files(dir);
                if !found.is_empty() {
                    return Err(TokenizerError::NoTokenizer { path: dir.to_owned(), found });
                }
                // There is none: the error of reading it says so.
                files.tokenizer = read_text(&file)?;
            }
        }
        Ok(files)
    }

    /// The same for target texts, if they have a tokenizer of their own.
    pub(super) fn for_targets(&self) -> Option<Self> {
        let marian = MarianFiles { is_target: true, ..self.marian.clone()? };
        Some(Self { marian: Some(marian), ..self.clone() })
    }

    /// The hash of everything that decides how a text is segmented.
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
        special.fill_from(&self.defaults.to_map());
        special
    }

    /// The chat templates by name: those in files, else those in `tokenizer_config.json`, where a single one has no name and
    /// is the default.
    fn chat_templates<'a>(&'a self) -> BTreeMap<&'a str, &'a str> {
        if !self.templates.is_empty() {
            return self.templates.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        }
        match self.given_config().and_then(|config| config.get("chat_template")) {
            Some(Value::String(text)) => BTreeMap::from([(DEFAULT_TEMPLATE, text.as_str())]),
            Some(Value::Array(entries)) => {
                let text = |entry: &'a Value, key: &str| entry.get(key)?.as_str();
                let named = |entry| Some((text(entry, "name")?, text(entry, "template")?));
                entries.iter().filter_map(named).collect()
            }
            Some(Value::Object(entries)) => {
                entries.iter().filter_map(|(name, text)| Some((name.as_str(), text.as_str()?))).collect()
            }
            _ => BTreeMap::new(),
        }
    }

    /// The default template.
    /// Replaces the chat template that has no name.
    pub(super) fn set_chat_template(&mut self, template: String) {
        self.templates.insert(DEFAULT_TEMPLATE.to_owned(), template);
    }

    pub(super) fn chat_template(&self) -> Option<&str> {
        self.chat_templates().get(DEFAULT_TEMPLATE).copied()
    }

    /// The template for a conversation, with tools or without.
    pub(super) fn template(&self, with_tools: bool) -> Result<&str, TokenizerError> {
        let templates = self.chat_templates();
        let for_tools = || templates.get(TOOL_TEMPLATE).filter(|_| with_tools);
        match for_tools().or_else(|| templates.get(DEFAULT_TEMPLATE)) {
            Some(template) => Ok(template),
            None if templates.is_empty() => Err(TokenizerError::NoChatTemplate),
            None => Err(TokenizerError::NoDefaultTemplate {
                names: templates.into_keys().map(str::to_owned).collect(),
            }),
        }
    }

    /// The files of a directory with this tokenizer and their names, without further chat templates.
    pub(super) fn contents(&self, special: &SpecialTokens) -> Vec<(&'static str, Vec<u8>)> {
        let mut files = match &self.marian {
            Some(marian) => vec![
                (marian::VOCABULARY, marian.vocabulary.clone()),
                (marian::SOURCE, marian.source.clone()),
                (marian::TARGET, marian.target.clone()),
            ],
            None => vec![(TOKENIZER, self.tokenizer.clone())],
        };
        let config = self.config.as_ref().map(|(bytes, _)| bytes.clone());
        files.push((CONFIG, config.unwrap_or_else(|| pretty(self.config(special)))));
        let map = special.to_map();
        match &self.special {
            Some((bytes, _)) => files.push((SPECIAL, bytes.clone())),
            None if !map.is_empty() => files.push((SPECIAL, pretty(map))),
            None => {}
        }
        if let Some(template) = self.templates.get(DEFAULT_TEMPLATE) {
            files.push((TEMPLATE, template.clone().into_bytes()));
        }
        files
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
        for (name, bytes) in self.contents(special) {
            write(name, &bytes)?;
        }
        for (name, template) in &self.templates {
            if name == DEFAULT_TEMPLATE {
                continue;
            }
            let folder = dir.join(MORE_TEMPLATES);
            std::fs::create_dir_all(&folder).map_err(failed(&folder))?;
            write(&format!("{MORE_TEMPLATES}/{name}.{TEMPLATE_EXTENSION}"), template.as_bytes())?;
        }
        Ok(())
    }
}

/// The `tokenizer_config.json` of a class of `transformers`. `PreTrainedTokenizerFast` is the class that every version loads
/// from `tokenizer.json` alone.
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

/// The content of a text file, without a byte order mark.
pub(super) fn read_text(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    let bytes = read_whole(path)?;
    Ok(match without_mark(&bytes).len() == bytes.len() {
        true => bytes,
        false => without_mark(&bytes).to_vec(),
    })
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    match read_bounded(path, OTHER_LIMIT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Read { path: path.to_owned(), source }),
    }
}

/// `model_type` of `config.json`. Errors are ignored here; whoever opens the model reports them.
pub(super) fn model_type(dir: &Path) -> Option<String> {
    let (_, config) = read_object(dir, "config.json").ok().flatten()?;
    Some(config.get("model_type")?.as_str()?.to_owned())
}

/// The tokenizer files of a directory that are incomplete or in an unsupported format.
pub(super) fn other_files(dir: &Path) -> Vec<String> {
    let known = [
        "tokenizer.model",
        "spiece.model",
        "sentencepiece.bpe.model",
        "source.spm",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
        "bpe.codes",
        "vocab.bpe",
        "tekken.json",
        "tiktoken.model",
        "qwen.tiktoken",
    ];
    known.iter().filter(|name| dir.join(name).exists()).map(|&name| name.to_owned()).collect()
}

fn read_templates(dir: &Path) -> Result<BTreeMap<String, String>, TokenizerError> {
    let mut templates = BTreeMap::new();
    let folder = dir.join(MORE_TEMPLATES);
    let mut paths = vec![(DEFAULT_TEMPLATE.to_owned(), dir.join(TEMPLATE))];
    match std::fs::read_dir(&folder) {
        Ok(entries) => {
            for entry in entries.take(MOST_TEMPLATES) {
                let failed = |source| TokenizerError::Read { path: folder.clone(), source };
                let path = entry.map_err(failed)?.path();
                let name = path.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
                let is_template = path.extension().is_some_and(|extension| extension == TEMPLATE_EXTENSION);
                paths.extend(name.filter(|_| is_template).map(|name| (name, path)));
            }
        }
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {}
        Err(source) => return Err(TokenizerError::Read { path: folder, source }),
    }
    for (name, path) in paths {
        if let Some(bytes) = read_optional(&path)? {
            let text = String::from_utf8(without_mark(&bytes).to_vec()).map_err(|error| {
                TokenizerError::Read { path, source: io::Error::new(io::ErrorKind::InvalidData, error) }
            })?;
            templates.insert(name, text);
        }
    }
    Ok(templates)
}

pub(super) type JsonFile = (Vec<u8>, Map<String, Value>);

pub(super) fn read_object(dir: &Path, name: &'static str) -> Result<Option<JsonFile>, TokenizerError> {
    let Some(bytes) = read_optional(&dir.join(name))? else { return Ok(None) };
    let json = serde_json::from_slice(without_mark(&bytes))
        .map_err(|source| TokenizerError::Json { file: name, source })?;
    Ok(Some((bytes, json)))
}
