//! Perplexities from log-probabilities, as `predict --task score` writes them.

use andiron_eval::LossSum;
use clap::Args;
use serde_json::{Map, Value, json};

use super::measure::{Files, Measure, object};
use super::row::Row;
use crate::exit::Ending;
use crate::flags::Common;

/// Perplexity of texts and bits per byte, from their log-probabilities, as lm-evaluation-harness 0.4 computes them
///
/// Rows: `{"sum_logprob": -70.2, "tokens": 20, "bytes": 81, "words": 14}`, of which each count gives a score of its own,
/// and where "logprobs", a list with null for tokens that were not predicted, may stand for "tokens". So it reads what
/// `andiron predict --task score` writes. Log-probabilities are natural. Scores are of all rows together: perplexity (a
/// token), bits_per_byte, byte_perplexity, word_perplexity.
#[derive(Debug, Args)]
pub struct PerplexityArgs {
    #[command(flatten)]
    files: Files,
}

impl PerplexityArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&OfLogprobs, common)
    }
}

struct OfLogprobs;

/// Sum of log-probabilities, and counts.
#[derive(Clone, Copy)]
struct Scored {
    sum_logprob: f64,
    /// Tokens, bytes and words.
    counts: [Option<u64>; 3],
}

const TOKENS: usize = 0;
const BYTES: usize = 1;
const WORDS: usize = 2;

/// All rows, and which counts each of them has.
struct ScoredRows {
    rows: Vec<Scored>,
    known: [bool; 3],
}

impl Measure for OfLogprobs {
    type Row = Scored;
    type Rows = ScoredRows;
    const GOLD: &'static [&'static str] = &["bytes", "words"];

    fn name(&self) -> &'static str {
        "perplexity"
    }

    fn row(&self, mut row: Row) -> Result<Scored, String> {
        let sum_logprob = row.number("sum_logprob")?;
        let tokens = match (row.count("tokens")?, row.optional("logprobs")) {
            (Some(tokens), _) => Some(tokens),
            (None, Some(Value::Array(logprobs))) => {
                Some(logprobs.iter().filter(|value| !value.is_null()).count() as u64)
            }
            (None, Some(_)) => return Err("logprobs is not a list".to_owned()),
            (None, None) => None,
        };
        let counts = [tokens, row.count("bytes")?, row.count("words")?];
        match counts {
            [None, None, None] => Err("there is none of tokens, logprobs, bytes and words".to_owned()),
            _ => Ok(Scored { sum_logprob, counts }),
        }
    }

    fn gather(&self, rows: Vec<Scored>) -> ScoredRows {
        let known = std::array::from_fn(|count| rows.iter().all(|row| row.counts[count].is_some()));
        ScoredRows { rows, known }
    }

    fn scores(&self, rows: &ScoredRows) -> Vec<&'static str> {
        let names = [
            (TOKENS, "perplexity"),
            (BYTES, "bits_per_byte"),
            (BYTES, "byte_perplexity"),
            (WORDS, "word_perplexity"),
        ];
        names.into_iter().filter(|&(count, _)| rows.known[count]).map(|(_, name)| name).collect()
    }

    fn over(&self, rows: &ScoredRows, chosen: &[u32]) -> Vec<f64> {
        let ScoredRows { rows, known } = rows;
        let of = |count: usize| {
            let mut sum = LossSum::default();
            for &row in chosen {
                let Scored { sum_logprob, counts } = rows[row as usize];
                sum.add(-sum_logprob, counts[count].unwrap_or(0));
            }
            sum
        };
        let mut scores = Vec::with_capacity(4);
        if known[TOKENS] {
            scores.push(of(TOKENS).perplexity());
        }
        if known[BYTES] {
            let sum = of(BYTES);
            scores.extend([sum.bits_per_token(), sum.perplexity()]);
        }
        if known[WORDS] {
            scores.push(of(WORDS).perplexity());
        }
        scores
    }

    fn details(&self, rows: &ScoredRows) -> Map<String, Value> {
        let ScoredRows { rows, known } = rows;
        let sum = |count: usize| -> u64 { rows.iter().filter_map(|row| row.counts[count]).sum() };
        let names = [(TOKENS, "tokens"), (BYTES, "bytes"), (WORDS, "words")];
        let mut details =
            object(json!({ "sum_logprob": rows.iter().map(|row| row.sum_logprob).sum::<f64>() }));
        for (count, name) in names.into_iter().filter(|&(count, _)| known[count]) {
            details.insert(name.to_owned(), json!(sum(count)));
        }
        details
    }
}
