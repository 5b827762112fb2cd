//! What `/v1/messages` answers, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use serde_json::{Value, json};

use common::script::start;
use common::{Fixture, post};

fn hi() -> Value {
    json!({"model": "script", "max_tokens": 300, "temperature": 0, "messages": [{"role": "user", "content": "Hi"}]})
}

fn with(mut request: Value, more: Value) -> Value {
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

async fn message(at: &Fixture, request: &Value) -> Value {
    let reply = post(at.address, "/v1/messages", &request.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()
}

async fn streamed(at: &Fixture, request: Value) -> Vec<Value> {
    let reply = post(at.address, "/v1/messages", &with(request, json!({"stream": true})).to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let event = |frame: &str| {
        let (name, data) = frame.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    };
    reply.body.trim_end().split("\n\n").map(event).collect()
}

fn tools() -> Value {
    json!([{"name": "now", "description": "d", "input_schema": {"type": "object", "properties": {"zone": {"type": "string"}}}}])
}

#[tokio::test]
async fn a_message_has_the_shape_of_anthropic() {
    let at = start("<think>hm</think>Hello there.").await;
    let answer = message(&at, &with(hi(), json!({"system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]}))).await;
    assert!(answer["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!(
        (&answer["type"], &answer["role"], &answer["model"]),
        (&json!("message"), &json!("assistant"), &json!("script"))
    );
    assert_eq!(
        answer["content"],
        json!([{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "Hello there."}])
    );
    assert_eq!((&answer["stop_reason"], &answer["stop_sequence"]), (&json!("end_turn"), &Value::Null));
    assert_eq!(
        (&answer["usage"]["input_tokens"], &answer["usage"]["output_tokens"]),
        (&json!(28), &json!(30))
    );
    let counted = json!({"messages": hi()["messages"], "system": "Be brief."});
    let counted = post(at.address, "/v1/messages/count_tokens", &counted.to_string()).await;
    assert_eq!(counted.json(), json!({"input_tokens": 28}), "{}", counted.body);
    let stopped = message(&at, &with(hi(), json!({"stop_sequences": ["zzz", " there"]}))).await;
    assert_eq!(
        (&stopped["stop_reason"], &stopped["stop_sequence"]),
        (&json!("stop_sequence"), &json!(" there"))
    );
    let cut = message(&at, &with(hi(), json!({"max_tokens": 2}))).await;
    assert_eq!(cut["stop_reason"], "max_tokens");
}

#[tokio::test]
async fn events_come_in_the_order_of_anthropic() {
    let at = start("<think>hm</think>Well <tool_call>{\"name\": \"now\", \"arguments\": {\"zone\": \"CET\"}}</tool_call>").await;
    let events = streamed(&at, with(hi(), json!({"tools": tools()}))).await;
    let mut names: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    names.dedup();
    let block = ["content_block_start", "content_block_delta", "content_block_stop"];
    let expected =
        [&["message_start"][..], &block, &block, &block, &["message_delta", "message_stop"]].concat();
    assert_eq!(names, expected);
    assert_eq!(events[0]["message"]["content"], json!([]));
    let starts: Vec<&Value> = events.iter().filter(|event| event["type"] == "content_block_start").collect();
    let kinds: Vec<(&Value, &Value)> =
        starts.iter().map(|event| (&event["index"], &event["content_block"]["type"])).collect();
    assert_eq!(
        kinds,
        [(&json!(0), &json!("thinking")), (&json!(1), &json!("text")), (&json!(2), &json!("tool_use"))]
    );
    assert_eq!(starts[2]["content_block"]["input"], json!({}));
    let json: String = events.iter().filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), json!({"zone": "CET"}));
    let delta = &events[events.len() - 2];
    assert_eq!(delta["delta"], json!({"stop_reason": "tool_use", "stop_sequence": null}));
    assert!(delta["usage"]["output_tokens"].as_u64().unwrap() > 10);
}

#[tokio::test]
async fn calls_and_their_results_go_there_and_back() {
    let at = start("<tool_call>\n{\"name\": \"now\", \"arguments\": {\"zone\": \"CET\"}}</tool_call>").await;
    let call =
        message(&at, &with(hi(), json!({"tools": tools(), "tool_choice": {"type": "any"}}))).await["content"]
            [0]
        .clone();
    assert_eq!((&call["type"], &call["name"]), (&json!("tool_use"), &json!("now")));
    let messages = json!([{"role": "user", "content": "x"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "so"},
            {"type": "tool_use", "id": call["id"], "name": "now", "input": {"zone": "CET"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "noon"}]},
            {"type": "text", "text": "and?"}]}]);
    let counted =
        post(at.address, "/v1/messages/count_tokens", &json!({"messages": messages}).to_string()).await;
    let prompt = "user: x\nassistant: sonow({\"zone\": \"CET\"}) (hm)\ntool: noon\nuser: and?\n";
    assert_eq!(counted.json()["input_tokens"], prompt.chars().count() + 1, "{}", counted.body);
    // A message of the assistant at the end is continued.
    let begun =
        json!({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "so"}]});
    let counted = post(at.address, "/v1/messages/count_tokens", &begun.to_string()).await;
    assert_eq!(counted.json()["input_tokens"], "user: x\nassistant: so".len(), "{}", counted.body);
}

#[tokio::test]
async fn errors_have_the_form_of_anthropic() {
    let at = start("<think>\nhm</think>ok").await;
    for (more, param) in [
        (json!({"max_tokens": null}), "max_tokens"),
        (json!({"messages": "x"}), "messages"),
        (json!({"messages": [{"role": "system", "content": "x"}]}), "messages.0.role"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}),
            "messages.0.content.0",
        ),
        (json!({"tools": [{"type": "bash_20250124", "name": "bash"}]}), "tools.0"),
        (json!({"tool_choice": {"type": "perhaps"}}), "tool_choice"),
        (json!({"thinking": {"type": "maybe"}}), "thinking"),
        (json!({"mcp_servers": [{}]}), "mcp_servers"),
        (json!({"stop_sequences": ["a", "b", "c", "d", "e"]}), "stop_sequences"),
        (json!({"temperature": 3}), "temperature"),
    ] {
        let reply = post(at.address, "/v1/messages", &with(hi(), more).to_string()).await;
        let json = reply.json();
        assert_eq!((reply.status, &json["type"]), (400, &json!("error")), "{}", reply.body);
        assert_eq!(
            (&json["error"]["type"], &json["error"]["param"]),
            (&json!("invalid_request_error"), &json!(param))
        );
    }
    let unknown = post(at.address, "/v1/messages", &with(hi(), json!({"model": "x"})).to_string()).await;
    assert_eq!((unknown.status, &unknown.json()["error"]["type"]), (404, &json!("not_found_error")));
    let thinks =
        message(&at, &with(hi(), json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}))).await;
    assert_eq!(thinks["content"][0]["type"], "thinking", "{thinks}");
}
