use serde_json::{Value, json};

use super::*;

/// The parts of an answer, merged: reasoning, content and calls. The same whichever way the text is cut.
#[track_caller]
fn check(format: ReplyFormat, prompt: &str, text: &str, expected: (&str, &str, &[(&str, &str)])) {
    let tools = [
        json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}, "any": {}}}}}),
    ];
    for size in [1, 2, 3, 7, text.len().max(1)] {
        let mut parser = ReplyParser::new(format, &tools).after(prompt);
        let characters: Vec<char> = text.chars().collect();
        let mut pieces = Vec::new();
        for part in characters.chunks(size) {
            pieces.extend(parser.push(&part.iter().collect::<String>()));
        }
        pieces.extend(parser.finish());
        let (mut reasoning, mut content, mut calls) = (String::new(), String::new(), Vec::new());
        for piece in pieces {
            match piece {
                ReplyPiece::Reasoning(text) => reasoning.push_str(&text),
                ReplyPiece::Content(text) => content.push_str(&text),
                ReplyPiece::Call { name, arguments } => calls.push((name, arguments)),
            }
        }
        let calls: Vec<(&str, &str)> =
            calls.iter().map(|(name, arguments)| (name.as_str(), arguments.as_str())).collect();
        assert_eq!(
            (reasoning.as_str(), content.as_str(), calls.as_slice()),
            expected,
            "in pieces of {size}: {text}"
        );
    }
}

fn with(tools: ToolFormat) -> ReplyFormat {
    ReplyFormat { tools: Some(tools), reasoning: false }
}

const PLAIN: ReplyFormat = ReplyFormat { tools: None, reasoning: false };
const THINKS: ReplyFormat = ReplyFormat { tools: Some(ToolFormat::Hermes), reasoning: true };

#[test]
fn a_text_without_notation_is_content_to_the_last_blank() {
    check(PLAIN, "", " a <tool_call> b </think>\n ", ("", " a <tool_call> b </think>\n ", &[]));
    check(PLAIN, "", " \n", ("", " \n", &[]));
    check(THINKS, "", "é < a <t", ("", "é < a <t", &[]));
}

#[test]
fn reasoning_stands_between_its_tags_or_was_opened_by_the_prompt() {
    check(THINKS, "", "\n<think>\nso it is\n\n</think>\n\nYes.", ("so it is", "Yes.", &[]));
    check(THINKS, "…assistant\n<think>\n", "so\n</think>\n\nYes. ", ("so", "Yes. ", &[]));
    check(THINKS, "…<think>\n\n</think>\n\n", "Yes.", ("", "Yes.", &[]));
    check(THINKS, "<think>", "cut off ", ("cut off", "", &[]));
    check(THINKS, "", "<thin air", ("", "<thin air", &[]));
    check(THINKS, "", "a <think> b", ("", "a <think> b", &[]));
    check(
        THINKS,
        "",
        "<think>x</think>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>",
        ("x", "", &[("f", "{}")]),
    );
}

#[test]
fn calls_of_hermes_stand_between_tags() {
    let hermes = with(ToolFormat::Hermes);
    check(
        hermes,
        "",
        "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"Köln\",  \"big\": 12345678901234567890123}}\n</tool_call>\n<tool_call>{\"arguments\": \"{\\\"a\\\": 1}\", \"name\": \"g\"}</tool_call>\n",
        (
            "",
            "Let me see.",
            &[("f", "{\"city\": \"Köln\",  \"big\": 12345678901234567890123}"), ("g", "{\"a\": 1}")],
        ),
    );
    // The end tag may be missing where the answer ends.
    check(hermes, "", "<tool_call>\n{\"name\": \"f\"}", ("", "", &[("f", "{}")]));
}

#[test]
fn what_is_no_call_stays_content() {
    for text in [
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": }\n</tool_call> so",
        "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"argum",
        "a <tool_call> is a tag",
    ] {
        check(with(ToolFormat::Hermes), "", text, ("", text, &[]));
    }
    for text in [
        "{\"name\": \"f\", \"par",
        "{\"answer\": 42}",
        "{\"name\": \"Ann\"} is she",
        "{",
        "<|python_tag|>print(1)",
    ] {
        check(with(ToolFormat::Llama), "", text, ("", text, &[]));
    }
    for text in ["[TOOL_CALLS] none", "[TOOL_CALLS][{\"name\": 1}]", "a [TOOL"] {
        check(with(ToolFormat::Mistral), "", text, ("", text, &[]));
    }
    for text in ["<tool_call>\n<function>\n</tool_call>", "<tool_call></tool_call>"] {
        check(with(ToolFormat::QwenXml), "", text, ("", text, &[]));
    }
    check(with(ToolFormat::Glm), "", "<tool_call>\n</tool_call>", ("", "<tool_call>\n</tool_call>", &[]));
}

#[test]
fn calls_of_llama_are_the_whole_answer() {
    let llama = with(ToolFormat::Llama);
    let one = [("f", "{\"city\": \"Rome\"}")];
    check(llama, "", "\n{\"name\": \"f\", \"parameters\": {\"city\": \"Rome\"}}", ("", "", &one));
    check(
        llama,
        "",
        "<|python_tag|>{ \"type\": \"function\", \"name\": \"f\", \"parameters\": {\"city\": \"Rome\"}}",
        ("", "", &one),
    );
    check(
        llama,
        "",
        "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"arguments\": null}",
        ("", "", &[("f", "{}"), ("g", "{}")]),
    );
}

#[test]
fn calls_of_mistral_follow_a_mark() {
    let mistral = with(ToolFormat::Mistral);
    check(
        mistral,
        "",
        "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"days\": 2}}, {\"name\": \"g\", \"arguments\": {}}]",
        ("", "", &[("f", "{\"days\": 2}"), ("g", "{}")]),
    );
    check(
        mistral,
        "",
        "Well.[TOOL_CALLS]f[ARGS]{\"days\": 2}[TOOL_CALLS]g[CALL_ID]abcdefghi[ARGS]{}",
        ("", "Well.", &[("f", "{\"days\": 2}"), ("g", "{}")]),
    );
}

#[test]
fn arguments_in_tags_have_the_types_of_the_schema() {
    check(
        with(ToolFormat::QwenXml),
        "",
        "<tool_call>\n<function=f>\n<parameter=city>\n12\nthe < city\n</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=any>\n{\"a\": [1]}\n</parameter>\n<parameter=other>\n5\n</parameter>\n</function>\n</tool_call>",
        ("", "", &[("f", "{\"city\":\"12\\nthe < city\",\"days\":3,\"any\":{\"a\":[1]},\"other\":\"5\"}")]),
    );
    check(
        with(ToolFormat::QwenXml),
        "",
        "<tool_call>\n<function=f>\n</function>\n</tool_call>",
        ("", "", &[("f", "{}")]),
    );
    check(
        with(ToolFormat::Glm),
        "",
        "<tool_call>f\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n<arg_key>days</arg_key>\n<arg_value>x</arg_value>\n</tool_call>",
        ("", "", &[("f", "{\"city\":\"Rome\",\"days\":\"x\"}")]),
    );
}

#[test]
fn the_template_tells_the_format() {
    for (template, expected) in [
        ("{{ messages }}", None),
        ("{% if tools %}<tool_call>\n{\"name\": …}{% endif %}", Some(ToolFormat::Hermes)),
        ("{% if tools %}<tool_call>\n<function=x>{% endif %}", Some(ToolFormat::QwenXml)),
        ("{% if tools %}<tool_call>x<arg_key>{% endif %}", Some(ToolFormat::Glm)),
        ("{{ '[TOOL_CALLS]' + message.tool_calls }}", Some(ToolFormat::Mistral)),
        ("{% if tools %}{\"name\": f, \"parameters\": p}{% endif %}", Some(ToolFormat::Llama)),
        ("{{ '<|python_tag|>' }}{{ tools }}", Some(ToolFormat::Llama)),
    ] {
        assert_eq!(ToolFormat::of_template(template), expected, "{template}");
    }
    assert!(ReplyFormat::of_template("{{ content.split('</think>') }}").reasoning);
    for (name, format) in ToolFormat::NAMES {
        assert_eq!((name.parse(), format.to_string()), (Ok(format), name.to_owned()));
    }
    let error = "x".parse::<ToolFormat>().unwrap_err().to_string();
    assert_eq!(error, "tool format \"x\": expected hermes, llama, mistral, qwen-xml, glm");
}

fn tool(name: &str, parameters: Value) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": parameters}})
}

#[test]
fn a_forced_call_is_a_schema_whose_references_hold() {
    let nested = json!({"type": "object", "properties": {"next": {"$ref": "#"}, "x": {"$ref": "#/$defs/X"}},
        "$defs": {"X": {"type": "string"}}});
    let tools = [tool("f", nested), tool("g", Value::Null)];
    let forced = ForcedCall::new(Some(ToolFormat::Hermes), &tools, Some("f"), true, HeldTools::All).unwrap();
    assert_eq!(forced.opening, "<tool_call>\n");
    assert_eq!(
        forced.schema,
        json!({"type": "object", "properties": {"name": {"const": "f"}, "arguments": {"$ref": "#/$defs/tool0"}},
            "required": ["name", "arguments"], "additionalProperties": false,
            "$defs": {"tool0": {"type": "object",
                "properties": {"next": {"$ref": "#/$defs/tool0"}, "x": {"$ref": "#/$defs/tool0/$defs/X"}},
                "$defs": {"X": {"type": "string"}}}}})
    );
    let any = ForcedCall::new(Some(ToolFormat::Mistral), &tools, None, false, HeldTools::All).unwrap();
    assert_eq!(
        (any.opening, &any.schema["maxItems"], any.schema["items"]["anyOf"].as_array().map(Vec::len)),
        ("[TOOL_CALLS]", &json!(1), Some(2))
    );
    let llama = ForcedCall::new(Some(ToolFormat::Llama), &tools, Some("g"), true, HeldTools::All).unwrap();
    assert_eq!(llama.schema["required"], json!(["name", "parameters"]));
    assert_eq!(llama.schema["$defs"], json!({"tool1": {"type": "object", "properties": {}}}));
}

#[track_caller]
fn check_refused(tools: &[Value], expected: &str) {
    assert_eq!(ForcedCall::new(None, tools, None, true, HeldTools::All).unwrap_err().to_string(), expected);
}

#[test]
fn what_is_wrong_with_tools_names_the_field() {
    check_refused(&[], "there is no tool to call");
    check_refused(&[json!(1)], "0: expected an object with `type` and `function`");
    check_refused(&[json!({"type": "web_search"})], "0.type: `web_search` is not supported, send `function`");
    check_refused(&[tool("", Value::Null)], "0.function.name: expected a string of 1 to 64 bytes");
    check_refused(&[tool("f", json!([]))], "0.function.parameters: expected a JSON schema, an object");
    check_refused(
        &[tool("f", Value::Null), tool("f", Value::Null)],
        "1.function.name: \"f\" is the name of an earlier tool",
    );
}
