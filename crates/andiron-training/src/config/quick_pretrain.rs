//! A whole configuration from a number of parameters and prepared data.

use std::path::PathBuf;

use andiron_core::Precision;
use andiron_data::loader::Order;
use andiron_data::shard::Dataset;
use andiron_data::tokenizer::Tokenizer;

use super::{
    CheckpointConfig, DataConfig, EvaluateConfig, ParameterCount, RunConfig, SizedDecoder, TrainConfig,
};
use crate::optimizer::{OptimizerConfig, ScheduleKind};
use crate::trainer::TrainError;

/// Tokens in a micro-batch.
const MICRO_BATCH: u64 = 4096;
/// Tokens to train on, for each parameter.
///
/// Source: Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", <https://arxiv.org/abs/2203.15556>.
const TOKENS_PER_PARAMETER: u64 = 20;
/// Most passes over the data: repeated four times, tokens are worth nearly as much as new ones.
///
/// Source: Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", <https://arxiv.org/abs/2305.16264>.
const EPOCHS: u64 = 4;
/// Steps of a run that are aimed at before steps get larger.
const FEWEST_STEPS: u64 = 500;
/// Rows of the validation data that are measured during the run.
const MEASURED_ROWS: u64 = 64;

/// What a pretraining is told on the command line; the rest of its configuration follows from it.
///
/// | setting | value |
/// |---|---|
/// | `model` | a Qwen 3 of these sizes: see [`SizedDecoder`] |
/// | `run.steps` | 20 tokens for each parameter, but at most 4 passes over the data |
/// | `data.context` | the model's context, less if the data are short |
/// | `data.rows` | 4096 tokens in a micro-batch |
/// | `run.accumulate` | 1, 4, 16 or 64 micro-batches below 3M, 30M, 300M parameters and above, fewer for a run of less than 500 steps |
/// | `optimizer` | AdamW, betas 0.9 and 0.95, weight decay 0.1, cosine decay to a tenth after 2 % of warm-up |
/// | `optimizer.lr` | 0.003239 − 0.0001395 · ln(parameters without embeddings), at least 1e-4 (Kaplan et al. 2020, <https://arxiv.org/abs/2001.08361>, equation D.1) |
/// | `evaluate`, `checkpoint` | ten times in the run |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuickPretrain {
    /// The number of parameters.
    pub params: ParameterCount,
    /// The directory that `prepare` wrote.
    pub data: PathBuf,
    /// Directory of the run.
    pub output: PathBuf,
    /// Length of the run, if it is not derived.
    pub steps: Option<u64>,
}

impl QuickPretrain {
    /// The configuration, and the sizes of its model.
    ///
    /// # Errors
    /// If the data cannot be read, or no model with their vocabulary is of that size.
    pub fn config(&self, precision: Precision) -> Result<(TrainConfig, SizedDecoder), TrainError> {
        let [train, valid, tokenizer] = ["train", "valid", "tokenizer"].map(|name| self.data.join(name));
        if !train.is_dir() {
            return Err(TrainError::NotPrepared { path: self.data.clone() });
        }
        let open = |path| Dataset::open(path).map_err(|source| TrainError::Data { source: Box::new(source) });
        let dataset = open(&train)?;
        let held_out = valid.is_dir().then(|| open(&valid)).transpose()?;
        let end = match Tokenizer::is_in(&tokenizer) {
            true => {
                let failed =
                    |source| TrainError::Tokenizer { path: tokenizer.clone(), source: Box::new(source) };
                Tokenizer::load(&tokenizer).map_err(failed)?.eos_id()
            }
            false => None,
        };
        let mut sizes = SizedDecoder::new(self.params, dataset.vocab_size())?;
        let shortest = held_out.as_ref().map_or(u64::MAX, Dataset::tokens).min(dataset.tokens());
        while sizes.context > 16 && sizes.context as u64 >= shortest {
            sizes.context /= 2;
        }
        let rows = (MICRO_BATCH / sizes.context as u64).max(1);
        let micro_batch = rows * sizes.context as u64;
        let parameters = sizes.parameters();
        let tokens = (TOKENS_PER_PARAMETER * parameters).min(EPOCHS * dataset.tokens());
        let mut accumulate: u64 = match self.params.0 {
            0..3_000_000 => 1,
            3_000_000..30_000_000 => 4,
            30_000_000..300_000_000 => 16,
            _ => 64,
        };
        while accumulate > 1 && self.steps.is_none() && tokens < FEWEST_STEPS * accumulate * micro_batch {
            accumulate /= 2;
        }
        let derived = tokens.div_ceil(accumulate * micro_batch).max(1);
        let steps = self.steps.unwrap_or(derived);
        let inner = (parameters - sizes.embeddings()) as f64;
        let lr = (0.003_239 - 0.000_139_5 * inner.ln()).max(1e-4);
        // Two digits: this is read by people.
        let lr = format!("{lr:.1e}").parse().unwrap_or(lr);
        let every = steps.div_ceil(10);
        let config = TrainConfig {
            run: RunConfig {
                output: self.output.clone(),
                seed: 1337,
                steps: Some(steps),
                epochs: None,
                accumulate,
                log_every: 1,
                activation_checkpointing: false,
                precision,
            },
            init: None,
            model: Some(sizes.config(end)),
            adapter: None,
            objective: None,
            data: DataConfig {
                valid: held_out.is_some().then_some(valid),
                tokenizer: Tokenizer::is_in(&tokenizer).then_some(tokenizer),
                context: Some(sizes.context),
                order: Order::Epochs,
                ..DataConfig::new(train, rows as usize)
            },
            optimizer: OptimizerConfig {
                schedule: ScheduleKind::Cosine,
                min_lr: lr / 10.0,
                warmup_steps: steps.div_ceil(50),
                beta2: Some(0.95),
                ..OptimizerConfig::constant(lr)
            },
            checkpoint: CheckpointConfig { every, keep_last: 2, keep_best: false },
            evaluate: EvaluateConfig {
                every,
                at_start: false,
                rows: rows as usize,
                max_windows: Some(MEASURED_ROWS),
            },
        };
        config.validate()?;
        Ok((config, sizes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::write_data;

    #[test]
    fn a_run_follows_from_its_data_and_a_size() {
        let dir = tempfile::tempdir().unwrap();
        let quick = |params: &str, steps| QuickPretrain {
            params: params.parse().unwrap(),
            data: dir.path().to_owned(),
            output: dir.path().join("out"),
            steps,
        };
        let error = quick("100K", None).config(Precision::F32).unwrap_err();
        assert!(error.to_string().contains("prepare"), "{error}");
        write_data(&dir.path().join("train"), 40_000);
        let (config, sizes) = quick("100K", None).config(Precision::F32).unwrap();
        // Four passes over 40 000 tokens; the model would take two million.
        assert_eq!((config.run.steps, config.run.accumulate), (Some(40), 1));
        assert_eq!((config.data.rows, config.data.context, sizes.context), (16, Some(256), 256));
        assert_eq!((config.evaluate.every, config.checkpoint.every), (4, 4));
        assert_eq!(config.data.valid, None);
        assert_eq!(config.optimizer.lr, 1.6e-3);
        // As its own file says it.
        assert_eq!(TrainConfig::parse(&config.to_toml(), &[]).unwrap(), config);

        write_data(&dir.path().join("valid"), 100);
        let (config, _) = quick("5M", Some(7)).config(Precision::F32).unwrap();
        assert_eq!((config.run.steps, config.run.accumulate), (Some(7), 4));
        assert_eq!((config.data.rows, config.data.context), (64, Some(64)));
        assert_eq!(config.optimizer.warmup_steps, 1);
    }
}
