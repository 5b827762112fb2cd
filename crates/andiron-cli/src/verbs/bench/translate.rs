//! `andiron bench translate`: an encoder-decoder from sources to targets.

use std::ops::ControlFlow;

use andiron_kernels::random::Seed;
use andiron_models::Seq2SeqBundle;
use andiron_models::encoder_decoder::Seq2SeqBatch;
use andiron_models::generate::{
    BeamOptions, GenerateOptions, GenerationConfig, SamplingParams, beam_search_batch, generate_batch,
};
use clap::Args;

use super::{Figures, Subject, measure, median_ms};
use crate::exit::Ending;
use crate::flags::Common;
use crate::model::RunChoice;

/// Measure translation: an encoder-decoder reads a batch of sources and writes their targets
///
/// Targets have all the tokens asked for: no token ends them. On a CPU, the time of the median batch is also given by type of
/// operation; `other` is the rest.
#[derive(Debug, Args)]
pub struct TranslateBench {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    run: RunChoice,
    /// Tokens of a source
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    source: u32,
    /// Tokens of a target
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Sources in the batch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Beams of each target; 1 is greedy
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    num_beams: u32,
    /// Measured batches, after one to warm up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
}

impl TranslateBench {
    /// Measures and prints.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let precision = self.run.checked(common)?;
        let bundle: Seq2SeqBundle = self.subject.open(self.run, &common.open_device()?)?;
        let mut bundle = bundle.with_kv_cache_dtype(self.run.kv_cache_dtype());
        bundle.generation = GenerationConfig::default();
        let (source, tokens) = (self.source as usize, self.tokens as usize);
        let longest = bundle.config.max_positions();
        anyhow::ensure!(source <= longest, "--source {source}: the model reads at most {longest} tokens");
        anyhow::ensure!(tokens < longest, "--tokens {tokens}: the model writes fewer than {longest} tokens");
        let (seed, vocabulary) = (Seed::new(2), bundle.config.vocab_size() as u64);
        let ids: Vec<u32> =
            (0..u64::from(self.batch) * source as u64).map(|at| seed.below(at, vocabulary) as u32).collect();
        let sources: Vec<&[u32]> = ids.chunks(source).collect();
        let mut runs = Vec::new();
        // One to warm up.
        for number in 0..=self.steps {
            let mut written = Ok(0);
            let run = measure(|| written = self.write(&bundle, &sources));
            let wanted = sources.len() * tokens;
            let written = written?;
            anyhow::ensure!(written == wanted, "{written} tokens were written, not {wanted}");
            if number > 0 {
                runs.push(run);
            }
        }
        let milliseconds = median_ms(runs.iter().map(|run| run.0));
        let sources = f64::from(self.batch);
        let mut figures = Figures::new();
        figures.number("tokens_per_s", sources * f64::from(self.tokens) / milliseconds * 1e3);
        figures.number("sources_per_s", sources / milliseconds * 1e3);
        figures.number("batch_ms", milliseconds);
        figures.operations(runs, 1.0);
        figures.print(common, (precision, precision.matmul_precision()), None)
    }

    /// Writes the targets and returns how many tokens they have.
    fn write(&self, bundle: &Seq2SeqBundle, sources: &[&[u32]]) -> anyhow::Result<usize> {
        let max_new_tokens = self.tokens as usize;
        let model = Seq2SeqBatch::new(bundle, sources).with_length_limit(max_new_tokens + 1);
        let start = [bundle.start_id()];
        let mut written = 0;
        if self.num_beams == 1 {
            let options = GenerateOptions {
                sampling: SamplingParams::greedy(),
                max_new_tokens,
                ..GenerateOptions::default()
            };
            let prompts = vec![(start.to_vec(), options); sources.len()];
            for target in generate_batch(&model, prompts, |_, _| ControlFlow::Continue(())) {
                written += target?.tokens.len();
            }
        } else {
            let num_beams = self.num_beams as usize;
            let options = BeamOptions { num_beams, max_new_tokens, ..BeamOptions::default() };
            for found in beam_search_batch(&model, &vec![&start[..]; sources.len()], &options, || true)? {
                written += found?.first().map_or(0, |best| best.ids.len());
            }
        }
        Ok(written)
    }
}
