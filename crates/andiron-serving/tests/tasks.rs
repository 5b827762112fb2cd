//! What the routes of encoders and classifiers answer, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;
mod toy;

use andiron_serving::http::Phase;
use andiron_serving::registry::{Capability, Registry};
use andiron_serving::runner::OneShotConfig;
use serde_json::{Value, json};

use common::{Call, Reply, eventually, get, post};
use toy::{BOMB, LIMIT, Running, Toy, serve, served, served_with};

const ALL: [Capability; 6] = [
    Capability::Embed,
    Capability::Rerank,
    Capability::Classify,
    Capability::TokenClassify,
    Capability::Answer,
    Capability::FillMask,
];

async fn start(can: &[Capability]) -> Running {
    serve(Registry::of(served("toy", &Toy::new(can)))).await
}

async fn send(at: &Running, path: &str, body: Value) -> Reply {
    post(at.address, path, &body.to_string()).await
}

#[track_caller]
fn ok(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()
}

#[tokio::test]
async fn embeddings_have_the_shape_of_openai() {
    let at = start(&ALL).await;
    let reply = ok(&send(&at, "/v1/embeddings", json!({"input": "ab", "model": "toy", "user": "me"})).await);
    assert_eq!(reply["object"], "list");
    assert_eq!(
        (&reply["model"], &reply["usage"]),
        (&json!("toy"), &json!({"prompt_tokens": 2, "total_tokens": 2}))
    );
    assert_eq!(reply["data"][0]["object"], "embedding");
    // As it was computed: no digits of a wider type.
    assert!(reply["data"][0]["embedding"].to_string().starts_with("[0.1,"), "{reply}");
    for (input, firsts) in [
        (json!(["a", "aaa", ""]), vec![0.1, 0.3, 0.0]),
        (json!([1, 1, 2]), vec![0.2]),
        (json!([[1], [2, 2]]), vec![0.1, 0.0]),
    ] {
        let reply = ok(&send(&at, "/v1/embeddings", json!({"input": input})).await);
        let data = reply["data"].as_array().unwrap();
        let found: Vec<f64> = data.iter().map(|entry| entry["embedding"][0].as_f64().unwrap()).collect();
        assert_eq!(found, firsts);
        let indices: Vec<u64> = data.iter().map(|entry| entry["index"].as_u64().unwrap()).collect();
        assert_eq!(indices, (0..firsts.len() as u64).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn base64_is_the_little_endian_bytes_of_the_numbers() {
    let at = start(&ALL).await;
    let body = |format: &str| json!({"input": "aaaaaa", "encoding_format": format});
    let floats = ok(&send(&at, "/v1/embeddings", body("float")).await);
    let floats: Vec<f32> = serde_json::from_value(floats["data"][0]["embedding"].clone()).unwrap();
    assert_eq!(floats, [0.6, 0.8, 0.0, 0.0]);
    let text = ok(&send(&at, "/v1/embeddings", body("base64")).await);
    // Python 3.11: base64.b64encode(struct.pack("<4f", 0.6, 0.8, 0, 0)).
    assert_eq!(text["data"][0]["embedding"], "mpkZP83MTD8AAAAAAAAAAA==");
}

#[tokio::test]
async fn fewer_dimensions_are_scaled_to_length_one() {
    let at = start(&ALL).await;
    let reply = ok(&send(&at, "/v1/embeddings", json!({"input": "aaaaaa", "dimensions": 1})).await);
    assert_eq!(reply["data"][0]["embedding"], json!([1.0]));
    for dimensions in [json!(0), json!(5), json!("1")] {
        let reply = send(&at, "/v1/embeddings", json!({"input": "a", "dimensions": dimensions})).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("dimensions")));
    }
}

#[tokio::test]
async fn bad_inputs_are_named() {
    let at = start(&ALL).await;
    for (body, param) in [
        (json!({}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": 3}), "input"),
        (json!({"input": ["a", 1]}), "input"),
        (json!({"input": [[1], "a"]}), "input"),
        (json!({"input": [-1]}), "input"),
        (json!({"input": vec!["a"; 2049]}), "input"),
        (json!({"input": "a", "encoding_format": "int8"}), "encoding_format"),
        (json!({"input": "a", "truncate_prompt_tokens": 3}), "truncate_prompt_tokens"),
        (json!({"input": "a", "input_type": "query"}), "input_type"),
        (json!({"input": "a".repeat(LIMIT + 1)}), "input"),
        (json!({"input": "a".repeat(1 << 20)}), "input"),
    ] {
        let reply = send(&at, "/v1/embeddings", body.clone()).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{}", reply.body);
    }
    let reply = send(&at, "/v1/embeddings", json!({"input": "a".repeat(1 << 20), "truncate": true})).await;
    assert_eq!(ok(&reply)["usage"]["total_tokens"], LIMIT);
    let reply = send(&at, "/v1/embeddings", json!({"input": ["a", BOMB]})).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (500, &json!("internal_error")));
}

#[tokio::test]
async fn documents_are_ranked_as_jina_and_cohere_have_it() {
    let at = start(&ALL).await;
    // More documents than one task has.
    let mut documents = vec!["x".to_owned(); 40];
    documents[7] = "aaa".to_owned();
    documents[33] = "aa".to_owned();
    for path in ["/v1/rerank", "/v2/rerank", "/rerank"] {
        let body = json!({"query": "a", "documents": documents, "top_n": 3});
        let reply = ok(&send(&at, path, body).await);
        let found = json!([
            {"index": 7, "relevance_score": 3.0, "document": {"text": "aaa"}},
            {"index": 33, "relevance_score": 2.0, "document": {"text": "aa"}},
            {"index": 0, "relevance_score": 0.0, "document": {"text": "x"}},
        ]);
        assert_eq!((&reply["results"], &reply["usage"]["total_tokens"]), (&found, &json!(43)), "{path}");
    }
    let body = json!({"query": "b", "documents": [{"text": "a"}, {"text": "b"}], "return_documents": false});
    let reply = ok(&send(&at, "/v1/rerank", body).await);
    assert_eq!(
        reply["results"],
        json!([{"index": 1, "relevance_score": 1.0}, {"index": 0, "relevance_score": 0.0}])
    );
    for (body, param) in [
        (json!({"documents": ["a"]}), "query"),
        (json!({"query": "a"}), "documents"),
        (json!({"query": "a", "documents": []}), "documents"),
        (json!({"query": "a", "documents": ["a", 1]}), "documents"),
        (json!({"query": "a", "documents": vec!["a"; 1001]}), "documents"),
        (json!({"query": "a", "documents": ["a"], "top_n": 0}), "top_n"),
        (json!({"query": "a", "documents": ["a"], "rank_fields": ["title"]}), "rank_fields"),
    ] {
        let reply = send(&at, "/v1/rerank", body).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{}", reply.body);
    }
}

#[tokio::test]
async fn a_rerank_request_with_texts_is_that_of_tei() {
    let at = start(&ALL).await;
    let body = json!({"query": "a", "texts": ["x", "aa"], "raw_scores": true, "return_text": true});
    let reply = ok(&send(&at, "/rerank", body).await);
    assert_eq!(
        reply,
        json!([{"index": 1, "text": "aa", "score": 2.0}, {"index": 0, "text": "x", "score": 0.0}])
    );
    let reply = ok(&send(&at, "/rerank", json!({"query": "a", "texts": ["x"]})).await);
    assert_eq!(reply, json!([{"index": 0, "score": 0.5}]), "a probability");
    let reply = send(&at, "/rerank", json!({"query": "a", "texts": []})).await;
    assert_eq!((reply.status, &reply.json()["error_type"]), (422, &json!("Validation")));
    let long = json!({"query": "a", "texts": ["a".repeat(LIMIT + 1)], "truncate": false});
    let reply = send(&at, "/rerank", long).await;
    assert_eq!((reply.status, &reply.json()["error_type"]), (422, &json!("Validation")));
}

#[tokio::test]
async fn tei_cuts_long_texts_unless_it_is_told_not_to() {
    let at = start(&ALL).await;
    let long = "a".repeat(LIMIT + 1);
    assert_eq!(ok(&send(&at, "/embed", json!({"inputs": "aaaaaa"})).await), json!([[0.6, 0.8, 0.0, 0.0]]));
    let reply = ok(&send(&at, "/embed", json!({"inputs": ["a", long], "truncate": null})).await);
    assert_eq!(reply.as_array().unwrap().len(), 2);
    let reply = send(&at, "/embed", json!({"inputs": long, "truncate": false})).await;
    assert_eq!(reply.status, 422);
    assert_eq!(reply.json()["error_type"], "Validation");
    assert!(reply.json()["error"].as_str().unwrap().contains("40 tokens"), "{}", reply.body);
    let reply = send(&at, "/embed", json!({"inputs": BOMB})).await;
    assert_eq!((reply.status, &reply.json()["error_type"]), (424, &json!("Backend")));
    for body in [
        json!({}),
        json!({"inputs": "a", "normalize": false}),
        json!({"inputs": "a", "prompt_name": "query"}),
        json!({"inputs": "a", "truncation_direction": "Left"}),
        json!({"inputs": "a", "model": "other"}),
    ] {
        let reply = send(&at, "/embed", body).await;
        assert_eq!(
            (reply.status, &reply.json()["error_type"]),
            (422, &json!("Validation")),
            "{}",
            reply.body
        );
    }
    let info = ok(&get(at.address, "/info").await);
    assert_eq!((&info["model_id"], &info["max_input_length"]), (&json!("toy"), &json!(LIMIT)));
    assert_eq!(info["model_type"], json!({"embedding": {"pooling": "mean"}}));
    assert_eq!(info["auto_truncate"], true);
}

#[tokio::test]
async fn predictions_of_tei_are_flat_for_one_text_or_pair() {
    let at = start(&[Capability::Classify]).await;
    let one = json!([{"score": 0.75, "label": "no"}, {"score": 0.25, "label": "yes"}]);
    let bodies = [json!("abcd"), json!(["abcd"]), json!(["ab", "cd"])];
    for inputs in bodies {
        assert_eq!(ok(&send(&at, "/predict", json!({"inputs": inputs})).await), one);
    }
    let reply = ok(&send(&at, "/predict", json!({"inputs": [["abcd"], ["ab", "cd"]]})).await);
    assert_eq!(reply, json!([one, one]));
    for inputs in [json!([["a", "b", "c"]]), json!(["a", "b", "c"]), json!([]), json!(1), json!(["a", ["b"]])]
    {
        let reply = send(&at, "/predict", json!({"inputs": inputs})).await;
        assert_eq!(reply.status, 422, "{}", reply.body);
    }
    let info = ok(&get(at.address, "/info").await);
    let labels = json!({"id2label": {"0": "yes", "1": "no"}, "label2id": {"yes": 0, "no": 1}});
    assert_eq!(info["model_type"], json!({"classifier": labels}));
}

#[tokio::test]
async fn task_routes_answer() {
    let at = start(&ALL).await;
    let reply = ok(&send(&at, "/classify", json!({"input": ["aab", "b"]})).await);
    assert_eq!(reply["results"][0]["labels"][0]["label"], "yes");
    assert_eq!(
        reply["results"][1],
        json!({"index": 1, "labels": [{"label": "no", "score": 1.0}, {"label": "yes", "score": 0.0}], "truncated": false})
    );
    let reply = ok(&send(&at, "/classify", json!({"input": "aa", "text_pair": "bb"})).await);
    assert_eq!(reply["results"][0]["labels"][0]["score"], 0.5);
    let reply = send(&at, "/classify", json!({"input": ["aa"], "text_pair": "bb"})).await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("text_pair")));
    let reply = ok(&send(&at, "/token-classify", json!({"input": "abc"})).await);
    assert_eq!(
        reply["results"][0]["entities"],
        json!([{"label": "X", "score": 0.5, "start": 0, "end": 2, "text": "ab"}])
    );
    let body = json!({"question": "who", "context": "anna and otto", "max_answer_tokens": 4});
    assert_eq!(
        ok(&send(&at, "/answer", body).await),
        json!({"model": "toy", "answer": "anna", "start": 0, "end": 4, "score": 0.25})
    );
    let body = json!({"question": "who", "context": "a".repeat((256 << 10) + 1)});
    let reply = send(&at, "/answer", body).await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("context")));
    let reply = ok(&send(&at, "/fill-mask", json!({"input": "a b", "top": 2})).await);
    assert_eq!(reply["results"][0]["masks"][0]["top"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_a_model_cannot_do_says_what_it_can() {
    let at = start(&[Capability::Embed, Capability::Rerank]).await;
    for path in ["/v1/completions", "/classify", "/answer", "/token-classify", "/fill-mask", "/translate"] {
        let reply = send(&at, path, json!({"input": "a", "prompt": "a"})).await;
        assert_eq!(reply.status, 400, "{path} {}", reply.body);
        let error = &reply.json()["error"];
        let message = error["message"].as_str().or(error.as_str()).unwrap();
        assert!(
            message.contains("it can embed (/v1/embeddings, /embed), rerank (/v1/rerank, /rerank)"),
            "{message}"
        );
    }
    let models = ok(&get(at.address, "/v1/models").await);
    assert_eq!(models["data"][0]["capabilities"], json!(["embed", "rerank"]));
    assert_eq!(models["data"][0]["max_model_len"], LIMIT);
}

#[tokio::test]
async fn a_full_queue_is_429_in_the_shape_of_the_route() {
    let toy = Toy::new(&ALL);
    toy.gate.set(Some(0));
    let at = serve(Registry::of(served_with(
        "toy",
        &toy,
        OneShotConfig { max_queued: 1, ..OneShotConfig::default() },
    )))
    .await;
    let head = "POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    let load = || at.server.registry().get("toy").unwrap().load();
    let running = Call::send(at.address, head, r#"{"inputs":"a"}"#).await;
    eventually("one runs", || load().running == 1).await;
    let waiting = Call::send(at.address, head, r#"{"inputs":"a"}"#).await;
    eventually("one waits", || load().queued == 1).await;
    let refused = Call::send(at.address, head, r#"{"inputs":"a"}"#).await.reply().await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{}", refused.body);
    assert_eq!(refused.json()["error_type"], "Overloaded");
    let reply = send(&at, "/v1/embeddings", json!({"input": "a"})).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (429, &json!("server_overloaded")));
    toy.gate.set(None);
    for call in [running, waiting] {
        assert_eq!(call.reply().await.status, 200);
    }
}

#[tokio::test]
async fn a_drain_finishes_running_tasks_and_refuses_new_ones() {
    let toy = Toy::new(&ALL);
    toy.gate.set(Some(0));
    let at = serve(Registry::of(served("toy", &toy))).await;
    let head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    let running = Call::send(at.address, head, r#"{"input":"a"}"#).await;
    let models = at.server.clone();
    eventually("it runs", || models.registry().list()[0].load().running == 1).await;
    at.server.shutdown().drain();
    eventually("the drain began", || at.server.shutdown().phase() == Phase::Draining).await;
    assert_eq!(send(&at, "/v1/embeddings", json!({"input": "a"})).await.status, 503);
    toy.gate.set(None);
    assert_eq!(running.reply().await.status, 200);
    assert_eq!(at.serving.await.unwrap().unwrap(), andiron_serving::http::Stopped::Drained);
}
