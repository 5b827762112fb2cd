//! Task `rerank`: which documents answer a query best.

use andiron_models::encoder::{EmbedPipeline, EncoderHead};
use serde_json::json;

use super::input::Input;
use super::reader::EncoderReader;
use super::{Answer, Row, RowError, ensure_empty, object, take};

/// Documents that are read at once.
const BATCH: usize = 16;

pub(super) struct Rerank {
    pub(super) model: EncoderReader,
}

impl Answer for Rerank {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let query: String = take(&mut row, "query", "a string")?
            .ok_or_else(|| RowError::invalid("there is no query; query and documents are needed"))?;
        let documents: Vec<String> = take(&mut row, "documents", "a list of strings")?
            .ok_or_else(|| RowError::invalid("there are no documents; query and documents are needed"))?;
        ensure_empty(&row)?;
        let (scores, truncated) = match self.model.bundle.config.head() {
            EncoderHead::Classify { .. } => self.read_together(&query, &documents)?,
            _ => self.compare(&query, &documents)?,
        };
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let results: Vec<_> =
            order.into_iter().map(|index| json!({ "index": index, "score": scores[index] })).collect();
        let mut answer = object(json!({ "results": results }));
        if truncated {
            answer.insert("truncated".to_owned(), json!(true));
        }
        Ok(answer)
    }
}

impl Rerank {
    /// A cross-encoder reads each document beside the query; its one output says how well they fit.
    fn read_together(&self, query: &str, documents: &[String]) -> Result<(Vec<f32>, bool), RowError> {
        let (limit, query) = (self.model.embed_limit(), self.model.cased(query));
        let tokenizer = self.model.tokenizer()?;
        let mut scores = Vec::with_capacity(documents.len());
        let mut truncated = false;
        for documents in documents.chunks(BATCH) {
            let mut inputs = Vec::with_capacity(documents.len());
            for document in documents {
                let framed = tokenizer
                    .frame(&query, Some(&self.model.cased(document)), limit)
                    .map_err(RowError::failed)?;
                truncated |= framed.truncated;
                inputs.push(Input::of_text(framed, &self.model, limit)?);
            }
            let views: Vec<_> = inputs.iter().map(Input::view).collect();
            scores.extend(self.model.bundle.relevances(&views));
        }
        Ok((scores, truncated))
    }

    /// Any other encoder embeds query and documents, each after its prompt; how near their vectors are says how well they
    /// fit.
    fn compare(&self, query: &str, documents: &[String]) -> Result<(Vec<f32>, bool), RowError> {
        let usual = EmbedPipeline::default();
        let pipeline = self.model.bundle.embedding.as_ref().unwrap_or(&usual);
        let mut truncated = false;
        let mut embed = |prompt: &str, texts: &[&str]| -> Result<Vec<Vec<f32>>, RowError> {
            let mut inputs = Vec::with_capacity(texts.len());
            let mut n_prompt = 0;
            for text in texts {
                let input;
                (input, n_prompt) = self.model.embed_input(prompt, text)?;
                truncated |= input.framed.truncated;
                inputs.push(input.framed.ids);
            }
            Ok(self.model.bundle.embed_after(&inputs, n_prompt))
        };
        let query = embed(pipeline.prompts.query(), &[query])?.pop().unwrap_or_default();
        let mut scores = Vec::with_capacity(documents.len());
        for documents in documents.chunks(BATCH) {
            let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
            let documents = embed(pipeline.prompts.document(), &texts)?;
            scores.extend(documents.iter().map(|document| pipeline.similarity.of(&query, document)));
        }
        Ok((scores, truncated))
    }
}
