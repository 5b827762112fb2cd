//! `andiron bench embed`: sentence embeddings.

use andiron_kernels::random::Seed;
use andiron_models::EncoderBundle;
use andiron_models::summary::Summary;
use andiron_models::weights::describe;
use clap::Args;

use super::{Figures, Subject, measure, median_ms};
use crate::exit::Ending;
use crate::flags::Common;
use crate::model::RunChoice;

/// Measure sentence embeddings: encoder and pooling, over texts of equal length
///
/// On a CPU, the time of the median batch is also given by type of operation; `other` is the rest.
#[derive(Debug, Args)]
pub struct EmbedBench {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    run: RunChoice,
    /// Texts per batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Tokens per text
    #[arg(long, value_name = "N", default_value_t = 128)]
    ctx: usize,
    /// Measured batches, after one to warm up
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
}

impl EmbedBench {
    /// Measures and prints.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let precision = self.run.checked(common)?;
        let bundle: EncoderBundle = self.subject.open(self.run, &common.open_device()?)?;
        let (columns, longest) = (self.ctx, bundle.max_tokens());
        anyhow::ensure!(
            (1..=longest).contains(&columns),
            "--ctx {columns}: the model reads 1 to {longest} tokens"
        );
        let rows = usize::from(self.batch);
        let (seed, vocabulary) = (Seed::new(2), bundle.config.vocab_size() as u64);
        let ids: Vec<u32> =
            (0..(rows * columns) as u64).map(|at| seed.below(at, vocabulary) as u32).collect();
        let texts: Vec<&[u32]> = ids.chunks(columns).collect();
        let mut runs = Vec::new();
        for number in 0..=self.steps {
            let run = measure(|| drop(bundle.embed(&texts)));
            if number > 0 {
                runs.push(run);
            }
        }
        let milliseconds = median_ms(runs.iter().map(|run| run.0));
        let mut figures = Figures::new();
        figures.number("sentences_per_s", rows as f64 / milliseconds * 1e3);
        figures.number("tokens_per_s", (rows * columns) as f64 / milliseconds * 1e3);
        figures.number("batch_ms", milliseconds);
        figures.operations(runs, 1.0);
        figures.print(common, (precision, precision.matmul_precision()), 2.0 * block_parameters(&bundle))
    }
}

/// Parameters that take part in a matmul for every token: those of the numbered blocks, since embeddings need neither head
/// nor pooler.
fn block_parameters(bundle: &EncoderBundle) -> f64 {
    let mut tensors = describe(&bundle.model);
    tensors.retain(|tensor| tensor.in_block);
    Summary::new(&tensors, false).matmul_parameters as f64
}
