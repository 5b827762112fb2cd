//! What `/v1/completions` and its neighbours answer, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use andiron_models::generate::WhenFull;
use andiron_serving::engine::EngineConfig;
use andiron_serving::registry::ServedModel;
use serde_json::{Value, json};

use common::{
    Alphabet, CONTEXT, Copyist, Gate, complete, config, events, get, post, start, start_described,
    start_model, start_with, text, tokenizer,
};

/// The usage of a request whose prompt was read.
fn usage(prompt: usize, completion: usize) -> Value {
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
    })
}

#[tokio::test]
async fn a_completion_has_the_shape_of_openai() {
    let at = start().await;
    let reply =
        complete(at.address, r#"{"model":"alphabet","prompt":"abc","max_tokens":4,"temperature":0}"#).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let json = reply.json();
    assert!(json["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!(json["object"], "text_completion");
    assert_eq!(json["model"], "alphabet");
    assert!(json["created"].as_u64().unwrap() > 1_600_000_000);
    assert_eq!(
        json["choices"],
        json!([{"index": 0, "text": "defg", "logprobs": null, "finish_reason": "length"}])
    );
    assert_eq!(json["usage"], usage(3, 4));
}

#[tokio::test]
async fn the_default_is_sixteen_tokens_or_what_fits() {
    let at = start().await;
    let reply = complete(at.address, r#"{"prompt":"a","ignore_eos":true}"#).await.json();
    assert_eq!(reply["usage"]["completion_tokens"], 16);
    let prompt = "a".repeat(CONTEXT - 3);
    let reply = complete(at.address, &json!({"prompt": prompt, "ignore_eos": true}).to_string()).await.json();
    assert_eq!(reply["usage"]["completion_tokens"], 3);
}

#[tokio::test]
async fn all_four_kinds_of_prompt_are_taken() {
    let at = start().await;
    for (prompt, expected) in [
        (json!("abc"), vec!["de"]),
        (json!(["abc", "m"]), vec!["de", "no"]),
        (json!([1, 2, 3]), vec!["de"]),
        (json!([[1, 2, 3], [13]]), vec!["de", "no"]),
    ] {
        let body = json!({"prompt": prompt, "max_tokens": 2, "temperature": 0});
        let reply = complete(at.address, &body.to_string()).await.json();
        let texts: Vec<&str> =
            reply["choices"].as_array().unwrap().iter().map(|c| c["text"].as_str().unwrap()).collect();
        assert_eq!(texts, expected, "{body}");
    }
}

#[tokio::test]
async fn the_end_of_text_stops_and_is_counted_but_not_written() {
    let at = start().await;
    let reply =
        complete(at.address, r#"{"prompt":"w","max_tokens":20,"temperature":0,"logprobs":0}"#).await.json();
    assert_eq!(reply["choices"][0]["text"], "xyzé");
    assert_eq!(reply["choices"][0]["finish_reason"], "stop");
    assert_eq!(reply["usage"]["completion_tokens"], 5);
    assert_eq!(reply["choices"][0]["logprobs"]["tokens"], json!(["x", "y", "z", "é", "<|end|>"]));
    assert_eq!(reply["choices"][0]["logprobs"]["text_offset"], json!([0, 1, 2, 3, 4]));
    let ignored =
        text(at.address, r#"{"prompt":"w","max_tokens":7,"temperature":0,"ignore_eos":true}"#).await;
    assert_eq!(ignored, "xyzé!a");
}

#[tokio::test]
async fn stop_strings_end_the_text_across_pieces() {
    let at = start().await;
    let body =
        |stop: Value| json!({"prompt": "a", "max_tokens": 12, "temperature": 0, "stop": stop}).to_string();
    for (stop, expected, reason, tokens) in [
        (json!("fgh"), "bcde", "stop", 7),
        (json!(["zzz", "gh", "fgh"]), "bcde", "stop", 7),
        (json!("b"), "", "stop", 1),
        (json!("mnx"), "bcdefghijklm", "length", 12),
        (json!([]), "bcdefghijklm", "length", 12),
    ] {
        let reply = complete(at.address, &body(stop.clone())).await.json();
        let choice = &reply["choices"][0];
        assert_eq!(
            (choice["text"].as_str(), choice["finish_reason"].as_str()),
            (Some(expected), Some(reason)),
            "{stop}"
        );
        assert_eq!(reply["usage"]["completion_tokens"], tokens, "{stop}");
    }
}

#[tokio::test]
async fn stop_strings_of_the_model_hold_for_requests_without_their_own() {
    let info = ServedModel { stop_strings: vec!["fg".to_owned()], ..ServedModel::new("alphabet") };
    let at = start_described(info).await;
    for (stop, expected) in
        [("", "bcde"), (r#","stop":null"#, "bcde"), (r#","stop":"d""#, "bc"), (r#","stop":[]"#, "bcdefghi")]
    {
        let body = format!(r#"{{"prompt":"a","max_tokens":8,"temperature":0{stop}}}"#);
        assert_eq!(text(at.address, &body).await, expected, "{body}");
    }
}

#[tokio::test]
async fn stop_ids_and_the_minimum_of_tokens_work_together() {
    let at = start().await;
    let stopped = r#"{"prompt":"a","max_tokens":12,"temperature":0,"stop_token_ids":[4]}"#;
    assert_eq!(text(at.address, stopped).await, "bc");
    let later = r#"{"prompt":"a","max_tokens":12,"temperature":0,"stop":["c"],"min_tokens":5}"#;
    assert_eq!(text(at.address, later).await, "bcdefghijklm");
    let banned = r#"{"prompt":"a","max_tokens":3,"temperature":0,"stop_token_ids":[2],"min_tokens":2}"#;
    assert_ne!(text(at.address, banned).await.chars().next(), Some('b'));
}

#[tokio::test]
async fn a_stream_gives_the_same_text_in_order_and_ends_with_done() {
    let at = start().await;
    let body =
        r#"{"prompt":"a","max_tokens":9,"seed":3,"stream":true,"stream_options":{"include_usage":true}}"#;
    let reply = complete(at.address, body).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let frames = events(&reply.body);
    assert_eq!(frames.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> =
        frames[..frames.len() - 1].iter().map(|f| serde_json::from_str(f).unwrap()).collect();
    let (usage, parts) = chunks.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["prompt_tokens"], 1);
    for part in parts {
        assert_eq!((&part["id"], &part["object"]), (&parts[0]["id"], &json!("text_completion")));
        assert_eq!(part.get("usage"), Some(&Value::Null));
    }
    let (last, before) = parts.split_last().unwrap();
    assert!(before.iter().all(|part| part["choices"][0]["finish_reason"].is_null()));
    assert!(last["choices"][0]["finish_reason"].is_string());
    let streamed: String = parts.iter().map(|part| part["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(streamed, text(at.address, r#"{"prompt":"a","max_tokens":9,"seed":3}"#).await);
}

#[tokio::test]
async fn a_stream_without_options_has_no_usage() {
    let at = start().await;
    let reply = complete(at.address, r#"{"prompt":"a","max_tokens":2,"temperature":0,"stream":true}"#).await;
    let frames = events(&reply.body);
    assert_eq!(frames.len(), 4, "two tokens, the end, [DONE]: {frames:?}");
    assert!(frames.iter().all(|frame| !frame.contains("usage")));
}

#[tokio::test]
async fn a_stream_never_shows_what_a_stop_string_takes_back() {
    let at = start().await;
    let body = r#"{"prompt":"a","max_tokens":12,"temperature":0,"stream":true,"stop":"fgh"}"#;
    let reply = complete(at.address, body).await;
    let mut text = String::new();
    for frame in events(&reply.body).iter().filter(|frame| *frame != "[DONE]") {
        let chunk: Value = serde_json::from_str(frame).unwrap();
        text.push_str(chunk["choices"][0]["text"].as_str().unwrap());
        assert!("bcde".starts_with(&text), "{text}");
    }
    assert_eq!(text, "bcde");
}

#[tokio::test]
async fn n_choices_differ_and_repeat_with_the_seed() {
    let at = start().await;
    let body = r#"{"prompt":"a","max_tokens":12,"n":2,"seed":9,"temperature":1.5,"ignore_eos":true}"#;
    let first = complete(at.address, body).await.json();
    let again = complete(at.address, body).await.json();
    assert_eq!(first["choices"], again["choices"]);
    assert_eq!((&first["choices"][0]["index"], &first["choices"][1]["index"]), (&json!(0), &json!(1)));
    assert_ne!(first["choices"][0]["text"], first["choices"][1]["text"]);
    assert_eq!(first["usage"], usage(1, 24));
    let alone = r#"{"prompt":["q","a"],"max_tokens":12,"seed":9,"temperature":1.5,"ignore_eos":true}"#;
    assert_eq!(complete(at.address, alone).await.json()["choices"][1]["text"], first["choices"][0]["text"]);
}

#[tokio::test]
async fn without_a_seed_each_request_is_another() {
    let at = start().await;
    let body = r#"{"prompt":["a","a"],"max_tokens":20,"temperature":2,"ignore_eos":true}"#;
    let reply = complete(at.address, body).await.json();
    assert_ne!(reply["choices"][0]["text"], reply["choices"][1]["text"]);
    assert_ne!(reply["choices"][0]["text"], complete(at.address, body).await.json()["choices"][0]["text"]);
}

#[tokio::test]
async fn n_streams_are_told_apart_by_their_index() {
    let at = start().await;
    let body = |stream: bool| {
        json!({"prompt": "a", "max_tokens": 12, "n": 3, "seed": 9, "temperature": 1.5, "stream": stream})
            .to_string()
    };
    let whole = complete(at.address, &body(false)).await.json();
    let mut texts = vec![String::new(); 3];
    for frame in
        events(&complete(at.address, &body(true)).await.body).iter().filter(|frame| *frame != "[DONE]")
    {
        let chunk: Value = serde_json::from_str(frame).unwrap();
        let choice = &chunk["choices"][0];
        texts[choice["index"].as_u64().unwrap() as usize].push_str(choice["text"].as_str().unwrap());
    }
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(whole["choices"][index]["text"], *text);
    }
}

#[tokio::test]
async fn lm_eval_can_score_a_prompt() {
    let at = start().await;
    let body = r#"{"prompt":[1,2,4],"temperature":0,"max_tokens":1,"logprobs":1,"echo":true,"seed":1234}"#;
    let reply = complete(at.address, body).await.json();
    let choice = &reply["choices"][0];
    assert_eq!(choice["text"], "abde");
    let logprobs = &choice["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["a", "b", "d", "e"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2, 3]));
    assert!(logprobs["token_logprobs"][0].is_null() && logprobs["top_logprobs"][0].is_null());
    let best = |at: usize| {
        let top = logprobs["top_logprobs"][at].as_object().unwrap();
        top.values().map(|v| v.as_f64().unwrap()).fold(f64::MIN, f64::max)
    };
    let chosen = |at: usize| logprobs["token_logprobs"][at].as_f64().unwrap();
    // b follows a, so it is greedy, exactly; d does not follow b, c would have.
    assert_eq!(chosen(1), best(1));
    assert!(chosen(2) < best(2));
    assert_eq!(logprobs["top_logprobs"][2].as_object().unwrap().keys().collect::<Vec<_>>(), ["c", "d"]);
    assert_eq!(chosen(3), best(3));
    // The prompt alone, scored without a single new token.
    let body = r#"{"prompt":"abd","max_tokens":0,"logprobs":1,"echo":true}"#;
    let alone = complete(at.address, body).await.json();
    assert_eq!(alone["choices"][0]["text"], "abd");
    assert_eq!(
        alone["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap(),
        &logprobs["token_logprobs"].as_array().unwrap()[..3]
    );
    assert_eq!(alone["usage"]["completion_tokens"], 0);
}

#[tokio::test]
async fn echo_without_logprobs_is_the_prompt_and_its_continuation() {
    let at = start().await;
    assert_eq!(
        text(at.address, r#"{"prompt":"abc","max_tokens":2,"temperature":0,"echo":true}"#).await,
        "abcde"
    );
    assert_eq!(text(at.address, r#"{"prompt":[1,2],"max_tokens":0,"echo":true}"#).await, "ab");
    let reply =
        complete(at.address, r#"{"prompt":"abc","max_tokens":1,"temperature":0,"echo":true,"stream":true}"#)
            .await;
    let first: Value = serde_json::from_str(&events(&reply.body)[0]).unwrap();
    assert_eq!(first["choices"][0]["text"], "abc");
}

#[tokio::test]
async fn a_full_context_can_be_scored() {
    let at = start().await;
    let body = json!({"prompt": vec![1; CONTEXT], "max_tokens": 0, "echo": true, "logprobs": 0});
    let reply = complete(at.address, &body.to_string()).await.json();
    assert_eq!(reply["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), CONTEXT);
}

#[tokio::test]
async fn bias_and_penalties_reach_the_sampler() {
    let at = start().await;
    let biased = r#"{"prompt":"a","max_tokens":3,"temperature":0,"logit_bias":{"10":100}}"#;
    assert_eq!(text(at.address, biased).await, "jjj");
    let penalised = r#"{"prompt":"a","max_tokens":3,"temperature":0,"logit_bias":{"10":50,"11":49},"presence_penalty":2}"#;
    assert_eq!(text(at.address, penalised).await, "jkj");
    let top_k = r#"{"prompt":"a","max_tokens":5,"temperature":2,"top_k":1,"seed":1}"#;
    assert_eq!(text(at.address, top_k).await, "bcdef");
}

#[tokio::test]
async fn a_sliding_window_answers_past_the_context() {
    let mut config = config();
    config.when_full = WhenFull::Slide;
    let at = start_with(config, EngineConfig::default(), Some(tokenizer())).await;
    let body = r#"{"prompt":"a","max_tokens":150,"temperature":0,"ignore_eos":true}"#;
    let reply = complete(at.address, body).await.json();
    assert_eq!(reply["usage"]["completion_tokens"], 150);
}

#[tokio::test]
async fn without_a_tokenizer_ids_are_enough() {
    let at = start_with(config(), EngineConfig::default(), None).await;
    let body = r#"{"prompt":[1,2],"max_tokens":2,"temperature":0,"logprobs":1}"#;
    let reply = complete(at.address, body).await.json();
    assert_eq!(reply["choices"][0]["text"], "");
    assert_eq!(reply["choices"][0]["logprobs"]["tokens"], json!(["token_id:3", "token_id:4"]));
    for (path, body) in [
        ("/v1/completions", r#"{"prompt":"ab"}"#),
        ("/v1/completions", r#"{"prompt":[1],"stop":"x"}"#),
        ("/tokenize", r#"{"prompt":"ab"}"#),
    ] {
        let reply = post(at.address, path, body).await;
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (400, &json!("tokenizer_missing")),
            "{body}"
        );
    }
}

#[tokio::test]
async fn models_tokenize_and_tokenizer_info_answer() {
    let at = start().await;
    let models = get(at.address, "/v1/models").await.json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("alphabet")));
    assert_eq!(models["data"][0]["max_model_len"], CONTEXT);
    assert_eq!(get(at.address, "/v1/models/alphabet").await.json(), models["data"][0]);
    let missing = get(at.address, "/v1/models/org/other").await;
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &json!("model_not_found")));
    let tokens = post(at.address, "/tokenize", r#"{"prompt":"abé","add_special_tokens":false}"#).await.json();
    assert_eq!((&tokens["tokens"], &tokens["count"]), (&json!([1, 2, 27]), &json!(3)));
    let tokens = post(at.address, "/tokenize", r#"{"prompt":"ab<|end|>"}"#).await.json();
    assert_eq!((tokens["count"].as_u64(), tokens["tokens"][0].as_u64()), (Some(3), Some(1)));
    let info = get(at.address, "/tokenizer_info").await.json();
    assert_eq!(get(at.address, "/tokenizer_info?x=1&model=alphabet").await.json(), info);
    assert_eq!(get(at.address, "/tokenizer_info?model=other").await.status, 404);
    assert_eq!(info["eos_token"], "<|end|>");
    for key in ["bos_token", "pad_token", "chat_template"] {
        assert_eq!(info.get(key), Some(&Value::Null), "{key}");
    }
}

#[tokio::test]
async fn the_page_is_whole_and_runs_nothing_from_elsewhere() {
    let at = start().await;
    let page = get(at.address, "/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    let scripts = page.body.split("src=\"").skip(1).filter_map(|part| part.split('"').next());
    for path in scripts.chain(["/web/write.js", "/web/style.css"]) {
        let file = get(at.address, path).await;
        assert_eq!((file.status, file.header("cache-control")), (200, Some("no-cache")), "{path}");
        assert_eq!(file.header("content-security-policy"), page.header("content-security-policy"), "{path}");
    }
    assert!(get(at.address, "/web/write.js").await.body.contains("/v1/completions"));
    for outside in ["src=\"http", "href=\"http", "@import", "url(http"] {
        assert!(!page.body.contains(outside), "{outside}");
    }
}

#[tokio::test]
async fn one_connection_carries_several_requests() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let at = start().await;
    let mut stream = tokio::net::TcpStream::connect(at.address).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut chunk = [0; 1024];
        let n = stream.read(&mut chunk).await.unwrap();
        assert!(chunk[..n].starts_with(b"HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn a_text_is_held_to_what_the_request_says() {
    let at = start().await;
    let choice = json!({ "choice": ["zebra", "yes"] });
    for (field, value, expected) in [
        ("structured_outputs", choice, vec!["yes", "zebra"]),
        ("structured_outputs", json!({ "regex": "(no){2}", "json": null }), vec!["nono"]),
        ("guided_choice", json!(["abba"]), vec!["abba"]),
        ("guided_regex", json!("[xy]z"), vec!["xz", "yz"]),
    ] {
        for seed in 0..6 {
            let body = json!({ "prompt": "abc", "seed": seed, field: value, "max_tokens": 12 });
            let reply = complete(at.address, &body.to_string()).await;
            assert_eq!(reply.status, 200, "{body}: {}", reply.body);
            let choice = &reply.json()["choices"][0];
            assert!(expected.contains(&choice["text"].as_str().unwrap()), "{body}: {choice}");
            assert_eq!(choice["finish_reason"], "stop", "{body}: {choice}");
        }
    }
    // The alphabet of the model has no brace: nothing it can say is JSON.
    let schema =
        json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "object" } } });
    for format in [json!({ "type": "json_object" }), schema] {
        let body = json!({ "prompt": "abc", "response_format": format });
        let reply = complete(at.address, &body.to_string()).await;
        assert_eq!(reply.status, 400, "{}", reply.body);
    }
    // Streams too, and the next request is as free as ever.
    let body = json!({ "prompt": "abc", "guided_choice": ["abba"], "max_tokens": 12, "stream": true });
    let reply = post(at.address, "/v1/completions", &body.to_string()).await;
    let events: Vec<Value> =
        events(&reply.body).iter().filter_map(|data| serde_json::from_str(data).ok()).collect();
    let pieces: Vec<&str> = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(pieces.concat(), "abba");
    let free = complete(at.address, r#"{"prompt":"abc","max_tokens":2,"temperature":0}"#).await.json();
    assert_eq!(free["choices"][0]["text"], "de");
}

#[tokio::test]
async fn the_choices_of_a_prompt_read_it_once_and_say_the_same() {
    let body = |seed: &str| {
        format!(
            r#"{{"prompt":["abcdefgh","xyz"],"max_tokens":9,"n":3,"temperature":1.5,"ignore_eos":true{seed}}}"#
        )
    };
    let plain = start().await;
    let (gate, prefilled) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let model = Copyist {
        inner: Alphabet { gate: gate.clone(), context: CONTEXT },
        prefilled: Arc::clone(&prefilled),
    };
    let at = start_model(model, gate, config(), EngineConfig::default(), Some(tokenizer())).await;
    // The fixture's seed makes requests without one repeat, too. The second time the prompts are known.
    for (seed, read) in [(r#","seed":9"#, 8 + 3), ("", 0)] {
        let wanted = complete(plain.address, &body(seed)).await.json();
        let mut found = complete(at.address, &body(seed)).await.json();
        assert_eq!(found["choices"], wanted["choices"]);
        let details = std::mem::replace(&mut found["usage"]["prompt_tokens_details"], Value::Null);
        assert_eq!(details, json!({"cached_tokens": 8 + 3 - read}));
        found["usage"]["prompt_tokens_details"] = wanted["usage"]["prompt_tokens_details"].clone();
        assert_eq!(found["usage"], wanted["usage"]);
        assert_eq!(prefilled.swap(0, Ordering::SeqCst), read);
    }
}
