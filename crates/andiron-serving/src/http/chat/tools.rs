//! The tools of a request.

use andiron_data::reply::check_tools;
use serde_json::Value;

use super::request::ToolChoice;
use crate::http::fields::Fields;
use crate::http::{ApiError, Limits};

/// The tools, if there are any.
pub(super) fn parse(fields: &Fields<'_>, limits: &Limits) -> Result<Option<Vec<Value>>, ApiError> {
    let limit = limits.max_tools;
    fields.check_bytes("tools", limits.max_tools_bytes)?;
    let Some(tools) = fields.optional::<Vec<Value>>("tools", "an array of tools")? else { return Ok(None) };
    if tools.len() > limit {
        return Err(ApiError::invalid(
            "tools",
            format_args!("{} tools, at most {limit} are allowed", tools.len()),
        ));
    }
    check_tools(&tools).map_err(|error| ApiError::invalid("tools", error))?;
    Ok(Some(tools).filter(|tools| !tools.is_empty()))
}

/// Which of them to call: without a field, as the model likes.
pub(super) fn parse_choice(fields: &Fields<'_>, tools: Option<&[Value]>) -> Result<ToolChoice, ApiError> {
    const NAME: &str = "tool_choice";
    const WANTED: &str =
        "`none`, `auto`, `required`, or an object with `type: \"function\"` and `function.name`";
    let Some(value) = fields.optional::<Value>(NAME, WANTED)? else { return Ok(ToolChoice::Auto) };
    let choice = match value.as_str() {
        Some("none") => ToolChoice::None,
        Some("auto") => ToolChoice::Auto,
        Some("required") => ToolChoice::Required,
        Some(_) => return Err(fields.unexpected(NAME, WANTED)),
        None => {
            let is_function = value.get("type").is_none_or(|kind| kind == "function");
            let name =
                value.get("function").and_then(|function| function.get("name")).and_then(Value::as_str);
            let name = name.filter(|_| is_function).ok_or_else(|| fields.unexpected(NAME, WANTED))?;
            ToolChoice::Named(name.to_owned())
        }
    };
    match choice {
        ToolChoice::Required | ToolChoice::Named(_) if tools.is_none() => {
            Err(ApiError::invalid(NAME, "only allowed with `tools`"))
        }
        choice => Ok(choice),
    }
}
