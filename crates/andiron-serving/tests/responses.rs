//! What `/v1/responses` answers, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use serde_json::{Value, json};

use common::script::start;
use common::{Fixture, post};

async fn respond(at: &Fixture, request: &Value) -> Value {
    let reply = post(at.address, "/v1/responses", &request.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()
}

/// The events of a stream, each with the name of its frame.
async fn streamed(at: &Fixture, mut request: Value) -> Vec<Value> {
    request["stream"] = true.into();
    let reply = post(at.address, "/v1/responses", &request.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let frames = reply.body.trim_end().split("\n\n");
    let event = |frame: &str| {
        let (name, data) = frame.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    };
    frames.map(event).collect()
}

fn tools() -> Value {
    json!([{"type": "function", "name": "now", "description": "d", "strict": true,
        "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}])
}

#[tokio::test]
async fn a_response_has_the_shape_of_openai() {
    let at = start("<think>hm</think>Hello.").await;
    let request = json!({"model": "script", "instructions": "Be brief.", "input": "Hi", "metadata": {"k": "v"}, "store": true});
    let response = respond(&at, &request).await;
    assert!(response["id"].as_str().unwrap().starts_with("resp_"));
    assert_eq!((&response["object"], &response["status"]), (&json!("response"), &json!("completed")));
    assert_eq!((&response["metadata"], &response["store"]), (&json!({"k": "v"}), &json!(false)));
    let output = response["output"].as_array().unwrap();
    assert_eq!((&output[0]["type"], &output[0]["content"][0]["text"]), (&json!("reasoning"), &json!("hm")));
    assert_eq!(
        output[1]["content"],
        json!([{"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": []}])
    );
    assert_eq!((&output[1]["role"], &output[1]["status"]), (&json!("assistant"), &json!("completed")));
    let usage = &response["usage"];
    // `system: Be brief.\nuser: Hi\n` and the mark after it.
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(28), &json!(24)));
    assert_eq!(usage["output_tokens_details"]["reasoning_tokens"], 2);
    let counted = post(at.address, "/v1/responses/input_tokens", &request.to_string()).await.json();
    assert_eq!(counted, json!({"object": "response.input_tokens", "input_tokens": 28}));
    let cut = respond(&at, &json!({"input": "Hi", "max_output_tokens": 17})).await;
    assert_eq!(
        (&cut["status"], &cut["incomplete_details"]),
        (&json!("incomplete"), &json!({"reason": "max_output_tokens"}))
    );
}

#[tokio::test]
async fn events_come_in_order_and_numbered() {
    let at = start("<think>hm</think>Hi").await;
    let events = streamed(&at, json!({"input": "x"})).await;
    let mut names: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    names.dedup();
    assert_eq!(
        names,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let text: String = events
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta")
        .map(|event| event["delta"].as_str().unwrap())
        .collect();
    assert_eq!(text, "Hi");
    let last = &events.last().unwrap()["response"];
    assert_eq!(
        (&last["output"][1]["content"][0]["text"], &last["output"][1]["id"]),
        (&json!("Hi"), &events[events.len() - 2]["item"]["id"])
    );
}

#[tokio::test]
async fn calls_are_items_and_so_are_their_results() {
    let at = start("<tool_call>\n{\"name\": \"now\", \"arguments\": {\"zone\": \"CET\"}}</tool_call>").await;
    let request = json!({"input": "x", "tools": tools()});
    let response = respond(&at, &request).await;
    let call = &response["output"][0];
    assert_eq!(
        (&call["type"], &call["name"], &call["arguments"]),
        (&json!("function_call"), &json!("now"), &json!("{\"zone\": \"CET\"}"))
    );
    assert!(
        call["call_id"].as_str().unwrap().starts_with("call_")
            && call["id"].as_str().unwrap().starts_with("fc_")
    );
    let names: Vec<String> =
        streamed(&at, request).await.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        names[2..],
        [
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    // The client sends back what it got.
    let input = json!([{"role": "user", "content": [{"type": "input_text", "text": "x"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        call, {"type": "function_call_output", "call_id": call["call_id"], "output": "noon"}]);
    let counted = post(at.address, "/v1/responses/input_tokens", &json!({"input": input}).to_string()).await;
    let prompt = "user: x\nassistant: now({\"zone\": \"CET\"}) (hm)\ntool: noon\n";
    assert_eq!(counted.json()["input_tokens"], prompt.chars().count() + 1, "{}", counted.body);
    let forced = respond(
        &at,
        &json!({"input": "x", "tools": tools(), "tool_choice": {"type": "function", "name": "now"}}),
    )
    .await;
    assert_eq!(forced["output"][0]["name"], "now");
}

#[tokio::test]
async fn formats_are_held_to_and_log_probabilities_given() {
    let at = start("{\"a\": 1}").await;
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false});
    let format = json!({"format": {"type": "json_schema", "name": "x", "strict": true, "schema": schema}, "verbosity": "medium"});
    let response = respond(&at, &json!({"input": "x", "text": format, "top_logprobs": 1})).await;
    let part = &response["output"][0]["content"][0];
    assert_eq!(serde_json::from_str::<Value>(part["text"].as_str().unwrap()).unwrap(), json!({"a": 1}));
    assert_eq!(part["logprobs"].as_array().unwrap().len(), part["text"].as_str().unwrap().len());
    assert_eq!(response["text"], format);
}

#[tokio::test]
async fn what_would_need_a_store_is_refused_by_name() {
    let at = start("ok").await;
    for (field, value, param) in [
        ("previous_response_id", json!("resp_1"), "previous_response_id"),
        ("conversation", json!("c"), "conversation"),
        ("background", json!(true), "background"),
        ("truncation", json!("auto"), "truncation"),
        ("tools", json!([{"type": "web_search"}]), "tools"),
        ("reasoning", json!({"effort": "high"}), "reasoning.effort"),
        ("max_output_tokens", json!(0), "max_output_tokens"),
        ("max_tokens", json!(5), "max_tokens"),
        ("input", json!([{"type": "item_reference", "id": "x"}]), "input.0"),
        ("input", json!([{"role": "user", "content": [{"type": "input_image"}]}]), "input.0.content.0"),
        ("text", json!({"format": {"type": "xml"}}), "text.format"),
    ] {
        // A message before those of the input does not shift their numbers.
        let mut request = json!({"input": "x", "instructions": "y"});
        request[field] = value;
        let reply = post(at.address, "/v1/responses", &request.to_string()).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{}", reply.body);
    }
    let harmless = json!({"input": "x", "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "medium", "summary": "auto"},
        "truncation": "disabled", "background": false, "stream": false, "stream_options": {"include_obfuscation": false}});
    assert_eq!(respond(&at, &harmless).await["status"], "completed");
}
