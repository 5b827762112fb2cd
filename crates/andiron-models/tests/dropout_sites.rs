//! Which dropout masks each architecture draws in training, where, and with the rate of which key of its `config.json`.
//!
//! The table was written from the modelling files of transformers 5.24.0, by reading where each class applies which rate.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use std::collections::BTreeSet;

use andiron_core::Forward;
use andiron_core::dropout_site::DropoutDraw;
use andiron_kernels::random::Seed;
use andiron_models::encoder::Head;
use andiron_models::{
    AnyConfig, Decoder, DecoderConfig, Encoder, EncoderConfig, EncoderDecoder, Seq2SeqConfig,
};
use common::{device, ids, with_dropout};

/// For each fixture: outside of layers, and in every layer of a stack.
const TABLE: &str = "
gpt2
    Single: Embeddings embd_pdrop
    Single layer: AttentionProbabilities attn_pdrop, AttentionOutput resid_pdrop, FeedForwardOutput resid_pdrop
llama
    Single layer: AttentionProbabilities attention_dropout
mistral
    Single layer: AttentionProbabilities attention_dropout
qwen2
    Single layer: AttentionProbabilities attention_dropout
qwen3
    Single layer: AttentionProbabilities attention_dropout
gemma3
    Single layer: AttentionProbabilities attention_dropout
neox
    Single: Embeddings hidden_dropout
    Single layer: AttentionProbabilities attention_dropout, AttentionOutput hidden_dropout, FeedForwardOutput hidden_dropout
bert-classify
    Single: Embeddings hidden_dropout_prob, Head classifier_dropout
    Single layer: AttentionProbabilities attention_probs_dropout_prob, AttentionOutput hidden_dropout_prob, FeedForwardOutput hidden_dropout_prob
bert-token-classify
    Single: Embeddings hidden_dropout_prob, Head classifier_dropout
    Single layer: AttentionProbabilities attention_probs_dropout_prob, AttentionOutput hidden_dropout_prob, FeedForwardOutput hidden_dropout_prob
roberta-classify
    Single: Embeddings hidden_dropout_prob, Pooled classifier_dropout, Head classifier_dropout
    Single layer: AttentionProbabilities attention_probs_dropout_prob, AttentionOutput hidden_dropout_prob, FeedForwardOutput hidden_dropout_prob
xlm-roberta-token-classify
    Single: Embeddings hidden_dropout_prob, Head classifier_dropout
    Single layer: AttentionProbabilities attention_probs_dropout_prob, AttentionOutput hidden_dropout_prob, FeedForwardOutput hidden_dropout_prob
distilbert-classify
    Single: Embeddings dropout, Head seq_classif_dropout
    Single layer: AttentionProbabilities attention_dropout, FeedForwardOutput dropout
distilbert-span
    Single: Embeddings dropout, Head qa_dropout
    Single layer: AttentionProbabilities attention_dropout, FeedForwardOutput dropout
modernbert-classify
    Single: Embeddings embedding_dropout, Head classifier_dropout
    Single layer: AttentionProbabilities attention_dropout, AttentionOutput attention_dropout, FeedForwardInner mlp_dropout
bart
    Encoder: Embeddings dropout
    Encoder layer: AttentionProbabilities attention_dropout, AttentionOutput dropout, FeedForwardInner activation_dropout, FeedForwardOutput dropout
    Decoder: Embeddings dropout
    Decoder layer: AttentionProbabilities attention_dropout, AttentionOutput dropout, CrossAttentionProbabilities attention_dropout, CrossAttentionOutput dropout, FeedForwardInner activation_dropout, FeedForwardOutput dropout
marian
    Encoder: Embeddings dropout
    Encoder layer: AttentionProbabilities attention_dropout, AttentionOutput dropout, FeedForwardInner activation_dropout, FeedForwardOutput dropout
    Decoder: Embeddings dropout
    Decoder layer: AttentionProbabilities attention_dropout, AttentionOutput dropout, CrossAttentionProbabilities attention_dropout, CrossAttentionOutput dropout, FeedForwardInner activation_dropout, FeedForwardOutput dropout
t5
    Encoder: Embeddings dropout_rate, FinalNorm dropout_rate
    Encoder layer: AttentionProbabilities dropout_rate, AttentionOutput dropout_rate, FeedForwardInner dropout_rate, FeedForwardOutput dropout_rate
    Decoder: Embeddings dropout_rate, FinalNorm dropout_rate
    Decoder layer: AttentionProbabilities dropout_rate, AttentionOutput dropout_rate, CrossAttentionProbabilities dropout_rate, CrossAttentionOutput dropout_rate, FeedForwardInner dropout_rate, FeedForwardOutput dropout_rate
";

/// The masks of one training pass over a few tokens.
fn draws(config: &AnyConfig) -> Vec<DropoutDraw> {
    let mut cx = Forward::training(Seed::new(3));
    let (seed, device) = (Seed::new(1), device());
    let text = ids(&[vec![4, 5, 6]], &device);
    match config {
        AnyConfig::Decoder(config) => {
            config.init(seed, &device).hidden(text, &mut cx);
        }
        AnyConfig::Encoder(config) => {
            let model = config.init(seed, &device);
            let hidden_btd = model.hidden(text, None, &mut cx);
            match model.head() {
                Head::SequenceClassification(head) => drop(head.forward(hidden_btd, &mut cx)),
                Head::TokenClassification(head) | Head::QuestionAnswering(head) => {
                    drop(head.forward(hidden_btd, &mut cx));
                }
                _ => {}
            }
        }
        AnyConfig::EncoderDecoder(config) => {
            let model = config.init(seed, &device);
            let cross_cache = model.encode(text.clone(), &mut cx);
            model.hidden(text, &cross_cache, &mut cx);
        }
        AnyConfig::Classifier(_) => unreachable!("the table has none"),
    }
    cx.dropout_draws().to_vec()
}

/// `draws` as the table writes them; fails unless all layers of a stack draw the same.
fn lines(draws: &[DropoutDraw], rates: &[(String, f32)]) -> Vec<String> {
    let named = |draw: &DropoutDraw| {
        let (key, _) = rates.iter().find(|(_, rate)| *rate == draw.probability).unwrap();
        format!("{:?} {key}", draw.site)
    };
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut stacks = Vec::new();
    for draw in draws {
        if !stacks.contains(&draw.stack) {
            stacks.push(draw.stack);
        }
    }
    for stack in stacks {
        let of = |layer: Option<usize>| {
            let here = draws.iter().filter(|draw| (draw.stack, draw.layer) == (stack, layer));
            here.map(named).collect::<Vec<_>>().join(", ")
        };
        let layers: BTreeSet<_> = draws.iter().filter(|draw| draw.stack == stack).map(|d| d.layer).collect();
        for layer in layers {
            let begin = if layer.is_some() { format!("{stack:?} layer: ") } else { format!("{stack:?}: ") };
            match lines.iter().find(|(seen, _)| *seen == begin) {
                Some((_, first)) => assert_eq!(*first, of(layer), "{stack:?} {layer:?}"),
                None => lines.push((begin, of(layer))),
            }
        }
    }
    lines.into_iter().map(|(begin, sites)| begin + &sites).collect()
}

#[test]
fn each_architecture_drops_where_transformers_does_and_never_by_the_same_mask() {
    let mut seen = BTreeSet::new();
    let mut found = String::from("\n");
    for name in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with(' ')) {
        let (config, rates) = with_dropout(name);
        seen.insert(config.model_type());
        let draws = draws(&config);
        // `Forward` refuses to draw one place twice; a place within a layer is drawn by every layer.
        let places: BTreeSet<_> =
            draws.iter().map(|d| format!("{:?} {:?} {:?}", d.stack, d.layer, d.site)).collect();
        assert_eq!(places.len(), draws.len(), "{name}");
        assert!(draws.iter().any(|draw| draw.layer == Some(1)), "{name} has two layers");
        found += &format!("{name}\n");
        for line in lines(&draws, &rates) {
            found += &format!("    {line}\n");
        }
    }
    assert!(found == TABLE, "the table should be\n{found}");
    for known in [DecoderConfig::MODEL_TYPES, EncoderConfig::MODEL_TYPES, Seq2SeqConfig::MODEL_TYPES].concat()
    {
        assert!(seen.contains(known), "{known}");
    }
}
