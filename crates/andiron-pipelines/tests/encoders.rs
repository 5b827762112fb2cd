//! Tasks of encoders: what a batch gives is what each input gives alone, in order, whatever stands beside it.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use andiron_core::{Backend, DeviceSpec};
use andiron_kernels::random::Seed;
use andiron_models::encoder::{EncoderHead, Problem};
use andiron_models::{EncoderBundle, EncoderConfig};
use andiron_pipelines::{
    AnswerError, EncoderPipeline, FillError, InputError, MaskedText, Pipeline, Question, TextInput,
};
use serde_json::json;

const VOCAB: usize = 40;
const LONGEST: usize = 32;

/// What padding may change.
const TOLERANCE: f32 = 1e-6;

fn pipeline(head: EncoderHead, labels: &[&str]) -> EncoderPipeline {
    let config = json!({
        "model_type": "bert", "vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": LONGEST, "type_vocab_size": 2, "pad_token_id": 0,
        "initializer_range": 0.3,
    });
    let config: EncoderConfig = serde_json::from_value(config).unwrap();
    let device = DeviceSpec { backend: Backend::Ndarray, index: None }.open().unwrap();
    let bundle = EncoderBundle::init(config, Seed::new(3), &device);
    let labels = labels.iter().map(|&label| label.to_owned()).collect();
    Pipeline::new(bundle.with_head(head, labels, Seed::new(4)).unwrap(), None)
}

/// Inputs of many lengths in no order, with one that is too long and one that is empty.
fn inputs() -> Vec<TextInput> {
    let seed = Seed::new(7);
    let mut inputs: Vec<TextInput> = (0..90)
        .map(|row| {
            let len = 1 + seed.below(1000 + row, LONGEST as u64);
            let ids: Vec<u32> = (0..len).map(|at| seed.below(100 * row + at, VOCAB as u64) as u32).collect();
            let split = ids.len() / 2;
            let type_ids = (row % 3 == 0).then(|| (0..ids.len()).map(|at| u32::from(at >= split)).collect());
            TextInput::Ids { ids, type_ids }
        })
        .collect();
    inputs[5] = TextInput::Ids { ids: vec![1; LONGEST + 1], type_ids: None };
    inputs[60] = TextInput::Ids { ids: Vec::new(), type_ids: None };
    inputs[61] = TextInput::from("a text without a tokenizer");
    inputs
}

/// Checks that `run` gives for each input what it gives for it alone, and an error for those that cannot be read.
#[track_caller]
fn check<T, E: std::fmt::Display>(
    run: impl Fn(&[TextInput]) -> Vec<Result<T, E>>,
    same: impl Fn(&T, &T) -> bool,
) {
    let inputs = inputs();
    let together = run(&inputs);
    assert_eq!(together.len(), inputs.len());
    for (at, (input, result)) in inputs.iter().zip(&together).enumerate() {
        let alone = run(std::slice::from_ref(input)).pop().unwrap();
        match (result, alone) {
            (Ok(result), Ok(alone)) => assert!(same(result, &alone), "input {at}"),
            (Err(error), Err(alone)) => assert_eq!(error.to_string(), alone.to_string()),
            _ => panic!("input {at} is good only alone, or only in company"),
        }
    }
    let failed: Vec<usize> = (0..inputs.len()).filter(|&at| together[at].is_err()).collect();
    assert_eq!(failed, [5, 60, 61]);
}

fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= TOLERANCE
}

#[test]
fn embeddings_are_those_of_each_text_alone() {
    let model = pipeline(EncoderHead::None, &[]);
    check(
        |inputs| model.embed(inputs),
        |a, b| a.vector.len() == 16 && a.vector.iter().zip(&b.vector).all(|(&a, &b)| close(a, b)),
    );
    let errors = model.embed(&inputs());
    assert!(matches!(errors[5], Err(InputError::TooLong { limit: LONGEST })));
    assert!(matches!((&errors[60], &errors[61]), (Err(InputError::Empty), Err(InputError::NoTokenizer))));
}

#[test]
fn labels_of_texts_are_those_of_each_text_alone() {
    let model = pipeline(EncoderHead::Classify { problem: Problem::SingleLabel }, &["a", "b", "c"]);
    check(
        |inputs| model.classify(inputs),
        |a, b| {
            let sorted = a.labels.windows(2).all(|pair| pair[0].score >= pair[1].score);
            let pairs = || a.labels.iter().zip(&b.labels);
            sorted
                && a.labels.len() == 3
                && pairs().all(|(a, b)| a.label == b.label && close(a.score, b.score))
        },
    );
}

#[test]
fn labels_of_tokens_are_those_of_each_text_alone() {
    let model = pipeline(EncoderHead::TokenClassify, &["O", "B-X", "I-X", "B-Y"]);
    check(
        |inputs| model.label(inputs),
        |a, b| {
            a.entities.len() == b.entities.len()
                && a.entities.iter().zip(&b.entities).all(|(a, b)| {
                    (a.label, &a.span, &a.text) == (b.label, &b.span, &None) && close(a.score, b.score)
                })
        },
    );
}

#[test]
fn guesses_are_those_of_each_text_alone() {
    let model = pipeline(EncoderHead::MaskedLm, &[]);
    let texts = |inputs: &[TextInput]| -> Vec<MaskedText> {
        let text = |input: &TextInput| {
            let len = match input {
                TextInput::Ids { ids, .. } => ids.len(),
                TextInput::Text { .. } => 1,
            };
            MaskedText { input: input.clone(), positions: Some(vec![len / 2]) }
        };
        inputs.iter().map(text).collect()
    };
    check(
        |inputs| model.fill(&texts(inputs), 3),
        |a, b| {
            let pairs = a.iter().zip(b).flat_map(|(a, b)| a.top.iter().zip(&b.top));
            a.len() == 1
                && a[0].top.len() == 3
                && pairs.into_iter().all(|(a, b)| a.id == b.id && close(a.probability, b.probability))
        },
    );
    let ids = |positions: Option<Vec<usize>>| MaskedText {
        input: TextInput::Ids { ids: vec![1, 2, 3], type_ids: None },
        positions,
    };
    let wrong = model.fill(&[ids(Some(vec![3])), ids(Some(vec![1, 1])), ids(None), ids(Some(vec![0, 2]))], 2);
    assert!(matches!(wrong[0], Err(FillError::NoPosition { position: 3, tokens: 3 })));
    assert!(matches!(wrong[1], Err(FillError::Twice { position: 1 })));
    assert!(matches!(wrong[2], Err(FillError::NothingMasked { mask: None })));
    let positions: Vec<usize> = wrong[3].as_ref().unwrap().iter().map(|mask| mask.position).collect();
    assert_eq!(positions, [0, 2]);
}

#[test]
fn answers_are_those_of_each_question_alone() {
    let model = pipeline(EncoderHead::Span, &[]);
    let questions = |inputs: &[TextInput]| -> Vec<Question> {
        let question = |input: &TextInput| match input {
            TextInput::Ids { ids, type_ids } => {
                Question::Ids { ids: ids.clone(), type_ids: type_ids.clone() }
            }
            TextInput::Text { text, .. } => Question::Text { question: text.clone(), context: text.clone() },
        };
        inputs.iter().map(question).collect()
    };
    check(
        |inputs| model.answer(&questions(inputs), 4),
        |a, b| (&a.answer, &a.span) == (&b.answer, &b.span) && a.span.len() <= 4 && close(a.score, b.score),
    );
    let silent = Question::Ids { ids: vec![1, 2], type_ids: Some(vec![0, 2]) };
    assert!(matches!(
        model.answer(&[silent], 4)[0],
        Err(AnswerError::Input(InputError::UnknownType { id: 2, .. }))
    ));
}
