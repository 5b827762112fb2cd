//! T5: how files and configurations of its versions are read. What it computes is compared in `golden_seq2seq.rs`.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;
#[path = "common/seq2seq.rs"]
mod seq2seq;

use andiron_kernels::random::Seed;
use andiron_models::bundle::Ids;
use andiron_models::encoder_decoder::Seq2SeqGenerator;
use andiron_models::encoder_decoder::t5::{FeedForwardProj, T5Config};
use andiron_models::generate::CausalLm;
use andiron_models::hf_config::Activation;
use andiron_models::weights::names;
use andiron_models::{Seq2SeqBundle, Seq2SeqConfig};
use common::{assert_close, device, floats};
use seq2seq::{VALUES, check_refused, edited, expected, open, run, same};
use serde_json::{Value, json};

const TABLE: &str = "shared.weight";
const HEAD: &str = "lm_head.weight";

/// Root of the fixtures' `d_model`.
const ROOT: f32 = 4.472_136;

/// Sets keys of a configuration; null takes one out.
fn set(values: Value) -> impl FnOnce(&mut Value) {
    move |config| {
        let config = config.as_object_mut().unwrap();
        for (key, value) in values.as_object().unwrap() {
            match value {
                Value::Null => drop(config.shift_remove(key)),
                value => drop(config.insert(key.clone(), value.clone())),
            }
        }
    }
}

fn t5(bundle: &Seq2SeqBundle) -> &T5Config {
    let Seq2SeqConfig::T5(config) = &bundle.config else { panic!("not a T5") };
    config
}

/// Logits of an edited copy of a fixture, and its bundle.
fn logits(name: &str, values: Value, rename: impl Fn(&str) -> Vec<String>) -> (Seq2SeqBundle, Vec<f32>) {
    let bundle = Seq2SeqBundle::open(edited(name, set(values), rename).path(), &device()).unwrap();
    let logits = floats(run(&bundle, &expected(name), &device()).1);
    (bundle, logits)
}

/// An edited copy of a fixture must compute what the fixture does, times `factor`.
#[track_caller]
fn check(name: &str, values: Value, rename: impl Fn(&str) -> Vec<String>, factor: f32) -> Seq2SeqBundle {
    let what = format!("{name} {values}");
    let (bundle, ours) = logits(name, values, rename);
    let theirs: Vec<f32> = expected(name).logits.iter().map(|logit| logit * factor).collect();
    assert_close(&what, &ours, &theirs, VALUES);
    bundle
}

/// Other names for the stored tensor `from`.
fn to(from: &'static str, names: &'static [&'static str]) -> impl Fn(&str) -> Vec<String> {
    move |stored| match stored == from {
        true => names.iter().map(|&name| name.to_owned()).collect(),
        false => same(stored),
    }
}

#[test]
fn a_table_under_any_of_its_names_is_one_table() {
    const ENCODER: &str = "encoder.embed_tokens.weight";
    const DECODER: &str = "decoder.embed_tokens.weight";
    let all: &[&str] = &[TABLE, ENCODER, DECODER, HEAD];
    for forms in [all, &all[..3], &[ENCODER, DECODER], &[ENCODER, HEAD], &[HEAD], &[DECODER]] {
        let renamed = |stored: &str| match stored == TABLE {
            true => forms.iter().map(|&form| form.to_owned()).collect(),
            false => same(stored),
        };
        let bundle = check("t5", json!({}), renamed, 1.0);
        assert!(t5(&bundle).tie_word_embeddings, "{forms:?}");
        assert_eq!(names(&bundle.model).len(), names(&open("t5").model).len());
    }
    let bundle = check("t5-gated", json!({}), to(TABLE, &[ENCODER, DECODER]), 1.0);
    assert!(!t5(&bundle).tie_word_embeddings);
}

#[test]
fn the_files_decide_whether_the_head_is_the_table() {
    for said in [true, false] {
        let values = json!({"tie_word_embeddings": said, "scale_decoder_outputs": false});
        assert!(!t5(&check("t5-gated", values.clone(), same, 1.0)).tie_word_embeddings);
        let (bundle, ours) = logits("t5-gated", values.clone(), to(HEAD, &[]));
        assert!(t5(&bundle).tie_word_embeddings);
        assert_ne!(ours, expected("t5-gated").logits);
        assert!(t5(&check("t5-tied", values.clone(), same, 1.0)).tie_word_embeddings);
        assert!(t5(&check("t5-tied", values, to(TABLE, &[TABLE, HEAD]), 1.0)).tie_word_embeddings);
    }
}

#[test]
fn the_output_is_scaled_unless_it_is_said_otherwise() {
    let check = |values: Value, factor| drop(check("t5-gated", values, same, factor));
    let key = "scale_decoder_outputs";
    check(json!({"tie_word_embeddings": false, key: null}), 1.0);
    check(json!({"tie_word_embeddings": true, key: null}), 1.0 / ROOT);
    check(json!({"tie_word_embeddings": null, key: null}), 1.0 / ROOT);
    check(json!({"tie_word_embeddings": true, key: false}), 1.0);
    check(json!({"tie_word_embeddings": false, key: true}), 1.0 / ROOT);
}

#[test]
fn feed_forward_parts_are_of_the_form_that_is_said() {
    let check = |name: &str, proj: &str| {
        let values = json!({"feed_forward_proj": proj, "dense_act_fn": null, "is_gated_act": null});
        drop(check(name, values, same, 1.0));
    };
    check("t5", "relu");
    check("t5-gated", "gated-gelu");
    check("t5-gated", "gated-gelu_new");
    check("t5-silu", "gated-silu");
    check("t5-silu", "gated-swish");
    check("t5-tied", "gelu");
    let (_, tanh) = logits("t5-tied", json!({"feed_forward_proj": "gelu_new", "dense_act_fn": null}), same);
    let worst = tanh.iter().zip(expected("t5-tied").logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 10.0 * VALUES, "the two forms of gelu differ by {worst}");
    let absent = json!({"feed_forward_proj": null, "dense_act_fn": null, "is_gated_act": null});
    drop(self::check("t5", absent, same, 1.0));
}

#[test]
fn keys_that_say_it_again_go_before_the_form() {
    check("t5-gated", json!({"feed_forward_proj": "relu"}), same, 1.0);
    check("t5-tied", json!({"feed_forward_proj": "gated-gelu"}), same, 1.0);
}

#[test]
fn forms_are_written_as_they_are_read() {
    for form in ["relu", "gelu", "gelu_new", "silu", "gated-relu", "gated-gelu", "gated-silu"] {
        let read: FeedForwardProj = serde_json::from_value(json!(form)).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), form);
    }
    let exact = FeedForwardProj::gated(Activation::Gelu);
    assert_eq!(exact, FeedForwardProj::gated(Activation::GeluNew));
    for form in ["", "gated", "gated-", "gated-what", "relu-gated", "-relu"] {
        assert!(serde_json::from_value::<FeedForwardProj>(json!(form)).is_err(), "{form:?}");
    }
}

#[test]
fn an_old_directory_opens() {
    // As the first files of T5 1.0 are.
    let values = json!({
        "architectures": ["T5WithLMHeadModel"],
        "dense_act_fn": null,
        "is_gated_act": null,
        "feed_forward_proj": null,
        "num_decoder_layers": null,
        "tie_word_embeddings": null,
        "scale_decoder_outputs": null,
        "decoder_start_token_id": null,
        "n_positions": 512,
        "output_past": true,
        "task_specific_params": {"summarization": {"num_beams": 4, "prefix": "summarize: "}},
    });
    const BIAS: &str = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    const IDLE: &str = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
    let bundle = check("t5", values, to(BIAS, &[BIAS, IDLE]), 1.0);
    assert_eq!(bundle.config.decoder_start_token_id(), 0);
    assert_eq!(bundle.generation.eos_token_id, Ids::One(1));
    assert_eq!(bundle.generation.length_limit(), None);
    assert_eq!(Seq2SeqGenerator::new(&bundle, &[5, 1]).context_len(), 512);
}

#[test]
fn texts_of_any_length_are_read() {
    let bundle = open("t5");
    assert_eq!(bundle.config.max_positions(), usize::MAX);
    let source: Vec<u32> = (0..700).map(|at| 2 + at % 41).collect();
    let generator = Seq2SeqGenerator::new(&bundle, &source).with_length_limit(2000);
    assert_eq!(generator.context_len(), 2000);
    let mut cache = generator.begin();
    let logits = generator.forward(&mut cache, &source, andiron_models::generate::Logits::Last);
    assert!(logits.iter().all(|logit| logit.is_finite()));
}

#[test]
fn a_t5_fills_rows_up_with_any_id() {
    let bundle = Seq2SeqBundle::open(edited("t5", set(json!({"pad_token_id": 43})), same).path(), &device());
    let (bundle, usual) = (bundle.unwrap(), open("t5"));
    let vectors = |bundle: &Seq2SeqBundle| {
        let memory = bundle.encode(&[&[5, 6, 7, 1][..], &[8, 1]]);
        format!("{memory:?}")
    };
    assert_eq!(bundle.batch(&[&[5, 6][..], &[7]]).0.to_data(), usual.batch(&[&[5, 6][..], &[7]]).0.to_data());
    assert_eq!(vectors(&bundle), vectors(&usual));
}

#[test]
fn what_cannot_be_built_is_refused_by_name() {
    let check = |values: Value, needle: &str| check_refused(edited("t5", set(values), same).path(), needle);
    check(json!({"architectures": ["T5EncoderModel"]}), "T5EncoderModel");
    check(json!({"feed_forward_proj": "gated-mish"}), "mish");
    check(json!({"relative_attention_num_buckets": 3}), "relative_attention_num_buckets is 3");
    check(json!({"relative_attention_max_distance": 4}), "relative_attention_max_distance is 4");
    check(json!({"d_kv": 0}), "d_kv");
    check(json!({"d_kv": 8}), "shape");
    check(json!({"num_heads": u64::MAX}), "num_heads");
    check(json!({"num_heads": 1 << 14}), "shape");
    check(json!({"num_decoder_layers": 0}), "num_decoder_layers");
    check(json!({"num_layers": u64::MAX}), "num_layers");
    check(json!({"num_layers": 1}), "encoder.block.1");
    check(json!({"is_gated_act": true}), "DenseReluDense.wi");
}

#[test]
fn published_sizes_have_the_published_numbers_of_parameters() {
    let count = |config: T5Config| -> usize {
        let model = Seq2SeqConfig::T5(config).init(Seed::new(0), &device());
        names(&model).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    };
    assert_eq!(count(T5Config::small()), 60_506_624);
}
