//! Several models in one server, and models that come and go.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;
mod toy;

use andiron_serving::http::{Server, ServerConfig};
use andiron_serving::registry::{Capability, LoadFailure, Loader, Registry, Served};
use serde_json::{Value, json};

use common::{Call, Gate, eventually, get, post};
use toy::{Toy, serve, serve_with, served};

#[tokio::test]
async fn a_request_without_a_model_gets_the_first_that_can_answer_it() {
    let registry = Registry::of(served("labels", &Toy::new(&[Capability::Classify])));
    for name in ["vectors", "others"] {
        registry.insert(served(name, &Toy::new(&[Capability::Embed]))).unwrap();
    }
    let at = serve(registry).await;
    let model = async |path: &str, body: Value| {
        let reply = post(at.address, path, &body.to_string()).await;
        reply.json()["model"].clone()
    };
    assert_eq!(model("/v1/embeddings", json!({"input": "a"})).await, "vectors");
    assert_eq!(model("/v1/embeddings", json!({"input": "a", "model": "others"})).await, "others");
    assert_eq!(model("/classify", json!({"input": "a"})).await, "labels");
    let reply = post(at.address, "/v1/embeddings", r#"{"input": "a", "model": "labels"}"#).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("unsupported_by_model")));
    let reply = post(at.address, "/v1/embeddings", r#"{"input": "a", "model": "nobody"}"#).await;
    assert_eq!(reply.status, 404);
    let message = reply.json()["error"]["message"].to_string();
    assert!(message.contains("`labels`, `vectors`, `others`"), "{message}");
    let reply = get(at.address, "/v1/models").await.json();
    let ids: Vec<&str> =
        reply["data"].as_array().unwrap().iter().map(|card| card["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["labels", "vectors", "others"]);
}

/// Loads toys, when its gate lets it.
#[derive(Clone, Default)]
struct Shelf {
    gate: Gate,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shelf")
    }
}

impl Loader for Shelf {
    fn names(&self) -> Vec<String> {
        ["good", "bad", "worse"].map(str::to_owned).to_vec()
    }

    fn load(&self, name: &str) -> Result<Served, LoadFailure> {
        self.gate.pass();
        match name {
            "good" => Ok(served(name, &Toy::new(&[Capability::Embed]))),
            "bad" => Err(LoadFailure { message: "no weights".to_owned() }),
            _ => panic!("the loader fails"),
        }
    }

    fn max_models(&self) -> usize {
        2
    }
}

async fn status(address: std::net::SocketAddr, name: &str) -> Value {
    let reply = get(address, "/models").await.json();
    let models = reply["data"].as_array().unwrap().clone();
    let found = models.into_iter().find(|model| model["id"] == name);
    found.map_or(Value::Null, |model| model["status"]["value"].clone())
}

async fn until(address: std::net::SocketAddr, name: &str, wanted: &str) {
    for _ in 0..400 {
        if status(address, name).await == wanted {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{name} never was {wanted}: {}", status(address, name).await);
}

#[tokio::test]
async fn models_come_and_go_while_others_answer() {
    let shelf = Shelf::default();
    shelf.gate.set(Some(0));
    let registry = Registry::of(served("first", &Toy::new(&[Capability::Embed])));
    let server = Server::new(registry, ServerConfig::new(5)).with_loader(std::sync::Arc::new(shelf.clone()));
    let at = serve_with(server).await;
    assert_eq!(status(at.address, "good").await, "unloaded");
    let load = |name: &str| post_owned(at.address, "/models/load", json!({ "model": name }));
    assert_eq!(load("good").await.json(), json!({"success": true}));
    assert_eq!(status(at.address, "good").await, "loading");
    // Meanwhile the others answer, and it asks to come again.
    let embed = |name: &str| post_owned(at.address, "/v1/embeddings", json!({"input": "a", "model": name}));
    assert_eq!(embed("first").await.status, 200);
    let early = embed("good").await;
    assert_eq!((early.status, early.header("retry-after")), (503, Some("2")), "{}", early.body);
    assert_eq!(load("good").await.status, 503);
    assert_eq!(load("bad").await.json()["error"]["code"], "too_many_models");
    shelf.gate.set(None);
    until(at.address, "good", "loaded").await;
    assert_eq!(embed("good").await.status, 200);
    assert_eq!(load("good").await.json()["error"]["code"], "model_exists");
    assert_eq!(load("../etc").await.status, 404);
    let unload = |name: &str| post_owned(at.address, "/models/unload", json!({ "model": name }));
    assert_eq!(unload("good").await.json(), json!({"success": true}));
    assert_eq!((embed("good").await.status, unload("good").await.status), (404, 404));
    assert_eq!(status(at.address, "good").await, "unloaded");
    for name in ["bad", "worse"] {
        assert_eq!(load(name).await.status, 200);
        until(at.address, name, "failed").await;
    }
    assert_eq!(embed("first").await.status, 200);
}

async fn post_owned(address: std::net::SocketAddr, path: &str, body: Value) -> common::Reply {
    post(address, path, &body.to_string()).await
}

#[tokio::test]
async fn unloading_lets_running_requests_finish() {
    let toy = Toy::new(&[Capability::Embed]);
    toy.gate.set(Some(0));
    let registry = Registry::of(served("toy", &toy));
    let models = registry.clone();
    let server =
        Server::new(registry, ServerConfig::new(5)).with_loader(std::sync::Arc::new(Shelf::default()));
    let at = serve_with(server).await;
    let head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    let running = Call::send(at.address, head, r#"{"input":"a"}"#).await;
    eventually("it runs", || models.list()[0].load().running == 1).await;
    assert_eq!(post(at.address, "/models/unload", r#"{"model":"toy"}"#).await.status, 200);
    assert_eq!(get(at.address, "/ready").await.status, 503);
    toy.gate.set(None);
    assert_eq!(running.reply().await.status, 200);
    let reply = post(at.address, "/v1/embeddings", r#"{"input":"a"}"#).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn models_stay_unless_the_server_was_told_otherwise() {
    let at = serve(Registry::of(served("toy", &Toy::new(&[Capability::Embed])))).await;
    for path in ["/models/load", "/models/unload"] {
        let reply = post(at.address, path, r#"{"model":"toy"}"#).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (403, &json!("models_fixed")));
    }
}
