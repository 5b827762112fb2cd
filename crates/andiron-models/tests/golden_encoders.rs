//! Encoders: our numbers against those of `transformers` on the fixtures that `golden/encoders.py` made, and what
//! must hold for every encoder.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use andiron_core::{Forward, PaddingMask};
use andiron_kernels::random::Seed;
use andiron_models::encoder::{EmbedPipeline, EncoderHead, Head, Pooling, Problem};
use andiron_models::{Encoder, EncoderBundle, EncoderModel};

use burn::tensor::{Device, Int, Tensor, TensorData};
use common::{assert_close, by_name, device, fixture, floats, ids};
use proptest::prelude::*;
use serde::Deserialize;

/// Hidden states and outputs, in f32 on both sides.
const VALUES: f32 = 1e-4;
/// Gradients of a weighted mean of the outputs.
const GRADIENTS: f32 = 1e-3;

/// All fixtures: each architecture with each of its heads.
const FIXTURES: &[&str] = &[
    "bert",
    "bert-masked-lm",
    "bert-untied",
    "bert-classify",
    "bert-token-classify",
    "bert-span",
    "distilbert-masked-lm",
    "distilbert-untied",
    "distilbert-classify",
    "distilbert-span",
    "modernbert",
    "modernbert-masked-lm",
    "modernbert-biased",
    "modernbert-classify",
    "modernbert-classify-mean",
    "modernbert-token-classify",
    "modernbert-span",
    "roberta-masked-lm",
    "roberta-classify",
    "roberta-untied",
    "xlm-roberta-token-classify",
];

#[derive(Deserialize)]
struct Expected {
    ids: Vec<Vec<u32>>,
    lengths: Vec<usize>,
    types: Option<Vec<Vec<u32>>>,
    hidden: Vec<f32>,
    output: Vec<f32>,
    grads: BTreeMap<String, Vec<f32>>,
}

fn expected(name: &str) -> Expected {
    serde_json::from_slice(&std::fs::read(fixture(name).join("expected.json")).unwrap()).unwrap()
}

fn open(name: &str) -> EncoderBundle {
    EncoderBundle::open(&fixture(name), &device()).unwrap()
}

/// The vectors at the rows' own columns.
fn own(x_btd: Tensor<3>, lengths: &[usize]) -> Tensor<2> {
    let [b, t, d] = x_btd.dims();
    let at = lengths.iter().enumerate().flat_map(|(row, len)| (0..*len).map(move |column| row * t + column));
    let at: Vec<i32> = at.map(|at| at as i32).collect();
    let at: Tensor<1, Int> = Tensor::from_data(TensorData::new(at.clone(), [at.len()]), &x_btd.device());
    x_btd.reshape([b * t, d]).select(0, at)
}

/// Hidden states and what the head makes of them, at the rows' own columns.
fn run(bundle: &EncoderBundle, expected: &Expected, device: &Device) -> (Tensor<2>, Tensor<2>) {
    let mut cx = Forward::evaluation().with_padding_mask(PaddingMask::padded_right(expected.lengths.clone()));
    let types = expected.types.as_ref().map(|types| ids(types, device));
    let hidden_btd = bundle.model.hidden(ids(&expected.ids, device), types, &mut cx);
    let hidden_nd = own(hidden_btd.clone(), &expected.lengths);
    let output = match (bundle.model.head(), bundle.config.head()) {
        (Head::None, EncoderHead::None) => hidden_nd.clone(),
        (Head::MaskedLm(head), EncoderHead::MaskedLm) => head.forward(hidden_nd.clone()),
        (Head::SequenceClassification(head), EncoderHead::Classify { .. }) => {
            head.forward(hidden_btd, &mut cx)
        }
        (Head::TokenClassification(head), EncoderHead::TokenClassify)
        | (Head::QuestionAnswering(head), EncoderHead::Span) => {
            own(head.forward(hidden_btd, &mut cx), &expected.lengths)
        }
        (head, kind) => panic!("the configuration names {kind:?}, the model has {head:?}"),
    };
    (hidden_nd, output)
}

#[track_caller]
fn check_golden(name: &str) {
    let expected = expected(name);
    let (hidden, output) = run(&open(name), &expected, &device());
    assert_close(&format!("{name}: hidden"), &floats(hidden), &expected.hidden, VALUES);
    assert_close(&format!("{name}: output"), &floats(output), &expected.output, VALUES);

    if expected.grads.is_empty() {
        return;
    }
    let learner_device = device().autodiff();
    let learner = EncoderBundle::open(&fixture(name), &learner_device).unwrap();
    let (_, output) = run(&learner, &expected, &learner_device);
    let shape = output.dims();
    let n = shape[0] * shape[1];
    let weights: Vec<f32> = (0..n).map(|at| (at as f32).cos() / n as f32).collect();
    let weights = Tensor::from_data(TensorData::new(weights, shape), &learner_device);
    let gradients = (output * weights).sum().backward();
    let found = by_name(&learner.model, &gradients);
    for (parameter, theirs) in &expected.grads {
        // A model without head lacks the prefix of those with one.
        let ending = format!(".{parameter}");
        let found = found.iter().find(|(name, _)| *name == parameter || name.ends_with(&ending));
        let (_, gradient) = found.unwrap_or_else(|| panic!("{name} has no parameter {parameter}"));
        assert_close(&format!("{name}: {parameter}"), gradient, theirs, GRADIENTS);
    }
}

#[test]
fn encoders_equal_transformers() {
    FIXTURES.iter().for_each(|name| check_golden(name));
}

#[test]
fn a_saved_encoder_opens_as_it_was() {
    for name in FIXTURES {
        let dir = tempfile::tempdir().unwrap();
        let bundle = open(name);
        bundle.save(dir.path()).unwrap();
        let again = EncoderBundle::open(dir.path(), &device()).unwrap();
        assert_eq!(again.config, bundle.config);
        let expected = expected(name);
        let [ours, theirs] = [&again, &bundle].map(|bundle| floats(run(bundle, &expected, &device()).1));
        assert_eq!(ours, theirs, "{name}");
        let read = |path: &Path| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(path.join("config.json")).unwrap()).unwrap()
        };
        let (written, original) = (read(dir.path()), read(&fixture(name)));
        for key in ["architectures", "problem_type", "id2label", "label2id", "num_labels"] {
            if let Some(value) = original.get(key) {
                assert_eq!(&written[key], value, "{name}: {key}");
            }
        }
        assert!(written.get("head").is_none() && written.get("labels").is_none());
    }
}

#[test]
fn the_head_is_what_the_configuration_says() {
    let config = open("bert-classify").config;
    assert_eq!(config.head(), EncoderHead::Classify { problem: Problem::MultiLabel });
    assert_eq!(config.labels(), ["toxic", "rude", "fine"]);
    assert_eq!(open("bert-token-classify").config.labels().len(), 5);
    assert_eq!(open("bert").config.head(), EncoderHead::None);
}

/// A copy of a fixture whose `config.json` can be edited, and the names of its tensors changed or dropped.
fn edited(
    name: &str,
    edit: impl FnOnce(&mut serde_json::Value),
    rename: impl Fn(&str) -> Option<String>,
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = std::fs::read(fixture(name).join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    edit(&mut config);
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(fixture(name).join("model.safetensors")).unwrap();
    let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<_> = stored.iter().filter_map(|(name, view)| Some((rename(name)?, view))).collect();
    safetensors::serialize_to_file(tensors, None, &dir.path().join("model.safetensors")).unwrap();
    dir
}

#[test]
fn a_file_with_the_names_of_old_opens() {
    let old = |name: &str| {
        let name = name.trim_start_matches("bert.");
        let name =
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        Some(name)
    };
    let dir = edited("bert-masked-lm", |_| (), old);
    let again = EncoderBundle::open(dir.path(), &device()).unwrap();
    let expected = expected("bert-masked-lm");
    assert_close("output", &floats(run(&again, &expected, &device()).1), &expected.output, VALUES);
}

#[test]
fn what_cannot_be_built_is_refused_by_name() {
    let keep = |name: &str| Some(name.to_owned());
    let check = |edit: &dyn Fn(&mut serde_json::Value), needle: &str| {
        let dir = edited("bert-classify", edit, keep);
        let error = EncoderBundle::open(dir.path(), &device()).unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        assert!(text.contains(needle), "{text:?} does not mention {needle:?}");
    };
    check(&|config| config["architectures"] = vec!["BertForMultipleChoice"].into(), "BertForMultipleChoice");
    check(&|config| config["position_embedding_type"] = "relative_key".into(), "position_embedding_type");
    check(&|config| config["id2label"] = serde_json::json!({ "0": "a", "2": "b" }), "id2label");
    check(&|config| config["id2label"] = serde_json::json!({}), "id2label");
    check(&|config| config["num_attention_heads"] = 5.into(), "5 attention heads");
    check(&|config| config["sliding_window"] = 5.into(), "sliding_window");
    check(&|config| config["hidden_dropout_prob"] = 1.into(), "hidden_dropout_prob");
    check(&|config| config["architectures"] = vec!["BertModel"].into(), "classifier.weight");
}

#[test]
fn another_head_keeps_the_body() {
    for name in FIXTURES {
        let bundle = open(name);
        let before = expected(name);
        let labels = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let head = EncoderHead::Classify { problem: Problem::SingleLabel };
        let other = bundle.with_head(head, labels, Seed::new(7)).unwrap();
        let (hidden, output) = run(&other, &before, &device());
        assert_close(&format!("{name}: hidden"), &floats(hidden), &before.hidden, VALUES);
        assert_eq!(output.dims(), [before.ids.len(), 3]);
    }
}

#[test]
fn a_head_with_labels_needs_labels() {
    let error = open("bert").with_head(EncoderHead::TokenClassify, Vec::new(), Seed::new(0)).unwrap_err();
    assert!(error.to_string().contains("id2label"), "{error}");
}

#[test]
fn pooling_sees_the_rows_own_columns_only() {
    let values: Vec<f32> = vec![1.0, 10.0, 3.0, 20.0, 5.0, 60.0, -1.0, -10.0, 7.0, 9.0, 9.0, 9.0];
    let hidden_btd = Tensor::<3>::from_data(TensorData::new(values, [2, 3, 2]), &device());
    let check = |pooling: Pooling, rows: Option<PaddingMask>, wanted: &[f32]| {
        let pooled = pooling.pool(hidden_btd.clone(), rows.as_ref());
        assert_close(&format!("{pooling:?}"), &floats(pooled), wanted, 1e-6);
    };
    let right = || Some(PaddingMask::padded_right([3, 1]));
    check(Pooling::Cls, right(), &[1.0, 10.0, -1.0, -10.0]);
    check(Pooling::Mean, right(), &[3.0, 30.0, -1.0, -10.0]);
    check(Pooling::Last, right(), &[5.0, 60.0, -1.0, -10.0]);
    check(Pooling::Max, right(), &[5.0, 60.0, -1.0, -10.0]);
    check(Pooling::Mean, None, &[3.0, 30.0, 5.0, 8.0 / 3.0]);
    check(Pooling::Cls, Some(PaddingMask::padded_left([1, 0])), &[3.0, 20.0, -1.0, -10.0]);
}

#[test]
fn many_texts_of_all_lengths_are_embedded_in_their_order() {
    let bundle = open("bert");
    let texts: Vec<Vec<u32>> =
        (0..1500).map(|n| (0..1 + n * 7 % 12).map(|at| 3 + (n + at) % 20).collect()).collect();
    let vectors = bundle.embed(&texts);
    assert_eq!(vectors.len(), texts.len());
    for (text, vector) in texts.iter().zip(&vectors).step_by(97) {
        assert_close("alone", &bundle.embed(&[text])[0], vector, VALUES);
    }
    assert!(bundle.embed::<Vec<u32>>(&[]).is_empty());
}

#[test]
fn embeddings_follow_the_recipe_in_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    for pooling in [Pooling::Cls, Pooling::Mean, Pooling::Last, Pooling::Max] {
        for normalize in [false, true] {
            let mut bundle = open("bert");
            let pipeline =
                EmbedPipeline { pooling, normalize, max_tokens: Some(9), ..EmbedPipeline::default() };
            bundle.embedding = Some(pipeline.clone());
            bundle.save(dir.path()).unwrap();
            let again = EncoderBundle::open(dir.path(), &device()).unwrap();
            assert_eq!(again.embedding, Some(pipeline));
            assert_eq!(again.max_tokens(), 9);
            let texts = [vec![3, 4, 5], vec![6, 7, 8, 9, 10, 11]];
            let together = again.embed(&texts);
            for (text, vector) in texts.iter().zip(&together) {
                assert_close("alone", &again.embed(&[text])[0], vector, VALUES);
                let length: f32 = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
                assert_eq!((length - 1.0).abs() < 1e-5, normalize, "length {length}");
            }
        }
    }
}

#[test]
fn vectors_of_several_poolings_are_joined() {
    let dir = tempfile::tempdir().unwrap();
    let mut bundle = open("bert");
    let texts = [vec![3, 4, 5], vec![6, 7, 8, 9, 10, 11]];
    // The first two numbers of each part, from `Pooling` of sentence-transformers 6.2.0 over transformers 5.24.0.
    let cases: [(&[Pooling], [&[f32]; 2]); 2] = [
        (
            &[Pooling::Mean, Pooling::Cls],
            [&[0.090132, -0.534086, -1.30015, -1.608241], &[-0.455811, -0.456926, -2.540238, -0.569822]],
        ),
        (
            &[Pooling::Cls, Pooling::Max, Pooling::Mean, Pooling::Last],
            [
                &[-1.30015, -1.608241, 0.93241, 1.017849, 0.090132, -0.534086, 0.93241, 1.017849],
                &[-2.540238, -0.569822, 1.505976, 1.370102, -0.455811, -0.456926, -1.147756, 1.370102],
            ],
        ),
    ];
    for (poolings, expected) in cases {
        let pipeline = EmbedPipeline {
            pooling: poolings[0],
            appended: poolings[1..].to_vec(),
            ..EmbedPipeline::default()
        };
        bundle.embedding = Some(pipeline.clone());
        bundle.save(dir.path()).unwrap();
        let again = EncoderBundle::open(dir.path(), &device()).unwrap();
        assert_eq!(again.embedding, Some(pipeline.clone()));
        assert_eq!(pipeline.width(24), 24 * poolings.len());
        for (vector, expected) in again.embed(&texts).iter().zip(expected) {
            assert_eq!(vector.len(), 24 * poolings.len());
            let starts: Vec<f32> = vector.chunks(24).flat_map(|part| part[..2].to_vec()).collect();
            assert_close("poolings", &starts, expected, VALUES);
        }
    }
}

#[test]
fn a_recipe_that_cannot_be_followed_is_refused() {
    let write = |modules: &str, pooling: &str| {
        let dir = tempfile::tempdir().unwrap();
        open("bert").save(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("1_Pooling")).unwrap();
        std::fs::write(dir.path().join("modules.json"), modules).unwrap();
        std::fs::write(dir.path().join("1_Pooling/config.json"), pooling).unwrap();
        EncoderBundle::open(dir.path(), &device()).map(|bundle| bundle.embedding)
    };
    let step = |path: &str, kind: &str| {
        format!(r#"{{"idx":0,"name":"0","path":"{path}","type":"sentence_transformers.models.{kind}"}}"#)
    };
    let list = |path: &str, kind: &str| format!("[{},{}]", step("", "Transformer"), step(path, kind));
    let mean = r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}"#;
    assert_eq!(write(&list("1_Pooling", "Pooling"), mean).unwrap(), Some(EmbedPipeline::default()));
    let named = r#"{"pooling_mode": "lasttoken"}"#;
    assert_eq!(write(&list("1_Pooling", "Pooling"), named).unwrap().unwrap().pooling, Pooling::Last);
    // Flags are joined in an order of their own, names in theirs.
    for (several, first, then) in [
        (
            r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}"#,
            Pooling::Cls,
            vec![Pooling::Mean],
        ),
        (r#"{"pooling_mode": ["mean", "cls"]}"#, Pooling::Mean, vec![Pooling::Cls]),
    ] {
        let read = write(&list("1_Pooling", "Pooling"), several).unwrap().unwrap();
        assert_eq!((read.pooling, read.appended), (first, then), "{several}");
    }
    for (modules, pooling) in [
        (list("2_Dense", "Dense"), mean),
        (list("../1_Pooling", "Pooling"), mean),
        (
            list("1_Pooling", "Pooling"),
            r#"{"pooling_mode_mean_tokens": true, "pooling_mode_weightedmean_tokens": true}"#,
        ),
        (list("1_Pooling", "Pooling"), r#"{"pooling_mode": []}"#),
        (list("1_Pooling", "Pooling"), r#"{"pooling_mode_weightedmean_tokens": true}"#),
        (list("1_Pooling", "Pooling"), "{}"),
        ("{".to_owned(), mean),
    ] {
        assert!(write(&modules, pooling).is_err(), "{modules} {pooling}");
    }
}

#[test]
fn relevance_is_said_as_the_configuration_says() {
    let keep = |name: &str| Some(name.to_owned());
    let texts: [&[u32]; 2] = [&[3, 4, 5, 6], &[7, 8, 9]];
    let inputs = texts.map(andiron_models::encoder::EncoderInput::from);
    let open = |edit: &dyn Fn(&mut serde_json::Value)| {
        let dir = edited("roberta-classify", edit, keep);
        EncoderBundle::open(dir.path(), &device())
    };
    let plain = |config: &mut serde_json::Value| config["problem_type"] = "regression".into();
    let odds: Vec<f32> =
        open(&plain).unwrap().classify(&inputs).into_iter().map(|scores| scores[0]).collect();
    let probabilities: Vec<f32> = odds.iter().map(|odds| 1.0 / (1.0 + (-odds).exp())).collect();
    let identity = "torch.nn.modules.linear.Identity";
    let new = |path: &'static str| {
        move |config: &mut serde_json::Value| {
            config["sentence_transformers"] =
                serde_json::json!({ "activation_fn": path, "version": "4.1.0" });
        }
    };
    let old =
        |config: &mut serde_json::Value| config["sbert_ce_default_activation_function"] = identity.into();
    assert_eq!(open(&|_| ()).unwrap().relevances(&inputs), probabilities);
    assert_eq!(open(&new("torch.nn.modules.activation.Sigmoid")).unwrap().relevances(&inputs), probabilities);
    assert_eq!(open(&old).unwrap().relevances(&inputs), odds);
    let bundle = open(&new(identity)).unwrap();
    assert_eq!(bundle.relevances(&inputs), odds);
    let dir = tempfile::tempdir().unwrap();
    bundle.save(dir.path()).unwrap();
    assert_eq!(EncoderBundle::open(dir.path(), &device()).unwrap().relevances(&inputs), odds);
    let error = open(&new("torch.nn.modules.activation.Tanh")).unwrap_err();
    assert!(format!("{error:?}").contains("sentence_transformers"), "{error:?}");
    assert!(bundle.relevances(&[]).is_empty());
}

#[test]
fn dropout_is_drawn_from_the_seed() {
    let bundle = open("bert-classify");
    let scores = |seed: Option<u64>| {
        let mut cx = seed.map_or_else(Forward::evaluation, |seed| Forward::training(Seed::new(seed)));
        let hidden_btd = bundle.model.hidden(ids(&[vec![3, 4, 5, 6]], &device()), None, &mut cx);
        let Head::SequenceClassification(head) = bundle.model.head() else { panic!("it labels texts") };
        floats(head.forward(hidden_btd, &mut cx))
    };
    assert_eq!(scores(Some(1)), scores(Some(1)));
    assert_ne!(scores(Some(1)), scores(Some(2)));
    assert_ne!(scores(Some(1)), scores(None));
}

fn hidden(model: &EncoderModel, rows: &[Vec<u32>], lengths: &[usize]) -> Vec<f32> {
    let mut cx = Forward::evaluation().with_padding_mask(PaddingMask::padded_right(lengths.to_vec()));
    floats(own(model.hidden(ids(rows, &device()), None, &mut cx), lengths))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn padding_is_invisible(
        a in prop::collection::vec(3..50u32, 2..12),
        b in prop::collection::vec(3..50u32, 2..12),
        filling in 3..50u32,
        more in 0..3usize,
    ) {
        let t = a.len().max(b.len()) + more;
        let padded: Vec<Vec<u32>> = [&a, &b]
            .map(|row| row.iter().copied().chain(std::iter::repeat(filling)).take(t).collect())
            .to_vec();
        for name in FIXTURES {
            let model = open(name).model;
            let together = hidden(&model, &padded, &[a.len(), b.len()]);
            let alone = [&a, &b].map(|row| {
                floats(model.hidden(ids(std::slice::from_ref(row), &device()), None, &mut Forward::evaluation()))
            });
            assert_close(name, &together, &alone.concat(), VALUES);
        }
    }
}
