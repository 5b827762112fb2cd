//! Task `rerank`: sort documents by relevance to a query.

use andiron_pipelines::{EncoderPipeline, Ranking, RerankRequest};
use serde_json::{Value, json};

use super::rows::{Answer, Row, RowError, answer_parsed, object, take, tell_truncation};

pub(super) struct Rerank {
    pub(super) model: EncoderPipeline,
}

impl Answer for Rerank {
    fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        answer_parsed(rows, request, |requests| {
            requests.iter().map(|request| Ok(row(&self.model.rerank(request)?))).collect()
        })
    }

    /// The documents of a row are a batch.
    fn rows_together(&self) -> usize {
        1
    }
}

fn request(row: &mut Row) -> Result<RerankRequest, RowError> {
    let query = take(row, "query", "a string")?
        .ok_or_else(|| RowError::invalid("there is no query; query and documents are needed"))?;
    let documents = take(row, "documents", "a list of strings")?
        .ok_or_else(|| RowError::invalid("there are no documents; query and documents are needed"))?;
    Ok(RerankRequest { query, documents })
}

fn row(ranking: &Ranking) -> Row {
    let results: Vec<Value> =
        ranking.results.iter().map(|found| json!({ "index": found.index, "score": found.score })).collect();
    let mut row = object(json!({ "results": results }));
    tell_truncation(&mut row, ranking.truncated);
    row
}
