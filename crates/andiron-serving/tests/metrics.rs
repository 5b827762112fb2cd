//! `/metrics` and `/openapi.json`: what operators and programs read.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use andiron_serving::engine::{EngineConfig, KvBudget};
use andiron_serving::http::{ApiKey, CorsOrigin, endpoints};
use serde_json::{Value, json};

use common::{
    Alphabet, Call, Copyist, Gate, complete, config, eventually, get, metrics, post, start, start_with,
    step_until, total,
};

#[tokio::test]
async fn metrics_count_what_clients_saw() {
    let at = start().await;
    for body in [
        r#"{"prompt":"abc","max_tokens":4,"temperature":0}"#,
        r#"{"prompt":"ab","max_tokens":3,"temperature":0,"n":2}"#,
        r#"{"prompt":"abcde","max_tokens":9,"temperature":0,"stop":"h"}"#,
        r#"{"prompt":"abc","max_tokens":0,"echo":true,"logprobs":1}"#,
    ] {
        assert_eq!(complete(at.address, body).await.status, 200, "{body}");
    }
    assert_eq!(complete(at.address, r#"{"prompt":7}"#).await.status, 400);
    assert_eq!(complete(at.address, r#"{"prompt":"!"}"#).await.status, 500);
    assert_eq!(get(at.address, "/no/such/path").await.status, 404);
    let reply = get(at.address, "/metrics").await;
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let handle = at.engine.handle();
    eventually("the engine has seen the stop string", || handle.load().running == 0).await;
    let page = metrics(at.address).await;
    let count = |name: &str| page.get(&format!("andiron:{name}")).copied();
    let model = "{model_name=\"alphabet\"}";
    let ended = |reason: &str| {
        count(&format!("request_success_total{{model_name=\"alphabet\",finished_reason=\"{reason}\"}}"))
    };
    assert_eq!(count(&format!("prompt_tokens_total{model}")), Some(3.0 + 2.0 + 5.0 + 3.0));
    // A model this fast may have written all its tokens before its stop string is seen.
    let whole = ended("length").unwrap() + ended("stop").unwrap();
    assert_eq!(
        (whole, ended("error"), ended("abort")),
        (5.0, Some(1.0), Some(0.0)),
        "two choices count each"
    );
    assert!(ended("stop").unwrap() <= 1.0);
    assert_eq!(count(&format!("time_to_first_token_seconds_count{model}")), Some(4.0));
    assert_eq!(count(&format!("e2e_request_latency_seconds_count{model}")), Some(5.0));
    assert_eq!(count("request_prompt_tokens_bucket{model_name=\"alphabet\",le=\"2\"}"), Some(2.0));
    assert_eq!(count(&format!("num_requests_running{model}")), Some(0.0));
    let requests = |method: &str, route: &str, status: u16| {
        count(&format!("http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}"))
    };
    assert_eq!(requests("POST", "/v1/completions", 200), Some(4.0));
    assert_eq!(requests("POST", "/v1/completions", 400), Some(1.0));
    assert_eq!(requests("POST", "/v1/completions", 500), Some(1.0));
    assert_eq!(requests("GET", "(none)", 404), Some(1.0));
    assert_eq!(
        total(&page, "andiron:http_requests_total"),
        8.0,
        "this request is not answered yet, the one before is"
    );
}

#[tokio::test]
async fn metrics_have_the_names_that_routers_read_if_asked_for() {
    let gate = Gate::default();
    let inner = Alphabet { gate: gate.clone(), context: common::CONTEXT };
    let model = Copyist { inner, prefilled: Arc::default() };
    let mut config = config();
    config.vllm_metrics = true;
    // Blocks of 4 ids and 16 bytes.
    let engine = EngineConfig { kv_cache: KvBudget::new(1600), ..EngineConfig::default() };
    let at = common::start_model(model, gate, config, engine, Some(common::tokenizer())).await;
    at.gate.set(Some(0));
    let body = r#"{"prompt":"abcdefg","max_tokens":4,"temperature":0}"#;
    let call = Call::completion(at.address, body).await;
    let handle = at.engine.handle();
    eventually("it runs", || handle.load().running == 1).await;
    let page = metrics(at.address).await;
    let model = "model_name=\"alphabet\"";
    for name in ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"] {
        assert_eq!(
            page[&format!("vllm:{name}{{{model}}}")],
            page[&format!("andiron:{name}{{{model}}}")],
            "{name}"
        );
    }
    assert_eq!(page[&format!("vllm:num_requests_running{{{model}}}")], 1.0);
    assert_eq!(
        page[&format!("vllm:cache_config_info{{{model},block_size=\"4\",num_gpu_blocks=\"100\"}}")],
        1.0
    );
    at.gate.set(None);
    assert_eq!(call.reply().await.status, 200);
    let page = metrics(at.address).await;
    assert_eq!(page[&format!("vllm:prompt_tokens_total{{{model}}}")], 7.0);
    assert_eq!(page[&format!("vllm:request_success_total{{{model},finished_reason=\"length\"}}")], 1.0);

    let plain = start().await;
    let text = get(plain.address, "/metrics").await.body;
    assert!(text.contains("andiron:num_requests_running") && !text.contains("vllm:"));
}

#[tokio::test]
async fn open_metrics_need_no_key_and_nothing_else_does_without() {
    for open in [false, true] {
        let mut config = config();
        config.access.keys = ApiKey::new("sesame").into_iter().collect();
        config.access.open_metrics = open;
        let at = start_with(config, EngineConfig::default(), Some(common::tokenizer())).await;
        assert_eq!(get(at.address, "/metrics").await.status, if open { 200 } else { 401 });
        for path in ["/v1/models", "/metrics/", "/models", "/openapi.json"] {
            assert_eq!(get(at.address, path).await.status, 401, "{path}");
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_counts_as_aborted() {
    let at = start().await;
    at.gate.set(Some(0));
    let call =
        Call::completion(at.address, r#"{"prompt":"a","max_tokens":50,"ignore_eos":true,"stream":true}"#)
            .await;
    let handle = at.engine.handle();
    eventually("it runs", || handle.load().running == 1).await;
    drop(call);
    step_until(&at.gate, "it ends", || handle.load().running == 0).await;
    let page = metrics(at.address).await;
    let aborted = "andiron:request_success_total{model_name=\"alphabet\",finished_reason=\"abort\"}";
    assert_eq!(page[aborted], 1.0);
}

/// Schema of the body of a route.
fn body_schema<'a>(document: &'a Value, path: &str) -> &'a Value {
    &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
}

#[tokio::test]
async fn the_description_is_made_from_the_routes_and_their_parsers() {
    let mut config = config();
    config.limits.max_n = 5;
    let at = start_with(config, EngineConfig::default(), Some(common::tokenizer())).await;
    let document = get(at.address, "/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.1");
    for endpoint in endpoints().into_iter().filter(|endpoint| !endpoint.path.starts_with("/web/")) {
        let path = endpoint.path.replace("{*", "{");
        let operation = &document["paths"][&path][endpoint.method.to_lowercase()];
        assert!(operation["summary"].is_string(), "{path}");
        // What is described is what is answered.
        let reply = match operation["requestBody"]["content"]["application/json"].get("example") {
            Some(example) => post(at.address, &path, &example.to_string()).await,
            None => get(at.address, &path.replace("{id}", "alphabet")).await,
        };
        // Of a decoder without a chat template.
        let is_unavailable = operation["description"].is_string() || path == "/info";
        if is_unavailable {
            assert!((400..500).contains(&reply.status), "{path}: {} {}", reply.status, reply.body);
            continue;
        }
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        let media = reply.header("content-type").unwrap().split(';').next().unwrap().to_owned();
        let content = &operation["responses"]["200"]["content"][&media]["schema"];
        assert!(content.is_object(), "{path} answered with {media}");
        for key in content["required"].as_array().into_iter().flatten() {
            assert!(reply.json().get(key.as_str().unwrap()).is_some(), "{path} has no {key}: {}", reply.body);
        }
    }
    let schema = body_schema(&document, "/v1/completions");
    let fields = &schema["properties"];
    assert_eq!(
        (&fields["n"]["minimum"], &fields["n"]["maximum"]),
        (&json!(1), &json!(5)),
        "the server's own limit"
    );
    assert_eq!(fields["temperature"]["type"], json!(["number", "null"]));
    assert_eq!(fields["logit_bias"]["additionalProperties"], json!({"type": "number"}));
    assert_eq!(fields["prompt"]["anyOf"][1], json!({"type": "array", "items": {"type": "string"}}));
    for field in
        ["model", "max_tokens", "stream", "stop", "seed", "echo", "guided_regex", "parse_special", "min_p"]
    {
        assert!(fields[field].is_object(), "{field}");
    }
    assert_eq!(body_schema(&document, "/tokenize")["required"], json!(["prompt"]));
    assert!(document.get("security").is_none(), "this server has no keys");
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_ask() {
    let mut config = config();
    config.access.cors_origins = CorsOrigin::parse("https://chat.example.org").into_iter().collect();
    config.access.keys = ApiKey::new("sesame").into_iter().collect();
    let at = start_with(config, EngineConfig::default(), Some(common::tokenizer())).await;
    let preflight = async |address, origin: &str| {
        let head = format!(
            "OPTIONS /v1/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type,x-stainless-os"
        );
        Call::send(address, &head, "").await.reply().await
    };
    let reply = preflight(at.address, "https://chat.example.org").await;
    assert_eq!(reply.status, 200, "a browser sends no key here");
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://chat.example.org"));
    assert_eq!(
        reply.header("access-control-allow-headers"),
        Some("authorization,content-type,x-stainless-os")
    );
    assert_eq!(
        preflight(at.address, "https://evil.example").await.header("access-control-allow-origin"),
        None
    );
    let ask = async |authorization: &str| {
        let head = format!(
            "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: https://chat.example.org{authorization}"
        );
        Call::send(at.address, &head, "").await.reply().await
    };
    let reply = ask("\r\nAuthorization: Bearer sesame").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://chat.example.org"));
    assert_eq!(reply.header("access-control-expose-headers"), Some("retry-after"));
    let refused = ask("").await;
    assert_eq!(refused.status, 401);
    assert!(refused.header("access-control-allow-origin").is_some(), "the page may read why");
    // Off unless asked for.
    let other = start().await;
    let reply = preflight(other.address, "https://chat.example.org").await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (405, None));
}

/// The page has one sample for each name and labels, and each belongs to a family that came before it.
#[tokio::test]
async fn the_page_keeps_to_the_format() {
    let at = start().await;
    complete(at.address, r#"{"prompt":"abc","max_tokens":4}"#).await;
    let text = get(at.address, "/metrics").await.body;
    let (mut family, mut kind) = (String::new(), String::new());
    let (mut families, mut samples) = (Vec::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(rest.split_once(' ').is_some_and(|(_, help)| help.ends_with('.')), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').unwrap();
            assert!(!families.contains(&name.to_owned()), "{name} comes twice");
            assert_eq!(of == "counter", name.ends_with("_total"), "{line}");
            families.push(name.to_owned());
            (family, kind) = (name.to_owned(), of.to_owned());
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let bare = name.split('{').next().unwrap();
            let suffix = bare.strip_prefix(&family).unwrap_or_else(|| panic!("{line} after {family}"));
            let expected: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(expected.contains(&suffix), "{line}");
            assert_eq!(samples.insert(name.to_owned(), value.to_owned()), None, "{name} comes twice");
        }
    }
    assert!(families.len() > 12 && text.ends_with('\n'), "{text}");
}
