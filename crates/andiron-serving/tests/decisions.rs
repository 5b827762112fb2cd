//! What `/v1/decisions` answers, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;
mod toy;

use andiron_serving::registry::Capability;
use serde_json::{Value, json};

use common::post;
use common::script::start;
use toy::Toy;

#[tokio::test]
async fn questions_are_answered_with_probabilities() {
    let at = start("yes").await;
    let request = json!({"model": "script", "input": "It rains.", "questions": [
        {"type": "predicate", "name": "wet", "instructions": "It is wet."},
        {"type": "choice", "instructions": [{"type": "input_text", "text": "Which?"}], "choices": [
            {"value": "no", "description": "d"}, {"value": "yes"}, {"value": true}]},
        {"type": "score", "instructions": "How much?", "levels": [{"label": "none"}, {"label": "yes"}, {"label": "yes!"}]},
    ]});
    let reply = post(at.address, "/v1/decisions", &request.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let json = reply.json();
    assert_eq!(json["model"], "script");
    let [wet, which, much] = json["answers"].as_array().unwrap().as_slice() else { panic!("{json}") };
    assert_eq!((&wet["type"], &wet["name"]), (&json!("predicate"), &json!("wet")));
    assert!(wet["probability"].as_f64().unwrap() > 0.99, "{wet}");
    assert_eq!((&which["choice"], &which["name"]), (&json!("yes"), &Value::Null));
    assert_eq!(which["probabilities"][2]["value"], true);
    let sum: f64 =
        which["probabilities"].as_array().unwrap().iter().map(|p| p["probability"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-9);
    // Levels count from zero. The end of an answer tells `yes` from what only begins so.
    assert!((much["score"].as_f64().unwrap() - 1.0).abs() < 0.01, "{much}");
    assert_eq!(
        much["probabilities"][1],
        json!({"label": "yes", "value": 1, "probability": much["confidence"]})
    );
    assert!(json["usage"]["input_tokens"].as_u64().unwrap() > 0);
    let again = post(at.address, "/v1/decisions", &request.to_string()).await.json();
    assert_eq!(again["answers"], json["answers"]);
}

#[tokio::test]
async fn a_classifier_answers_what_its_labels_name_and_others_are_scored() {
    let at = start("yes").await;
    let registry = at.server.registry();
    registry.insert(toy::served("head", &Toy::new(&[Capability::Classify]))).unwrap();
    let ask = async |model: Value, question: Value| {
        let request = json!({"model": model, "input": "aab!", "instructions": "a", "questions": [question]});
        post(at.address, "/v1/decisions", &request.to_string()).await
    };
    let choice = |values: &[&str]| {
        let choices: Vec<Value> = values.iter().map(|value| json!({"value": value})).collect();
        json!({"type": "choice", "instructions": "x", "choices": choices})
    };
    // Of the six characters of the text, three are `a`: the toy's probability of yes.
    for (model, question, wanted) in [
        (Value::Null, json!({"type": "predicate", "instructions": "x"}), json!({"probability": 0.5})),
        (json!("head"), choice(&["No", "YES"]), json!({"choice": "No", "confidence": 0.5})),
        (
            json!("head"),
            json!({"type": "score", "instructions": "x", "levels": [{"label": "no"}, {"label": "yes"}]}),
            json!({"score": 0.5}),
        ),
    ] {
        let reply = ask(model, question).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let json = reply.json();
        assert_eq!((&json["model"], &json["usage"]["input_tokens"]), (&json!("head"), &json!(6)), "{json}");
        for (key, value) in wanted.as_object().unwrap() {
            assert_eq!(&json["answers"][0][key], value, "{json}");
        }
    }
    // What no label names is scored, if no model is named, or one that generates.
    for (model, question) in
        [(Value::Null, choice(&["yes", "perhaps"])), (json!("script"), choice(&["yes", "no"]))]
    {
        let json = ask(model, question).await.json();
        assert_eq!(
            (&json["model"], &json["answers"][0]["choice"]),
            (&json!("script"), &json!("yes")),
            "{json}"
        );
    }
    let reply = ask(json!("head"), choice(&["yes", "perhaps"])).await;
    let error = &reply.json()["error"];
    assert_eq!((reply.status, &error["param"]), (400, &json!("questions.0")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("`yes`, `no`"), "{error}");
    let long =
        json!({"model": "head", "input": "a".repeat(toy::LIMIT + 1), "questions": [choice(&["yes", "no"])]});
    let reply = post(at.address, "/v1/decisions", &long.to_string()).await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("input")), "{}", reply.body);
}

#[tokio::test]
async fn bad_questions_are_refused_by_name() {
    let at = start("ok").await;
    let ask = |question: Value| json!({"input": "x", "questions": [question]});
    for (request, param) in [
        (json!({"input": "x"}), "questions"),
        (json!({"input": "x", "questions": []}), "questions"),
        (json!({"questions": [{"type": "predicate", "instructions": "x"}]}), "input"),
        (ask(json!({"type": "guess", "instructions": "x"})), "questions.0.type"),
        (ask(json!({"type": "predicate"})), "questions.0.instructions"),
        (
            ask(json!({"type": "choice", "instructions": "x", "choices": [{"value": "a"}]})),
            "questions.0.choices",
        ),
        (
            ask(json!({"type": "choice", "instructions": "x", "choices": [{"value": "a"}, {"value": "a"}]})),
            "questions.0.choices",
        ),
        (
            ask(json!({"type": "score", "instructions": "x", "levels": [{"label": "a"}, {"label": 1}]})),
            "questions.0.levels",
        ),
    ] {
        let reply = post(at.address, "/v1/decisions", &request.to_string()).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{}", reply.body);
    }
    let many: Vec<Value> = (0..65).map(|_| json!({"type": "predicate", "instructions": "x"})).collect();
    let reply =
        post(at.address, "/v1/decisions", &json!({"input": "x", "questions": many}).to_string()).await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("questions")), "{}", reply.body);
}
