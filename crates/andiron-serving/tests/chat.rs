//! What `/v1/chat/completions` and its neighbours answer, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use andiron_data::reply::ToolFormat;
use serde_json::{Value, json};

use common::script::{BARE, CONTEXT, Options, start, start_with};
use common::{Fixture, events, post};

fn hi() -> Value {
    json!({"model": "script", "messages": [{"role": "user", "content": "Hi"}]})
}

/// `request` with more fields.
fn with(mut request: Value, more: Value) -> Value {
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

fn weather() -> Value {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 9}, "days": {"$ref": "#/$defs/Days"}},
        "required": ["city"], "additionalProperties": false, "$defs": {"Days": {"type": "integer", "minimum": 0, "maximum": 9}}});
    json!([
        {"type": "function", "function": {"name": "weather", "description": "d", "parameters": parameters}},
        {"type": "function", "function": {"name": "now"}},
    ])
}

async fn chat(at: &Fixture, request: &Value) -> Value {
    let reply = post(at.address, "/v1/chat/completions", &request.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()
}

async fn refused(at: &Fixture, request: &Value) -> (String, String) {
    let reply = post(at.address, "/v1/chat/completions", &request.to_string()).await;
    assert_eq!(reply.status, 400, "{request}: {}", reply.body);
    let error = &reply.json()["error"];
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (text("param"), text("message"))
}

async fn streamed(at: &Fixture, request: &Value) -> Vec<Value> {
    let request = with(request.clone(), json!({"stream": true}));
    let reply = post(at.address, "/v1/chat/completions", &request.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(reply.body.ends_with("data: [DONE]\n\n"), "{}", reply.body);
    let data = events(&reply.body);
    assert!(data.iter().all(|data| !data.is_empty()));
    data[..data.len() - 1].iter().map(|data| serde_json::from_str(data).unwrap()).collect()
}

async fn prompt(at: &Fixture, request: &Value) -> String {
    let reply = post(at.address, "/apply-template", &request.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["prompt"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_chat_has_the_shape_of_openai() {
    let at = start("Hello there.").await;
    let json = chat(&at, &hi()).await;
    assert!(json["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!((&json["object"], &json["model"]), (&json!("chat.completion"), &json!("script")));
    assert!(json["created"].as_u64().unwrap() > 1_600_000_000);
    assert_eq!(
        json["choices"],
        json!([{"index": 0, "logprobs": null, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hello there.", "refusal": null}}])
    );
    let prompt = prompt(&at, &hi()).await;
    assert_eq!(prompt, "user: Hi\n<|go|>");
    assert_eq!(
        json["usage"],
        json!({"prompt_tokens": 10, "completion_tokens": 13, "total_tokens": 23, "prompt_tokens_details": {"cached_tokens": 0}})
    );
}

#[tokio::test]
async fn an_answer_may_fill_the_context_and_both_names_bound_it() {
    let at = start(&"a".repeat(CONTEXT)).await;
    let json = chat(&at, &hi()).await;
    assert_eq!(json["usage"]["total_tokens"], CONTEXT);
    assert_eq!(json["choices"][0]["finish_reason"], "length");
    for name in ["max_tokens", "max_completion_tokens"] {
        let json = chat(&at, &with(hi(), json!({name: 5}))).await;
        assert_eq!(json["choices"][0]["message"]["content"], "aaaaa", "{name}");
        let (param, message) = refused(&at, &with(hi(), json!({name: CONTEXT}))).await;
        assert_eq!(param, name);
        assert!(message.contains("too many"), "{message}");
    }
    let both = chat(&at, &with(hi(), json!({"max_tokens": 5, "max_completion_tokens": 5}))).await;
    assert_eq!(both["usage"]["completion_tokens"], 5);
    let (param, _) = refused(&at, &with(hi(), json!({"max_tokens": 5, "max_completion_tokens": 6}))).await;
    assert_eq!(param, "max_tokens");
}

#[tokio::test]
async fn every_chunk_names_its_object_and_the_whole_is_the_same() {
    let at = start("One, two.").await;
    let chunks = streamed(&at, &with(hi(), json!({"n": 2, "stream_options": {"include_usage": true}}))).await;
    for chunk in &chunks {
        assert_eq!((&chunk["object"], &chunk["id"]), (&json!("chat.completion.chunk"), &chunks[0]["id"]));
        assert_eq!(chunk["model"], "script");
        for choice in chunk["choices"].as_array().unwrap() {
            assert!(choice["index"].is_number() && choice["delta"].is_object(), "{choice}");
        }
    }
    let (last, chunks) = chunks.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(20)));
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["usage"].is_null() && chunk.as_object().unwrap().contains_key("usage"))
    );
    for index in 0..2 {
        let deltas: Vec<&Value> = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0])
            .filter(|choice| choice["index"] == index)
            .collect();
        assert_eq!(deltas[0]["delta"], json!({"role": "assistant", "content": ""}));
        let text: String =
            deltas[1..].iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(text, "One, two.");
        let last = deltas.last().unwrap();
        assert_eq!((&last["delta"], &last["finish_reason"]), (&json!({}), &json!("stop")));
        assert!(deltas[..deltas.len() - 1].iter().all(|choice| choice["finish_reason"].is_null()));
    }
    // Without the option there is no such field.
    assert!(streamed(&at, &hi()).await.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn contents_in_parts_and_all_roles_are_read() {
    let at = start("ok").await;
    let request = json!({"messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "ann"},
        {"role": "assistant", "content": null, "refusal": null,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
        {"role": "tool", "content": "done", "tool_call_id": "c1"},
        {"role": "assistant", "content": "so", "reasoning_content": "hm"},
        {"role": "user", "content": "<|go|>"},
    ]});
    let expected = "system: Be brief.\nuser: a\nb\nassistant: f({\"x\": 1})\ntool: done\nassistant: so (hm)\nuser: <|go|>\n<|go|>";
    assert_eq!(prompt(&at, &request).await, expected);
    // A control token in a message is text: the answer begins after the template's own.
    assert_eq!(chat(&at, &request).await["choices"][0]["message"]["content"], "ok");
    let tokens = post(at.address, "/tokenize", &request.to_string()).await.json();
    let text = post(at.address, "/detokenize", &json!({"tokens": tokens["tokens"]}).to_string()).await.json();
    assert_eq!((&text["prompt"], &text["content"]), (&json!(expected), &json!(expected)));
}

#[tokio::test]
async fn the_end_of_the_prompt_can_be_chosen() {
    let at = start("ok").await;
    let ends = |text: &str| json!({"messages": [{"role": "user", "content": "Go"}, {"role": "assistant", "content": text}]});
    let bare = with(ends("One"), json!({"add_generation_prompt": false}));
    assert_eq!(prompt(&at, &bare).await, "user: Go\nassistant: One\n");
    let continued = with(ends("One, "), json!({"continue_final_message": true}));
    assert_eq!(prompt(&at, &continued).await, "user: Go\nassistant: One, ");
    let thinks = with(ends("One"), json!({"chat_template_kwargs": {"enable_thinking": true}}));
    assert!(prompt(&at, &thinks).await.ends_with("<|go|><think>\n"));
    let both = with(ends("One"), json!({"continue_final_message": true, "add_generation_prompt": true}));
    assert_eq!(refused(&at, &both).await.0, "continue_final_message");
}

#[tokio::test]
async fn reasoning_is_apart_from_the_content() {
    let at = start("<think>\nlet me see\n</think>\n\nYes.").await;
    let message = &chat(&at, &hi()).await["choices"][0]["message"];
    assert_eq!((&message["content"], &message["reasoning_content"]), (&json!("Yes."), &json!("let me see")));
    let mut said = (String::new(), String::new());
    for chunk in streamed(&at, &hi()).await {
        let delta = &chunk["choices"][0]["delta"];
        said.0.push_str(delta["content"].as_str().unwrap_or_default());
        said.1.push_str(delta["reasoning_content"].as_str().unwrap_or_default());
    }
    assert_eq!(said, ("Yes.".to_owned(), "let me see".to_owned()));
    // A grammar holds the answer, not a thought that the prompt has opened.
    let at = start("yes").await;
    let held = json!({"chat_template_kwargs": {"enable_thinking": true}, "guided_choice": ["yes", "no"]});
    let message = &chat(&at, &with(hi(), held)).await["choices"][0]["message"];
    assert_eq!(message["reasoning_content"], Value::Null);
    assert!(["yes", "no"].contains(&message["content"].as_str().unwrap()), "{message}");
}

#[tokio::test]
async fn calls_of_tools_are_parsed_whole_and_streamed() {
    let answer = "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>\n\
        <tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    let at = start(answer).await;
    let request = with(hi(), json!({"tools": weather()}));
    assert!(
        prompt(&at, &request)
            .await
            .starts_with("<tools>[{\"type\": \"function\", \"function\": {\"name\": \"weather\"")
    );
    let choice = &chat(&at, &request).await["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &json!("Let me see."))
    );
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    let shown: Vec<(&str, &str)> = calls
        .iter()
        .map(|call| {
            (call["function"]["name"].as_str().unwrap(), call["function"]["arguments"].as_str().unwrap())
        })
        .collect();
    assert_eq!(shown, [("weather", "{\"city\": \"Rome\"}"), ("now", "{}")]);
    assert!(calls[0]["id"].as_str().unwrap().starts_with("call_") && calls[0]["id"] != calls[1]["id"]);
    assert_eq!(calls[0]["type"], "function");

    let chunks = streamed(&at, &request).await;
    let mut streamed_calls = vec![(String::new(), String::new(), String::new()); 2];
    let mut content = String::new();
    for chunk in &chunks {
        let delta = &chunk["choices"][0]["delta"];
        content.push_str(delta["content"].as_str().unwrap_or_default());
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let (id, name, arguments) = &mut streamed_calls[call["index"].as_u64().unwrap() as usize];
            id.push_str(call["id"].as_str().unwrap_or_default());
            name.push_str(call["function"]["name"].as_str().unwrap_or_default());
            arguments.push_str(call["function"]["arguments"].as_str().unwrap());
        }
    }
    assert_eq!(content, "Let me see.");
    let names: Vec<(&str, &str)> =
        streamed_calls.iter().map(|(_, name, args)| (name.as_str(), args.as_str())).collect();
    assert_eq!(names, shown);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");

    let one = chat(&at, &with(request.clone(), json!({"parallel_tool_calls": false}))).await;
    assert_eq!(one["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
    // Without tools, or with none to call, the text is the answer.
    for request in [hi(), with(request, json!({"tool_choice": "none"}))] {
        assert!(!prompt(&at, &request).await.contains("<tools>"));
        let choice = &chat(&at, &request).await["choices"][0];
        assert_eq!(
            (&choice["message"]["content"], &choice["finish_reason"]),
            (&json!(answer), &json!("stop"))
        );
    }
}

#[tokio::test]
async fn what_is_no_call_is_content() {
    let answer = "<tool_call>\n{\"name\": weather}\n</tool_call>";
    let at = start(answer).await;
    let choice = &chat(&at, &with(hi(), json!({"tools": weather()}))).await["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(answer), &json!("stop")));
    assert!(choice["message"].get("tool_calls").is_none());
}

#[tokio::test]
async fn a_call_can_be_required_or_named() {
    // Where the model would say something else, the grammar makes it a call all the same.
    let at = start("<tool_call>\n{\"name\": \"now\", \"arguments\": {\"city\": \"Rome\"}}").await;
    let request = with(hi(), json!({"tools": weather(), "max_tokens": 900, "temperature": 0}));
    let named = |name: &str| json!({"tool_choice": {"type": "function", "function": {"name": name}}});
    for (choice, name) in
        [(json!({"tool_choice": "required"}), "now"), (named("weather"), "weather"), (named("now"), "now")]
    {
        let answer = &chat(&at, &with(request.clone(), choice.clone())).await["choices"][0];
        let call = &answer["message"]["tool_calls"][0]["function"];
        assert_eq!(
            (&call["name"], &answer["message"]["content"]),
            (&json!(name), &Value::Null),
            "{choice}: {answer}"
        );
        assert!(serde_json::from_str::<Value>(call["arguments"].as_str().unwrap()).unwrap().is_object());
        assert_eq!(answer["finish_reason"], "tool_calls");
    }
    let (param, message) = refused(&at, &with(request.clone(), named("none"))).await;
    assert_eq!(
        (param.as_str(), message.as_str()),
        ("tool_choice", "tool_choice: no tool has the name \"none\"")
    );
    assert_eq!(refused(&at, &with(hi(), json!({"tool_choice": "required"}))).await.0, "tool_choice");
    let held = json!({"response_format": {"type": "json_object"}, "tool_choice": "required"});
    assert_eq!(refused(&at, &with(request.clone(), held)).await.0, "response_format");
    assert_eq!(refused(&at, &with(request, json!({"guided_regex": "a"}))).await.0, "guided_regex");
}

/// A tool with an integer for an argument.
fn counting(strict: bool) -> Value {
    let parameters = json!({"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": false});
    json!([{"type": "function", "function": {"name": "count", "parameters": parameters, "strict": strict}}])
}

#[tokio::test]
async fn an_answer_of_a_schema_may_be_a_call_instead() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "s", "schema": schema}});
    let more =
        json!({"tools": counting(true), "response_format": format, "max_tokens": 200, "temperature": 0});
    for (answer, content, call) in [
        ("{\"a\": true} and so on", json!("{\"a\": true}"), None),
        (
            "<tool_call>\n{\"name\": \"count\", \"arguments\": {\"x\": 7}}\n</tool_call>",
            Value::Null,
            Some("{\"x\": 7}"),
        ),
    ] {
        let at = start(answer).await;
        let choice = &chat(&at, &with(hi(), more.clone())).await["choices"][0];
        assert_eq!(choice["message"]["content"], content, "{choice}");
        assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"].as_str(), call, "{choice}");
        assert_eq!(choice["finish_reason"], if call.is_some() { "tool_calls" } else { "stop" });
    }
    // The model would say something else.
    let at = start("{\"a\": 7}").await;
    let choice = &chat(&at, &with(hi(), more)).await["choices"][0];
    let content: Value = serde_json::from_str(choice["message"]["content"].as_str().unwrap()).unwrap();
    assert!(content["a"].is_boolean(), "{choice}");
}

#[tokio::test]
async fn a_strict_tool_is_called_with_arguments_of_its_schema() {
    let answer = "Hm <b>\n<tool_call>\n{\"name\": \"count\", \"arguments\": {\"x\": \"no\"}}\n</tool_call>";
    let at = start(answer).await;
    let request =
        |strict: bool| with(hi(), json!({"tools": counting(strict), "max_tokens": 300, "temperature": 0}));
    let arguments = async |strict: bool| {
        let message = chat(&at, &request(strict)).await["choices"][0]["message"].clone();
        assert_eq!(
            (&message["content"], &message["tool_calls"][0]["function"]["name"]),
            (&json!("Hm <b>"), &json!("count"))
        );
        let arguments = message["tool_calls"][0]["function"]["arguments"].as_str().unwrap().to_owned();
        serde_json::from_str::<Value>(&arguments).unwrap()
    };
    assert_eq!(arguments(false).await, json!({"x": "no"}));
    // `-0` is an integer in JSON schema, and a float here.
    let is_integer = |value: &Value| value.as_f64().is_some_and(|x| x.fract() == 0.0);
    assert!(is_integer(&arguments(true).await["x"]));
    let at = start("No call <tool> at all.").await;
    let choice = &chat(&at, &request(true)).await["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["finish_reason"]),
        (&json!("No call <tool> at all."), &json!("stop"))
    );
    // The marker is a control token.
    let options = Options { tool_format: Some(ToolFormat::Mistral), ..Options::default() };
    let at =
        start_with("So: [TOOL_CALLS][{\"name\": \"count\", \"arguments\": {\"x\": \"no\"}}]", options).await;
    let message = &chat(&at, &request(true)).await["choices"][0]["message"];
    let arguments = message["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    assert!(is_integer(&serde_json::from_str::<Value>(arguments).unwrap()["x"]), "{message}");
}

#[tokio::test]
async fn a_control_token_may_begin_a_call_and_ids_are_as_short_as_mistral_wants() {
    let answer = "[TOOL_CALLS][{\"name\": \"now\", \"arguments\": {}}]";
    let at =
        start_with(answer, Options { tool_format: Some(ToolFormat::Mistral), ..Options::default() }).await;
    let message = &chat(&at, &with(hi(), json!({"tools": weather()}))).await["choices"][0]["message"];
    assert_eq!(message["tool_calls"][0]["function"]["name"], "now", "{message}");
    let id = message["tool_calls"][0]["id"].as_str().unwrap();
    assert!(id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
}

#[tokio::test]
async fn a_template_that_knows_no_tools_is_told_them_in_words() {
    let at = start_with(
        "<tool_call>{\"name\": \"now\"}</tool_call>",
        Options { template: Some(BARE), ..Options::default() },
    )
    .await;
    let request = with(hi(), json!({"tools": weather()}));
    let prompt = prompt(&at, &request).await;
    assert!(
        prompt.starts_with("system: Tools that can be called") && prompt.contains("\"name\":\"weather\""),
        "{prompt}"
    );
    let message = &chat(&at, &request).await["choices"][0]["message"];
    assert_eq!(message["tool_calls"][0]["function"], json!({"name": "now", "arguments": "{}"}));
}

#[tokio::test]
async fn an_answer_is_held_to_a_schema() {
    let at = start("{\"city\": \"Rome\", \"days\": 3}").await;
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"], "additionalProperties": false});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}});
    let choice = &chat(&at, &with(hi(), json!({"response_format": format}))).await["choices"][0];
    let content: Value = serde_json::from_str(choice["message"]["content"].as_str().unwrap()).unwrap();
    assert_eq!((content, &choice["finish_reason"]), (json!({"city": "Rome", "days": 3}), &json!("stop")));
    let object = chat(&at, &with(hi(), json!({"response_format": {"type": "json_object"}}))).await;
    let content = object["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(serde_json::from_str::<Value>(&content).unwrap().is_object());
}

#[tokio::test]
async fn log_probabilities_have_bytes_and_no_end() {
    let at = start("né").await;
    let request = with(hi(), json!({"logprobs": true, "top_logprobs": 2, "temperature": 0}));
    let content = chat(&at, &request).await["choices"][0]["logprobs"]["content"].clone();
    let tokens = content.as_array().unwrap();
    assert_eq!(tokens.len(), 2);
    assert_eq!((&tokens[1]["token"], &tokens[1]["bytes"]), (&json!("é"), &json!([195, 169])));
    assert!(tokens.iter().all(|token| token["logprob"].as_f64().unwrap() <= 0.0));
    assert_eq!(tokens[0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert_eq!(tokens[0]["top_logprobs"][0]["token"], "n");
    let chunks = streamed(&at, &request).await;
    let parts: Vec<Value> = chunks
        .iter()
        .flat_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array().cloned().unwrap_or_default())
        .collect();
    assert_eq!(Value::from(parts), content);
    let plain = chat(&at, &with(hi(), json!({"logprobs": true}))).await;
    assert_eq!(plain["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[tokio::test]
async fn stop_strings_seeds_and_choices_work_as_in_completions() {
    let at = start("one two three").await;
    let stopped = chat(&at, &with(hi(), json!({"stop": [" th"], "n": 3, "seed": -4}))).await;
    for choice in stopped["choices"].as_array().unwrap() {
        assert_eq!(
            (&choice["message"]["content"], &choice["finish_reason"]),
            (&json!("one two"), &json!("stop"))
        );
    }
    let biased = with(hi(), json!({"logit_bias": {"0": 100}, "max_tokens": 2}));
    assert_eq!(chat(&at, &biased).await["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn bad_fields_are_refused_by_name() {
    let at = start("ok").await;
    let message = |message: Value| json!({"messages": [message]});
    let tools = |tools: Value| with(hi(), json!({"tools": tools}));
    for (request, param) in [
        (json!({}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": [1]}), "messages.0"),
        (message(json!({"content": "x"})), "messages.0.role"),
        (message(json!({"role": "user"})), "messages.0.content"),
        (message(json!({"role": "king", "content": "x"})), "messages.0.role"),
        (message(json!({"role": "user", "content": 5})), "messages.0.content"),
        (
            message(json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]})),
            "messages.0.content.0",
        ),
        (
            message(json!({"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]})),
            "messages.0.tool_calls",
        ),
        (message(json!({"role": "assistant", "content": "x", "prefix": true})), "messages.0.prefix"),
        (tools(json!({})), "tools"),
        (tools(json!([{"type": "web_search"}])), "tools"),
        (tools(json!([{"type": "function", "function": {"name": ""}}])), "tools"),
        (with(tools(weather()), json!({"tool_choice": "maybe"})), "tool_choice"),
        (with(tools(weather()), json!({"parallel_tool_calls": 1})), "parallel_tool_calls"),
        (with(hi(), json!({"top_logprobs": 2})), "top_logprobs"),
        (with(hi(), json!({"logprobs": true, "top_logprobs": 21})), "top_logprobs"),
        (with(hi(), json!({"logprobs": 2})), "logprobs"),
        (with(hi(), json!({"max_tokens": 0})), "max_tokens"),
        (with(hi(), json!({"prompt": "x"})), "prompt"),
        (with(hi(), json!({"functions": [{"name": "f"}]})), "functions"),
        (with(hi(), json!({"modalities": ["audio"]})), "modalities"),
        (with(hi(), json!({"chat_template": "{{ 1 }}"})), "chat_template"),
        (with(hi(), json!({"chat_template_kwargs": {"messages": []}})), "chat_template_kwargs"),
        (with(hi(), json!({"chat_template_kwargs": 1})), "chat_template_kwargs"),
        (with(hi(), json!({"reasoning_effort": "high"})), "reasoning_effort"),
        (with(hi(), json!({"documents": [{"text": "x"}]})), "documents"),
        (with(hi(), json!({"echo": true})), "echo"),
        (with(hi(), json!({"stream_options": {"include_usage": true}})), "stream_options"),
        (with(hi(), json!({"messages": [{"role": "user", "content": "Ж"}]})), "messages"),
        (with(hi(), json!({"messages": [{"role": "user", "content": "x".repeat(CONTEXT)}]})), "messages"),
    ] {
        let (found, message) = refused(&at, &request).await;
        assert_eq!(found, param, "{request}: {message}");
        assert!(message.starts_with(param) || message.contains("context"), "{message}");
    }
    // What changes nothing is ignored.
    let harmless = json!({"user": "u", "store": true, "metadata": {"a": "b"}, "service_tier": "auto", "functions": [],
        "modalities": ["text"], "safety_identifier": "x", "prompt_cache_key": "k", "tool_choice": "auto", "tools": [],
        "parallel_tool_calls": true, "unheard_of": 1, "function_call": "none", "verbosity": "medium", "documents": []});
    assert_eq!(chat(&at, &with(hi(), harmless)).await["choices"][0]["message"]["content"], "ok");
    let missing =
        post(at.address, "/v1/chat/completions", &with(hi(), json!({"model": "other"})).to_string()).await;
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn a_model_without_a_template_says_so() {
    let at = start_with("ok", Options { template: None, ..Options::default() }).await;
    let reply = post(at.address, "/v1/chat/completions", &hi().to_string()).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("chat_template_missing")));
    let fails = "{{ raise_exception('roles must alternate') }}";
    let at = start_with("ok", Options { template: Some(fails), ..Options::default() }).await;
    let (param, message) = refused(&at, &hi()).await;
    assert_eq!(param, "messages");
    assert!(message.contains("roles must alternate"), "{message}");
}

#[tokio::test]
async fn many_tools_messages_and_hostile_schemas_are_refused_early() {
    let at = start("ok").await;
    let tool = |at: usize| json!({"type": "function", "function": {"name": format!("f{at}")}});
    let tools: Vec<Value> = (0..129).map(tool).collect();
    assert_eq!(refused(&at, &with(hi(), json!({"tools": tools}))).await.0, "tools");
    let wide =
        json!([{"type": "function", "function": {"name": "f", "parameters": {"enum": vec![1; 131_073]}}}]);
    let (param, message) = refused(&at, &with(hi(), json!({"tools": wide}))).await;
    assert_eq!(param, "tools");
    assert!(message.ends_with("at most 262144 are allowed"), "{message}");
    let wide = json!({"chat_template_kwargs": {"a": "x".repeat(16 << 10)}});
    assert_eq!(refused(&at, &with(hi(), wide)).await.0, "chat_template_kwargs");
    let messages = vec![json!({"role": "user", "content": "x"}); 2049];
    assert_eq!(refused(&at, &json!({"messages": messages})).await.0, "messages");
    // Alternatives that multiply: counted before anything is compiled.
    let alternative =
        |at: usize| json!({"type": "object", "properties": {format!("p{at}"): {"type": "string"}}});
    let either = json!({"anyOf": (0..8).map(alternative).collect::<Vec<_>>()});
    let parameters = json!({"type": "object", "allOf": vec![either; 8]});
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
    let started = std::time::Instant::now();
    let (param, message) =
        refused(&at, &with(hi(), json!({"tools": tools, "tool_choice": "required"}))).await;
    assert_eq!(param, "tools", "{message}");
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}
