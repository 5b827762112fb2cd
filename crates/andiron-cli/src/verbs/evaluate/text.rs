//! `andiron evaluate --text`, `--data`: loss and perplexity on held-out text.

use std::path::{Path, PathBuf};

use andiron_data::shard::Dataset;
use andiron_data::source::{self, Documents, OnError, SourceOptions};
use andiron_data::tokenizer::Special;
use andiron_eval::LossReport;
use andiron_eval::task::windows::{TokenStream, Windows, loss_over_windows};
use andiron_pipelines::DecoderPipeline;
use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::fingerprint::Fingerprint;
use crate::exit::Ending;
use crate::flags::Common;
use crate::lines::out;
use crate::model::{self, ModelChoice, RunChoice};

/// The text to measure.
#[derive(Debug, Args)]
pub struct HeldOut {
    /// Text or JSONL file to measure, tokenized with the model's tokenizer
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Dataset to measure: the directory train/ or valid/ that `prepare` wrote
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Window length in tokens [default: the model's context]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Windows per batch
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
}

impl HeldOut {
    /// Measures and prints.
    pub fn run(self, choice: &ModelChoice, run: RunChoice, common: &Common) -> anyhow::Result<Ending> {
        let model = model::open_at(choice, run, common)?.decoder()?;
        let longest = model.bundle.config.max_positions();
        let context = self.context.unwrap_or(longest);
        anyhow::ensure!(
            (1..=longest).contains(&context),
            "--context {context}: the model reads 1 to {longest} tokens"
        );
        let windows = Windows { context, rows: self.batch.into(), limit: None };
        let report = match (&self.text, &self.data) {
            (Some(text), _) => {
                let ids = encode_file(&model, text)?;
                measure(&model, ids.as_slice(), windows).with_context(|| text.display().to_string())?
            }
            (None, Some(data)) => {
                anyhow::ensure!(
                    !data.is_file(),
                    "{} is a file; --data is a directory that `andiron prepare` wrote, and --text measures a text file",
                    data.display()
                );
                let dataset = Dataset::open(data)?;
                let (ids, entries) = (dataset.vocab_size(), model.bundle.config.vocab_size());
                if ids > entries {
                    // The tokenizer has more ids than the model; most texts give none of them.
                    dataset.check_ids(entries as u32).with_context(|| {
                        format!("{} was made for {ids} ids but the model has {entries}", data.display())
                    })?;
                }
                measure(&model, &dataset, windows).with_context(|| data.display().to_string())?
            }
            (None, None) => unreachable!("clap asks for one of them"),
        };
        let fingerprint = Fingerprint::of(choice)?;
        if common.json {
            let mut object = serde_json::to_value(report)?;
            object["context"] = json!(context);
            object["precision"] = json!(model.bundle.precision().to_string());
            if let Some(object) = object.as_object_mut() {
                fingerprint.add_to(object);
            }
            out!("{object}")?;
        } else {
            out!("loss           {:.4} nats a token over {} tokens", report.loss, report.tokens)?;
            out!("perplexity     {:.4}", report.perplexity)?;
            if let Some(bits) = report.bits_per_byte {
                out!("bits per byte  {bits:.4}")?;
            }
            out!("context        {context}")?;
            out!("precision      {}", model.bundle.precision())?;
            out!("checkpoint     blake3 {}", fingerprint.checkpoint)?;
            if let Some(hash) = &fingerprint.adapter {
                out!("adapter        blake3 {hash}")?;
            }
            out!("model          blake3 {}, Andiron {}", fingerprint.model, env!("CARGO_PKG_VERSION"))?;
        }
        Ok(Ending::Done)
    }
}

fn measure<S: TokenStream + ?Sized>(
    model: &DecoderPipeline,
    stream: &S,
    windows: Windows,
) -> anyhow::Result<LossReport> {
    let bundle = &model.bundle;
    let sum =
        bundle.precision().run(|| loss_over_windows(&bundle.model, stream, windows, bundle.device()))?;
    // The predicted tokens spell the text from the second token on.
    let bytes = match model.text.tokenizer() {
        Some(tokenizer) => {
            let mut ids = vec![0; sum.tokens() as usize];
            stream.read(1, &mut ids);
            Some(tokenizer.decode(&ids, Special::Skip)?.len() as u64)
        }
        None => None,
    };
    Ok(LossReport::new(sum, bytes))
}

fn encode_file(model: &DecoderPipeline, path: &Path) -> anyhow::Result<Vec<u32>> {
    let tokenizer = model.text.require_tokenizer()?;
    let mut ids = Vec::new();
    for document in Documents::new(source::open(path, &SourceOptions::default())?, OnError::Fail) {
        ids.extend(tokenizer.encode(&document?.text)?);
        ids.extend(tokenizer.eos_id());
    }
    Ok(ids)
}
