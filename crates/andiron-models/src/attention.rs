//! Which token attends to which: the attention probabilities of a text, by layer and head.
//!
//! For looking at a model: they are computed in full, beside the attention of an ordinary pass.

pub use andiron_core::AttentionLayers;
use andiron_core::dropout_site::Stack;
use andiron_core::{AttentionProbabilities, AttentionRecord, Forward};

use crate::batch::{floats_of, one_row};
use crate::encoder::EncoderInput;
use crate::family::{Decoder as _, EncoderDecoder as _};
use crate::{ClassifierBundle, DecoderBundle, EncoderBundle, Seq2SeqBundle};

/// The attention of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Layers of the model; of an encoder-decoder, those of its deeper stack.
    pub n_layers: usize,
    /// The layers asked for that the model has.
    pub layers: Vec<LayerAttention>,
}

/// The attention of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerAttention {
    /// Who attends to whom.
    pub kind: AttentionKind,
    /// Index of the layer in its stack.
    pub layer: usize,
    /// Heads.
    pub n_heads: usize,
    /// Attending tokens.
    pub n_queries: usize,
    /// Tokens attended to.
    pub n_keys: usize,
    /// Probabilities, `[heads, queries, keys]` in row-major order. The row of a query adds up to 1.
    pub probabilities: Vec<f32>,
}

/// Who attends to whom in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionKind {
    /// Tokens of the text to each other: encoders and decoders.
    Text,
    /// Tokens of the source to each other, in an encoder-decoder.
    Source,
    /// Tokens of the target to those before them, in an encoder-decoder.
    Target,
    /// Tokens of the target to those of the source.
    Cross,
}

impl LayerAttention {
    fn new(recorded: AttentionProbabilities) -> Self {
        let [_, n_heads, n_queries, n_keys] = recorded.probabilities_bhts.dims();
        let kind = match (recorded.stack, recorded.cross) {
            (_, true) => AttentionKind::Cross,
            (Stack::Single, false) => AttentionKind::Text,
            (Stack::Encoder, false) => AttentionKind::Source,
            (Stack::Decoder, false) => AttentionKind::Target,
        };
        let probabilities = floats_of(recorded.probabilities_bhts);
        Self { kind, layer: recorded.layer, n_heads, n_queries, n_keys, probabilities }
    }

    /// The probabilities with which the token `query` attends to each token in `head`.
    ///
    /// # Panics
    /// If there is no such head or token.
    pub fn row(&self, head: usize, query: usize) -> &[f32] {
        assert!(head < self.n_heads && query < self.n_queries, "head {head}, token {query}");
        let row = head * self.n_queries + query;
        &self.probabilities[row * self.n_keys..(row + 1) * self.n_keys]
    }
}

impl Attention {
    fn new(passes: impl IntoIterator<Item = AttentionRecord>) -> Self {
        let mut all = Self { n_layers: 0, layers: Vec::new() };
        for pass in passes {
            all.n_layers = all.n_layers.max(pass.n_layers);
            all.layers.extend(pass.layers.into_iter().map(LayerAttention::new));
        }
        all
    }
}

impl DecoderBundle {
    /// The attention of a text's tokens in these layers; layers that the model does not have are left out.
    ///
    /// Takes `heads · tokens²` numbers for each layer.
    ///
    /// # Panics
    /// If the text is empty or too long, or an id is outside the vocabulary.
    pub fn attention(&self, ids: &[u32], wanted: AttentionLayers) -> Attention {
        let mut cx = Forward::evaluation().with_attention_record(wanted);
        self.precision().run(|| self.model.hidden(one_row(ids, self.device()), &mut cx));
        Attention::new([cx.into_attention()])
    }
}

impl ClassifierBundle {
    /// As [`DecoderBundle::attention`].
    ///
    /// # Panics
    /// As [`DecoderBundle::attention`].
    pub fn attention(&self, ids: &[u32], wanted: AttentionLayers) -> Attention {
        let mut cx = Forward::evaluation().with_attention_record(wanted);
        let ids_bt = one_row(ids, self.device());
        self.precision().run(|| self.model.sequence_logits(ids_bt, &[ids.len() - 1], &mut cx));
        Attention::new([cx.into_attention()])
    }
}

impl EncoderBundle {
    /// As [`DecoderBundle::attention`].
    ///
    /// # Panics
    /// As [`DecoderBundle::attention`]; and if a token type is out of range.
    pub fn attention(&self, input: EncoderInput<'_>, wanted: AttentionLayers) -> Attention {
        self.read_with(
            &[input],
            |cx| cx.with_attention_record(wanted),
            |_, _, cx| Attention::new([cx.into_attention()]),
        )
    }
}

impl Seq2SeqBundle {
    /// The attention of the source's tokens and of the target's to each other, and of the target to the source. The target
    /// is what the decoder reads, its start id included.
    ///
    /// Takes `heads · (source² + target² + target · source)` numbers for each layer.
    ///
    /// # Panics
    /// If a text is empty or too long, or an id is outside the vocabulary.
    pub fn attention(&self, source: &[u32], target: &[u32], wanted: AttentionLayers) -> Attention {
        let mut reading = Forward::evaluation().with_attention_record(wanted);
        let mut writing = Forward::evaluation().with_attention_record(wanted);
        self.precision().run(|| {
            let cross_cache = self.model.encode(one_row(source, self.device()), &mut reading);
            self.model.hidden(one_row(target, self.device()), &cross_cache, &mut writing)
        });
        Attention::new([reading, writing].map(Forward::into_attention))
    }
}
