//! Memory estimate of a run, computed from its configuration before anything is allocated.

use andiron_core::{ParamRole, Precision};
use andiron_data::rows::RowReader;
use andiron_models::adapter::Targets;
use andiron_models::weights::ParamInfo;
use andiron_models::{Family, RunPrecision};
use burn::tensor::Device;

use crate::base::Base;
use crate::config::TrainConfig;
use crate::optimizer::OptimizerKind;
use crate::trainer::TrainError;

const F32: u64 = 4;

/// The share of the activations that is certainly kept.
const KEPT: f64 = 0.9;

/// Rows from which the length of all is estimated.
const SAMPLED_ROWS: usize = 200;

/// Bytes of a row for a token at most, names of fields included.
const BYTES_PER_TOKEN: u64 = 8;

impl TrainConfig {
    /// An estimate from below of the bytes that training takes: weights, gradients, the optimizer's moments, and the activations of
    /// a micro-batch that the backward pass needs. Of a model below an adapter there are the weights and the activations only.
    /// Buffers of the backend are not included.
    ///
    /// Of a block, the backward pass needs about the inputs and the outputs of its matmuls: what a matmul reads is the output of a
    /// norm or an activation function, which need what the one before wrote. Where two matmuls share an input, norms and residual
    /// sums keep as much.
    ///
    /// # Errors
    /// If the model to begin with cannot be read.
    pub fn memory_bytes(&self, device: &Device) -> Result<u64, TrainError> {
        self.memory_bytes_of_each(1, device)
    }

    /// The same of each of `processes` that share the run: their parts of a step have fewer rows, and they may divide the moments.
    ///
    /// # Errors
    /// As for [`memory_bytes`](Self::memory_bytes).
    pub fn memory_bytes_of_each(&self, processes: usize, device: &Device) -> Result<u64, TrainError> {
        let processes = processes.max(1) as u64;
        let moments_of = |parameters: u64, moments: u64| {
            let holders = if self.optimizer.shard { processes } else { 1 };
            parameters.saturating_mul(moments) / holders
        };
        let base = Base::open(self)?;
        let tensors = base.parameters(device);
        let elements =
            |shape: &[usize]| shape.iter().fold(1_u64, |product, &size| product.saturating_mul(size as u64));
        let parameters = tensors.iter().map(|tensor| elements(&tensor.shape)).fold(0, u64::saturating_add);
        let moments = match self.optimizer.kind {
            OptimizerKind::Adamw => 2,
            // One for matrices, two for the rest: a lower bound.
            OptimizerKind::Muon | OptimizerKind::Lion => 1,
            // Those of rows and columns hardly count; `beta1` adds one for each element.
            OptimizerKind::Adafactor => {
                let settings = self.optimizer.adafactor.as_ref();
                u64::from(settings.is_some_and(|settings| settings.beta1.is_some()))
            }
        };
        let is_everywhere = self
            .adapter
            .as_ref()
            .is_none_or(|adapter| adapter.targets == Targets::AllLinear && adapter.exclude.is_none());
        let states = match &self.adapter {
            None => parameters
                .saturating_mul(2)
                .saturating_add(moments_of(parameters, moments))
                .saturating_mul(F32),
            Some(adapter) => {
                let rank = adapter.rank as u64;
                let factors = |shape: &[usize]| rank.saturating_mul((shape[0] + shape[1]) as u64);
                let is_matrix =
                    |tensor: &&ParamInfo| tensor.role == ParamRole::Matrix && tensor.shape.len() == 2;
                let matrices = tensors.iter().filter(is_matrix);
                // Other targets are fewer.
                let trained: u64 = match is_everywhere {
                    true => matrices.map(|tensor| factors(&tensor.shape)).fold(0, u64::saturating_add),
                    false => 0,
                };
                let base: f64 = tensors.iter().map(|tensor| stored_bytes(tensor, base.precision)).sum();
                (base as u64).saturating_add(
                    trained
                        .saturating_mul(2)
                        .saturating_add(moments_of(trained, moments))
                        .saturating_mul(F32),
                )
            }
        };
        let tokens = match self.data.batch_tokens {
            // Batches of a number of tokens are not divided.
            Some(tokens) => tokens as u64,
            None => {
                let of_step = (self.data.rows as u64).saturating_mul(self.run.accumulate);
                let rows = (self.data.rows as u64).min(of_step.div_ceil(processes));
                rows.saturating_mul(self.tokens_per_row(base.config.sizes().max_positions))
            }
        };
        // An encoder-decoder reads a part of the tokens on each of its sides.
        let sides = if base.family() == Family::EncoderDecoder { 2 } else { 1 };
        let widths = tensors
            .iter()
            .filter(|tensor| tensor.role == ParamRole::Matrix && tensor.shape.len() == 2)
            // Of a block that is computed again only the inputs are kept, and they hardly count.
            .filter(|tensor| !(self.run.activation_checkpointing && tensor.in_block))
            .map(|tensor| (tensor.shape[0] + tensor.shape[1]) as u64);
        // A frozen matrix keeps nothing; one with an adapter does.
        let activations = match is_everywhere {
            true => widths.fold(0, u64::saturating_add).saturating_mul(tokens) / sides,
            false => 0,
        };
        let bytes = if self.run.precision == Precision::Mixed { F32 / 2 } else { F32 };
        let activations = (activations.saturating_mul(bytes) as f64 * KEPT) as u64;
        Ok(states.saturating_add(activations))
    }
}

impl TrainConfig {
    /// Tokens of a row: those of a sequence of a token stream, or what a typical row of a file has at least.
    fn tokens_per_row(&self, longest: usize) -> u64 {
        if let Some(columns) = self.data.packed_length(longest).or(self.data.context) {
            return columns as u64;
        }
        let Ok(mut rows) = RowReader::open(&self.data.train, &self.data.row_options()) else { return 1 };
        let n_rows = rows.by_ref().take(SAMPLED_ROWS).filter(Result::is_ok).count() as u64;
        let mean = rows.bytes_read() / n_rows.max(1);
        (mean / BYTES_PER_TOKEN).clamp(1, self.data.text_length(longest) as u64)
    }
}

/// Bytes of a weight as it is stored: blocks of 32 numbers have a scale of two bytes.
fn stored_bytes(tensor: &ParamInfo, precision: RunPrecision) -> f64 {
    let bits = match (tensor.role, precision) {
        (ParamRole::Matrix, RunPrecision::Int4) => 4.5,
        // Embeddings and heads take the blocks of int8.
        (_, RunPrecision::Int4 | RunPrecision::Int8) => 8.5,
        (_, RunPrecision::Bf16) => 16.0,
        _ => 32.0,
    };
    tensor.elements() as f64 * bits / 8.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CONFIG, device};

    fn bytes(overrides: &[&str]) -> f64 {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        TrainConfig::parse(CONFIG, &overrides).unwrap().memory_bytes(&device()).unwrap() as f64
    }

    #[test]
    fn the_estimate_is_near_what_a_run_takes() {
        let model = [
            "model.vocab_size=4200",
            "model.n_positions=256",
            "model.n_embd=384",
            "model.n_layer=6",
            "model.n_head=6",
            "data.context=256",
            "data.rows=12",
        ];
        // Peak resident memory on a processor with AVX-512, two threads: 649 MiB in f32, 499 in mixed precision, of which the
        // program takes 40 before it trains.
        let mib = |precision: &str| bytes(&[&model[..], &[precision]].concat()) / f64::from(1 << 20);
        let [f32, mixed] = ["run.precision=f32", "run.precision=mixed"].map(mib);
        assert!((0.85..1.0).contains(&(f32 / 609.0)), "{f32}");
        assert!((0.8..1.0).contains(&(mixed / 459.0)), "{mixed}");
    }

    #[test]
    fn processes_that_share_a_run_take_less_each() {
        let config =
            |set: &str| TrainConfig::parse(CONFIG, &["data.rows=8".to_owned(), set.to_owned()]).unwrap();
        let each = |set: &str, processes| config(set).memory_bytes_of_each(processes, &device()).unwrap();
        let [alone, whole, divided] = [("seed=1", 1), ("seed=1", 4), ("optimizer.shard=true", 4)]
            .map(|(set, n)| each(&set.replace("seed", "run.seed"), n));
        assert!(divided < whole && whole < alone, "{divided} {whole} {alone}");
        // Where micro-batches are accumulated, each process has whole ones.
        assert_eq!(each("run.accumulate=4", 4), alone);
    }

    #[test]
    fn long_rows_count_and_short_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let sized = |name: &str, letters: usize| {
            let path = dir.path().join(name);
            let row = format!("{{\"text\":\"{}\"}}\n", "a".repeat(letters));
            std::fs::write(&path, row.repeat(10)).unwrap();
            format!("data.train={:?}", path.display().to_string())
        };
        let rows = |name: &str, letters: usize| {
            let config = CONFIG.replace("context = 8\n", "").replace("n_positions = 8", "n_positions = 600");
            let config = TrainConfig::parse(&config, &[sized(name, letters)]).unwrap();
            (config.tokens_per_row(600), config.memory_bytes(&device()).unwrap())
        };
        let (short, long, longest) = (rows("a.jsonl", 20), rows("b.jsonl", 2000), rows("c.jsonl", 20_000));
        assert_eq!((short.0, long.0, longest.0), (4, 251, 512));
        assert!(short.1 < long.1 && long.1 < longest.1);
    }
}
