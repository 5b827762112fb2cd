//! Task `rerank`: which documents answer a query best.

use andiron_models::encoder::{EmbedPipeline, EncoderHead};

use crate::EncoderPipeline;
use crate::batching::{BATCH_TOKENS, in_batches};
use crate::embed::{EmbedReader, ToEmbed};
use crate::input::{Encoded, InputError};

/// A query and what may answer it.
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
    /// The documents; equals in the order of the request.
    pub results: Vec<RankedDocument>,
    /// Whether the end of some text was not read.
    pub truncated: bool,
}

/// How well a document fits its query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankedDocument {
    /// Its place in the request.
    pub index: usize,
    /// More is better: a cross-encoder's relevance, or the similarity of two vectors.
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

/// Texts of one request, read, or why one of them cannot be.
type Read<T> = Result<Vec<T>, InputError>;

impl EncoderPipeline {
    /// The documents of each request, best first.
    ///
    /// A cross-encoder, a model with a head for labels, reads each document beside the query: its first output says how
    /// well they fit. Any other encoder embeds query and documents, each after its prompt, and compares the vectors.
    pub fn rerank(&self, requests: &[RerankRequest]) -> Vec<Result<Ranking, InputError>> {
        match self.bundle.config.head() {
            EncoderHead::Classify { .. } => self.rerank_pairs(requests),
            _ => self.rerank_vectors(requests),
        }
    }

    fn rerank_pairs(&self, requests: &[RerankRequest]) -> Vec<Result<Ranking, InputError>> {
        let (reader, limit) = (self.reader(), self.embed_limit());
        let read = |request: &RerankRequest| -> Read<Encoded> {
            let query = self.cased(&request.query);
            let pair = |document: &String| {
                let document = self.cased(document);
                reader.framed(reader.tokenizer()?.frame(&query, Some(&document), limit)?, limit)
            };
            request.documents.iter().map(pair).collect()
        };
        let scores = |pairs: &[Encoded]| {
            in_batches(pairs, Encoded::len, BATCH_TOKENS, |batch| {
                let views: Vec<_> = batch.iter().map(|pair| pair.view()).collect();
                self.bundle.relevances(&views)
            })
        };
        together(requests.iter().map(read).collect(), scores, |pairs, scores| {
            Ranking::new(&scores, pairs.iter().any(|pair| pair.framed.truncated))
        })
    }

    fn rerank_vectors(&self, requests: &[RerankRequest]) -> Vec<Result<Ranking, InputError>> {
        let usual = EmbedPipeline::default();
        let pipeline = self.bundle.embedding.as_ref().unwrap_or(&usual);
        let queries = EmbedReader::new(self, pipeline.prompts.query());
        let documents = EmbedReader::new(self, pipeline.prompts.document());
        let read = |request: &RerankRequest| -> Read<ToEmbed> {
            let query = std::iter::once(queries.text(&request.query));
            query.chain(request.documents.iter().map(|document| documents.text(document))).collect()
        };
        let vectors = |texts: &[ToEmbed]| self.vectors(texts);
        together(requests.iter().map(read).collect(), vectors, |texts, vectors| {
            let (query, documents) = vectors.split_first().expect("the query is the first");
            let scores: Vec<f32> =
                documents.iter().map(|document| pipeline.similarity.of(query, document)).collect();
            Ranking::new(&scores, texts.iter().any(|text| text.input.framed.truncated))
        })
    }
}

/// What `finish` makes of the texts of each request and what `run` gives for them, `run` being given all texts at once.
fn together<T, R>(
    read: Vec<Read<T>>,
    run: impl FnOnce(&[T]) -> Vec<R>,
    finish: impl Fn(&[T], Vec<R>) -> Ranking,
) -> Vec<Result<Ranking, InputError>> {
    let mut all = Vec::new();
    let mut lens = Vec::with_capacity(read.len());
    for texts in read {
        lens.push(texts.map(|texts| {
            let from = all.len();
            all.extend(texts);
            from..all.len()
        }));
    }
    let mut results = run(&all).into_iter();
    let mut next = |range: std::ops::Range<usize>| {
        let own = results.by_ref().take(range.len()).collect();
        finish(&all[range], own)
    };
    lens.into_iter().map(|range| range.map(&mut next)).collect()
}
