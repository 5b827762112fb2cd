//! `andiron quickstart`, from a text to a model directory.

use crate::common::{Place, keys, metrics};

const QUICKSTART: &[&str] =
    &["quickstart", "--recipe", "nanogpt", "--corpus", "corpus.txt", "--output", "story", "--steps", "20"];

/// The number after `validation loss`.
#[track_caller]
fn validation_loss(out: &str) -> &str {
    let line = out.lines().find_map(|line| line.strip_prefix("validation loss "));
    line.unwrap_or_else(|| panic!("no validation loss: {out}"))
}

#[test]
fn a_text_becomes_a_model_and_doing_it_again_changes_nothing() {
    let place = Place::new();
    let out = place.ok(QUICKSTART);
    let loss = validation_loss(&out);
    // The logarithm of the vocabulary is about 4, and even 20 steps find out which characters are frequent.
    assert!((1.0..3.6).contains(&loss.parse::<f64>().unwrap()), "{out}");
    assert_eq!(out.matches("--- a sample ---").count(), 2, "{out}");
    assert!(out.contains("cargo xtask serve --model story/run/model\n"), "{out}");
    let beginning = crate::common::text(4000).lines().next().unwrap();
    let line = format!("cargo xtask generate --model story/run/model '{beginning}'\n");
    assert!(out.contains(&line), "{out}");
    let files = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    for file in files {
        assert!(!place.read(&format!("story/run/model/{file}")).is_empty());
    }
    let losses = metrics(&place.path("story/run"));
    assert_eq!(losses.len(), 20);
    assert!(losses[0]["loss"].as_f64() > losses[19]["loss"].as_f64());

    let files = files.map(|file| format!("story/run/model/{file}"));
    let before = files.clone().map(|file| place.read(&file));
    let again = place.ok(QUICKSTART);
    assert_eq!(again, out);
    assert_eq!(files.map(|file| place.read(&file)), before);
    assert_eq!(metrics(&place.path("story/run")), losses);

    let json = place.json(QUICKSTART);
    assert_eq!(keys(&json), ["validation_loss", "bits_per_token", "steps", "tokens", "model", "samples"]);
    assert_eq!(format!("{:.4}", json["validation_loss"].as_f64().unwrap()), loss);
    assert_eq!((&json["steps"], &json["model"]), (&20.into(), &"story/run/model".into()));
}

#[test]
fn another_quickstart_in_its_place_is_refused_until_it_may_restart() {
    let place = Place::new();
    let with = |extra: &[&'static str]| [&QUICKSTART[..7], extra].concat();
    let first = place.ok(&with(&["--steps", "4"]));
    place.fails(&with(&["--steps", "5"]), 1, &["story", "run.steps", "--output", "--restart"]);
    place.write("corpus.txt", crate::common::text(3000));
    place.fails(&with(&["--steps", "4"]), 1, &["story", "--output", "--restart"]);
    let other = place.ok(&with(&["--steps", "4", "--restart"]));
    assert_ne!(validation_loss(&first), validation_loss(&other));
}

#[test]
fn a_short_corpus_is_told_how_long_it_must_be() {
    for (recipe, context, length) in
        [("nanogpt", "64 characters", 650), ("two-minutes", "256 characters", 2570)]
    {
        let place = Place::new();
        let args = |corpus, output| {
            ["quickstart", "--recipe", recipe, "--corpus", corpus, "--output", output, "--steps", "2"]
        };
        place.write("short.txt", crate::common::text(length - 10));
        let names = ["short.txt is too short", context, &length.to_string()];
        place.fails(&args("short.txt", "short"), 1, &names);
        place.write("long.txt", crate::common::text(length));
        place.ok(&args("long.txt", recipe));
        let config = String::from_utf8(place.read(&format!("{recipe}/run/model/config.json"))).unwrap();
        assert_eq!(config.contains("\"qwen3\""), recipe == "two-minutes", "{config}");
        let run = String::from_utf8(place.read(&format!("{recipe}/run/config.toml"))).unwrap();
        assert_eq!(run.contains("kind = \"muon\""), recipe == "two-minutes", "{run}");
    }
}
