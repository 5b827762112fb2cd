//! The models that a server begins with, and those it may load.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use andiron_data::reply::ToolFormat;
use andiron_data::tokenizer::Tokenizer;
use andiron_models::generate::SamplingParams;
use andiron_models::{AnyBundle, ModelFiles, ModelMemory};
use andiron_pipelines::{Pipeline, RewriteOptions};
use andiron_serving::engine::{Engine, EngineConfig};
use andiron_serving::registry::{
    LanguagePair, LoadCost, LoadFailure, Loader, Registry, Runner, Served, ServedModel,
};
use andiron_serving::runner::{AttentionView, OneShot, OneShotConfig, Rewriter};
use anyhow::{Context as _, bail};
use clap::Args;

use crate::exit::Usage;
use crate::flags::Common;
use crate::model::{self, AdapterChoice, RunChoice, in_adapter, warn_of_beams};

/// The models to serve.
#[derive(Clone, Debug, Args)]
pub struct ServedChoice {
    /// Model directory in the Hugging Face layout, or a GGUF file; may be repeated. NAME=DIR gives it a name in the API [default
    /// name: that of its directory, or of its run for RUN/run/model]. A request that names no model gets the first that can do
    /// what it asks for
    #[arg(id = "model", long = "model", value_name = "[NAME=]DIR")]
    models: Vec<String>,
    /// Name of the only model in the API, in the place of NAME=DIR
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Directory of a LoRA adapter, as peft writes it; may be repeated. DIR is added to the first model; NAME=DIR is a model of its
    /// own beside the model that it fits, whose weights they share
    #[arg(id = "adapter", long = "adapter", value_name = "[NAME=]DIR")]
    adapters: Vec<String>,
    /// Folder of models that clients may load and unload (POST /models/load, /models/unload), by the names of their directories and
    /// GGUF files [default: none, and no loading]
    #[arg(long, value_name = "DIR")]
    models_dir: Option<PathBuf>,
    /// Models at one time, adapters included, with --models-dir
    #[arg(long, value_name = "N", default_value_t = 4)]
    max_models: usize,
    /// What the models translate, as in en-de, for /languages and to check requests; may be repeated [default: as
    /// tokenizer_config.json says]
    #[arg(long, value_name = "SOURCE-TARGET", value_parser = language_pair)]
    languages: Vec<LanguagePair>,
    /// translate, summarize: text to put before each source, for multi-task models, such as `summarize: ` for T5
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// How the model writes calls of tools: hermes, llama, mistral, qwen-xml or glm [default: as its chat template shows]
    #[arg(long, value_name = "FORMAT")]
    tool_format: Option<ToolFormat>,
}

/// How a model is opened and run.
#[derive(Clone, Debug)]
pub struct Settings {
    pub run: RunChoice,
    pub engine: EngineConfig,
    pub one_shot: OneShotConfig,
    languages: Vec<LanguagePair>,
    prefix: String,
    tool_format: Option<ToolFormat>,
    common: Common,
}

/// A path with the name that it has in the API.
struct Named {
    name: Option<String>,
    path: PathBuf,
}

impl ServedChoice {
    /// Settings for these models.
    pub fn settings(
        &self,
        run: RunChoice,
        engine: EngineConfig,
        one_shot: OneShotConfig,
        common: &Common,
    ) -> Settings {
        let (languages, prefix) = (self.languages.clone(), self.prefix.clone());
        Settings {
            run,
            engine,
            one_shot,
            languages,
            prefix,
            tool_format: self.tool_format,
            common: common.clone(),
        }
    }

    /// Opens and starts all models, and puts each into `registry` when it is ready.
    pub fn start(&self, settings: &Settings, registry: &Registry) -> anyhow::Result<()> {
        if self.name.is_some() && self.models.len() != 1 {
            return Err(Usage("--name names one model: write --model NAME=DIR for each".to_owned()).into());
        }
        if self.models.is_empty() && self.models_dir.is_none() {
            return Err(Usage("there is nothing to serve: give --model, or --models-dir".to_owned()).into());
        }
        let adapters: Vec<Named> = self.adapters.iter().map(|text| Named::parse(text)).collect();
        let (added, beside): (Vec<_>, Vec<_>) = adapters.into_iter().partition(|named| named.name.is_none());
        if added.len() > 1 {
            let message = "several adapters cannot be added to one model: write --adapter NAME=DIR for each";
            return Err(Usage(message.to_owned()).into());
        }
        let mut added = AdapterChoice { path: added.into_iter().next().map(|named| named.path) };
        let mut bases = Vec::new();
        for text in &self.models {
            let Named { name, path } = Named::parse(text);
            let name = name.or_else(|| self.name.clone()).unwrap_or_else(|| usual_name(&path));
            // Only the first model gets it.
            let opening = settings.open(&path, &std::mem::take(&mut added))?;
            if !beside.is_empty() {
                bases.push((name.clone(), opening.pipeline.clone()));
            }
            registry.insert(settings.serve(name, opening, None)?)?;
        }
        for Named { name, path } in beside {
            let name = name.unwrap_or_else(|| usual_name(&path));
            let begun = Instant::now();
            let (base, pipeline) = adapted(&bases, &path)?;
            let opening = Opening { pipeline, weight_bytes: 0, begun };
            registry.insert(settings.serve(name, opening, Some(base))?)?;
        }
        Ok(())
    }

    /// What loads models of the folder, if there is one.
    pub fn loader(&self, settings: &Settings) -> anyhow::Result<Option<Arc<dyn Loader>>> {
        let Some(folder) = self.models_dir.clone() else { return Ok(None) };
        if !folder.is_dir() {
            bail!("--models-dir {} is no directory", folder.display());
        }
        Ok(Some(Arc::new(Folder { folder, most: self.max_models, settings: settings.clone() })))
    }
}

/// The first of the models that the adapter in `dir` fits, with the adapter.
fn adapted(bases: &[(String, Pipeline)], dir: &Path) -> anyhow::Result<(String, Pipeline)> {
    let mut unfit = None;
    for (name, pipeline) in bases {
        // The weights are shared.
        match pipeline.clone().with_adapter(dir) {
            Ok(adapted) => return Ok((name.clone(), adapted)),
            Err(error) => unfit = unfit.or(Some(error)),
        }
    }
    match unfit {
        Some(error) => Err(error).with_context(|| in_adapter(dir)),
        None => bail!("{}: there is no --model for it", in_adapter(dir)),
    }
}

impl Named {
    /// `NAME=PATH`, or a path. A name has no separator, so that a path with `=` in it is still one.
    fn parse(text: &str) -> Self {
        match text.split_once('=') {
            Some((name, path))
                if !name.is_empty() && !name.contains(['/', '\\']) && !Path::new(text).exists() =>
            {
                Self { name: Some(name.to_owned()), path: PathBuf::from(path) }
            }
            _ => Self { name: None, path: PathBuf::from(text) },
        }
    }
}

/// `runs/plays/run/model` is better called `plays` than `model`.
fn usual_name(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let names = path.iter().rev().map(|name| name.to_string_lossy().into_owned());
    names.into_iter().find(|name| name != "model" && name != "run").unwrap_or_else(|| "model".to_owned())
}

fn language_pair(text: &str) -> Result<LanguagePair, String> {
    match text.split_once('-') {
        Some((source, target)) if !source.is_empty() && !target.is_empty() => {
            Ok(LanguagePair { source: source.to_owned(), target: target.to_owned() })
        }
        _ => Err("write a source and a target language, as in en-de".to_owned()),
    }
}

/// A model that is open and runs nothing yet.
struct Opening {
    pipeline: Pipeline,
    /// Bytes of its weights; 0 if it shares those of another.
    weight_bytes: u64,
    begun: Instant,
}

impl Settings {
    /// Opens a model and its adapter.
    fn open(&self, path: &Path, adapter: &AdapterChoice) -> anyhow::Result<Opening> {
        let begun = Instant::now();
        let files = ModelFiles::open(path)?;
        let memory = ModelMemory::of_files(&files, self.run.precision);
        let pipeline = model::open_files(files, adapter, self.run, &self.common)?;
        // What cannot be estimated is told as 0.
        let weight_bytes = memory.map_or(0, |memory| memory.weights);
        Ok(Opening { pipeline, weight_bytes, begun })
    }

    /// Starts what runs a model of any family.
    fn serve(&self, name: String, opening: Opening, parent: Option<String>) -> anyhow::Result<Served> {
        let Opening { pipeline, weight_bytes, begun } = opening;
        let family = pipeline.bundle.family().to_string();
        let view = OneShot::start(AttentionView::new(pipeline.clone()), self.one_shot.clone())?;
        let Pipeline { bundle, text } = pipeline;
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let tokenizer_config = text.tokenizer().map(Tokenizer::config).unwrap_or_default();
        let info = ServedModel { created, tokenizer_config, parent, ..ServedModel::new(name) };
        let served = match bundle {
            AnyBundle::Decoder(bundle) => {
                warn_of_beams(&bundle.generation);
                let info = ServedModel {
                    sampling: SamplingParams::from(bundle.generation.sampling()),
                    stop_strings: bundle.generation.stop_strings.clone(),
                    tool_format: self.tool_format,
                    ..info
                };
                Served::owning(info, text, Engine::start(bundle, self.engine.clone())?)
            }
            AnyBundle::EncoderDecoder(bundle) => {
                let options = RewriteOptions {
                    prefix: self.prefix.clone(),
                    ..RewriteOptions::of_files(&bundle.generation)
                };
                let languages = match self.languages.is_empty() {
                    true => told_languages(&info),
                    false => self.languages.clone(),
                };
                let stop_strings = bundle.generation.stop_strings.clone();
                let info = ServedModel { languages, stop_strings, ..info };
                let pipeline = Pipeline { bundle, text: text.clone() };
                let (engine, search) = (self.engine.clone(), self.one_shot.clone());
                let (engine, rewriter) = Rewriter::start(pipeline, options, engine, search)?;
                Served::new(info, text, Runner::EncoderDecoder(rewriter)).with_engine(engine)
            }
            AnyBundle::Encoder(bundle) => {
                let pipeline = Pipeline { bundle, text: text.clone() };
                Served::new(info, text, Runner::OneShot(OneShot::start(pipeline, self.one_shot.clone())?))
            }
            AnyBundle::Classifier(bundle) => {
                let pipeline = Pipeline { bundle, text: text.clone() };
                Served::new(info, text, Runner::OneShot(OneShot::start(pipeline, self.one_shot.clone())?))
            }
        };
        let mut served = served.with_view(view);
        served.info.cost = LoadCost { family, weight_bytes, time: begun.elapsed() };
        Ok(served)
    }
}

/// The languages in `tokenizer_config.json`, as Marian has them.
fn told_languages(info: &ServedModel) -> Vec<LanguagePair> {
    let told = |key: &str| info.tokenizer_config.get(key)?.as_str().map(str::to_owned);
    match (told("source_lang"), told("target_lang")) {
        (Some(source), Some(target)) => vec![LanguagePair { source, target }],
        _ => Vec::new(),
    }
}

/// The models in a folder.
#[derive(Debug)]
struct Folder {
    folder: PathBuf,
    most: usize,
    settings: Settings,
}

impl Folder {
    /// The paths of the models by name. A name is one of a directory entry, so that no name leads out of the folder.
    fn paths(&self) -> BTreeMap<String, PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let named = entries.filter_map(|entry| {
            let path = entry.path();
            let is_file = path.extension().is_some_and(|extension| extension == "gguf");
            let nested = path.join("run/model");
            let (name, path) = match () {
                () if is_file => (path.file_stem()?.to_str()?.to_owned(), path),
                () if path.join("config.json").is_file() => (path.file_name()?.to_str()?.to_owned(), path),
                () if nested.join("config.json").is_file() => {
                    (path.file_name()?.to_str()?.to_owned(), nested)
                }
                () => return None,
            };
            Some((name, path))
        });
        named.collect()
    }
}

impl Loader for Folder {
    fn names(&self) -> Vec<String> {
        self.paths().into_keys().collect()
    }

    fn load(&self, name: &str) -> Result<Served, LoadFailure> {
        let open = || {
            let path = self.paths().remove(name).context("it is no longer in the folder")?;
            let opening = self.settings.open(&path, &AdapterChoice::default())?;
            self.settings.serve(name.to_owned(), opening, None)
        };
        open().map_err(|error: anyhow::Error| LoadFailure { message: format!("{error:#}") })
    }

    fn max_models(&self) -> usize {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        common: Common,
    }

    #[track_caller]
    fn check_named(text: &str, name: Option<&str>, path: &str) {
        let named = Named::parse(text);
        assert_eq!((named.name.as_deref(), named.path.as_path()), (name, Path::new(path)));
    }

    #[test]
    fn a_name_stands_before_its_path() {
        check_named("plays=runs/plays/run/model", Some("plays"), "runs/plays/run/model");
        check_named("runs/lr=3/model", None, "runs/lr=3/model");
        check_named("a=b=c", Some("a"), "b=c");
        check_named("=x", None, "=x");
        check_named("model", None, "model");
    }

    #[test]
    fn a_pair_of_languages_has_a_dash() {
        let pair = language_pair("en-zh-Hans").unwrap();
        assert_eq!((pair.source.as_str(), pair.target.as_str()), ("en", "zh-Hans"));
        assert!(language_pair("en").is_err() && language_pair("-de").is_err());
    }

    #[test]
    fn a_folder_offers_its_models_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["a/config.json", "plays/run/model/config.json", "b.gguf", "notes.txt", "empty/x"] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}").unwrap();
        }
        let settings = Settings {
            run: RunChoice::default(),
            engine: EngineConfig::default(),
            one_shot: OneShotConfig::default(),
            languages: Vec::new(),
            prefix: String::new(),
            tool_format: None,
            common: Flags::parse_from(["serve"]).common,
        };
        let folder = Folder { folder: folder.path().to_owned(), most: 1, settings };
        assert_eq!(folder.names(), ["a", "b", "plays"]);
        assert!(folder.load("../a").is_err_and(|error| error.message.contains("no longer in the folder")));
    }
}
