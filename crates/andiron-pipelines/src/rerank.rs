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
    /// Tokens that were read, special tokens included.
    pub tokens: usize,
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
    /// A cross-encoder's output before its activation.
    pub logit: Option<f32>,
}

impl Ranking {
    fn new<'a>(
        scores: impl Iterator<Item = (f32, Option<f32>)>,
        read: impl Iterator<Item = &'a Encoded>,
    ) -> Self {
        let mut ranking = Self { results: Vec::new(), tokens: 0, truncated: false };
        for input in read {
            ranking.tokens += input.len();
            ranking.truncated |= input.framed.truncated;
        }
        let ranked = |(index, (score, logit))| RankedDocument { index, score, logit };
        ranking.results = scores.enumerate().map(ranked).collect();
        ranking.sort();
        ranking
    }

    /// The ranking of all documents of a request, from those of its parts: each has its share of the documents, in order.
    pub fn join(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut whole = Self { results: Vec::new(), tokens: 0, truncated: false };
        for part in parts {
            let before = whole.results.len();
            let moved = |found: RankedDocument| RankedDocument { index: before + found.index, ..found };
            whole.results.extend(part.results.into_iter().map(moved));
            whole.tokens += part.tokens;
            whole.truncated |= part.truncated;
        }
        whole.sort();
        whole
    }

    fn sort(&mut self) {
        self.results.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
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
        let logits = in_batches(&pairs, Encoded::len, BATCH_TOKENS, |batch| {
            let views: Vec<_> = batch.iter().map(|pair| pair.view()).collect();
            self.bundle.relevance_logits(&views)
        });
        let scores = logits.into_iter().map(|logit| (self.bundle.relevance.of(logit), Some(logit)));
        Ok(Ranking::new(scores, pairs.iter()))
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
        let scores = documents.iter().map(|document| (pipeline.similarity.of(query, document), None));
        Ok(Ranking::new(scores, texts.iter().map(|text| &text.input)))
    }
}
