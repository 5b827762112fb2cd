//! `generate`, `predict` and `serve` say the same text, and what `generation_config.json` says counts in all of them.

use andiron_core::DeviceSpec;
use andiron_data::tokenizer::{Special, Tokenizer};
use andiron_kernels::random::Seed;
use andiron_models::{DecoderBundle, DecoderConfig};
use serde_json::{Map, Value, json};

use crate::common::{Place, check_failure, rows};
use crate::serve::Server;

/// Writes a decoder of random weights to `run/model`, with this tokenizer.
fn model(place: &Place, tokenizer: &Value) {
    let n_ids = tokenizer["model"]["vocab"].as_object().unwrap().len();
    let config = json!({ "model_type": "gpt2", "vocab_size": n_ids, "n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2,
                         "initializer_range": 0.8 });
    let config: DecoderConfig = serde_json::from_value(config).unwrap();
    let device = DeviceSpec::first_compiled().unwrap().open().unwrap();
    DecoderBundle::init(config, Seed::new(3), &device).save(&place.path("run/model")).unwrap();
    place.write("run/model/tokenizer.json", tokenizer.to_string());
    place.write("run/model/tokenizer_config.json", r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#);
}

fn tokenizer(model: Value, parts: Value) -> Value {
    let mut all = json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
                          "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model });
    all.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    all
}

/// Ids from 0 on.
fn vocabulary<S: Into<String>>(tokens: impl IntoIterator<Item = S>) -> Value {
    let numbered = tokens.into_iter().enumerate().map(|(id, token)| (token.into(), Value::from(id)));
    Value::Object(numbered.collect::<Map<_, _>>())
}

/// GPT-2's kind: bytes that cannot be shown have letters from U+0100 on.
pub fn byte_level() -> Value {
    let shown = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let letters = (0..256).filter(shown).chain(256..256 + 68).filter_map(char::from_u32).map(String::from);
    let vocab = vocabulary(letters.chain(["Ġa", "Ġb"].map(str::to_owned)));
    let model = json!({ "type": "BPE", "vocab": vocab, "merges": [["Ġ", "a"], ["Ġ", "b"]] });
    let bytes =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    tokenizer(model, json!({ "pre_tokenizer": bytes, "decoder": bytes }))
}

/// Llama 2's kind: a space is put before a text, and taken away again; unknown characters are bytes.
fn sentence_piece() -> Value {
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let vocab = vocabulary(bytes.chain(["<unk>", "▁", "a", "b", "▁a", "▁b"].map(str::to_owned)));
    let model = json!({ "type": "BPE", "vocab": vocab, "merges": [["▁", "a"], ["▁", "b"]], "unk_token": "<unk>",
                        "fuse_unk": true, "byte_fallback": true });
    let normalizers = json!([{ "type": "Prepend", "prepend": "▁" }, { "type": "Replace", "pattern": { "String": " " }, "content": "▁" }]);
    let decoders = json!([{ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }, { "type": "ByteFallback" },
                          { "type": "Fuse" }, { "type": "Strip", "content": " ", "start": 1, "stop": 0 }]);
    let parts = json!({ "normalizer": { "type": "Sequence", "normalizers": normalizers },
                        "decoder": { "type": "Sequence", "decoders": decoders } });
    tokenizer(model, parts)
}

/// BERT's kind.
fn word_piece() -> Value {
    let model = json!({ "type": "WordPiece", "vocab": vocabulary(["[UNK]", "a", "b", "##a", "##b", "c"]),
                        "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100 });
    let parts = json!({ "pre_tokenizer": { "type": "BertPreTokenizer" },
                        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true } });
    tokenizer(model, parts)
}

const PROMPT: &str = "a b";

/// Checks that all say what decoding prompt and answer at once adds to the prompt. The tokens `words`, which begin with a
/// space, are made likely.
#[track_caller]
fn check(json: &Value, words: &[&str]) {
    let place = Place::new();
    model(&place, json);
    let bias: Vec<Value> = words.iter().map(|word| json!([[json["model"]["vocab"][word]], 8.0])).collect();
    say(&place, json!({ "sequence_bias": bias }));
    let tokenizer = Tokenizer::load(&place.path("run/model")).unwrap();
    let prompt = tokenizer.encode(PROMPT).unwrap();
    let server = Server::start(&place, &[]);
    let mut spaces = 0;
    for seed in 0..8u64 {
        let temperature = if seed == 0 { 0.0 } else { 1.2 };
        let (seed_text, temperature_text) = (seed.to_string(), temperature.to_string());
        let flags = [
            "--model",
            "run/model",
            "--max-tokens",
            "9",
            "--seed",
            &seed_text,
            "--temperature",
            &temperature_text,
            "--top-k",
            "0",
            "--top-p",
            "1",
            "--min-p",
            "0",
        ];
        let generated = place.json(&[&["generate", PROMPT], &flags[..]].concat());
        let (text, ids) = (&generated["text"], &generated["ids"]);
        let said: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
        let [before, whole] = [&prompt, &[prompt.as_slice(), &said].concat()]
            .map(|ids| tokenizer.decode(ids, Special::Skip).unwrap());
        assert_eq!(whole.strip_prefix(&before), text.as_str(), "{ids}");
        spaces += usize::from(text.as_str().unwrap().starts_with(' '));
        let shown = place.ok(&[&["generate", PROMPT], &flags[..]].concat());
        assert_eq!(shown, format!("{PROMPT}{}\n", text.as_str().unwrap()));

        let row = format!("{}\n", json!({ "prompt": PROMPT }));
        for more in [&[][..], &["--batch-size", "2"]] {
            let ran = place.run_with_input(
                &[&["predict", "--task", "generate"], &flags[..], more].concat(),
                &row.repeat(2),
            );
            let answers = rows(&ran.out);
            assert_eq!(answers.len(), 2, "{ran:?}");
            for answer in answers {
                assert_eq!((&answer["text"], &answer["ids"]), (text, ids), "{more:?}");
            }
        }
        let request = json!({ "prompt": PROMPT, "max_tokens": 9, "seed": seed, "temperature": temperature });
        assert_eq!(&server.complete(&request)["choices"][0]["text"], text);
    }
    assert!(spaces > 0, "no text begins with a space");
    server.stop();

    let searched = place.run_with_input(
        &["predict", "--task", "generate", "--model", "run/model", "--max-tokens", "9", "--num-beams", "3"],
        &format!("{}\n", json!({ "prompt": PROMPT })),
    );
    let searched = &rows(&searched.out)[0];
    let said: Vec<u32> = serde_json::from_value(searched["ids"].clone()).unwrap();
    let [before, whole] = [&prompt, &[prompt.as_slice(), &said].concat()]
        .map(|ids| tokenizer.decode(ids, Special::Skip).unwrap());
    assert_eq!(whole.strip_prefix(&before), searched["text"].as_str());
}

#[test]
fn all_say_the_same_with_a_byte_level_tokenizer() {
    check(&byte_level(), &["Ġa", "Ġb"]);
}

#[test]
fn all_say_the_same_with_a_tokenizer_of_sentence_piece() {
    check(&sentence_piece(), &["▁a", "▁b"]);
}

#[test]
fn all_say_the_same_with_a_tokenizer_of_word_pieces() {
    check(&word_piece(), &["a", "b"]);
}

/// Adds to the model's `generation_config.json`.
fn say(place: &Place, fields: Value) {
    let file = "run/model/generation_config.json";
    let mut config: Value = serde_json::from_slice(&place.read(file)).unwrap();
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    place.write(file, config.to_string());
}

#[test]
fn the_rules_of_the_generation_config_hold_everywhere() {
    let place = Place::new();
    model(&place, &word_piece());
    let flags = ["--model", "run/model", "--max-tokens", "9", "--temperature", "0"];
    let generate = |place: &Place| place.json(&[&["generate", PROMPT], &flags[..]].concat())["ids"].clone();
    let free: Vec<u32> = serde_json::from_value(generate(&place)).unwrap();
    say(&place, json!({ "suppress_tokens": [free[0]] }));
    let ids = generate(&place);
    assert!(!ids.as_array().unwrap().contains(&free[0].into()), "{ids}");
    let text = place.json(&[&["generate", PROMPT], &flags[..]].concat())["text"].clone();
    let row = format!("{}\n", json!({ "prompt": PROMPT }));
    for more in [&[][..], &["--batch-size", "2"]] {
        let ran = place
            .run_with_input(&[&["predict", "--task", "generate"], &flags[..], more].concat(), &row.repeat(2));
        assert_eq!(rows(&ran.out)[1]["ids"], ids, "{more:?}");
    }
    let server = Server::start(&place, &[]);
    // Greedy by the request, then by the file.
    let mut request = json!({ "prompt": PROMPT, "max_tokens": 9, "temperature": 0 });
    assert_eq!(server.complete(&request)["choices"][0]["text"], text);
    server.stop();
    say(&place, json!({ "do_sample": false }));
    let server = Server::start(&place, &[]);
    request.as_object_mut().unwrap().remove("temperature");
    assert_eq!(server.complete(&request)["choices"][0]["text"], text);
    server.stop();
    assert_eq!(place.json(&["generate", PROMPT, "--model", "run/model", "--max-tokens", "9"])["ids"], ids);
    // A length of the file is one, unless the command line says another.
    say(&place, json!({ "max_new_tokens": 4 }));
    let made = place.json(&["generate", PROMPT, "--model", "run/model"]);
    assert_eq!(made["ids"].as_array().unwrap()[..], ids.as_array().unwrap()[..4]);
}

#[test]
fn stop_strings_of_the_generation_config_end_a_text_everywhere() {
    let place = Place::new();
    model(&place, &byte_level());
    // Texts that are not empty, and can be cut: letters only.
    let letters: Vec<Value> = (64..90).map(|id| json!([[id], 60.0])).collect();
    say(&place, json!({ "sequence_bias": letters }));
    let flags = ["--model", "run/model", "--max-tokens", "9", "--temperature", "0.9", "--top-k", "0"];
    let generate = |more: &[&str]| place.json(&[&["generate", PROMPT], &flags[..], more].concat());
    let whole = generate(&[])["text"].as_str().unwrap().to_owned();
    assert_eq!(whole.len(), 9, "{whole:?}");
    // Ends in the middle of the text; transformers would keep it.
    let stop = &whole[4..6];
    let cut = &whole[..whole.find(stop).unwrap()];
    say(&place, json!({ "stop_strings": [stop] }));
    let stopped = generate(&[]);
    assert_eq!((stopped["text"].as_str(), stopped["finish_reason"].as_str()), (Some(cut), Some("stop")));
    assert_eq!(generate(&["--stop", "<none>"])["text"], whole);
    let input: String = [json!({ "prompt": PROMPT }), json!({ "prompt": PROMPT, "stop": [] })]
        .iter()
        .map(|row| format!("{row}\n"))
        .collect();
    let predict = [&["predict", "--task", "generate"], &flags[..]].concat();
    let answers = rows(&place.run_with_input(&predict, &input).out);
    assert_eq!((&answers[0]["text"], &answers[1]["text"]), (&json!(cut), &json!(whole)));
    let beams = place.run_with_input(&[&predict[..], &["--num-beams", "2"]].concat(), &input[..16]);
    assert_eq!(beams.code, Some(1), "{beams:?}");
    let server = Server::start(&place, &[]);
    let mut request = json!({ "prompt": PROMPT, "max_tokens": 9, "seed": 1337, "temperature": 0.9 });
    assert_eq!(server.complete(&request)["choices"][0]["text"], cut);
    request["stop"] = json!([]);
    assert_eq!(server.complete(&request)["choices"][0]["text"], whole);
    server.stop();
}

#[test]
fn settings_that_are_not_kept_are_refused_and_keys_that_nobody_reads_are_told() {
    let place = Place::new();
    model(&place, &word_piece());
    let args = ["generate", PROMPT, "--model", "run/model", "--max-tokens", "2"];
    say(&place, json!({ "chat_format": "chatml" }));
    let ran = place.run(&args);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("generation_config.json") && ran.err.contains("chat_format"), "{ran:?}");
    say(&place, json!({ "watermarking_config": { "bias": 2.5 } }));
    check_failure(&place.run(&args), 1, &["watermarking_config"]);
}
