//! Tools for models whose chat template knows none: told in the system message, in the notation of Hermes.

use serde_json::{Value, json};

use crate::tokenizer::{ChatInputs, Message};

/// Whether a chat template shows tools to the model.
pub fn knows_tools(template: &str) -> bool {
    template.contains("tools")
}

/// A conversation as a chat template can show it: with its tools in words if it has any and the template knows none.
pub fn for_template(
    template: &str,
    conversation: Vec<Message>,
    inputs: ChatInputs,
) -> (Vec<Message>, ChatInputs) {
    let uses_tools =
        inputs.tools.is_some() || conversation.iter().any(|message| !message.tool_calls.is_empty());
    match uses_tools && !knows_tools(template) {
        true => {
            let told = messages(conversation, inputs.tools.as_deref().unwrap_or_default());
            (told, ChatInputs { tools: None, ..inputs })
        }
        false => (conversation, inputs),
    }
}

/// The conversation with `tools`, calls and their results as texts of the roles that every template knows.
pub fn messages(messages: Vec<Message>, tools: &[Value]) -> Vec<Message> {
    let mut told: Vec<Message> = messages.into_iter().map(plain).collect();
    if tools.is_empty() {
        return told;
    }
    let tools: Vec<String> = tools.iter().map(Value::to_string).collect();
    let instruction = format!(
        "Tools that can be called, as JSON:\n<tools>\n{}\n</tools>\nA tool is called by an answer of this form:\n\
         <tool_call>\n{{\"name\": \"NAME\", \"arguments\": {{\"KEY\": \"VALUE\"}}}}\n</tool_call>",
        tools.join("\n")
    );
    match told.first_mut().filter(|first| first.role == "system") {
        Some(system) => *system = Message::new("system", format!("{}\n\n{instruction}", system.text())),
        None => told.insert(0, Message::new("system", instruction)),
    }
    told
}

fn plain(message: Message) -> Message {
    let text = message.text();
    match message.role.as_str() {
        "tool" => Message::new("user", format!("<tool_response>\n{text}\n</tool_response>")),
        _ if !message.tool_calls.is_empty() => {
            let calls = message.tool_calls.iter().map(|call| {
                let call = json!({"name": call.name, "arguments": call.arguments});
                format!("<tool_call>\n{call}\n</tool_call>")
            });
            let texts: Vec<String> =
                Some(text).filter(|text| !text.is_empty()).into_iter().chain(calls).collect();
            Message::new(message.role, texts.join("\n"))
        }
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_told_in_the_system_message_and_calls_as_text() {
        let conversation = [
            json!({"role": "user", "content": "Go"}),
            json!({"role": "assistant", "content": "Well", "tool_calls": [{"function": {"name": "f", "arguments": "{\"a\": 1}"}}]}),
            json!({"role": "tool", "content": "done", "tool_call_id": "1"}),
        ];
        let conversation: Vec<Message> =
            conversation.iter().map(|message| Message::from_json(message).unwrap()).collect();
        let told = messages(conversation.clone(), &[json!({"type": "function", "function": {"name": "f"}})]);
        let shown: Vec<(&str, String)> =
            told.iter().map(|message| (message.role.as_str(), message.text())).collect();
        assert!(
            shown[0].1.contains("<tools>\n{\"type\":\"function\",\"function\":{\"name\":\"f\"}}\n</tools>")
        );
        assert_eq!(shown[0].0, "system");
        assert_eq!(shown[2].1, "Well\n<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":1}}\n</tool_call>");
        assert_eq!(shown[3], ("user", "<tool_response>\ndone\n</tool_response>".to_owned()));
        assert_eq!(messages(conversation, &[]).len(), 3);
        let system = messages(vec![Message::new("system", "Be brief.")], &[json!(1)]);
        assert!(system[0].text().starts_with("Be brief.\n\nTools"));
    }
}
