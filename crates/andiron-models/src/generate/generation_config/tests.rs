use serde_json::json;

use super::*;

fn read(fields: Value) -> Result<GenerationConfig, String> {
    let Value::Object(fields) = fields else { panic!("an object is wanted") };
    let within = |mut config: GenerationConfig| config.drop_ids_outside(100).map(|()| config);
    GenerationConfig::from_fields(fields, Path::new("file"))
        .and_then(within)
        .map_err(|error| error.to_string())
}

/// The keys of `GenerationConfig` in transformers 5.24.0, each with a value that would change something if it can.
fn all_keys() -> Vec<(&'static str, Value)> {
    vec![
        ("_from_model_config", json!(true)),
        ("assistant_confidence_threshold", json!(0.5)),
        ("assistant_early_exit", json!(3)),
        ("assistant_ensemble_weight", json!(0.5)),
        ("assistant_lookbehind", json!(9)),
        ("bad_words_ids", json!([[3, 4]])),
        ("begin_suppress_tokens", json!([3])),
        ("bos_token_id", json!(3)),
        ("cache_config", json!({ "nbits": 4 })),
        ("cache_implementation", json!("quantized")),
        ("compile_config", json!({ "mode": "default" })),
        ("constraints", json!([1])),
        ("continuous_batching_config", json!({ "page_size": 16 })),
        ("decoder_start_token_id", json!(3)),
        ("disable_compile", json!(true)),
        ("diversity_penalty", json!(0.5)),
        ("do_sample", json!(true)),
        ("dola_layers", json!("low")),
        ("early_stopping", json!(true)),
        ("encoder_no_repeat_ngram_size", json!(3)),
        ("encoder_repetition_penalty", json!(1.5)),
        ("eos_token_id", json!([3, 4])),
        ("epsilon_cutoff", json!(0.01)),
        ("eta_cutoff", json!(0.01)),
        ("exponential_decay_length_penalty", json!([3, 1.2])),
        ("force_words_ids", json!([[3]])),
        ("forced_bos_token_id", json!(3)),
        ("forced_eos_token_id", json!(3)),
        ("guidance_scale", json!(1.5)),
        ("is_assistant", json!(true)),
        ("length_penalty", json!(0.5)),
        ("low_memory", json!(true)),
        ("max_cache_len", json!(9)),
        ("max_length", json!(30)),
        ("max_matching_ngram_size", json!(3)),
        ("max_new_tokens", json!(30)),
        ("max_time", json!(1.5)),
        ("min_length", json!(3)),
        ("min_new_tokens", json!(3)),
        ("min_p", json!(0.1)),
        ("no_repeat_ngram_size", json!(3)),
        ("num_assistant_tokens", json!(3)),
        ("num_assistant_tokens_schedule", json!("heuristic")),
        ("num_beam_groups", json!(2)),
        ("num_beams", json!(4)),
        ("num_return_sequences", json!(2)),
        ("output_attentions", json!(true)),
        ("output_hidden_states", json!(true)),
        ("output_logits", json!(true)),
        ("output_scores", json!(true)),
        ("pad_token_id", json!(3)),
        ("penalty_alpha", json!(0.5)),
        ("prefill_chunk_size", json!(64)),
        ("prompt_lookup_num_tokens", json!(3)),
        ("remove_invalid_values", json!(true)),
        ("renormalize_logits", json!(true)),
        ("repetition_penalty", json!(1.5)),
        ("return_dict_in_generate", json!(true)),
        ("sequence_bias", json!([[[3, 4], 1.5]])),
        ("speculation_type", json!("dflash")),
        ("stop_strings", json!(["a"])),
        ("suppress_tokens", json!([3])),
        ("target_lookbehind", json!(9)),
        ("temperature", json!(0.7)),
        ("token_healing", json!(true)),
        ("top_h", json!(0.5)),
        ("top_k", json!(30)),
        ("top_p", json!(0.9)),
        ("transformers_version", json!("5.24.0")),
        ("typical_p", json!(0.9)),
        ("use_cache", json!(false)),
        ("use_mtp", json!(true)),
        ("watermarking_config", json!({ "bias": 2.0 })),
    ]
}

const REFUSED: &[&str] = &[
    "cache_implementation",
    "constraints",
    "dola_layers",
    "force_words_ids",
    "guidance_scale",
    "max_time",
    "penalty_alpha",
    "token_healing",
    "top_h",
    "watermarking_config",
];

#[test]
fn every_key_of_transformers_is_honoured_or_refused_by_name_or_known_to_change_nothing() {
    for (key, value) in all_keys() {
        // Cuts count where ids are drawn only, and beams are as many as what they are split into or returned.
        let around = match key {
            "top_h" => json!({ "do_sample": true }),
            "num_beam_groups" | "num_return_sequences" => json!({ "num_beams": 4 }),
            _ => json!({}),
        };
        let plain = read(around.clone()).unwrap();
        let mut fields = around;
        fields[key] = value.clone();
        match read(fields.clone()) {
            Err(message) => {
                assert!(REFUSED.contains(&key), "{message}");
                assert!(message.starts_with(&format!("generation config key {key} is ")), "{message}");
                fields[key] = Value::Null;
                assert_eq!(read(fields), Ok(plain), "{key}");
            }
            Ok(config) => {
                assert!(!REFUSED.contains(&key), "{key}");
                assert_eq!(config.unread().count(), 0, "{key}");
                let honoured = GenerationConfig { rest: Map::new(), ..config.clone() } != plain;
                assert!(honoured != config.rest.contains_key(key), "{key}");
                let written = serde_json::to_value(&config).unwrap();
                assert_eq!(
                    written[key].as_f64().map(|x| x as f32),
                    value.as_f64().map(|x| x as f32),
                    "{key}"
                );
                assert_eq!(read(written), Ok(config), "{key}");
            }
        }
    }
}

#[test]
fn what_changes_nothing_is_not_refused() {
    let inert = json!({
        "cache_implementation": "static", "constraints": [], "dola_layers": null, "epsilon_cutoff": 0.0,
        "eta_cutoff": 0, "force_words_ids": [], "guidance_scale": 1.0, "max_time": null, "penalty_alpha": 0.0,
        "stop_strings": [], "token_healing": false, "top_h": null, "watermarking_config": null, "do_sample": true,
    });
    assert!(read(inert).is_ok());
    // Without drawn ids nothing is cut off, and with them nothing contrasted.
    assert!(read(json!({ "epsilon_cutoff": 0.1, "eta_cutoff": 0.1, "top_h": 0.4 })).is_ok());
    assert!(read(json!({ "penalty_alpha": 0.6, "top_k": 4, "do_sample": true })).is_ok());
    let refused = read(json!({ "penalty_alpha": 0.6, "top_k": 4 })).unwrap_err();
    assert_eq!(refused, "generation config key penalty_alpha is 0.6: supported is 0");
}

#[test]
fn stop_strings_are_one_or_several_and_none_is_empty() {
    let strings = |value| read(json!({ "stop_strings": value })).map(|config| config.stop_strings);
    assert_eq!(strings(json!("User:")), Ok(vec!["User:".to_owned()]));
    assert_eq!(strings(json!(["a", "b"])), Ok(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(strings(json!([])), Ok(Vec::new()));
    assert_eq!(strings(Value::Null), Ok(Vec::new()));
    let refused = strings(json!(["a", ""])).unwrap_err();
    assert_eq!(
        refused,
        r#"generation config key stop_strings is ["a",""]: supported is strings that are not empty"#
    );
    assert!(strings(json!(3)).unwrap_err().contains("generation config"));
}

#[test]
fn a_key_that_nobody_reads_is_named_and_kept() {
    let config =
        read(json!({ "eos_token_id": 2, "chat_format": "chatml", "forced_decoder_ids": [[1, 3]] })).unwrap();
    assert_eq!(config.unread().collect::<Vec<_>>(), ["chat_format", "forced_decoder_ids"]);
    assert_eq!(serde_json::to_value(&config).unwrap()["chat_format"], "chatml");
}

#[test]
fn ids_that_no_token_can_have_are_no_ids() {
    let config = read(json!({
        "pad_token_id": -1, "bos_token_id": -1, "decoder_start_token_id": -1, "eos_token_id": [2, -1, 100, u64::MAX],
        "suppress_tokens": [-1, 3, 200], "begin_suppress_tokens": [-1],
    }));
    let config = config.unwrap();
    assert_eq!((config.pad_token_id, config.bos_token_id, config.decoder_start_token_id), (None, None, None));
    assert_eq!(config.eos_token_id.as_slice(), [2]);
    assert_eq!(
        (config.suppress_tokens.as_slice(), config.begin_suppress_tokens.as_slice()),
        (&[3][..], &[][..])
    );
    assert_eq!(read(json!({ "eos_token_id": -1 })).unwrap().eos_token_id.as_slice(), [] as [u32; 0]);
    assert_eq!(read(json!({ "eos_token_id": 100 })).unwrap().eos_token_id.as_slice(), [] as [u32; 0]);
}

#[test]
fn ids_whose_scores_would_be_changed_must_be_there() {
    for (fields, key) in [
        (json!({ "bad_words_ids": [[3, 100]] }), "bad_words_ids"),
        (json!({ "sequence_bias": [[[100], 1.0]] }), "sequence_bias"),
        (json!({ "forced_bos_token_id": 100 }), "forced_bos_token_id"),
        (json!({ "forced_bos_token_id": -1 }), "forced_bos_token_id"),
        (json!({ "forced_eos_token_id": 100 }), "forced_eos_token_id"),
        (json!({ "forced_eos_token_id": 3, "suppress_tokens": [3] }), "forced_eos_token_id"),
        (json!({ "do_sample": true, "temperature": -1.0 }), "temperature"),
        (json!({ "repetition_penalty": 0 }), "repetition_penalty"),
        (json!({ "encoder_repetition_penalty": -2.0 }), "encoder_repetition_penalty"),
        (json!({ "exponential_decay_length_penalty": [1, 0.0] }), "exponential_decay_length_penalty"),
        (json!({ "num_beam_groups": 3, "num_beams": 4 }), "num_beam_groups"),
    ] {
        let message = read(fields).unwrap_err();
        assert!(message.contains(&format!("config key {key}")), "{message}");
    }
}

#[test]
fn ids_are_drawn_where_transformers_draws_them() {
    let temperature = |fields| read(fields).unwrap().sampling().temperature;
    assert_eq!(temperature(json!({})), None);
    assert_eq!(temperature(json!({ "do_sample": true })), None);
    assert_eq!(temperature(json!({ "do_sample": true, "temperature": 0.6 })), Some(0.6));
    assert_eq!(temperature(json!({ "do_sample": false })), Some(0.0));
    assert_eq!(temperature(json!({ "temperature": 0.6 })), Some(0.0));
    assert_eq!(temperature(json!({ "top_k": 5 })), Some(0.0));
    assert_eq!(temperature(json!({ "eta_cutoff": 0.1 })), Some(0.0));
    // transformers passes over a cutoff that is no probability.
    let cut =
        read(json!({ "do_sample": true, "epsilon_cutoff": 0.1, "eta_cutoff": 3.0 })).unwrap().sampling();
    assert_eq!((cut.epsilon_cutoff, cut.eta_cutoff), (Some(0.1), Some(0.0)));
    assert_eq!(temperature(json!({ "repetition_penalty": 1.1 })), None);
}

#[test]
fn what_nobody_says_is_what_llama_cpp_says() {
    let files = read(json!({ "do_sample": true, "top_p": 0.8, "top_k": -1 })).unwrap();
    let flags = SamplingChoice { min_p: Some(0.0), ..SamplingChoice::default() };
    let params = SamplingParams::from(flags.or(files.sampling()).or(SamplingChoice::LLAMA_CPP));
    let SamplingParams { temperature, top_k, top_p, min_p, .. } = params;
    assert_eq!((temperature, top_k, top_p, min_p), (0.8, 0, 0.8, 0.0));
}

#[test]
fn an_older_configuration_says_how_to_generate() {
    let written = json!({ "repetition_penalty": 1.5, "suppress_tokens": [3], "top_k": null, "hidden_size": 8,
                          "force_bos_token_to_be_generated": true, "eos_token_id": 9 });
    let ids = json!({ "bos_token_id": 1, "eos_token_id": 2 });
    let (Value::Object(ids), Value::Object(mut written)) = (ids, written) else { panic!("objects") };
    let read = |written: &Map<String, Value>| {
        GenerationConfig::of_model_config(ids.clone(), written, Path::new("config.json"))
    };
    let config = read(&written).unwrap();
    assert_eq!((config.repetition_penalty, config.suppress_tokens.as_slice()), (Some(1.5), &[3][..]));
    assert_eq!((config.eos_token_id.as_slice(), config.forced_bos_token_id), (&[2][..], Some(1)));
    assert!(config.rest.is_empty());
    written.insert("guidance_scale".to_owned(), json!(2.0));
    assert!(read(&written).unwrap_err().to_string().contains("guidance_scale"));
}

#[test]
fn lengths_are_said_in_ids_to_generate() {
    let config = |fields| read(fields).unwrap();
    assert_eq!(config(json!({ "max_length": 20 })).max_new(5), Some(15));
    assert_eq!(config(json!({ "max_length": 20, "max_new_tokens": 7 })).max_new(5), Some(7));
    assert_eq!(config(json!({ "max_length": 20 })).max_new(20), None);
    assert_eq!(config(json!({})).max_new(5), None);
}
