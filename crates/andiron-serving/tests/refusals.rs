//! What is refused, and how: bad fields, bad bodies, strangers.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use andiron_serving::engine::EngineConfig;
use andiron_serving::http::{ApiKey, ServeError, endpoints};
use andiron_serving::registry::Capability;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use common::{CONTEXT, Call, complete, config, get, post, start, start_with};

/// Bodies of `/v1/completions` that must be refused with 400 and the name of the field.
fn bad_fields() -> Vec<(String, &'static str)> {
    let with =
        |field: &'static str, value: &str| (format!("{{\"prompt\":\"a\",\"{field}\":{value}}}"), field);
    let prompt = |value: &str| (format!("{{\"prompt\":{value}}}"), "prompt");
    let long_list = |n: usize, item: &str| format!("[{}]", vec![item; n].join(","));
    let bias =
        |n: usize| json!((0..n).map(|i| (i.to_string(), 1.0)).collect::<std::collections::BTreeMap<_, _>>());
    vec![
        ("{}".to_owned(), "prompt"),
        prompt("null"),
        prompt("7"),
        prompt("1.5"),
        prompt("true"),
        prompt("{}"),
        prompt("\"\""),
        prompt("[]"),
        prompt("[[]]"),
        prompt("[[1],[]]"),
        prompt("[1.5]"),
        prompt("[-1]"),
        prompt("[4294967296]"),
        prompt("[29]"),
        prompt("[1,\"a\"]"),
        prompt("[\"a\",1]"),
        prompt("[[1],2]"),
        prompt("[[[1]]]"),
        prompt("[null]"),
        prompt("[1,[2]]"),
        prompt("\"A\""),
        prompt("\"\\u0000\""),
        prompt(&long_list(129, "\"a\"")),
        with("model", "7"),
        with("model", "[]"),
        with("max_tokens", "0"),
        with("max_tokens", "-1"),
        with("max_tokens", "1.5"),
        with("max_tokens", "\"5\""),
        with("max_tokens", "9223372036854775807"),
        with("max_tokens", "18446744073709551616"),
        with("max_tokens", "1e3"),
        with("max_tokens", "true"),
        with("temperature", "-0.1"),
        with("temperature", "2.1"),
        with("temperature", "1e308"),
        with("temperature", "1e400"),
        with("temperature", "\"hot\""),
        with("temperature", "[]"),
        with("top_p", "-0.1"),
        with("top_p", "1.1"),
        with("top_p", "\"1\""),
        with("min_p", "-1"),
        with("min_p", "2"),
        with("top_k", "-2"),
        with("top_k", "1.5"),
        with("top_k", "99999999999"),
        with("repetition_penalty", "0"),
        with("repetition_penalty", "-1"),
        with("repetition_penalty", "1e9"),
        with("presence_penalty", "-2.1"),
        with("presence_penalty", "3"),
        with("frequency_penalty", "2.5"),
        with("frequency_penalty", "{}"),
        with("n", "0"),
        with("n", "-1"),
        with("n", "9"),
        with("n", "1000000000"),
        with("n", "1.5"),
        with("best_of", "2"),
        with("best_of", "0"),
        with("logprobs", "-1"),
        with("logprobs", "21"),
        with("logprobs", "true"),
        with("logprobs", "50257"),
        with("echo", "1"),
        with("echo", "\"yes\""),
        with("stream", "1"),
        with("stream", "\"true\""),
        with("stream_options", "{\"include_usage\":true}"),
        with("stream_options", "{}"),
        (r#"{"prompt":"a","stream":true,"stream_options":1}"#.to_owned(), "stream_options"),
        (r#"{"prompt":"a","stream":true,"stream_options":{"include_usage":1}}"#.to_owned(), "stream_options"),
        with("stop", "1"),
        with("stop", "\"\""),
        with("stop", "[\"a\",\"\"]"),
        with("stop", "[1]"),
        with("stop", "{}"),
        with("stop", &long_list(5, "\"x\"")),
        with("stop", &long_list(10_000, "\"x\"")),
        with("stop", &format!("\"{}\"", "x".repeat(257))),
        with("stop_token_ids", "5"),
        with("stop_token_ids", "[29]"),
        with("stop_token_ids", "[-1]"),
        with("stop_token_ids", &long_list(129, "1")),
        with("ignore_eos", "0"),
        with("min_tokens", "-1"),
        with("min_tokens", "\"1\""),
        (r#"{"prompt":"a","max_tokens":3,"min_tokens":4}"#.to_owned(), "min_tokens"),
        with("seed", "1.5"),
        with("seed", "\"x\""),
        with("seed", "18446744073709551616"),
        with("seed", "-9223372036854775809"),
        with("logit_bias", "[]"),
        with("logit_bias", "{\"a\":1}"),
        with("logit_bias", "{\"-1\":1}"),
        with("logit_bias", "{\"1\":101}"),
        with("logit_bias", "{\"1\":-1e308}"),
        with("logit_bias", "{\"1\":\"x\"}"),
        with("logit_bias", "{\"29\":1}"),
        with("logit_bias", "{\"99999999999\":1}"),
        with("logit_bias", &bias(1025).to_string()),
        with("add_special_tokens", "1"),
        with("parse_special", "1"),
        with("suffix", "\"tail\""),
        with("messages", "[]"),
        with("max_completion_tokens", "5"),
        with("max_new_tokens", "5"),
        with("n_predict", "5"),
        with("use_beam_search", "true"),
        with("num_beams", "4"),
        with("response_format", "\"json\""),
        with("response_format", "{\"type\":\"xml\"}"),
        with("response_format", "{\"type\":\"json_schema\"}"),
        with(
            "response_format",
            "{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{\"type\":\"strange\"}}}",
        ),
        with("structured_outputs", "{}"),
        with("structured_outputs", "{\"regex\":\"a\",\"choice\":[\"a\"]}"),
        with("structured_outputs", "{\"grammar\":\"root ::= x\"}"),
        with("structured_outputs", &format!("{{\"regex\":\"{}\"}}", "(".repeat(20_000))),
        with("guided_json", "5"),
        with("guided_json", "\"{\""),
        with("guided_json", "{\"type\":\"string\",\"pattern\":\"(\"}"),
        with("guided_regex", "\"*\""),
        with("guided_regex", "5"),
        with("guided_choice", "[]"),
        with("guided_choice", "[5]"),
        (r#"{"prompt":"a","guided_regex":"a","guided_choice":["a"]}"#.to_owned(), "guided_choice"),
        with("guided_grammar", "\"x\""),
        with("json_schema", "{}"),
        with("grammar", "\"root ::= x\""),
        with("prompt_logprobs", "-1"),
        with("logprob_token_ids", "[1]"),
        with("prompt_embeds", "\"x\""),
        with("truncate_prompt_tokens", "5"),
        with("allowed_token_ids", "[1]"),
        with("allowed_token_ids", "[]"),
        with("bad_words", "[\"x\"]"),
        with("logits_processors", "[\"os.system\"]"),
        with("include_stop_str_in_output", "true"),
        with("skip_special_tokens", "false"),
        with("return_tokens_as_token_ids", "true"),
        with("no_repeat_ngram_size", "-1"),
        with("typical_p", "1.5"),
        with("repeat_penalty", "1.5"),
        with("repeat_penalty", "0"),
        (r#"{"prompt":"a","repeat_penalty":1.5,"repeat_last_n":64}"#.to_owned(), "repeat_last_n"),
        (r#"{"prompt":"a","presence_penalty":1,"repeat_last_n":64}"#.to_owned(), "repeat_last_n"),
        (r#"{"prompt":"a","repeat_penalty":1.5,"repetition_penalty":1.5}"#.to_owned(), "repeat_penalty"),
        with("top_n_sigma", "\"1\""),
        with("dynatemp_range", "0.5"),
        with("samplers", "[\"top_k\"]"),
        with("tfs_z", "0.9"),
        with("n_probs", "5"),
        with("n_cmpl", "2"),
        with("adaptive_target", "0.5"),
        with("adaptive_target", "0"),
        with("thinking_token_budget", "100"),
        with("reasoning_budget_tokens", "100"),
        with("preserved_tokens", "[\"<tool>\"]"),
        with("vllm_xargs", "{\"a\":1}"),
        with("return_token_ids", "true"),
        with("do_sample", "false"),
        with("guided_choice", "[\"\",\"\"]"),
        with("guided_regex", "\"a\\\\\""),
        with("guided_json", "{\"type\":\"string\",\"pattern\":\"a\\\\\"}"),
        with("mirostat", "2"),
        with("dry_multiplier", "0.8"),
        with("xtc_probability", "0.5"),
    ]
}

#[track_caller]
fn check_openai_error(body: &Value) {
    let error = body["error"].as_object().unwrap_or_else(|| panic!("{body}"));
    assert_eq!(error.keys().collect::<Vec<_>>(), ["message", "type", "param", "code"]);
    assert!(!error["message"].as_str().unwrap().is_empty() && error["type"].is_string());
}

#[tokio::test]
async fn every_bad_field_is_named_in_a_400() {
    let at = start().await;
    for (body, field) in bad_fields() {
        let reply = complete(at.address, &body).await;
        let shown = &body[..body.len().min(100)];
        assert_eq!(reply.status, 400, "{shown}: {}", reply.body);
        let json = reply.json();
        check_openai_error(&json);
        assert_eq!(json["error"]["param"], field, "{shown}: {}", reply.body);
        assert!(json["error"]["message"].as_str().unwrap().contains(field), "{shown}: {}", reply.body);
        assert!(reply.body.len() < 1000, "{shown}: the answer repeats the request");
    }
    assert_eq!(at.gate.steps(), 0, "none of them reached the model");
    assert_eq!(complete(at.address, r#"{"prompt":"a"}"#).await.status, 200);
}

#[tokio::test]
async fn harmless_and_unknown_fields_are_ignored() {
    let at = start().await;
    for extra in [
        r#""user":"me""#,
        r#""suffix":null,"stop":null,"seed":null,"logprobs":null,"stream":null,"model":null"#,
        r#""best_of":1,"use_beam_search":false,"skip_special_tokens":true,"response_format":{"type":"text"}"#,
        r#""top_k":-1,"store":false,"metadata":{"a":[1,{"b":2}]},"service_tier":"auto""#,
        r#""seed":-1"#,
        r#""repeat_penalty":1.0,"repeat_last_n":64,"dynatemp_range":0.0,"tfs_z":1,"mirostat":0,"mirostat_tau":5"#,
        r#""repeat_penalty":1.5,"repeat_last_n":0,"top_n_sigma":-1,"cache_prompt":true,"id_slot":-1,"n_keep":-1"#,
        r#""length_penalty":0.5,"early_stopping":true,"n_discard":8,"n_cmpl":1,"adaptive_target":-1.0"#,
        r#""thinking_token_budget":-1,"reasoning_budget_tokens":-1,"preserved_tokens":[],"prompt_embeds":[]"#,
        r#""seed":18446744073709551615"#,
    ] {
        let reply = complete(at.address, &format!("{{\"prompt\":\"a\",\"max_tokens\":1,{extra}}}")).await;
        assert_eq!(reply.status, 200, "{extra}: {}", reply.body);
    }
}

#[tokio::test]
async fn what_does_not_fit_the_context_says_so() {
    let at = start().await;
    for (prompt, max_tokens, param) in [
        (CONTEXT, None, "prompt"),
        (CONTEXT, Some(1), "prompt"),
        (CONTEXT + 1, Some(1), "prompt"),
        (CONTEXT - 1, Some(2), "max_tokens"),
        (1, Some(CONTEXT), "max_tokens"),
    ] {
        let body = json!({"prompt": vec![1; prompt], "max_tokens": max_tokens});
        let reply = complete(at.address, &body.to_string()).await;
        let error = &reply.json()["error"];
        assert_eq!(reply.status, 400);
        assert_eq!(
            (&error["code"], &error["param"]),
            (&json!("context_length_exceeded"), &json!(param)),
            "{error}"
        );
        assert!(error["message"].as_str().unwrap().contains("64 tokens"), "{error}");
    }
    let full = json!({"prompt": vec![1; CONTEXT - 1], "max_tokens": 1});
    assert_eq!(complete(at.address, &full.to_string()).await.status, 200);
}

#[tokio::test]
async fn a_wrong_model_is_404() {
    let at = start().await;
    let reply = complete(at.address, r#"{"model":"gpt-5","prompt":"a"}"#).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn log_probabilities_are_bounded_by_their_product() {
    let mut config = config();
    config.limits.max_logprob_entries = 100;
    let at = start_with(config, EngineConfig::default(), Some(common::tokenizer())).await;
    let body = |n: usize| json!({"prompt": "a", "max_tokens": 10, "logprobs": 4, "n": n}).to_string();
    assert_eq!(complete(at.address, &body(2)).await.status, 200);
    let reply = complete(at.address, &body(3)).await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("logprobs")));
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_400() {
    let at = start().await;
    let deep = format!("{{\"prompt\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    for body in [
        "",
        "null",
        "[]",
        "7",
        "{",
        "{\"prompt\":\"a\"",
        "{\"prompt\":\"\\ud800\"}",
        "{prompt:1}",
        deep.as_str(),
    ] {
        let reply = complete(at.address, body).await;
        assert_eq!(reply.status, 400, "{}", &body[..body.len().min(50)]);
        check_openai_error(&reply.json());
    }
}

#[tokio::test]
async fn only_json_is_read() {
    let at = start().await;
    for content_type in ["", "Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded"] {
        let head = format!("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{content_type}");
        let reply = Call::send(at.address, head.trim_end(), r#"{"prompt":"a"}"#).await.reply().await;
        assert_eq!(reply.status, 415, "{content_type}");
        check_openai_error(&reply.json());
    }
    let head =
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: Application/JSON; charset=utf-8";
    assert_eq!(Call::send(at.address, head, r#"{"prompt":"a"}"#).await.reply().await.status, 200);
}

#[tokio::test]
async fn unknown_paths_and_methods_have_openai_bodies() {
    let at = start().await;
    for (method, path, status) in [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/completions", 405),
        ("DELETE", "/health", 405),
        ("POST", "/", 405),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost");
        let reply = Call::send(at.address, &head, "").await.reply().await;
        assert_eq!(reply.status, status, "{method} {path}");
        check_openai_error(&reply.json());
    }
}

/// A body of exactly `bytes` bytes that is a good request but for its size.
fn padded(bytes: usize) -> String {
    let frame = r#"{"prompt":"a","max_tokens":1,"user":""}"#;
    format!("{}{}{}", &frame[..frame.len() - 2], "x".repeat(bytes - frame.len()), "\"}")
}

#[tokio::test]
async fn a_body_may_have_exactly_the_limit() {
    let mut config = config();
    config.limits.max_body_bytes = 20_000;
    let at = start_with(config, EngineConfig::default(), Some(common::tokenizer())).await;
    assert_eq!(complete(at.address, &padded(20_000)).await.status, 200);
    let reply = complete(at.address, &padded(20_001)).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (413, &json!("body_too_large")));
    assert_eq!(complete(at.address, &padded(100_000)).await.status, 413);
    // A chunked body has no length to look at.
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", 30_000, padded(30_000));
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let mut stream = tokio::net::TcpStream::connect(at.address).await.unwrap();
    stream.write_all(format!("{head}{chunk}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // Who claims ten gigabytes is told at once.
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 10000000000\r\n\r\n{";
    let mut stream = tokio::net::TcpStream::connect(at.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
}

#[tokio::test]
async fn heads_are_bounded() {
    let at = start().await;
    let many: String = (0..65).map(|i| format!("\r\nX-{i}: 1")).collect();
    let long = format!("\r\nX-Long: {}", "x".repeat(17 << 10));
    for headers in [many, long] {
        let head = format!("GET /health HTTP/1.1\r\nHost: localhost{headers}");
        assert_eq!(Call::send(at.address, &head, "").await.reply().await.status, 431);
    }
}

#[tokio::test]
async fn a_slow_head_and_a_slow_body_are_cut_off() {
    let mut config = config();
    config.limits.header_timeout = std::time::Duration::from_millis(100);
    config.limits.body_timeout = std::time::Duration::from_millis(100);
    let at = start_with(config, EngineConfig::default(), Some(common::tokenizer())).await;
    let mut stream = tokio::net::TcpStream::connect(at.address).await.unwrap();
    stream.write_all(b"GET /health HT").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(!answer.contains("200"), "{answer}");
    let mut stream = tokio::net::TcpStream::connect(at.address).await.unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\nConnection: close\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

/// Routes that do not take the body of a text completion.
const OTHER_BODY: [&str; 8] = [
    "/v1/decisions",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/detokenize",
    "/apply-template",
];

#[tokio::test]
async fn every_path_but_two_wants_the_key() {
    let mut config = config();
    config.access.keys = vec![ApiKey::new("other").unwrap(), ApiKey::new("sesame").unwrap()];
    let at = start_with(config, EngineConfig::default(), Some(common::tokenizer())).await;
    let send = async |method: &str, path: &str, extra: &str| {
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: any.example\r\nContent-Type: application/json{extra}");
        Call::send(at.address, &head, r#"{"prompt":"a","max_tokens":1}"#).await.reply().await
    };
    let mut paths: Vec<(&str, String, bool)> = endpoints()
        .into_iter()
        .map(|endpoint| (endpoint.method, endpoint.path.replace("{*id}", "alphabet"), endpoint.open))
        .collect();
    paths.push(("GET", "/no/such/path".to_owned(), false));
    for (method, path, open) in &paths {
        for wrong in [
            "",
            "\r\nAuthorization: Bearer wrong",
            "\r\nAuthorization: sesame",
            "\r\nAuthorization: Token sesame",
            "\r\nAuthorization: Bearer",
            "\r\nAuthorization: Bearer sesam",
            "\r\nAuthorization: Bearer sesame!",
            "\r\nAuthorization: Bearer  sesame",
            "\r\nAuthorization: Bearer sesame, other",
            // A user `sesame` with the password `wrong`.
            "\r\nAuthorization: Basic c2VzYW1lOndyb25n",
            "\r\nAuthorization: Basic =",
            "\r\nAuthorization: Bearer sesame\r\nAuthorization: Bearer sesame",
            "\r\nAuthorization: Bearer wrong\r\nX-Api-Key: sesame",
            "\r\nX-Api-Key: wrong",
            "\r\nCookie: key=sesame",
        ] {
            let reply = send(method, path, wrong).await;
            if *open {
                assert_eq!(reply.status, 200, "{path}");
            } else {
                assert_eq!(reply.status, 401, "{path} {wrong}");
                assert_eq!(reply.json()["error"]["code"], "invalid_api_key");
                assert!(reply.header("www-authenticate").is_some());
            }
        }
        let in_query = send(method, &format!("{path}?api_key=sesame"), "").await;
        assert_eq!(in_query.status == 401, !open, "{path}");
        let right = send(method, path, "\r\nAuthorization: Bearer sesame").await;
        // The other routes are those of models that do something else.
        let other_models = Capability::ALL.iter().filter(|&&capability| capability != Capability::Generate);
        let mut others = other_models.flat_map(|capability| capability.routes());
        let expected: &[u16] = match path.as_str() {
            "/no/such/path" => &[404],
            "/models/load" | "/models/unload" => &[403],
            path if others.any(|other| *other == path) || ["/info", "/v2/rerank"].contains(&path) => {
                &[400, 422]
            }
            // They want another body, or a chat template.
            path if OTHER_BODY.contains(&path) => &[400],
            _ => &[200],
        };
        assert!(expected.contains(&right.status), "{path}: {} {}", right.status, right.body);
    }
}

#[tokio::test]
async fn without_a_key_a_foreign_host_is_refused() {
    let at = start().await;
    let head = "POST /v1/completions HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/json";
    let reply = Call::send(at.address, head, r#"{"prompt":"a"}"#).await.reply().await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (403, &json!("host_not_allowed")));
    assert_eq!(get(at.address, "/ready").await.status, 200);
}

#[tokio::test]
async fn an_open_socket_needs_a_key_or_a_clear_word() {
    let at = start().await;
    let refused = at.server.bind("0.0.0.0:0").await.unwrap_err();
    assert!(matches!(refused, ServeError::Unprotected { .. }));
    assert!(refused.to_string().contains("insecure_no_auth"), "{refused}");
    let bypass = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    assert!(matches!(at.server.serve(bypass, at.server.router()).await, Err(ServeError::Unprotected { .. })));
    for edit in [
        |access: &mut andiron_serving::http::Access| access.keys = ApiKey::new("k").into_iter().collect(),
        |access: &mut andiron_serving::http::Access| access.insecure_no_auth = true,
    ] {
        let mut config = config();
        edit(&mut config.access);
        let other = start_with(config, EngineConfig::default(), None).await;
        assert!(other.server.bind("0.0.0.0:0").await.is_ok());
    }
}

#[tokio::test]
async fn tokenize_names_bad_fields() {
    let at = start().await;
    for (body, field) in [
        ("{}", "prompt"),
        (r#"{"prompt":1}"#, "prompt"),
        (r#"{"prompt":["a"]}"#, "prompt"),
        (r#"{"prompt":"A"}"#, "prompt"),
        (r#"{"prompt":"a","add_special_tokens":1}"#, "add_special_tokens"),
        (r#"{"prompt":"a<|end|>","parse_special":false}"#, "prompt"),
        (r#"{"messages":[]}"#, "messages"),
    ] {
        let reply = post(at.address, "/tokenize", body).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(field)), "{body}");
    }
}
