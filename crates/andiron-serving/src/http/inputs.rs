//! Texts or token ids in a field of a request, one or several.

use andiron_pipelines::TextInput;

use super::fields::Fields;
use super::openapi::schema_of;
use super::text::{self, Overlong};
use super::{ApiError, App};
use crate::registry::Served;

const WANTED: &str =
    "a string, an array of strings, an array of token ids or an array of arrays of token ids";

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Inputs {
    /// In order.
    pub(super) inputs: Vec<TextInput>,
    /// Whether there is one, not in an array.
    pub(super) single: bool,
}

impl Inputs {
    /// The texts, or their ids, in the field `name`: at least one.
    pub(super) fn parse(
        fields: &Fields<'_>,
        name: &'static str,
        overlong: Overlong,
        app: &App,
        served: &Served,
    ) -> Result<Self, ApiError> {
        let refuse = || fields.unexpected(name, WANTED);
        fields.one_of(
            name,
            WANTED,
            &[
                schema_of::<String>,
                schema_of::<Vec<String>>,
                schema_of::<Vec<u32>>,
                schema_of::<Vec<Vec<u32>>>,
            ],
        );
        let raw = fields
            .raw(name)
            .ok_or_else(|| ApiError::invalid(name, format_args!("missing, expected {WANTED}")))?;
        let first = raw.bytes().filter(|byte| !byte.is_ascii_whitespace()).take(2).collect::<Vec<u8>>();
        let (texts, ids, single): (Vec<String>, Vec<Vec<u32>>, bool) = match first.as_slice() {
            [b'"', ..] => (vec![serde_json::from_str(raw).map_err(|_| refuse())?], Vec::new(), true),
            [b'[', b'"'] => (serde_json::from_str(raw).map_err(|_| refuse())?, Vec::new(), false),
            [b'[', b'['] => (Vec::new(), serde_json::from_str(raw).map_err(|_| refuse())?, false),
            [b'[', b']'] => return Err(ApiError::invalid(name, format_args!("empty, expected {WANTED}"))),
            [b'[', _] => (Vec::new(), vec![serde_json::from_str(raw).map_err(|_| refuse())?], true),
            _ => return Err(refuse()),
        };
        check_count(name, texts.len() + ids.len(), app.config.limits.max_inputs)?;
        let texts = texts.into_iter().map(|text| text_input(name, text, overlong, served));
        let ids = ids.into_iter().map(|ids| Ok(TextInput::Ids { ids, type_ids: None }));
        Ok(Self { inputs: texts.chain(ids).collect::<Result<_, _>>()?, single })
    }
}

/// Texts in a field.
pub(super) struct Texts {
    /// In order.
    pub(super) texts: Vec<String>,
    /// Whether there is one, not in an array.
    pub(super) single: bool,
}

/// The texts in the field `name`: at least one.
pub(super) fn texts(fields: &Fields<'_>, name: &str) -> Result<Texts, ApiError> {
    const WANTED: &str = "a string or an array of strings";
    fields.one_of(name, WANTED, &[schema_of::<String>, schema_of::<Vec<String>>]);
    let single = fields.raw(name).is_some_and(|raw| raw.starts_with('"'));
    let texts: Vec<String> = match single {
        true => vec![fields.required(name, WANTED)?],
        false => fields.required(name, WANTED)?,
    };
    match texts.first() {
        None => Err(ApiError::invalid(name, format_args!("empty, expected {WANTED}"))),
        Some(text) if single && text.is_empty() => Err(ApiError::invalid(name, "empty, send a text")),
        Some(_) => Ok(Texts { texts, single }),
    }
}

/// Refuses more than `most` items in the field `name`.
pub(super) fn check_count(name: &str, count: usize, most: usize) -> Result<(), ApiError> {
    match count <= most {
        true => Ok(()),
        false => Err(ApiError::invalid(name, format_args!("{count} items, at most {most} are allowed"))),
    }
}

/// A text of the field `name` for a model with a tokenizer, of no more bytes than its context can hold.
pub(super) fn text_input(
    name: &'static str,
    text: String,
    overlong: Overlong,
    served: &Served,
) -> Result<TextInput, ApiError> {
    Ok(TextInput::Text { text: bounded(name, text, overlong, served)?, pair: None })
}

/// The same as a string.
pub(super) fn bounded(
    name: &'static str,
    text: String,
    overlong: Overlong,
    served: &Served,
) -> Result<String, ApiError> {
    if served.text.tokenizer().is_none() {
        return Err(ApiError::no_tokenizer(name));
    }
    text::bounded(name, &served.text, text, served.sizes().context_len, overlong)
}
