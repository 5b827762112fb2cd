//! Decoders that label texts: our numbers against those of `transformers` on the fixtures that `golden/classifiers.py`
//! made.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use andiron_core::Forward;
use andiron_models::encoder::Problem;
use andiron_models::{AnyBundle, AnyConfig, ClassifierBundle, DecoderBundle, Family};

use burn::tensor::{Tensor, TensorData};
use common::{assert_close, by_name, device, fixture, floats, ids};
use serde::Deserialize;

const VALUES: f32 = 1e-4;
const GRADIENTS: f32 = 1e-3;

const FIXTURES: &[&str] = &[
    "gpt2-classify",
    "llama-classify",
    "mistral-classify",
    "qwen2-classify",
    "qwen3-classify",
    "neox-classify",
    "gemma3-classify",
];

#[derive(Deserialize)]
struct Expected {
    ids: Vec<Vec<u32>>,
    lengths: Vec<usize>,
    logits: Vec<f32>,
    grads: BTreeMap<String, Vec<f32>>,
}

fn expected(name: &str) -> Expected {
    serde_json::from_slice(&std::fs::read(fixture(name).join("expected.json")).unwrap()).unwrap()
}

fn open(name: &str) -> ClassifierBundle {
    ClassifierBundle::open(&fixture(name), &device()).unwrap()
}

#[test]
fn labels_equal_those_of_transformers() {
    for name in FIXTURES {
        let expected = expected(name);
        let learner_device = device().autodiff();
        let learner = ClassifierBundle::open(&fixture(name), &learner_device).unwrap();
        let last: Vec<usize> = expected.lengths.iter().map(|len| len - 1).collect();
        let ids_bt = ids(&expected.ids, &learner_device);
        let logits_bl = learner.model.sequence_logits(ids_bt, &last, &mut Forward::evaluation());
        assert_close(name, &floats(logits_bl.clone()), &expected.logits, VALUES);

        let shape = logits_bl.dims();
        let n = shape[0] * shape[1];
        let weights: Vec<f32> = (0..n).map(|at| (at as f32).cos() / n as f32).collect();
        let weights = Tensor::from_data(TensorData::new(weights, shape), &learner_device);
        let gradients = (logits_bl * weights).sum().backward();
        let found = by_name(&learner.model, &gradients);
        assert_eq!(expected.grads.len(), 2);
        for (parameter, theirs) in &expected.grads {
            assert_close(&format!("{name}: {parameter}"), &found[parameter], theirs, GRADIENTS);
        }
    }
}

#[test]
fn a_text_is_labelled_alone_as_among_others_padded_or_not() {
    for name in FIXTURES {
        let expected = expected(name);
        let bundle = open(name);
        let padded = bundle.classify(&expected.ids);
        let texts: Vec<&[u32]> =
            expected.ids.iter().zip(&expected.lengths).map(|(ids, &len)| &ids[..len]).collect();
        assert_eq!(bundle.classify(&texts), padded, "{name}");
        for (text, scores) in texts.iter().zip(&padded) {
            assert_close(name, &bundle.classify(&[text])[0], scores, 1e-6);
            let sum: f32 = scores.iter().sum();
            match bundle.config.problem() {
                Problem::SingleLabel => assert!((sum - 1.0).abs() < 1e-5, "{name}: {scores:?}"),
                Problem::MultiLabel => assert!(scores.iter().all(|score| (0.0..=1.0).contains(score))),
                Problem::Regression => assert_eq!(scores.len(), 1),
                Problem::OneLabel => assert!((0.0..=1.0).contains(&scores[0])),
            }
        }
        assert!(bundle.classify::<&[u32]>(&[]).is_empty());
    }
    // A text of nothing but padding is read at its first token.
    assert_eq!(open("llama-classify").classify(&[[3, 3]]), open("llama-classify").classify(&[[3]]));
}

#[test]
fn a_saved_classifier_opens_as_it_was() {
    for name in FIXTURES {
        let dir = tempfile::tempdir().unwrap();
        let bundle = open(name);
        bundle.save(dir.path()).unwrap();
        let again = ClassifierBundle::open(dir.path(), &device()).unwrap();
        assert_eq!(again.config, bundle.config);
        let texts = expected(name).ids;
        assert_eq!(again.classify(&texts), bundle.classify(&texts));
        let read = |path: &Path| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(path.join("config.json")).unwrap()).unwrap()
        };
        let (written, original) = (read(dir.path()), read(&fixture(name)));
        for key in
            ["architectures", "problem_type", "id2label", "label2id", "pad_token_id", "tie_word_embeddings"]
        {
            if let Some(value) = original.get(key) {
                assert_eq!(&written[key], value, "{name}: {key}");
            }
        }
    }
}

#[test]
fn the_class_in_the_configuration_decides() {
    let config = AnyConfig::open(&fixture("llama-classify")).unwrap();
    assert_eq!((config.family(), config.class_name()), (Family::Decoder, "LlamaForSequenceClassification"));
    assert_eq!(open("llama-classify").config.labels(), ["sad", "glad", "neither"]);
    assert!(matches!(
        AnyBundle::open(&fixture("gpt2-classify"), &device()).unwrap(),
        AnyBundle::Classifier(_)
    ));
    let error = DecoderBundle::open(&fixture("llama-classify"), &device()).unwrap_err();
    assert!(error.to_string().contains("lm_head.weight"), "{error}");
}
