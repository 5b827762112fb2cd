//! Task `rerank`: sort documents by relevance to a query.

use andiron_models::encoder::{EmbedPipeline, EncoderHead};

use crate::EncoderPipeline;
use crate::batching::{BATCH_TOKENS, in_batches};
use crate::embed::{EmbedReader, ToEmbed};
use crate::input::{Encoded, InputError};

/// A query and its candidate documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RerankRequest {
    /// The query.
    pub query: String,
    /// The documents.
    pub documents: Vec<String>,
}

/// The documents of a request, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// The documents; ties in the order of the request.
    pub results: Vec<RankedDocument>,
    /// Whether a text was truncated.
    pub truncated: bool,
}

/// The relevance of a document to its query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankedDocument {
    /// Its index in the request.
    pub index: usize,
    /// Higher is better: a cross-encoder's output, or the similarity of two embeddings.
    pub score: f32,
}

impl Ranking {
    fn new(scores: &[f32], truncated: bool) -> Self {
        let mut results: Vec<RankedDocument> =
            scores.iter().enumerate().map(|(index, &score)| RankedDocument { index, score }).collect();
        results.sort_by(|a, b| b.score.total_cmp(&a.score));
        Self { results, truncated }
    }
}

impl EncoderPipeline {
    /// The documents of a request, best first.
    ///
    /// A cross-encoder (an encoder with a classification head) reads query and document as a pair; its first output is the
    /// score. Any other encoder is a bi-encoder: it embeds query and documents, each with its prompt, and compares the vectors.
    ///
    /// # Errors
    /// If a text cannot be read.
    pub fn rerank(&self, request: &RerankRequest) -> Result<Ranking, InputError> {
        match self.bundle.config.head() {
            EncoderHead::Classify { .. } => self.rerank_pairs(request),
            _ => self.rerank_vectors(request),
        }
    }

    fn rerank_pairs(&self, request: &RerankRequest) -> Result<Ranking, InputError> {
        let (reader, limit) = (self.reader(), self.embed_limit());
        let query = self.cased(&request.query);
        let pair = |document: &String| {
            let document = self.cased(document);
            reader.framed(reader.tokenizer()?.frame(&query, Some(&document), limit)?, limit)
        };
        let pairs: Vec<Encoded> = request.documents.iter().map(pair).collect::<Result<_, InputError>>()?;
        let scores = in_batches(&pairs, Encoded::len, BATCH_TOKENS, |batch| {
            let views: Vec<_> = batch.iter().map(|pair| pair.view()).collect();
            self.bundle.relevances(&views)
        });
        Ok(Ranking::new(&scores, pairs.iter().any(|pair| pair.framed.truncated)))
    }

    fn rerank_vectors(&self, request: &RerankRequest) -> Result<Ranking, InputError> {
        let usual = EmbedPipeline::default();
        let pipeline = self.bundle.embedding.as_ref().unwrap_or(&usual);
        let query = EmbedReader::new(self, pipeline.prompts.query()).text(&request.query);
        let reader = EmbedReader::new(self, pipeline.prompts.document());
        let documents = request.documents.iter().map(|document| reader.text(document));
        let texts: Vec<ToEmbed> = std::iter::once(query).chain(documents).collect::<Result<_, _>>()?;
        let vectors = self.vectors(&texts);
        let (query, documents) = vectors.split_first().expect("the query is the first");
        let scores: Vec<f32> =
            documents.iter().map(|document| pipeline.similarity.of(query, document)).collect();
        Ok(Ranking::new(&scores, texts.iter().any(|text| text.input.framed.truncated)))
    }
}
