//! What a one-shot model is asked for, and what it answers.

use andiron_pipelines::{
    AnswerError, AttentionError, AttentionRequest, Embedding, FillError, FilledMask, FoundAnswer, InputError,
    MaskedText, PromptInput, Question, Ranking, RerankRequest, RewriteOptions, Rewritten, SourceError,
    TextAttention, TextInput,
};

/// One piece of work: a text, or what belongs together.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Task {
    /// Embed a text.
    Embed(TextInput),
    /// Rank documents.
    Rerank(RerankRequest),
    /// Label a text.
    Classify(TextInput),
    /// Label the tokens of a text.
    TokenClassify(TextInput),
    /// Answer a question with at most this many tokens of its context.
    Answer(Question, usize),
    /// Give this many candidates for each mask.
    FillMask(MaskedText, usize),
    /// Generate targets of a source by beam search.
    Search(PromptInput, RewriteOptions),
    /// Show the attention of a text.
    Attention(AttentionRequest),
}

/// The answer to a [`Task`], of the same name.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// An embedding.
    Embedding(Embedding),
    /// The documents, best first.
    Ranking(Ranking),
    /// Labels.
    Labels(TextLabels),
    /// Labelled spans.
    Entities(TextEntities),
    /// An answer.
    Answer(FoundAnswer),
    /// Candidates for each mask.
    Masks(Vec<FilledMask>),
    /// The targets, best first.
    Targets(Vec<Rewritten>),
    /// The attention.
    Attention(TextAttention),
}

impl Output {
    /// Tokens that were read for it, as far as it knows.
    pub(super) fn tokens(&self) -> usize {
        match self {
            Self::Embedding(embedding) => embedding.tokens,
            Self::Ranking(ranking) => ranking.tokens,
            Self::Labels(labels) => labels.tokens,
            Self::Entities(entities) => entities.tokens,
            Self::Attention(found) => found.tokens.len(),
            Self::Answer(_) | Self::Masks(_) | Self::Targets(_) => 0,
        }
    }
}

/// The labels of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextLabels {
    /// All labels with their scores, best first.
    pub labels: Vec<(String, f32)>,
    /// Tokens that were read.
    pub tokens: usize,
    /// Whether the text was truncated.
    pub truncated: bool,
}

/// The labelled spans of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextEntities {
    /// In order.
    pub entities: Vec<TextEntity>,
    /// Tokens that were read.
    pub tokens: usize,
    /// Whether the text was truncated.
    pub truncated: bool,
}

/// A labelled span of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextEntity {
    /// The label.
    pub label: String,
    /// Its range: in characters of the text, or in tokens if ids were given.
    pub span: std::ops::Range<usize>,
    /// Its text; `None` if ids were given.
    pub text: Option<String>,
    /// Mean probability of the label over the tokens.
    pub score: f32,
}

/// Why a task has no output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The text or its ids cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The question cannot be answered.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// Nothing can be filled in.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// The source has no target.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no attention to show.
    #[error(transparent)]
    Attention(#[from] AttentionError),
    /// The model does not do this.
    #[error("the model does not do this")]
    Unable,
    /// The model panicked on this task. The log has details; other tasks are not affected.
    #[error("the model failed on this request")]
    Panicked,
    /// The runner was stopped.
    #[error("the model was stopped before the request was answered")]
    Stopped,
}

/// Bytes of text for one token, for an estimate before a text is tokenized.
const BYTES_PER_TOKEN: usize = 4;

impl Task {
    /// Estimated tokens to read, of at most `limit` for one text.
    pub(super) fn tokens(&self, limit: usize) -> usize {
        let text = |text: &str| (text.len() / BYTES_PER_TOKEN + 2).min(limit);
        let input = |input: &TextInput| match input {
            TextInput::Text { text: first, pair } => {
                (text(first) + pair.as_deref().map_or(0, text)).min(limit)
            }
            TextInput::Ids { ids, .. } => ids.len(),
        };
        match self {
            Self::Embed(one) | Self::Classify(one) | Self::TokenClassify(one) => input(one),
            Self::FillMask(masked, _) => input(&masked.input),
            Self::Rerank(request) => {
                let query = text(&request.query);
                request.documents.iter().map(|document| (query + text(document)).min(limit)).sum()
            }
            // Its windows together.
            Self::Answer(Question::Text { question, context }, _) => {
                (question.len() + context.len()) / BYTES_PER_TOKEN + 2
            }
            Self::Answer(Question::Ids { ids, .. }, _) => ids.len(),
            Self::Search(source, options) => {
                let source = match source {
                    PromptInput::Text(source) => text(source),
                    PromptInput::Ids(ids) => ids.len(),
                };
                source + options.beams.num_beams.saturating_mul(options.beams.max_new_tokens)
            }
            Self::Attention(request) => text(&request.text) + request.target.as_deref().map_or(0, text),
        }
    }

    /// Whether both may be in one batch.
    pub(super) fn goes_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Embed(_), Self::Embed(_))
            | (Self::Classify(_), Self::Classify(_))
            | (Self::TokenClassify(_), Self::TokenClassify(_)) => true,
            (Self::Answer(_, most), Self::Answer(_, other)) => most == other,
            (Self::FillMask(_, top), Self::FillMask(_, other)) => top == other,
            _ => false,
        }
    }
}
