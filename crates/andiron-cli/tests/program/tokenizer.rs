//! `andiron tokenizer train` and `prepare` for models that need other control tokens than GPT-2's.

use serde_json::Value;

use crate::common::Place;

const ROWS: &str = "{\"en\": \"the house is red\", \"ko\": \"집이 빨갛다\"}\n{\"en\": \"the red house\", \"ko\": \"빨간 집\"}\n";

#[test]
fn a_vocabulary_is_trained_on_several_fields_with_the_tokens_of_its_model() {
    let place = Place::new();
    place.write("rows.jsonl", ROWS);
    let train = |extra: &[&'static str]| {
        let command = ["tokenizer", "train", "rows.jsonl", "--field", "en", "--field", "ko"];
        [&command[..], extra].concat()
    };
    for (model, first, mask) in [
        ("decoder", "<|endoftext|>", Value::Null),
        ("fim", "<|endoftext|>", Value::Null),
        ("encoder", "<s>", "<mask>".into()),
        ("encoder-decoder", "<s>", "<mask>".into()),
        ("t5", "<pad>", Value::Null),
    ] {
        place.ok(&train(&["--vocab-size", "400", "--for", model, "-o", model]));
        let read = |name: &str| -> Value {
            serde_json::from_slice(&place.read(&format!("{model}/{name}"))).unwrap()
        };
        assert_eq!(read("tokenizer.json")["added_tokens"][0]["content"], first);
        assert_eq!(read("tokenizer_config.json")["mask_token"], mask);
    }
    // Both languages were read: a Korean word of both rows is one token.
    let json = place.json(&["tokenizer", "inspect", "--tokenizer", "encoder", "집"]);
    assert_eq!(json["ids"].as_array().unwrap().len(), 1, "{json}");

    place.fails(&train(&["--kind", "char", "--for", "t5", "-o", "x"]), 2, &["--for", "--kind bpe"]);
    place.fails(&["tokenizer", "train", "rows.jsonl", "-o", "x"], 1, &["rows.jsonl:1", "no field `text`"]);
    place.fails(&train(&["--field", "de", "-o", "x"]), 1, &["rows.jsonl:1", "no field `de`"]);
}

#[test]
fn a_dataset_is_made_of_a_field_with_the_tokens_of_its_model() {
    let place = Place::new();
    let rows: String = (0..40).map(|i| format!("{{\"code\": \"let x{i} = {i};\"}}\n")).collect();
    place.write("rows.jsonl", rows);
    let prepare = ["prepare", "rows.jsonl", "--vocab-size", "300", "-o", "data"];
    place.fails(&prepare, 1, &["rows.jsonl:1", "no field `text`"]);
    place.ok(&[&prepare[..], &["--field", "code", "--for", "fim"]].concat());
    let config: Value = serde_json::from_slice(&place.read("data/tokenizer/tokenizer_config.json")).unwrap();
    let middle = config["additional_special_tokens"].as_array().unwrap();
    assert_eq!(middle.len(), 3, "{config}");
}
