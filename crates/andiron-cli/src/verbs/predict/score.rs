//! Task `score`: log-probabilities of a sequence.

use andiron_pipelines::{DecoderPipeline, ScorePair, ScoreTextError, ScoredText, Seq2SeqPipeline};
use serde_json::json;

use super::rows::{Answer, Row, RowError, answer_parsed, object, take_prompt};

pub(super) struct Score {
    pub(super) model: DecoderPipeline,
}

impl Answer for Score {
    fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        let text = |row: &mut Row| take_prompt(row, "text", "ids");
        answer_parsed(rows, text, |texts| self.model.score(&texts).into_iter().map(row).collect())
    }
}

/// The same of a target, given a source.
pub(super) struct ScoreTarget {
    pub(super) model: Seq2SeqPipeline,
}

impl Answer for ScoreTarget {
    fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        let pair = |row: &mut Row| {
            let source = take_prompt(row, "source", "source_ids")?;
            Ok(ScorePair { source, target: take_prompt(row, "target", "target_ids")? })
        };
        answer_parsed(rows, pair, |pairs| self.model.score(&pairs).into_iter().map(row).collect())
    }

    fn rows_together(&self) -> usize {
        1
    }
}

fn row(scored: Result<ScoredText, ScoreTextError>) -> Result<Row, RowError> {
    let ScoredText { ids, scores, bytes } = scored?;
    Ok(object(json!({
        "ids": ids,
        "logprobs": scores.logprobs,
        "sum_logprob": scores.sum_logprob,
        "bytes": bytes,
        "is_greedy": scores.is_greedy,
    })))
}
