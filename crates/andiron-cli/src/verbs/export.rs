//! `andiron export`: convert a model to another format.

use std::fs;
use std::path::{Path, PathBuf};

use andiron_data::tokenizer::Tokenizer;
use andiron_files::PartialDirectory;
use andiron_models::adapter::Tie;
use andiron_models::bundle::GgufOptions;
use andiron_models::{AnyBundle, ModelFiles, RunPrecision};
use andiron_pipelines::Pipeline;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::lines::{note, out};
use crate::memory::{self, Choice};
use crate::model::{self, ModelChoice, refuse};

/// Convert a model to a Hugging Face directory or a GGUF file
///
/// Includes the tokenizer and the chat template, and with --merge an adapter. The output appears only when it is complete.
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    model: ModelChoice,
    /// Merge the adapter into the model; without it, an adapter is not exported
    #[arg(long, requires = "adapter")]
    merge: bool,
    /// Output format [default: gguf if the output path ends in `.gguf`, else hf]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// GGUF only: store matrices as f16 instead of f32
    #[arg(long)]
    half: bool,
    /// Output directory or file
    #[arg(long, short, value_name = "PATH")]
    output: PathBuf,
    /// Replace an existing file or model directory; a directory with anything else in it is never replaced
    #[arg(long)]
    replace: bool,
    /// Fail on unknown keys in the model's configuration files, instead of warning
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A directory that `transformers` loads
    Hf,
    /// A file for llama.cpp, which reads decoders such as GPT-2, Llama and Qwen
    Gguf,
}

impl Export {
    /// Converts.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let named =
            if self.output.extension().is_some_and(|end| end == "gguf") { Format::Gguf } else { Format::Hf };
        let format = self.format.unwrap_or(named);
        if self.half && format == Format::Hf {
            return Err(Usage("--half is for GGUF files".to_owned()).into());
        }
        if self.model.adapter.path.is_some() && !self.merge {
            let message = "--adapter: the output is one model; --merge merges the adapter into it";
            return Err(Usage(message.to_owned()).into());
        }
        let taken = self.output.symlink_metadata().is_ok();
        anyhow::ensure!(
            self.replace || !taken,
            "{} is there already; --replace writes over it",
            self.output.display()
        );
        let files = ModelFiles::open(&self.model.path)?;
        if self.strict {
            refuse(&files.config()?.unknown_keys, &self.model.path)?;
        }
        if taken && format == Format::Hf {
            ensure_model_directory(&self.output)?;
        }
        memory::ensure_model_fits(&files, RunPrecision::F32, Choice::Nothing, common)?;
        let model = model::open_f32(files, &self.model.adapter, &common.open_device()?)?;
        match format {
            Format::Hf => save_directory(&model, &self.output)?,
            Format::Gguf => self.save_gguf(model)?,
        }
        let bytes = size_of_tree(&self.output)?;
        match common.json {
            true => out!("{}", json!({ "output": self.output, "bytes": bytes }))?,
            false => out!("{} ({:.1} MB)", self.output.display(), bytes as f64 / 1e6)?,
        }
        Ok(Ending::Done)
    }

    fn save_gguf(&self, model: Pipeline) -> anyhow::Result<()> {
        let Pipeline { bundle, text } = model.decoder()?;
        let tokenizer = text.tokenizer();
        let json = tokenizer.map(|tokenizer| serde_json::from_slice::<Value>(tokenizer.json()));
        let json = json.transpose().context("the tokenizer is no JSON")?;
        let options = GgufOptions {
            tokenizer: json.as_ref(),
            chat_template: tokenizer.and_then(|tokenizer| tokenizer.chat_template()),
            half: self.half,
        };
        Ok(bundle.save_gguf(&self.output, options)?)
    }
}

fn save_directory(model: &Pipeline, target: &Path) -> anyhow::Result<()> {
    let write = || format!("cannot write {}", target.display());
    let building = PartialDirectory::begin(target).with_context(write)?;
    let dir = building.path();
    match &model.bundle {
        AnyBundle::Decoder(bundle) => {
            if let Some(Tie { tied, owner }) = bundle.split_by_adapter() {
                note!(
                    "the adapter changes one of {owner} and {tied}, so the model is saved with both (tie_word_embeddings: false)"
                );
            }
            bundle.save(dir)?;
        }
        AnyBundle::Classifier(bundle) => bundle.save(dir)?,
        AnyBundle::Encoder(bundle) => bundle.save(dir)?,
        AnyBundle::EncoderDecoder(bundle) => bundle.save(dir)?,
    }
    if let Some(tokenizer) = model.text.tokenizer() {
        tokenizer.save(dir)?;
    }
    building.publish().with_context(write)
}

/// Files of a model directory, besides weights, those of the tokenizer and the folders of `modules.json`.
const MODEL_FILES: &[&str] = &[
    "config.json",
    "config_sentence_transformers.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.model",
];

/// Whether an entry of a model directory, such as `1_Pooling`, is the folder of a module.
fn is_module_folder(name: &str) -> bool {
    name.split_once('_').is_some_and(|(number, kind)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && !kind.is_empty()
    })
}

/// Checks that a directory to replace holds nothing but a model.
fn ensure_model_directory(dir: &Path) -> anyhow::Result<()> {
    let read = || format!("cannot read {}", dir.display());
    anyhow::ensure!(
        andiron_files::is_directory(dir).with_context(read)?,
        "{} is no directory: remove it, or choose another --output",
        dir.display()
    );
    for name in andiron_files::list(dir).with_context(read)? {
        let is_folder = andiron_files::is_directory(&dir.join(&name)).with_context(read)?;
        let known = match is_folder {
            true => is_module_folder(&name),
            false => {
                let mut names = MODEL_FILES.iter().chain(Tokenizer::FILES);
                name.ends_with(".safetensors") || names.any(|known| *known == name)
            }
        };
        anyhow::ensure!(
            known,
            "{} would be lost: move it away, or choose another --output",
            dir.join(&name).display()
        );
    }
    Ok(())
}

/// Bytes of a file, or of the files in a directory.
fn size_of_tree(path: &Path) -> anyhow::Result<u64> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    fs::read_dir(path)?.map(|entry| size_of_tree(&entry?.path())).sum()
}
