//! The files of sentence-transformers: `modules.json`, the folders it names, and the files beside it.
//!
//! Source: sentence-transformers 6.2. Keys that change an embedding are implemented or refused by name; unknown keys
//! are collected for the user.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::{Map, Value as Json, json};

use super::{Dense, EmbedPipeline, EmbedStage, Pooling, Prompts, Similarity};
use crate::hf_config::ConfigError;
use crate::json_file::{is_there, read_json, write_json};
use crate::weights::{LoadError, SaveError};

const MODULES: &str = "modules.json";
const PIPELINE: &str = "config_sentence_transformers.json";
const POOLING: &str = "1_Pooling";

/// Files with the settings of the module `Transformer`; the first one that is not empty counts.
const TRANSFORMER: &[&str] = &[
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Keys of [`TRANSFORMER`] that do not change an embedding: how it is computed, other kinds of input, and maximum
/// lengths for marked queries or documents.
const INERT_TRANSFORMER: &[&str] = &["unpad_inputs", "query_length", "document_length", "query_expansion"];
/// Keys of `from_pretrained` arguments that do not change an embedding.
const INERT_ARGUMENTS: &[&str] = &[
    "trust_remote_code",
    "attn_implementation",
    "torch_dtype",
    "dtype",
    "device_map",
    "use_cache",
    "use_fast",
    "padding_side",
    "add_pooling_layer",
    "revision",
    "token",
    "cache_dir",
    "local_files_only",
];
const INERT_PIPELINE: &[&str] =
    &["__version__", "model_type", "activation_fn", "keep_in_fp32_modules", "requirements", "truncate_dim"];

/// Maximum number of concatenated poolings; there are four kinds.
const MOST_POOLINGS: usize = 8;

type Fields = Map<String, Json>;

#[derive(Deserialize)]
struct Step {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Step {
    /// The module's class, without its path if it is one of sentence-transformers' own.
    fn class(&self) -> &str {
        let own = self.kind.strip_prefix("sentence_transformers.").and_then(|path| path.rsplit('.').next());
        own.unwrap_or(&self.kind)
    }
}

impl EmbedPipeline {
    /// The folder with `config.json`, weights and tokenizer, if `modules.json` in `dir` names one, as the first versions of
    /// sentence-transformers wrote it.
    pub(crate) fn transformer_folder(dir: &Path) -> Result<Option<PathBuf>, ConfigError> {
        let steps = read_steps(&dir.join(MODULES))?.unwrap_or_default();
        let transformer = steps.iter().find(|step| step.class() == "Transformer");
        match transformer.filter(|step| !step.path.is_empty()) {
            Some(step) => folder(dir, &step.path).map(Some),
            None => Ok(None),
        }
    }

    /// Reads `modules.json` and the files it refers to; `None` if the directory has none. The second value is the
    /// `activation_fn` of a cross-encoder, where sentence-transformers 6 puts it.
    ///
    /// `transformer` is the folder with the model's files: `dir`, or the one that the list names.
    pub(in crate::encoder) fn read(
        dir: &Path,
        transformer: &Path,
    ) -> Result<Option<(Self, Option<Json>)>, LoadError> {
        let modules = dir.join(MODULES);
        let Some(steps) = read_steps(&modules)? else { return Ok(None) };
        let mut pipeline = Self::default();
        let mut pooled = false;
        for step in &steps {
            match step.class() {
                "Transformer" if dir.join(&step.path) == transformer => {
                    pipeline.read_transformer(transformer)?;
                }
                "Pooling" if !pooled => {
                    pipeline.read_pooling(&folder(dir, &step.path)?.join("config.json"))?;
                    pooled = true;
                }
                "Normalize" => {
                    pipeline.read_normalize(&folder(dir, &step.path)?.join("config.json"))?;
                    pipeline.stages.push(EmbedStage::Normalize);
                }
                "Dense" if pooled => {
                    let dense = Dense::read(&folder(dir, &step.path)?, &mut pipeline.unread)?;
                    pipeline.stages.push(EmbedStage::Dense(dense));
                }
                // Dropout acts in training only.
                "Dropout" => {}
                kind => {
                    let reason = format!(
                        "module {kind} at {:?} is not supported: Transformer beside config.json, one Pooling, and then Dense, \
                         Normalize and Dropout are",
                        step.path
                    );
                    return Err(refuse(&modules, &reason).into());
                }
            }
        }
        if pipeline.stages.last() == Some(&EmbedStage::Normalize) {
            pipeline.stages.pop();
            pipeline.normalize = true;
        }
        let activation = pipeline.read_pipeline(&dir.join(PIPELINE))?;
        Ok(Some((pipeline, activation)))
    }

    /// Checks that the widths of the stages match.
    pub(in crate::encoder) fn check(&self, d_model: usize, dir: &Path) -> Result<(), ConfigError> {
        let mut width = self.pooled_width(d_model);
        for stage in &self.stages {
            if let EmbedStage::Dense(dense) = stage {
                if dense.d_input() != width {
                    let reason =
                        format!("a Dense takes vectors of {}, and is given {width}", dense.d_input());
                    return Err(refuse(&dir.join(MODULES), &reason));
                }
                width = dense.d_output();
            }
        }
        Ok(())
    }

    fn read_transformer(&mut self, dir: &Path) -> Result<(), LoadError> {
        for name in TRANSFORMER {
            let path = dir.join(name);
            let fields: Fields = match is_there(&path)? {
                true => read_json(&path, "sentence transformer config")?,
                false => continue,
            };
            if !fields.is_empty() {
                return Ok(self.follow_transformer(&path, &fields)?);
            }
        }
        Ok(())
    }

    fn follow_transformer(&mut self, path: &Path, fields: &Fields) -> Result<(), ConfigError> {
        for (key, value) in fields {
            let refuse = |reason: &str| Err(refuse(path, &format!("{key} is {value}: {reason}")));
            match key.as_str() {
                _ if value.is_null() => {}
                "max_seq_length" => match length(value) {
                    // The tokenizer's own setting takes precedence.
                    Some(length) => self.max_tokens = self.max_tokens.or(Some(length)),
                    None => return refuse("a number of tokens is read"),
                },
                "do_lower_case" => match value.as_bool() {
                    Some(flag) => self.lower_case = flag,
                    None => return refuse("true or false is read"),
                },
                "transformer_task"
                    if ["feature-extraction", "sequence-classification"].iter().any(|v| value == v) => {}
                "module_output_name" if ["token_embeddings", "scores"].iter().any(|v| value == v) => {}
                "modality_config" => {
                    let text = value.get("text").unwrap_or(&Json::Null);
                    let output = text.get("method_output_name").unwrap_or(&Json::Null);
                    let is_usual = ["last_hidden_state", "logits"].iter().any(|v| output == v);
                    if text.get("method") != Some(&"forward".into()) || !is_usual {
                        return refuse("texts that go through forward to last_hidden_state are supported");
                    }
                }
                "processing_kwargs" => self.follow_processing(path, value)?,
                "processor_kwargs" | "tokenizer_args" => {
                    let mut own = value.as_object().cloned().unwrap_or_default();
                    if let Some(limit) = own.shift_remove("model_max_length").as_ref().and_then(length) {
                        self.max_tokens = Some(limit);
                    }
                    inert_arguments(path, key, &own)?;
                }
                "model_kwargs" | "model_args" | "config_kwargs" | "config_args" => {
                    inert_arguments(path, key, &value.as_object().cloned().unwrap_or_default())?;
                }
                "tokenizer_name_or_path" => return refuse("the tokenizer beside the model is used"),
                key if INERT_TRANSFORMER.contains(&key) => {}
                "transformer_task" | "module_output_name" => return refuse("this is not supported"),
                _ => self.unread.push(told(path, key)),
            }
        }
        Ok(())
    }

    /// Reads the arguments of the tokenizer.
    fn follow_processing(&mut self, path: &Path, value: &Json) -> Result<(), ConfigError> {
        let none = Map::new();
        let of = |key: &str| value.get(key).and_then(Json::as_object).unwrap_or(&none);
        for (key, value) in of("text").iter().chain(of("common")) {
            match (key.as_str(), value) {
                ("max_length", value) if length(value).is_some() => self.max_tokens = length(value),
                ("truncation", Json::Bool(true))
                | ("padding" | "return_tensors" | "pad_to_multiple_of", _) => {}
                ("truncation", Json::String(how)) if how == "longest_first" => {}
                _ => {
                    return Err(refuse(
                        path,
                        &format!("processing_kwargs sets {key} to {value}: this is not supported"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn read_pooling(&mut self, path: &Path) -> Result<(), ConfigError> {
        let fields: Fields = read_json(path, "pooling config")?;
        let modes: Vec<Json> = match fields.get("pooling_mode") {
            Some(Json::Array(modes)) => modes.clone(),
            Some(mode) => vec![mode.clone()],
            None => {
                let is_set = |key: &str| fields.get(key) == Some(&Json::Bool(true));
                let known = Pooling::NAMES.iter().filter(|(_, _, old)| is_set(old));
                let known: Vec<Json> = known.map(|(_, name, _)| (*name).into()).collect();
                let is_other = |key: &&String| {
                    key.starts_with("pooling_mode_") && Pooling::NAMES.iter().all(|(_, _, old)| old != key)
                };
                let others = fields.keys().filter(is_other).filter(|key| is_set(key));
                let modes: Vec<Json> =
                    known.into_iter().chain(others.map(|key| key.as_str().into())).collect();
                // The default mode is the mean.
                let has_width = ["embedding_dimension", "word_embedding_dimension"];
                match modes.is_empty() && has_width.iter().any(|key| fields.contains_key(*key)) {
                    true => vec!["mean".into()],
                    false => modes,
                }
            }
        };
        let pooling = |mode: &Json| {
            Pooling::NAMES.iter().find(|(_, name, _)| mode == name).map(|(pooling, _, _)| *pooling)
        };
        let found: Option<Vec<Pooling>> = modes.iter().map(pooling).collect();
        match found.filter(|found| found.len() <= MOST_POOLINGS).as_deref() {
            Some([first, rest @ ..]) => (self.pooling, self.appended) = (*first, rest.to_vec()),
            _ => {
                let modes = Json::Array(modes);
                let reason = format!("it asks for {modes}: cls, mean, max and lasttoken are supported");
                return Err(refuse(path, &reason));
            }
        }
        self.skips_prompt = match fields.get("include_prompt") {
            None | Some(Json::Null) => false,
            Some(Json::Bool(flag)) => !flag,
            Some(other) => {
                return Err(refuse(path, &format!("include_prompt is {other}: true or false is read")));
            }
        };
        let known = ["pooling_mode", "embedding_dimension", "word_embedding_dimension", "include_prompt"];
        let unread = unknown(path, &fields, &known);
        self.unread.extend(unread.filter(|told| !told.starts_with("pooling_mode_")));
        Ok(())
    }

    fn read_normalize(&mut self, path: &Path) -> Result<(), ConfigError> {
        if !is_there(path)? {
            return Ok(());
        }
        let fields: Fields = read_json(path, "Normalize config")?;
        for key in ["module_input_name", "module_output_name"] {
            match fields.get(key) {
                None | Some(Json::Null) => {}
                Some(name) if name == "sentence_embedding" => {}
                Some(name) => {
                    let reason = format!("{key} is {name}: only \"sentence_embedding\" is supported");
                    return Err(refuse(path, &reason));
                }
            }
        }
        self.unread.extend(unknown(path, &fields, &["module_input_name", "module_output_name"]));
        Ok(())
    }

    /// Returns the `activation_fn` of a cross-encoder.
    fn read_pipeline(&mut self, path: &Path) -> Result<Option<Json>, ConfigError> {
        let mut fields = read_fields(path)?;
        match fields.get("model_type").and_then(Json::as_str) {
            None | Some("SentenceTransformer") => {}
            Some("CrossEncoder") => {
                let prompt = fields.get("default_prompt_name").is_some_and(|name| !name.is_null());
                let reason = "default_prompt_name is set: a cross-encoder with a prompt is not supported";
                return match prompt {
                    true => Err(refuse(path, reason)),
                    false => Ok(fields.shift_remove("activation_fn").filter(|value| !value.is_null())),
                };
            }
            // Another kind of model, whose prompts are not for embeddings.
            Some(_) => return Ok(None),
        }
        for (key, value) in &fields {
            let refuse = |reason: &str| Err(refuse(path, &format!("{key} is {value}: {reason}")));
            match key.as_str() {
                _ if value.is_null() => {}
                "prompts" => {
                    let prompts = value.as_object().into_iter().flatten();
                    let text =
                        |(name, text): (&String, &Json)| Some((name.clone(), text.as_str()?.to_owned()));
                    match prompts.map(text).collect::<Option<_>>() {
                        Some(prompts) if value.is_object() => self.prompts.by_name = prompts,
                        _ => return refuse("an object of texts is read"),
                    }
                }
                "default_prompt_name" => match value.as_str() {
                    Some(name) => self.prompts.default = Some(name.to_owned()),
                    None => return refuse("a name is read"),
                },
                "similarity_fn_name" => {
                    self.similarity = match value.as_str() {
                        Some("cosine") => Similarity::Cosine,
                        Some("dot") => Similarity::Dot,
                        Some("euclidean") => Similarity::Euclidean,
                        Some("manhattan") => Similarity::Manhattan,
                        _ => return refuse("cosine, dot, euclidean and manhattan are known"),
                    }
                }
                key if INERT_PIPELINE.contains(&key) => {}
                _ => self.unread.push(told(path, key)),
            }
        }
        // sentence-transformers always writes these two names, possibly empty.
        let Prompts { by_name, default } = &self.prompts;
        match default {
            Some(name) if !by_name.contains_key(name) && name != "query" && name != "document" => {
                let reason = format!("default_prompt_name is {name:?}, which is none of the prompts");
                Err(refuse(path, &reason))
            }
            _ => Ok(None),
        }
    }

    /// Writes what [`EmbedPipeline::read`] reads.
    pub(in crate::encoder) fn write(&self, d_model: usize, dir: &Path) -> Result<(), SaveError> {
        let make = |folder: &str| {
            let path = dir.join(folder);
            andiron_files::make_directory(&path)
                .map_err(|source| SaveError::Io { path: path.clone(), source })?;
            Ok::<PathBuf, SaveError>(path)
        };
        let step = |index: usize, path: &str, kind: &str| {
            json!({
                "idx": index, "name": index.to_string(), "path": path,
                "type": format!("sentence_transformers.models.{kind}"),
            })
        };
        let mut steps = vec![step(0, "", "Transformer"), step(1, POOLING, "Pooling")];
        let mut pooling = Map::from_iter([("word_embedding_dimension".to_owned(), d_model.into())]);
        let poolings: Vec<Pooling> =
            std::iter::once(self.pooling).chain(self.appended.iter().copied()).collect();
        let by_flags = Pooling::NAMES.iter().map(|(mode, _, _)| *mode).filter(|mode| poolings.contains(mode));
        if by_flags.eq(poolings.iter().copied()) {
            for (mode, _, key) in Pooling::NAMES {
                pooling.insert(key.to_owned(), poolings.contains(&mode).into());
            }
        } else {
            // Versions before 6 have no key for another order.
            let name = |wanted: &Pooling| Pooling::NAMES.iter().find(|(mode, _, _)| mode == wanted);
            let names: Vec<&str> = poolings.iter().filter_map(name).map(|(_, name, _)| *name).collect();
            pooling.insert("pooling_mode".to_owned(), names.into());
        }
        pooling.insert("include_prompt".to_owned(), (!self.skips_prompt).into());
        write_json(&make(POOLING)?.join("config.json"), &pooling)?;
        let last = self.normalize.then_some(&EmbedStage::Normalize);
        for stage in self.stages.iter().chain(last) {
            let index = steps.len();
            let (kind, folder) = match stage {
                EmbedStage::Dense(_) => ("Dense", format!("{index}_Dense")),
                EmbedStage::Normalize => ("Normalize", format!("{index}_Normalize")),
            };
            let path = make(&folder)?;
            if let EmbedStage::Dense(dense) = stage {
                dense.write(&path)?;
            }
            steps.push(step(index, &folder, kind));
        }
        if self.max_tokens.is_some() || self.lower_case {
            let settings = json!({ "max_seq_length": self.max_tokens, "do_lower_case": self.lower_case });
            write_json(&dir.join(TRANSFORMER[0]), &settings)?;
        }
        if self.prompts != Prompts::default() || self.similarity != Similarity::default() {
            let similarity = match self.similarity {
                Similarity::Cosine => "cosine",
                Similarity::Dot => "dot",
                Similarity::Euclidean => "euclidean",
                Similarity::Manhattan => "manhattan",
            };
            let Prompts { by_name, default } = &self.prompts;
            let settings = json!({ "prompts": by_name, "default_prompt_name": default, "similarity_fn_name": similarity });
            write_json(&dir.join(PIPELINE), &settings)?;
        }
        write_json(&dir.join(MODULES), &steps)
    }
}

/// The modules that the list `path` names; `None` if there is no such file.
fn read_steps(path: &Path) -> Result<Option<Vec<Step>>, ConfigError> {
    if is_there(path)? { read_json(path, "list of modules").map(Some) } else { Ok(None) }
}

fn read_fields(path: &Path) -> Result<Fields, ConfigError> {
    if is_there(path)? { read_json(path, "sentence transformer config") } else { Ok(Fields::new()) }
}

/// The folder of a module. It is a direct child of the model directory: a longer path could leave it.
fn folder(dir: &Path, path: &str) -> Result<PathBuf, ConfigError> {
    let plain = Path::new(path);
    if plain.file_name() == Some(plain.as_os_str()) {
        return Ok(dir.join(plain));
    }
    Err(refuse(&dir.join(MODULES), &format!("the path {path:?} of a module is not a plain folder name")))
}

/// A token count.
fn length(value: &Json) -> Option<usize> {
    value.as_u64().map(|length| usize::try_from(length).unwrap_or(usize::MAX).max(1))
}

/// Refuses arguments that change an embedding.
fn inert_arguments(path: &Path, key: &str, arguments: &Fields) -> Result<(), ConfigError> {
    let changes =
        |(name, value): &(&String, &Json)| !value.is_null() && !INERT_ARGUMENTS.contains(&name.as_str());
    match arguments.iter().find(changes) {
        Some((name, value)) => {
            Err(refuse(path, &format!("{key} sets {name} to {value}: this is not supported")))
        }
        None => Ok(()),
    }
}

/// The keys that are not in `known`, each formatted by [`told`].
pub(super) fn unknown<'a>(
    path: &'a Path,
    fields: &'a Fields,
    known: &'a [&str],
) -> impl Iterator<Item = String> + 'a {
    fields.keys().filter(|key| !known.contains(&key.as_str())).map(|key| told(path, key))
}

fn told(path: &Path, key: &str) -> String {
    format!("{key} ({})", path.file_name().unwrap_or_default().display())
}

pub(super) fn refuse(path: &Path, reason: &str) -> ConfigError {
    let source = serde_json::Error::custom(reason);
    ConfigError::Json {
        path: path.to_owned(),
        what: "recipe for embeddings that can be followed here",
        source,
    }
}
