//! Shows what a run learns from: its batches of token ids, and the gradients of its first step.
//!
//! ```text
//! cargo run --release -p andiron-training --example batches -- CONFIG.toml OUTPUT
//! ```
//!
//! Prints one JSON object for each micro-batch of the run, in order. Below `OUTPUT`, `start` is the model with which the run
//! begins, and `gradients` the same with the gradients of the first step, without dropout, in place of the parameters.

use std::error::Error;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use andiron_core::DeviceSpec;
use andiron_data::Seed;
use andiron_data::batch::{HostBatch, Sequences};
use andiron_models::Bundle;
use andiron_training::TrainConfig;
use andiron_training::objective::{
    Causal, Denoise, FromConfig as _, Masked, Objective, ObjectiveConfig, Seq2Seq, SpanCorruption,
};
use andiron_training::plan::{Plan, Setup};
use andiron_training::step::{StepOptions, compute_shared, with_gradients};
use burn::module::Module as _;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [config, output] = paths.as_slice() else {
        return Err("a configuration and a directory to write to are wanted".into());
    };
    let config = TrainConfig::load(config, &[])?;
    let device = DeviceSpec::first_compiled()?.open()?;
    let setup = Setup::open(&config, &device)?;
    match &config.objective {
        Some(ObjectiveConfig::Causal(options)) => show(&setup, Causal::plan(options, &setup)?, output),
        Some(ObjectiveConfig::Masked(options)) => show(&setup, Masked::plan(options, &setup)?, output),
        Some(ObjectiveConfig::Seq2Seq(options)) => show(&setup, Seq2Seq::plan(options, &setup)?, output),
        Some(ObjectiveConfig::SpanCorruption(options)) => {
            show(&setup, SpanCorruption::plan(options, &setup)?, output)
        }
        Some(ObjectiveConfig::Denoise(options)) => show(&setup, Denoise::plan(options, &setup)?, output),
        other => Err(format!("the batches of {other:?} are not shown: their targets are no tokens").into()),
    }
}

fn show<O: Objective>(setup: &Setup<'_>, plan: Plan<O>, output: &Path) -> Result<(), Box<dyn Error>> {
    let run = &setup.config.run;
    let steps = run.steps.ok_or("the configuration has no run.steps")?;
    let batches = |step: u64| {
        (step * run.accumulate..(step + 1) * run.accumulate).map(|index| plan.data.train.batch_at(index))
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    for batch in (0..steps).flat_map(batches) {
        writeln!(out, "{}", described(&batch))?;
    }
    out.flush()?;

    let bundle: Bundle<O::Family> =
        plan.start.model(Seed::new(run.seed).derive("weights"), setup.device)?.bundle;
    bundle.save(&output.join("start"))?;
    let model = bundle.model.clone().train();
    let options = StepOptions::new(run.precision);
    let first: Vec<HostBatch> = batches(0).collect();
    let computed = compute_shared(&model, &plan.objective, &first, options);
    let gradients = with_gradients(model, computed.gradients).valid();
    Bundle::<O::Family>::of_model(bundle.config, gradients, setup.device).save(&output.join("gradients"))?;
    Ok(())
}

/// A batch as JSON: what is read and what is predicted, by rows.
fn described(batch: &HostBatch) -> Value {
    let labels = batch.token_labels().expect("an objective whose targets are tokens");
    let columns = batch.predicted().columns;
    json!({
        "ids": ids(&batch.inputs),
        "lengths": batch.inputs.lengths,
        "decoder_ids": batch.decoder_inputs.as_ref().map(ids),
        "targets": labels.ids.chunks(columns).collect::<Vec<_>>(),
        "weights": labels.weights.chunks(columns).collect::<Vec<_>>(),
    })
}

fn ids(sequences: &Sequences) -> Vec<&[u32]> {
    (0..sequences.rows).map(|row| sequences.row(row)).collect()
}
