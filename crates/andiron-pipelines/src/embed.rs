//! Task `embed`: text embeddings.

use std::borrow::{Borrow, Cow};

use andiron_data::tokenizer::Tokenizer;
use andiron_models::EncoderBundle;

use crate::EncoderPipeline;
use crate::batching::for_good;
use crate::input::{Encoded, InputError, Reader, TextInput, Types};

/// The embedding of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// The vector.
    pub vector: Vec<f32>,
    /// Tokens that were read, special tokens included.
    pub tokens: usize,
    /// Whether the text was truncated.
    pub truncated: bool,
}

/// Minimum norm when a vector is scaled to length 1, as in PyTorch.
const MIN_NORM: f32 = 1e-12;

impl Embedding {
    /// The first `dimensions` of the vector, scaled to length 1 if `normalize`: a shorter embedding of a model that was trained
    /// for it.
    ///
    /// Source: Kusupati et al. 2022, "Matryoshka Representation Learning", <https://arxiv.org/abs/2205.13147>.
    #[must_use]
    pub fn shortened(mut self, dimensions: usize, normalize: bool) -> Self {
        self.vector.truncate(dimensions);
        if normalize {
            let norm = self.vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(MIN_NORM);
            self.vector.iter_mut().for_each(|x| *x /= norm);
        }
        self
    }
}

/// Ids, and how many of the first belong to a prompt that pooling leaves out.
pub(crate) struct ToEmbed {
    pub(crate) input: Encoded,
    n_prompt: usize,
}

impl EncoderPipeline {
    /// An embedding of each input, by the bundle's [`EmbedPipeline`](andiron_models::encoder::EmbedPipeline). The model's default
    /// prompt, if it has one, is put before each text.
    pub fn embed<T: Borrow<TextInput>>(&self, inputs: &[T]) -> Vec<Result<Embedding, InputError>> {
        let prompt = self.bundle.embedding.as_ref().map_or("", |pipeline| pipeline.prompts.usual());
        let reader = EmbedReader::new(self, prompt);
        let encoded = inputs.iter().map(|input| reader.read(input.borrow())).collect();
        for_good(encoded, |good: &[ToEmbed]| {
            let vectors = self.vectors(good).into_iter();
            let embedding = |(vector, to): (Vec<f32>, &ToEmbed)| Embedding {
                vector,
                tokens: to.input.len(),
                truncated: to.input.framed.truncated,
            };
            vectors.zip(good).map(embedding).collect()
        })
    }

    /// Maximum length in tokens of a text to embed, or of a pair for a cross-encoder: from the files of the embedding pipeline,
    /// else from the tokenizer's, and at most the model's.
    pub fn embed_limit(&self) -> usize {
        let own = self.bundle.embedding.as_ref().and_then(|pipeline| pipeline.max_tokens);
        let tokenizer = || self.text.tokenizer().and_then(Tokenizer::model_max_length);
        own.or_else(tokenizer).unwrap_or(usize::MAX).min(self.bundle.config.max_positions())
    }

    /// The text, lowercased if the model wants that.
    pub(crate) fn cased<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.bundle.embedding.as_ref().is_some_and(|pipeline| pipeline.lower_case) {
            // Character by character, as the reference's normalizer has it.
            true => text.chars().flat_map(char::to_lowercase).collect(),
            false => text.into(),
        }
    }

    /// Embeds in batches of about equal length, padded: a vector is that of its text alone up to rounding.
    pub(crate) fn vectors(&self, texts: &[ToEmbed]) -> Vec<Vec<f32>> {
        let mut vectors = vec![Vec::new(); texts.len()];
        let mut lens: Vec<usize> = texts.iter().map(|text| text.n_prompt).collect();
        lens.sort_unstable();
        lens.dedup();
        // Prompts of one length, or two where ids are among the texts: they have no prompt.
        for n_prompt in lens {
            let rows: Vec<usize> = (0..texts.len()).filter(|&row| texts[row].n_prompt == n_prompt).collect();
            let ids: Vec<&[u32]> = rows.iter().map(|&row| texts[row].input.framed.ids.as_slice()).collect();
            let embedded = self.bundle.embed_after(&ids, n_prompt);
            rows.into_iter().zip(embedded).for_each(|(row, vector)| vectors[row] = vector);
        }
        vectors
    }
}

/// Tokenizes texts after a prompt.
pub(crate) struct EmbedReader<'a> {
    pipeline: &'a EncoderPipeline,
    reader: Reader<'a, EncoderBundle>,
    prompt: &'a str,
    limit: usize,
}

impl<'a> EmbedReader<'a> {
    pub(crate) fn new(pipeline: &'a EncoderPipeline, prompt: &'a str) -> Self {
        Self { pipeline, reader: pipeline.reader(), prompt, limit: pipeline.embed_limit() }
    }

    pub(crate) fn read(&self, input: &TextInput) -> Result<ToEmbed, InputError> {
        match input {
            TextInput::Text { text, pair: None } => self.text(text),
            other => {
                Ok(ToEmbed { input: self.reader.read(other, self.limit, Types::ForModel)?, n_prompt: 0 })
            }
        }
    }

    pub(crate) fn text(&self, text: &str) -> Result<ToEmbed, InputError> {
        let tokenizer = self.reader.tokenizer()?;
        let frame = |text: &str| tokenizer.frame(&self.pipeline.cased(text), None, self.limit);
        let input = self.reader.framed(frame(&format!("{}{text}", self.prompt))?, self.limit)?;
        let embedding = self.pipeline.bundle.embedding.as_ref();
        if self.prompt.is_empty() || !embedding.is_some_and(|pipeline| pipeline.skips_prompt) {
            return Ok(ToEmbed { input, n_prompt: 0 });
        }
        let alone = frame(self.prompt)?;
        let closes = alone.ids.last().is_some_and(|&id| tokenizer.is_special(id));
        let n_prompt = alone.ids.len() - usize::from(closes);
        match input.len() > n_prompt {
            true => Ok(ToEmbed { input, n_prompt }),
            false => Err(InputError::PromptFillsLimit { limit: self.limit }),
        }
    }
}
