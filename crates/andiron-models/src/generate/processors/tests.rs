use serde_json::{Value, json};

use super::*;

const NEVER: f32 = f32::NEG_INFINITY;

fn files(fields: &Value) -> GenerationConfig {
    let config = GenerationConfig::from_fields(fields.as_object().unwrap().clone(), "file".as_ref());
    config.unwrap_or_else(|error| panic!("{fields}: {error}"))
}

/// What the rules `fields` make of `scores` after `ids`, of which one is the prompt, in a text of at most 5 that 2 ends.
#[track_caller]
fn check_after(fields: Value, ids: &[u32], scores: [f32; 4], expected: [f32; 4]) {
    let rules = Rules {
        files: Some(&files(&fields)),
        source: &[3, 1, 0],
        prompt_len: 1,
        stop_ids: &[2],
        longest: 5,
        ..Rules::default()
    };
    let processors = Processors::new(&SamplingParams::default(), rules);
    let mut row = scores;
    let mut changed = Scores::new(&mut row, &[]);
    processors.process(Place { ids, prompt_len: 1 }, &mut changed);
    assert_eq!(changed.row(), expected, "{fields} after {ids:?}");
    changed.revert();
    assert_eq!(row, scores);
}

/// The same of scores of 1 in the place after `len` ids.
#[track_caller]
fn check(fields: Value, len: usize, expected: [f32; 4]) {
    check_after(fields, &vec![0; len], [1.0; 4], expected);
}

#[test]
fn without_rules_scores_stay() {
    check(json!({}), 1, [1.0; 4]);
    check(json!({}), 4, [1.0; 4]);
    assert!(Processors::new(&SamplingParams::default(), Rules::default()).chain.is_empty());
}

#[test]
fn single_ids_are_banned_and_ends_never_are() {
    check(json!({ "bad_words_ids": [[0], [2], [3, 1]] }), 2, [NEVER, 1.0, 1.0, 1.0]);
}

#[test]
fn longer_bad_words_are_banned_where_they_would_be_completed() {
    let words = json!({ "bad_words_ids": [[3, 1], [3, 1, 2], [1, 0]] });
    check_after(words.clone(), &[0, 3], [1.0; 4], [1.0, NEVER, 1.0, 1.0]);
    check_after(words.clone(), &[3, 1], [1.0; 4], [NEVER, 1.0, NEVER, 1.0]);
    check_after(words, &[2, 1], [1.0; 4], [NEVER, 1.0, 1.0, 1.0]);
}

#[test]
fn a_bias_is_added_where_its_sequence_would_be_completed() {
    let bias = json!({ "sequence_bias": [[[1], 0.5], [[1], 2], [[0, 3], -1.5], [[0, 0, 3], 4.0]] });
    check_after(bias.clone(), &[1, 1], [1.0; 4], [1.0, 3.0, 1.0, 1.0]);
    check_after(bias.clone(), &[1, 0], [1.0; 4], [1.0, 3.0, 1.0, -0.5]);
    check_after(bias, &[0, 0], [1.0; 4], [1.0, 3.0, 1.0, 3.5]);
}

#[test]
fn what_was_read_may_be_made_likelier() {
    let likelier = json!({ "encoder_repetition_penalty": 2.0 });
    check_after(likelier, &[2], [1.0, -1.0, 1.0, 0.5], [2.0, -0.5, 1.0, 1.0]);
}

#[test]
fn sequences_that_were_read_may_be_ruled_out() {
    let rule = |size: usize| json!({ "encoder_no_repeat_ngram_size": size });
    check_after(rule(2), &[2, 3], [1.0; 4], [1.0, NEVER, 1.0, 1.0]);
    check_after(rule(2), &[2, 2], [1.0; 4], [1.0; 4]);
    check_after(rule(3), &[3, 1], [1.0; 4], [NEVER, 1.0, 1.0, 1.0]);
    check_after(rule(3), &[1], [1.0; 4], [1.0; 4]);
    check_after(rule(1), &[2], [1.0; 4], [NEVER, NEVER, 1.0, NEVER]);
}

#[test]
fn the_second_id_may_be_forced() {
    check(json!({ "forced_bos_token_id": 3 }), 1, [NEVER, NEVER, NEVER, 0.0]);
    check(json!({ "forced_bos_token_id": 3 }), 2, [1.0; 4]);
}

#[test]
fn the_last_id_may_be_forced() {
    let rules = json!({ "forced_eos_token_id": [2, 3], "bad_words_ids": [[3]] });
    check(rules.clone(), 4, [NEVER, NEVER, 0.0, 0.0]);
    check(rules, 3, [1.0, 1.0, 1.0, NEVER]);
}

#[test]
fn a_text_does_not_end_early() {
    check(json!({ "min_length": 3 }), 2, [1.0, 1.0, NEVER, 1.0]);
    check(json!({ "min_length": 3 }), 3, [1.0; 4]);
    // The prompt does not count, and the length is then not looked at.
    check(json!({ "min_new_tokens": 2, "min_length": 4 }), 2, [1.0, 1.0, NEVER, 1.0]);
    check(json!({ "min_new_tokens": 2, "min_length": 4 }), 3, [1.0; 4]);
}

#[test]
fn ends_grow_likelier_with_length() {
    let decay = json!({ "exponential_decay_length_penalty": [1, 3.0] });
    check_after(decay.clone(), &[0, 0], [1.0; 4], [1.0; 4]);
    check_after(decay.clone(), &[0, 0, 0], [1.0, 1.0, 2.0, 1.0], [1.0, 1.0, 6.0, 1.0]);
    check_after(decay, &[0; 4], [1.0, 1.0, -2.0, 1.0], [1.0, 1.0, 14.0, 1.0]);
}

#[test]
fn ids_may_be_suppressed_everywhere_or_at_the_beginning() {
    check(json!({ "suppress_tokens": [1, -1, 9] }), 3, [1.0, NEVER, 1.0, 1.0]);
    let begin = json!({ "begin_suppress_tokens": [0, 1] });
    check(begin.clone(), 1, [NEVER, NEVER, 1.0, 1.0]);
    check(begin, 2, [1.0; 4]);
    // After an id that is forced, the text begins with the next.
    let forced = json!({ "begin_suppress_tokens": [0, 1], "forced_bos_token_id": 3 });
    check(forced.clone(), 1, [NEVER, NEVER, NEVER, 0.0]);
    check(forced, 2, [NEVER, NEVER, 1.0, 1.0]);
}

#[test]
fn a_grammar_goes_before_what_is_forced() {
    let rules = |files| Rules { files: Some(files), prompt_len: 1, longest: 5, ..Rules::default() };
    let forced = files(&json!({ "forced_bos_token_id": 3 }));
    let processors = Processors::new(&SamplingParams::default(), rules(&forced));
    let mut row = [1.0; 4];
    let mut scores = Scores::new(&mut row, &[0, 3]);
    processors.process(Place { ids: &[0], prompt_len: 1 }, &mut scores);
    assert_eq!(scores.row(), [NEVER, 1.0, 1.0, NEVER]);
    assert!(!scores.is_forced());
}
