//! Constrained output, in the fields of OpenAI (`response_format`) and vLLM (`structured_outputs`, `guided_…`).

use andiron_models::generate::Grammar;
use serde_json::{Map, Value};

use crate::http::ApiError;
use crate::http::fields::Fields;

/// A grammar, and the field it came from.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::http) struct RequestedGrammar {
    pub(in crate::http) param: &'static str,
    pub(in crate::http) grammar: Grammar,
}

/// The grammar of a request.
pub(super) fn parse(fields: &Fields<'_>) -> Result<Option<RequestedGrammar>, ApiError> {
    let asked = [
        ("response_format", response_format(fields)?),
        ("structured_outputs", structured_outputs(fields)?),
        (
            "guided_json",
            fields
                .optional::<Value>("guided_json", SCHEMA)?
                .map(|json| schema("guided_json", json))
                .transpose()?,
        ),
        ("guided_regex", fields.optional("guided_regex", "a string")?.map(Grammar::Regex)),
        ("guided_choice", fields.optional("guided_choice", STRINGS)?.map(Grammar::Choice)),
    ];
    let mut asked =
        asked.into_iter().filter_map(|(param, grammar)| Some(RequestedGrammar { param, grammar: grammar? }));
    match (asked.next(), asked.next()) {
        (asked, None) => Ok(asked),
        (Some(first), Some(second)) => {
            Err(ApiError::invalid(second.param, format_args!("not together with {}", first.param)))
        }
        (None, Some(_)) => unreachable!("the first comes first"),
    }
}

const SCHEMA: &str = "a JSON schema";
const STRINGS: &str = "an array of strings";

/// A JSON schema, or one in a string, which vLLM accepts too.
fn schema(param: &'static str, json: Value) -> Result<Grammar, ApiError> {
    let json = match json {
        Value::String(text) => serde_json::from_str(&text).map_err(|_| {
            ApiError::invalid(param, format_args!("a string that is no JSON, expected {SCHEMA}"))
        })?,
        json => json,
    };
    match json {
        Value::Object(_) | Value::Bool(_) => Ok(Grammar::JsonSchema(json)),
        _ => Err(ApiError::invalid(param, format_args!("not an object, expected {SCHEMA}"))),
    }
}

fn response_format(fields: &Fields<'_>) -> Result<Option<Grammar>, ApiError> {
    const NAME: &str = "response_format";
    const WANTED: &str =
        "an object with `type`: `text`, `json_object`, or `json_schema` with `json_schema.schema`";
    let Some(mut format) = fields.optional::<Map<String, Value>>(NAME, WANTED)? else { return Ok(None) };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Grammar::json_object())),
        Some("json_schema") => {
            let wrapped = format.get_mut("json_schema").and_then(|wrapper| wrapper.get_mut("schema"));
            let json = wrapped.ok_or_else(|| fields.unexpected(NAME, WANTED))?.take();
            schema(NAME, json).map(Some)
        }
        _ => Err(fields.unexpected(NAME, WANTED)),
    }
}

fn structured_outputs(fields: &Fields<'_>) -> Result<Option<Grammar>, ApiError> {
    const NAME: &str = "structured_outputs";
    const WANTED: &str = "an object with one of `json`, `regex` and `choice`";
    let Some(mut wanted) = fields.optional::<Map<String, Value>>(NAME, WANTED)? else { return Ok(None) };
    wanted.retain(|_, value| !value.is_null());
    let mut entries = wanted.into_iter();
    let (Some((key, value)), None) = (entries.next(), entries.next()) else {
        return Err(fields.unexpected(NAME, WANTED));
    };
    match (key.as_str(), value) {
        ("json", json) => schema(NAME, json).map(Some),
        ("regex", Value::String(pattern)) => Ok(Some(Grammar::Regex(pattern))),
        ("choice", list) => match serde_json::from_value(list) {
            Ok(texts) => Ok(Some(Grammar::Choice(texts))),
            Err(_) => Err(fields.unexpected(NAME, WANTED)),
        },
        _ => Err(fields.unexpected(NAME, WANTED)),
    }
}
