//! Attention of texts: tokens and probabilities belong together, and what cannot be shown is refused.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use andiron_core::{Backend, DeviceSpec};
use andiron_data::tokenizer::{SpecialTokens, Tokenizer, train_chars};
use andiron_kernels::random::Seed;
use andiron_models::attention::{AttentionKind, AttentionLayers};
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_models::{
    AnyBundle, DecoderBundle, DecoderConfig, EncoderBundle, EncoderConfig, Seq2SeqBundle, Seq2SeqConfig,
};
use andiron_pipelines::{AttentionError, AttentionRequest, InputError, Pipeline, TextAttention};
use serde_json::json;

const LONGEST: usize = 12;

fn tokenizer() -> Tokenizer {
    train_chars(["to be or not é"], &SpecialTokens::end_of_text("<|end|>")).unwrap()
}

fn device() -> burn::tensor::Device {
    DeviceSpec { backend: Backend::Ndarray, index: None }.open().unwrap()
}

fn decoder() -> Pipeline {
    let tokenizer = tokenizer();
    let config = Gpt2Config { n_layer: 3, n_positions: LONGEST, ..Gpt2Config::nano(tokenizer.vocab_size()) };
    let bundle = DecoderBundle::init(DecoderConfig::Gpt2(config), Seed::new(1), &device());
    Pipeline::new(AnyBundle::Decoder(bundle), Some(tokenizer))
}

fn encoder() -> Pipeline {
    let tokenizer = tokenizer();
    let config: EncoderConfig = serde_json::from_value(json!({
        "model_type": "bert", "vocab_size": tokenizer.vocab_size(), "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": LONGEST, "type_vocab_size": 2,
        "pad_token_id": 0, "initializer_range": 0.3,
    }))
    .unwrap();
    let bundle = EncoderBundle::init(config, Seed::new(3), &device());
    Pipeline::new(AnyBundle::Encoder(bundle), Some(tokenizer))
}

fn encoder_decoder() -> Pipeline {
    let tokenizer = tokenizer();
    let config: Seq2SeqConfig = serde_json::from_value(json!({
        "model_type": "t5", "vocab_size": tokenizer.vocab_size(), "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2,
        "num_decoder_layers": 3, "num_heads": 2, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
    }))
    .unwrap();
    let bundle = Seq2SeqBundle::init(config, Seed::new(5), &device());
    Pipeline::new(AnyBundle::EncoderDecoder(bundle), Some(tokenizer))
}

fn request(text: &str) -> AttentionRequest {
    AttentionRequest { text: text.to_owned(), target: None, layers: AttentionLayers::All, max_tokens: 10 }
}

/// Checks that every row is a distribution over the tokens that it is about.
#[track_caller]
fn check_distributions(found: &TextAttention) {
    let n_target = found.target_tokens.as_ref().map_or(0, Vec::len);
    for layer in &found.attention.layers {
        let [queries, keys] = match layer.kind {
            AttentionKind::Text | AttentionKind::Source => [found.tokens.len(); 2],
            AttentionKind::Target => [n_target; 2],
            AttentionKind::Cross => [n_target, found.tokens.len()],
        };
        assert_eq!([layer.n_queries, layer.n_keys], [queries, keys], "{:?}", layer.kind);
        for head in 0..layer.n_heads {
            for query in 0..layer.n_queries {
                let row = layer.row(head, query);
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                let causal = layer.kind == AttentionKind::Target;
                assert!(!causal || row[query + 1..].iter().all(|&p| p == 0.0), "a target looks back only");
            }
        }
    }
}

#[test]
fn tokens_of_a_prompt_have_their_text_and_look_back_only() {
    let found = decoder().attention(&request("to bé")).unwrap();
    let texts: Vec<&str> = found.tokens.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(texts, ["t", "o", " ", "b", "é"]);
    assert_eq!((found.attention.n_layers, found.attention.layers.len()), (3, 3));
    check_distributions(&found);
    assert_eq!(found.attention.layers[2].row(0, 0), [1.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn an_encoder_looks_both_ways() {
    let found = encoder().attention(&request("to be")).unwrap();
    check_distributions(&found);
    assert!(found.attention.layers.iter().all(|layer| layer.row(1, 0).iter().all(|&p| p > 0.0)));
}

#[test]
fn a_target_is_given_or_generated_and_read_from_the_start_token() {
    let model = encoder_decoder();
    let given = AttentionRequest { target: Some("not".to_owned()), ..request("to be") };
    let found = model.attention(&given).unwrap();
    let texts: Vec<String> =
        found.target_tokens.as_ref().unwrap().iter().map(|token| token.text.clone()).collect();
    // The decoder reads all but the last token, from which nothing follows.
    assert_eq!(texts.len(), 3);
    assert_eq!(texts[1..], ["n", "o"]);
    assert_eq!(found.attention.n_layers, 3);
    let of_kind = |kind| found.attention.layers.iter().filter(|layer| layer.kind == kind).count();
    assert_eq!([AttentionKind::Source, AttentionKind::Target, AttentionKind::Cross].map(of_kind), [2, 3, 3]);
    check_distributions(&found);
    let generated = model.attention(&request("to be")).unwrap();
    assert!((1..10).contains(&generated.target_tokens.as_ref().unwrap().len()));
    check_distributions(&generated);
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let model = decoder();
    let error = |request: &AttentionRequest| model.attention(request).unwrap_err();
    let long = error(&request("to be or not"));
    assert!(matches!(long, AttentionError::TooLong { limit: 10, .. }), "{long}");
    let deep = error(&AttentionRequest { layers: AttentionLayers::One(3), ..request("to") });
    assert_eq!(deep.to_string(), "there is no layer 3: the model has the layers 0 to 2");
    let target = error(&AttentionRequest { target: Some("be".to_owned()), ..request("to") });
    assert!(matches!(target, AttentionError::NoTarget));
    assert!(matches!(error(&request("")), AttentionError::Input(InputError::Empty)));
    let encoder = encoder().attention(&request("to be or not")).unwrap_err();
    assert!(matches!(encoder, AttentionError::TooLong { limit: 10, .. }), "{encoder}");
    let none = Pipeline::new(model.bundle.clone(), None).attention(&request("to")).unwrap_err();
    assert!(matches!(none, AttentionError::Text(_)), "{none}");
}
