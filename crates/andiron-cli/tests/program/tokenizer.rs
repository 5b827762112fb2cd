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
fn tokenizers_of_other_kinds_are_compared_by_parts_of_the_text() {
    let place = Place::new();
    let row = |n: usize, lang: &str, text: &str| {
        format!("{{\"id\": {n}, \"lang\": \"{lang}\", \"text\": \"{text} {n}\"}}\n")
    };
    let rows: String = (0..60)
        .map(|n| if n % 3 == 0 { row(n, "ko", "빨간 집") } else { row(n, "en", "the red house") })
        .collect();
    place.write("rows.jsonl", &rows);
    place.write("template.jinja", "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}");
    place.write("bad.jinja", "{% for m in %}");
    let train = |kind: &'static str, size: &'static str, extra: &[&'static str]| {
        let command = ["tokenizer", "train", "rows.jsonl", "--kind", kind, "--vocab-size", size, "-o", kind];
        [&command[..], extra].concat()
    };
    place.ok(&train("wordpiece", "90", &["--chat-template", "template.jinja"]));
    place.ok(&train("unigram", "150", &[]));
    place.ok(&train("bpe", "300", &[]));
    let template = String::from_utf8(place.read("wordpiece/chat_template.jinja")).unwrap();
    assert!(template.contains("m.role"), "{template}");
    place.fails(&train("bpe", "300", &["--chat-template", "bad.jinja"]), 1, &["bad.jinja"]);
    place.fails(&train("wordpiece", "90", &["--for", "t5"]), 2, &["--for"]);

    // A pattern, as the shell would leave it in quotes.
    let eval =
        ["tokenizer", "eval", "--tokenizer", "bpe", "--against", "wordpiece", "--by", "lang", "*.jsonl"];
    let json = place.json(&eval);
    assert_eq!((&json["documents"], &json["exact"], &json["unknown"]), (&60.into(), &60.into(), &0.into()));
    let [en, ko] = ["en", "ko"].map(|lang| json["by"][lang]["documents"].as_u64().unwrap());
    assert_eq!((en, ko), (40, 20));
    assert_eq!(json["against"]["wordpiece"]["documents"], 60);
    let tokens = |value: &Value| value["tokens"].as_u64().unwrap();
    assert_eq!(tokens(&json), tokens(&json["by"]["en"]) + tokens(&json["by"]["ko"]));
    let table = place.ok(&eval);
    assert!(table.contains("bytes/token") && table.contains("unknown"), "{table}");
    place.fails(&["tokenizer", "eval", "--tokenizer", "bpe", "*.csv"], 1, &["*.csv: no file matches it"]);
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
