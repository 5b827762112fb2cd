//! A call that a model must make: how its answer begins, and the JSON schema of the rest.

use serde_json::{Map, Value, json};

use super::ToolFormat;

/// An answer that is a call.
#[derive(Clone, Debug, PartialEq)]
pub struct ForcedCall {
    /// Ends the prompt, as the template's own text, and begins the answer for a [`ReplyParser`](super::ReplyParser).
    pub opening: &'static str,
    /// Schema of what follows.
    pub schema: Value,
    /// What ends one of several calls that are not written as one list.
    pub closing: Option<&'static str>,
}

/// Whose arguments are held to the schema of their tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldTools {
    /// Those of all tools.
    All,
    /// Those of the tools that say `strict: true`; others take any object.
    Strict,
}

/// Whether any of `tools` says `strict: true`.
pub fn any_strict(tools: &[Value]) -> bool {
    tools.iter().any(|tool| tool["function"]["strict"] == true)
}

/// What is wrong with a list of tools.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}{problem}")]
pub struct ToolsError {
    /// Path of the field within the list, with a colon and a blank; empty if it is the list itself.
    field: String,
    problem: String,
}

impl ToolsError {
    fn new(at: usize, field: &str, problem: impl Into<String>) -> Self {
        Self { field: format!("{at}{field}: "), problem: problem.into() }
    }
}

impl ForcedCall {
    /// A call of one of the functions in `tools`, of `named` if given, with arguments as `held` says. Where a model writes all calls at once and `several`
    /// is set, there may be more than one.
    ///
    /// # Errors
    /// If there is no such function.
    pub fn new(
        format: Option<ToolFormat>,
        tools: &[Value],
        named: Option<&str>,
        several: bool,
        held: HeldTools,
    ) -> Result<Self, ToolsError> {
        let functions = check_tools(tools)?;
        let wanted = |name: &str| named.is_none_or(|named| named == name);
        let chosen: Vec<(usize, Function<'_>)> =
            functions.into_iter().enumerate().filter(|(_, function)| wanted(function.name)).collect();
        if chosen.is_empty() {
            let problem = match named {
                Some(named) => format!("no tool has the name {named:?}"),
                None => "there is no tool to call".to_owned(),
            };
            return Err(ToolsError { field: String::new(), problem });
        }
        let arguments = if format == Some(ToolFormat::Llama) { "parameters" } else { "arguments" };
        let mut definitions = Map::new();
        let calls: Vec<Value> = chosen
            .into_iter()
            .map(|(at, function)| {
                let place = format!("tool{at}");
                let call = json!({
                    "type": "object",
                    "properties": {"name": {"const": function.name}, arguments: {"$ref": format!("#/$defs/{place}")}},
                    "required": ["name", arguments],
                    "additionalProperties": false,
                });
                let is_held = held == HeldTools::All || function.strict;
                let parameters = if is_held { function.parameters() } else { json!({"type": "object"}) };
                definitions.insert(place.clone(), moved(&parameters, &format!("#/$defs/{place}")));
                call
            })
            .collect();
        let call = match <[Value; 1]>::try_from(calls) {
            Ok([call]) => call,
            Err(calls) => json!({"anyOf": calls}),
        };
        let mut schema = match format {
            Some(ToolFormat::Mistral) if several => json!({"type": "array", "items": call, "minItems": 1}),
            Some(ToolFormat::Mistral) => {
                json!({"type": "array", "items": call, "minItems": 1, "maxItems": 1})
            }
            _ => call,
        };
        schema["$defs"] = Value::Object(definitions);
        let opening = match format {
            Some(ToolFormat::Mistral) => "[TOOL_CALLS]",
            Some(ToolFormat::Llama) => "",
            _ => "<tool_call>\n",
        };
        let closing = opening.starts_with('<').then_some("</tool_call>");
        Ok(Self { opening, schema, closing })
    }
}

/// A function that may be called.
#[derive(Clone, Copy, Debug)]
struct Function<'a> {
    name: &'a str,
    parameters: Option<&'a Value>,
    strict: bool,
}

impl Function<'_> {
    fn parameters(&self) -> Value {
        self.parameters.cloned().unwrap_or_else(|| json!({"type": "object", "properties": {}}))
    }
}

/// Longest name of a function, as in OpenAI's API.
const LONGEST_NAME: usize = 64;

fn check_tools(tools: &[Value]) -> Result<Vec<Function<'_>>, ToolsError> {
    let mut functions: Vec<Function<'_>> = Vec::with_capacity(tools.len());
    for (at, tool) in tools.iter().enumerate() {
        match tool.get("type").and_then(Value::as_str) {
            Some("function") => {}
            Some(kind) => {
                let kind: String = kind.chars().take(40).collect();
                return Err(ToolsError::new(
                    at,
                    ".type",
                    format!("`{kind}` is not supported, send `function`"),
                ));
            }
            None => return Err(ToolsError::new(at, "", "expected an object with `type` and `function`")),
        }
        let function = tool.get("function").and_then(Value::as_object);
        let function =
            function.ok_or_else(|| ToolsError::new(at, ".function", "expected an object with `name`"))?;
        let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() || name.len() > LONGEST_NAME {
            let problem = format!("expected a string of 1 to {LONGEST_NAME} bytes");
            return Err(ToolsError::new(at, ".function.name", problem));
        }
        let parameters = function.get("parameters").filter(|parameters| !parameters.is_null());
        if parameters.is_some_and(|parameters| !parameters.is_object()) {
            return Err(ToolsError::new(at, ".function.parameters", "expected a JSON schema, an object"));
        }
        if functions.iter().any(|before| before.name == name) {
            return Err(ToolsError::new(
                at,
                ".function.name",
                format!("{name:?} is the name of an earlier tool"),
            ));
        }
        let strict = function.get("strict").is_some_and(|strict| *strict == true);
        functions.push(Function { name, parameters, strict });
    }
    Ok(functions)
}

/// Checks that each of `tools` is a function with a name of its own, as in OpenAI's API.
///
/// # Errors
/// What is wrong with which.
pub fn check(tools: &[Value]) -> Result<(), ToolsError> {
    check_tools(tools).map(drop)
}

/// A schema for another place in a document: references to its own root go there.
fn moved(schema: &Value, to: &str) -> Value {
    match schema {
        Value::Array(items) => items.iter().map(|item| moved(item, to)).collect(),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                let value = match value {
                    Value::String(target) if key == "$ref" && target.starts_with('#') => {
                        format!("{to}{}", &target[1..]).into()
                    }
                    value => moved(value, to),
                };
                (key.clone(), value)
            };
            fields.iter().map(field).collect()
        }
        other => other.clone(),
    }
}
