//! A request to chat, checked field by field.

use andiron_data::tokenizer::{ChatEnd, ChatInputs, Content, Message, RESERVED};
use andiron_models::generate::Grammar;
use serde_json::{Map, Value};

use super::tools;
use crate::http::fields::Fields;
use crate::http::generation::{Bounds, GenerationOptions, Refused, RequestedGrammar, check_known};
use crate::http::{ApiError, App};
use crate::registry::Served;

/// Fields of chat that would change the answer and are not supported, besides those of all routes; with the values that change
/// nothing.
///
/// Sources: OpenAI, "Create chat completion", <https://platform.openai.com/docs/api-reference/chat/create>; vLLM,
/// `ChatCompletionRequest` in `vllm/entrypoints/openai/chat_completion/protocol.py`; llama.cpp, `tools/server/README.md`, "POST
/// /v1/chat/completions". `store`, `metadata`, `user`, `service_tier` and the like change nothing about an answer.
const REFUSED: &Refused = &[
    ("prompt", &[]),
    ("functions", &["[]"]),
    ("function_call", &["\"none\"", "\"auto\""]),
    ("audio", &[]),
    ("modalities", &["[\"text\"]"]),
    ("prediction", &[]),
    ("web_search_options", &[]),
    ("verbosity", &["\"medium\""]),
    ("moderation", &[]),
    ("best_of", &["1"]),
    // A template is a program: it comes with the model and never with a request.
    ("chat_template", &[]),
    ("echo", &["false"]),
    ("add_special_tokens", &["false"]),
    ("mm_processor_kwargs", &["{}"]),
    ("enable_thinking", &[]),
    ("include_reasoning", &["true"]),
    ("separate_reasoning", &["true"]),
    ("reasoning_format", &["\"auto\"", "\"deepseek\""]),
    ("parse_tool_calls", &["true"]),
];

/// The roles of messages.
const ROLES: [&str; 5] = ["developer", "system", "user", "assistant", "tool"];

/// Which tools a model may or must call.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::http) enum ToolChoice {
    /// None.
    None,
    /// As it likes.
    Auto,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

/// A checked request.
#[derive(Clone, Debug)]
pub(in crate::http) struct ChatRequest {
    pub(in crate::http) messages: Vec<Message>,
    /// Tools are left out if none may be called.
    pub(in crate::http) inputs: ChatInputs,
    pub(in crate::http) tool_choice: ToolChoice,
    pub(in crate::http) parallel_tool_calls: bool,
    pub(in crate::http) options: GenerationOptions,
}

impl ChatRequest {
    pub(in crate::http) fn parse(fields: &Fields<'_>, app: &App, served: &Served) -> Result<Self, ApiError> {
        check_known(fields, REFUSED)?;
        let bounds =
            Bounds { prompt: "messages", max_tokens: max_tokens_field(fields)?, least: 1, usual: None };
        let mut options = GenerationOptions::parse(fields, app, served, bounds)?;
        options.logprobs = parse_logprobs(fields, app.config.limits.max_logprobs)?;
        let ConversationRequest { messages, inputs, tool_choice } =
            ConversationRequest::parse(fields, app, served)?;
        if inputs.tools.is_some()
            && let Some(RequestedGrammar { param, grammar }) = &options.grammar
        {
            match (grammar, &tool_choice) {
                (_, ToolChoice::Required | ToolChoice::Named(_)) => {
                    return Err(ApiError::invalid(
                        param,
                        "not together with a `tool_choice` that forces a call",
                    ));
                }
                // An answer of the schema, or a call.
                (Grammar::JsonSchema(_), _) => {}
                _ => {
                    let message =
                        "not together with tools, but for a JSON schema; send `tool_choice: \"none\"`";
                    return Err(ApiError::invalid(param, message));
                }
            }
        }
        let parallel_tool_calls = fields.optional("parallel_tool_calls", "true or false")?.unwrap_or(true);
        Ok(Self { messages, inputs, tool_choice, parallel_tool_calls, options })
    }
}

/// The part of a request that makes its prompt.
#[derive(Clone, Debug)]
pub(in crate::http) struct ConversationRequest {
    pub(in crate::http) messages: Vec<Message>,
    pub(in crate::http) inputs: ChatInputs,
    pub(in crate::http) tool_choice: ToolChoice,
}

impl ConversationRequest {
    pub(in crate::http) fn parse(fields: &Fields<'_>, app: &App, served: &Served) -> Result<Self, ApiError> {
        let limits = &app.config.limits;
        let tokenizer = served.text.tokenizer().ok_or_else(|| ApiError::no_tokenizer("messages"))?;
        let tools = tools::parse(fields, limits)?;
        let tool_choice = tools::parse_choice(fields, tools.as_deref())?;
        let tools = tools.filter(|_| tool_choice != ToolChoice::None);
        let template = tokenizer
            .chat_template_for(tools.is_some())
            .map_err(|error| ApiError::of_text("messages", error.into()))?;
        let documents: Option<Vec<Map<String, Value>>> =
            fields.optional("documents", "an array of objects")?;
        let documents = documents.filter(|documents| !documents.is_empty());
        if documents.is_some() && !template.contains("documents") {
            return Err(ApiError::unsupported("documents", ": this model's chat template takes none"));
        }
        let inputs = ChatInputs {
            tools,
            documents: documents.map(|documents| documents.into_iter().map(Value::Object).collect()),
            end: parse_end(fields)?,
            variables: parse_variables(fields, template)?,
            ..ChatInputs::default()
        };
        let messages = parse_messages(fields, limits.max_messages, template)?;
        Ok(Self { messages, inputs, tool_choice })
    }
}

/// OpenAI's newer name goes before the older one.
fn max_tokens_field(fields: &Fields<'_>) -> Result<&'static str, ApiError> {
    const NAMES: [&str; 2] = ["max_completion_tokens", "max_tokens"];
    match NAMES.map(|name| fields.raw(name)) {
        [Some(new), Some(old)] if new != old => {
            Err(ApiError::invalid("max_tokens", "not together with another max_completion_tokens"))
        }
        [None, Some(_)] => Ok("max_tokens"),
        _ => Ok("max_completion_tokens"),
    }
}

fn parse_logprobs(fields: &Fields<'_>, limit: usize) -> Result<Option<usize>, ApiError> {
    let wanted = fields.flag("logprobs")?;
    let top = fields.count("top_logprobs", 0, limit)?;
    match (wanted, top) {
        (false, Some(1..)) => Err(ApiError::invalid("top_logprobs", "only allowed with `logprobs: true`")),
        (false, _) => Ok(None),
        (true, top) => Ok(Some(top.unwrap_or(0))),
    }
}

/// vLLM's two fields, of which the second switches the first off.
fn parse_end(fields: &Fields<'_>) -> Result<ChatEnd, ApiError> {
    const WANTED: &str = "true or false";
    let prompt: Option<bool> = fields.optional("add_generation_prompt", WANTED)?;
    let continues = fields.flag("continue_final_message")?;
    match (continues, prompt) {
        (true, Some(true)) => {
            Err(ApiError::invalid("continue_final_message", "not together with add_generation_prompt"))
        }
        (true, _) => Ok(ChatEnd::Continued),
        (false, Some(false)) => Ok(ChatEnd::Closed),
        (false, _) => Ok(ChatEnd::GenerationPrompt),
    }
}

/// Most variables for a template.
const MAX_VARIABLES: usize = 64;

/// Most bytes of them.
const MAX_VARIABLES_BYTES: usize = 16 << 10;

fn parse_variables(fields: &Fields<'_>, template: &str) -> Result<Map<String, Value>, ApiError> {
    const NAME: &str = "chat_template_kwargs";
    fields.check_bytes(NAME, MAX_VARIABLES_BYTES)?;
    let mut variables: Map<String, Value> = fields.optional(NAME, "an object")?.unwrap_or_default();
    if variables.len() > MAX_VARIABLES {
        return Err(ApiError::invalid(
            NAME,
            format_args!("{} entries, at most {MAX_VARIABLES} are allowed", variables.len()),
        ));
    }
    let fixed = |name: &&String| {
        RESERVED.contains(&name.as_str()) || matches!(name.as_str(), "chat_template" | "tokenize")
    };
    if let Some(name) = variables.keys().find(fixed) {
        return Err(ApiError::invalid(NAME, format_args!("`{name}` cannot be set")));
    }
    const EFFORT: &str = "reasoning_effort";
    if let Some(effort) = fields.optional::<String>(EFFORT, "a string")? {
        if !template.contains(EFFORT) {
            return Err(ApiError::unsupported(EFFORT, ": this model's chat template takes none"));
        }
        variables.entry(EFFORT).or_insert(effort.into());
    }
    Ok(variables)
}

fn parse_messages(fields: &Fields<'_>, limit: usize, template: &str) -> Result<Vec<Message>, ApiError> {
    const NAME: &str = "messages";
    let values: Vec<Value> = fields.required(NAME, "an array of messages")?;
    if values.is_empty() {
        return Err(ApiError::invalid(NAME, "empty, send at least one message"));
    }
    if values.len() > limit {
        return Err(ApiError::invalid(
            NAME,
            format_args!("{} messages, at most {limit} are allowed", values.len()),
        ));
    }
    values.iter().enumerate().map(|(at, value)| parse_message(at, value, template)).collect()
}

fn parse_message(at: usize, value: &Value, template: &str) -> Result<Message, ApiError> {
    let invalid = |field: &str, problem: &dyn std::fmt::Display| {
        let dot = if field.is_empty() { "" } else { "." };
        ApiError::invalid(&format!("messages.{at}{dot}{field}"), problem)
    };
    let mut message = Message::from_json(value).map_err(|error| invalid(&error.field, &error.problem))?;
    if !ROLES.contains(&message.role.as_str()) {
        let role: String = message.role.chars().take(40).collect();
        return Err(invalid("role", &format_args!("expected one of {}, got {role:?}", ROLES.join(", "))));
    }
    if message.content.is_none() && message.tool_calls.is_empty() {
        match message.role.as_str() {
            // Some clients repeat an empty answer in this way.
            "assistant" | "tool" => message.content = Some(Content::Text(String::new())),
            _ => return Err(invalid("content", &"missing, expected a string or an array of parts")),
        }
    }
    if !message.tool_calls.is_empty() && message.role != "assistant" {
        return Err(invalid("tool_calls", &"only the assistant calls tools"));
    }
    // OpenAI's newer name for the same role.
    if message.role == "developer" && !template.contains("developer") {
        message.role = "system".to_owned();
    }
    Ok(message)
}
