//! Options of a generation, checked field by field; the same for all routes.

use std::collections::BTreeMap;

use andiron_models::generate::SamplingParams;
use serde_json::Value;

use super::grammar::{self, RequestedGrammar};
use crate::http::fields::Fields;
use crate::http::openapi::schema_of;
use crate::http::{ApiError, App};
use crate::registry::Served;

/// Options of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::http) struct StreamOptions {
    pub(in crate::http) include_usage: bool,
}

/// What routes call their prompt and the length of an answer, and how long it is by default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::http) struct Bounds {
    /// The field of the prompt.
    pub(in crate::http) prompt: &'static str,
    /// The field of the number of tokens.
    pub(in crate::http) max_tokens: &'static str,
    /// The smallest number of tokens.
    pub(in crate::http) least: usize,
    /// The number of tokens without the field; `None` is the rest of the context.
    pub(in crate::http) usual: Option<usize>,
}

/// Checked options.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::http) struct GenerationOptions {
    pub(in crate::http) bounds: Bounds,
    pub(in crate::http) max_tokens: Option<usize>,
    pub(in crate::http) min_tokens: usize,
    pub(in crate::http) sampling: SamplingParams,
    pub(in crate::http) seed: Option<u64>,
    /// Choices of each prompt.
    pub(in crate::http) n: usize,
    pub(in crate::http) stream: Option<StreamOptions>,
    /// Alternatives reported with each token; `None` reports no log-probabilities.
    pub(in crate::http) logprobs: Option<usize>,
    /// The grammar that constrains the output.
    pub(in crate::http) grammar: Option<RequestedGrammar>,
    /// Stop strings.
    pub(in crate::http) stops: Vec<String>,
    /// Ids that end the text and are not part of it.
    pub(in crate::http) stop_ids: Vec<u32>,
}

impl GenerationOptions {
    /// The options in `fields`, but for `logprobs`, which routes write differently.
    pub(in crate::http) fn parse(
        fields: &Fields<'_>,
        app: &App,
        served: &Served,
        bounds: Bounds,
    ) -> Result<Self, ApiError> {
        let limits = &app.config.limits;
        let max_tokens = fields.count(bounds.max_tokens, bounds.least, limits.max_tokens)?;
        let min_tokens = fields.count("min_tokens", 0, limits.max_tokens)?.unwrap_or(0);
        if min_tokens > max_tokens.unwrap_or(usize::MAX) {
            return Err(ApiError::invalid("min_tokens", format_args!("larger than {}", bounds.max_tokens)));
        }
        Ok(Self {
            bounds,
            max_tokens,
            min_tokens,
            sampling: parse_sampling(fields, app, served)?,
            // Any 64 bits are a seed; negative ones are as good as others.
            seed: match fields.raw("seed").is_some_and(|raw| !raw.starts_with('-')) {
                true => fields.optional("seed", "an integer of 64 bits")?,
                false => fields.optional::<i64>("seed", "an integer of 64 bits")?.map(|seed| seed as u64),
            },
            n: fields.count("n", 1, limits.max_n)?.unwrap_or(1),
            stream: parse_stream(fields)?,
            logprobs: None,
            grammar: grammar::parse(fields)?,
            stops: parse_stops(fields, app, served)?,
            stop_ids: parse_stop_ids(fields, app, served)?,
        })
    }
}

/// Sampling parameters of the request, else the server's defaults.
fn parse_sampling(fields: &Fields<'_>, app: &App, served: &Served) -> Result<SamplingParams, ApiError> {
    let usual = &served.info.sampling;
    // vLLM and llama.cpp write "off" as -1 or 0.
    let top_k = fields.integer("top_k", -1..=i64::from(i32::MAX))?;
    let top_n_sigma = fields.number("top_n_sigma", -1.0..=100.0)?.map(|sigma| sigma.max(0.0));
    let presence_penalty = fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(usual.presence_penalty);
    let frequency_penalty =
        fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(usual.frequency_penalty);
    let penalties = presence_penalty != 0.0 || frequency_penalty != 0.0;
    Ok(SamplingParams {
        logit_bias: parse_logit_bias(fields, app, served)?,
        repetition_penalty: parse_repetition(fields, penalties)?.unwrap_or(usual.repetition_penalty),
        presence_penalty,
        frequency_penalty,
        no_repeat_ngram_size: fields
            .count("no_repeat_ngram_size", 0, served.sizes().context_len)?
            .unwrap_or(usual.no_repeat_ngram_size),
        top_n_sigma: top_n_sigma.unwrap_or(usual.top_n_sigma),
        temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(usual.temperature),
        top_k: top_k.map_or(usual.top_k, |k| usize::try_from(k).unwrap_or(0)),
        top_p: fields.number("top_p", 0.0..=1.0)?.unwrap_or(usual.top_p),
        min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(usual.min_p),
        typical_p: fields.number("typical_p", 0.0..=1.0)?.unwrap_or(usual.typical_p),
        ..usual.clone()
    })
}

/// `repetition_penalty`, or llama.cpp's `repeat_penalty`, which is the same over the last `repeat_last_n` tokens, 64 unless it
/// says so. Here all tokens count, so the second needs `repeat_last_n: -1`, or 0, which switches it off.
fn parse_repetition(fields: &Fields<'_>, other_penalties: bool) -> Result<Option<f32>, ApiError> {
    const RANGE: std::ops::RangeInclusive<f64> = 0.01..=100.0;
    let penalty = fields.number("repetition_penalty", RANGE)?;
    let theirs = fields.number("repeat_penalty", RANGE)?.filter(|&penalty| penalty != 1.0);
    let window = fields.integer("repeat_last_n", -1..=i64::from(i32::MAX))?;
    match (theirs, window) {
        (Some(_), _) if penalty.is_some() => {
            Err(ApiError::invalid("repeat_penalty", "not together with repetition_penalty"))
        }
        (Some(theirs), Some(-1)) => Ok(Some(theirs)),
        (_, Some(0)) if !other_penalties => Ok(penalty),
        (Some(_), None) => Err(ApiError::unsupported(
            "repeat_penalty",
            " over the last 64 tokens, which it means without `repeat_last_n`; send `repeat_last_n: -1` for all tokens, or \
             `repetition_penalty`",
        )),
        (None, Some(window)) if window != -1 && other_penalties => {
            Err(ApiError::unsupported("repeat_last_n", " but for -1: penalties count all tokens"))
        }
        (Some(_), Some(_)) => {
            Err(ApiError::unsupported("repeat_last_n", " but for -1: penalties count all tokens"))
        }
        (None, _) => Ok(penalty),
    }
}

fn parse_logit_bias(fields: &Fields<'_>, app: &App, served: &Served) -> Result<Vec<(u32, f32)>, ApiError> {
    const WANTED: &str = "an object from token ids to numbers between -100 and 100";
    let bias: BTreeMap<String, f64> = fields.optional("logit_bias", WANTED)?.unwrap_or_default();
    let limit = app.config.limits.max_logit_bias;
    if bias.len() > limit {
        return Err(ApiError::invalid(
            "logit_bias",
            format_args!("{} entries, at most {limit} are allowed", bias.len()),
        ));
    }
    let entries = bias.into_iter().map(|(key, bias)| {
        let id = key.parse().ok().filter(|_| (-100.0..=100.0).contains(&bias));
        let id = id.ok_or_else(|| fields.unexpected("logit_bias", WANTED))?;
        check_id("logit_bias", id, served)?;
        Ok((id, bias as f32))
    });
    entries.collect()
}

/// The stop strings of the request, else those of the model's files.
fn parse_stops(fields: &Fields<'_>, app: &App, served: &Served) -> Result<Vec<String>, ApiError> {
    const WANTED: &str = "a string or an array of strings";
    let limits = &app.config.limits;
    fields.one_of("stop", WANTED, &[schema_of::<String>, schema_of::<Vec<String>>]);
    let given: Option<Vec<String>> = match fields.raw("stop") {
        Some(raw) if raw.starts_with('"') => fields.optional("stop", WANTED)?.map(|stop| vec![stop]),
        _ => fields.optional("stop", WANTED)?,
    };
    let Some(stops) = given else { return Ok(served.info.stop_strings.clone()) };
    if stops.len() > limits.max_stops {
        let message = format_args!("{} strings, at most {} are allowed", stops.len(), limits.max_stops);
        return Err(ApiError::invalid("stop", message));
    }
    if let Some(stop) = stops.iter().find(|stop| stop.is_empty() || stop.len() > limits.max_stop_bytes) {
        let message =
            format_args!("a string of {} bytes, expected 1 to {}", stop.len(), limits.max_stop_bytes);
        return Err(ApiError::invalid("stop", message));
    }
    match !stops.is_empty() && served.text.tokenizer().is_none() {
        true => Err(ApiError::no_tokenizer("stop")),
        false => Ok(stops),
    }
}

/// The ids that end a generation: the model's own, unless ignored, and the client's.
fn parse_stop_ids(fields: &Fields<'_>, app: &App, served: &Served) -> Result<Vec<u32>, ApiError> {
    let limit = app.config.limits.max_stop_ids;
    let mut ids: Vec<u32> = fields.optional("stop_token_ids", "an array of token ids")?.unwrap_or_default();
    if ids.len() > limit {
        return Err(ApiError::invalid(
            "stop_token_ids",
            format_args!("{} ids, at most {limit} are allowed", ids.len()),
        ));
    }
    ids.iter().try_for_each(|&id| check_id("stop_token_ids", id, served))?;
    if !fields.flag("ignore_eos")? {
        ids.extend(served.text.end_ids());
    }
    Ok(ids)
}

fn check_id(param: &str, id: u32, served: &Served) -> Result<(), ApiError> {
    let vocab_size = served.sizes().vocab_size;
    match (id as usize) < vocab_size {
        true => Ok(()),
        false => Err(ApiError::outside_vocabulary(param, id, vocab_size)),
    }
}

fn parse_stream(fields: &Fields<'_>) -> Result<Option<StreamOptions>, ApiError> {
    const WANTED: &str = "an object with `include_usage`";
    let streams = fields.flag("stream")?;
    let options: Option<BTreeMap<String, Value>> = fields.optional("stream_options", WANTED)?;
    if options.is_some() && !streams {
        return Err(ApiError::invalid("stream_options", "only allowed with `stream: true`"));
    }
    let include_usage = match options.as_ref().and_then(|options| options.get("include_usage")) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(include)) => *include,
        Some(_) => return Err(fields.unexpected("stream_options", WANTED)),
    };
    Ok(streams.then_some(StreamOptions { include_usage }))
}
