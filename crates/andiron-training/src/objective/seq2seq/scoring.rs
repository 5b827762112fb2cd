//! Scores of the targets that a model writes.

use std::ops::ControlFlow;

use andiron_data::batch::HostBatch;
use andiron_data::tokenizer::{Special, Tokenizer};
use andiron_eval::metric::bleu::{Bleu, BleuStats};
use andiron_eval::metric::chrf::{Chrf, ChrfStats};
use andiron_eval::metric::rouge::Rouge;
use andiron_models::encoder_decoder::{Seq2SeqBatch, Seq2SeqModel};
use andiron_models::generate::{GenerateOptions, Generated, SamplingParams, generate_batch};
use andiron_models::{Seq2SeqBundle, Seq2SeqConfig};
use burn::tensor::Device;

/// Scores the targets that a model writes for the sources of the first rows: BLEU and chrF as sacreBLEU, ROUGE-L as
/// `rouge_score` without a stemmer.
///
/// Each token is the likeliest one. The references are the targets of the batch: truncated ones, if they were.
#[derive(Clone, Debug)]
pub struct Scoring {
    /// Configuration of the model.
    pub config: Seq2SeqConfig,
    /// The tokenizer of the targets.
    pub tokenizer: Tokenizer,
    /// Number of rows.
    pub rows: usize,
    /// Longest target, in tokens.
    pub max_new_tokens: usize,
}

/// Scores that are added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seq2SeqTally {
    /// Rows that were scored.
    pub rows: usize,
    /// Counts for BLEU.
    pub bleu: BleuStats,
    /// Counts for chrF.
    pub chrf: ChrfStats,
    /// Sum of the F-measures of ROUGE-L, from 0 to 1 each.
    pub rouge_l: f64,
}

impl Seq2SeqTally {
    /// Adds a row.
    pub fn add(&mut self, prediction: &str, reference: &str) {
        self.rows += 1;
        self.bleu += Bleu::default().stats(prediction, &[reference]);
        self.chrf += Chrf::default().stats(prediction, &[reference]);
        self.rouge_l += Rouge::default().score(prediction, &[reference]).rouge_l.f_measure;
    }

    /// Scores of all rows by name: BLEU and chrF from 0 to 100, ROUGE-L from 0 to 1. None, if no row was scored.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        if self.rows == 0 {
            return Vec::new();
        }
        let values = [
            ("bleu", Bleu::default().score(&self.bleu).score),
            ("chrf", Chrf::default().score(&self.chrf)),
            ("rouge_l", self.rouge_l / self.rows as f64),
        ];
        values.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

impl Scoring {
    /// Adds the rows of a batch, until there are enough. Rows without a source are left out.
    pub(super) fn score(
        &self,
        model: &Seq2SeqModel,
        batch: &HostBatch,
        device: &Device,
        tally: &mut Seq2SeqTally,
    ) {
        let Some(labels) = batch.token_labels().filter(|_| tally.rows < self.rows) else { return };
        let bundle = Seq2SeqBundle::of_model(self.config.clone(), model.clone(), device);
        let (sources, columns) = (&batch.inputs, batch.predicted().columns);
        let length = |row: usize| sources.lengths.as_ref().map_or(sources.columns, |lengths| lengths[row]);
        let rows: Vec<usize> =
            (0..sources.rows).filter(|&row| length(row) > 0).take(self.rows - tally.rows).collect();
        let texts: Vec<&[u32]> = rows.iter().map(|&row| &sources.row(row)[..length(row)]).collect();
        for (row, written) in rows.into_iter().zip(self.likeliest(&bundle, &texts)) {
            let places = row * columns..(row + 1) * columns;
            let targets = labels.ids[places.clone()].iter().zip(&labels.weights[places]);
            let target: Vec<u32> = targets.filter(|(_, weight)| **weight > 0.0).map(|(id, _)| *id).collect();
            tally.add(&self.text(&written), &self.text(&target));
        }
    }

    /// The likeliest target of each source, token by token; an empty one, if the logits of a model are not numbers.
    fn likeliest(&self, bundle: &Seq2SeqBundle, sources: &[&[u32]]) -> Vec<Vec<u32>> {
        if sources.is_empty() {
            return Vec::new();
        }
        let options = GenerateOptions {
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            max_new_tokens: self.max_new_tokens,
            stop_ids: bundle.generation.eos_token_id.as_slice().to_vec(),
            ..GenerateOptions::default()
        };
        let requests = vec![(vec![bundle.start_id()], options); sources.len()];
        let batch = Seq2SeqBatch::new(bundle, sources);
        let written = generate_batch(&batch, requests, |_, _| ControlFlow::Continue(()));
        let ids = |written: Generated| written.tokens.iter().map(|token| token.id).collect();
        written.into_iter().map(|written| written.map(ids).unwrap_or_default()).collect()
    }

    /// The text of ids; empty, if the tokenizer cannot tell.
    fn text(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, Special::Skip).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The values of sacrebleu 2.6.0 (BLEU, CHRF of the two rows as a corpus) and rouge_score 0.1.2 (mean of rougeL).
    #[test]
    fn scores_are_those_of_the_whole() {
        let mut tally = Seq2SeqTally::default();
        assert_eq!(tally.metrics(), []);
        tally.add("the cat sat on the mat", "the cat sat on a mat");
        tally.add("he went home early today", "today he went home");
        let names: Vec<String> = tally.metrics().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["bleu", "chrf", "rouge_l"]);
        for ((_, found), expected) in tally.metrics().into_iter().zip([44.428_089, 72.043_843, 0.75]) {
            assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
        }
    }
}
