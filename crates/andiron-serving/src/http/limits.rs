//! Limits on connections and requests, checked before anything is allocated.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;

use super::work::{BodyMemory, Reserved};
use super::{ApiError, App, Phase};

/// Most that a limit can be: what is counted stays far from where it would overflow.
const MOST: usize = 1 << 40;

/// Declares [`Limits`] and its settings from one row for each limit.
macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident $(from $least:literal)? = $default:expr;)+) => {
        /// Limits on connections and requests.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            $($(#[doc = $doc])+ pub $name: limits!(@type $kind),)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: limits!(@value $kind $default),)+ }
            }
        }

        impl Limits {
            /// Every limit as a setting, in the order of the fields.
            pub fn settings() -> Vec<LimitSetting> {
                vec![$(LimitSetting {
                    name: stringify!($name),
                    help: concat!($($doc),+).trim(),
                    is_time: limits!(@is_time $kind),
                    show: |limits| limits!(@show $kind limits.$name),
                    set: |limits, text| {
                        limits.$name = limits!(@read $kind $($least)?, text)?;
                        Ok(())
                    },
                }),+]
            }
        }
    };
    (@type count) => { usize };
    (@type seconds) => { Duration };
    (@value count $default:expr) => { $default };
    (@value seconds $default:expr) => { Duration::from_secs($default) };
    (@is_time count) => { false };
    (@is_time seconds) => { true };
    (@show count $value:expr) => { $value.to_string() };
    (@show seconds $value:expr) => { $value.as_secs_f64().to_string() };
    (@read count $least:literal, $text:expr) => { read_count($text, $least) };
    (@read seconds , $text:expr) => { read_seconds($text) };
}

limits! {
    /// Open connections; further ones wait to be accepted.
    max_connections: count from 1 = 1024;
    /// Open connections of one address without a request yet; one more closes the oldest of them. All addresses together may have
    /// half of `max_connections`.
    max_silent_connections: count from 0 = 64;
    /// Header fields in a request; more give 431.
    max_headers: count from 1 = 64;
    /// Bytes of a request's head, at least 8192; more give 431.
    max_header_bytes: count from 8192 = 16 << 10;
    /// Time for a request's head to arrive, and for an idle connection to send the next one.
    header_timeout: seconds = 10;
    /// Bytes of a request's body; more give 413.
    max_body_bytes: count from 1 = 2 << 20;
    /// Total bytes of bodies being read or waiting for the tokenizer, not counting those below 32 KiB; beyond that 429.
    max_body_bytes_together: count from 1 = 64 << 20;
    /// Time for a request's body to arrive.
    body_timeout: seconds = 30;
    /// Time in which a client must read something of what is sent to it.
    write_timeout: seconds = 30;
    /// Time for a request as a whole.
    request_timeout: seconds = 600;
    /// Completions of one prompt (`n`).
    max_n: count from 1 = 8;
    /// Generations of one request: prompts times `n`.
    max_choices: count from 1 = 128;
    /// Tokens generated for one choice, besides the bound that the model's context sets.
    max_tokens: count from 1 = 32 << 10;
    /// Alternatives reported with each token (`logprobs`).
    max_logprobs: count from 0 = 20;
    /// Log-probabilities in one response: choices times tokens times alternatives.
    max_logprob_entries: count from 1 = 2 << 20;
    /// Messages of a conversation.
    max_messages: count from 1 = 2048;
    /// Tools of a request.
    max_tools: count from 0 = 128;
    /// Bytes of the tools of a request.
    max_tools_bytes: count from 1 = 256 << 10;
    /// Stop strings.
    max_stops: count from 0 = 4;
    /// Bytes of one stop string.
    max_stop_bytes: count from 1 = 256;
    /// Stop token ids.
    max_stop_ids: count from 0 = 128;
    /// Entries of `logit_bias`.
    max_logit_bias: count from 0 = 1024;
    /// Texts of one request to embed or to label.
    max_inputs: count from 1 = 2048;
    /// Documents of one request to rank.
    max_documents: count from 1 = 1000;
    /// Bytes of the context of a question.
    max_context_bytes: count from 1 = 256 << 10;
    /// Sources of one request to translate or to summarize.
    max_sources: count from 1 = 64;
    /// Alternatives to a translation.
    max_alternatives: count from 0 = 7;
    /// Candidates for a mask.
    max_candidates: count from 1 = 100;
    /// Tokens of a text whose attention is shown: a layer has their square for each head.
    max_attention_tokens: count from 1 = 128;
    /// Age of the engine's heartbeat from which `/health` reports it dead.
    max_heartbeat_age: seconds = 10;
}

/// One of the [`Limits`] as a setting of a program.
#[derive(Clone, Copy, Debug)]
pub struct LimitSetting {
    /// Name of its field.
    pub name: &'static str,
    /// What it bounds.
    pub help: &'static str,
    /// Whether it is a time, in seconds, and not a count.
    pub is_time: bool,
    show: fn(&Limits) -> String,
    set: fn(&mut Limits, &str) -> Result<(), LimitError>,
}

impl LimitSetting {
    /// Its value in `limits`, as [`LimitSetting::set`] reads it.
    pub fn value(&self, limits: &Limits) -> String {
        (self.show)(limits)
    }

    /// Sets it in `limits`.
    ///
    /// # Errors
    /// [`LimitError`].
    pub fn set(&self, limits: &mut Limits, text: &str) -> Result<(), LimitError> {
        (self.set)(limits, text)
    }
}

/// A value that a limit cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// It is no count, or too small or too large.
    #[error("{text:?} is no whole number from {least} to {MOST}")]
    Count {
        /// What was given.
        text: String,
        /// Least value of the limit.
        least: usize,
    },
    /// It is no positive time, or absurdly long.
    #[error("{text:?} is no number of seconds above 0 and up to a year")]
    Seconds {
        /// What was given.
        text: String,
    },
}

fn read_count(text: &str, least: usize) -> Result<usize, LimitError> {
    let count = text.parse().ok().filter(|count| (least..=MOST).contains(count));
    count.ok_or_else(|| LimitError::Count { text: text.to_owned(), least })
}

fn read_seconds(text: &str) -> Result<Duration, LimitError> {
    const YEAR: f64 = 366.0 * 86400.0;
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0 && *seconds <= YEAR);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| LimitError::Seconds { text: text.to_owned() })
}

/// The whole body of a JSON request.
///
/// The content type is required because a web page of another origin cannot send it without a CORS preflight, so it cannot use a
/// local server.
///
/// Dropping the second value releases the body's memory budget. A service that shuts down does not wait for bodies.
pub(super) async fn read_json(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Reserved), ApiError> {
    match is_of_type(headers, "application/json") {
        true => read_whole(app, headers, body).await,
        false => Err(ApiError::not_json()),
    }
}

/// Whether a body has the media type `wanted`.
pub(super) fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
}

/// The whole body of a request, of whatever type.
pub(super) async fn read_whole(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Reserved), ApiError> {
    let limits = &app.config.limits;
    tokio::select! {
        biased;
        read = read(limits.max_body_bytes, &app.bodies, headers, body) => read,
        () = tokio::time::sleep(limits.body_timeout) => Err(ApiError::body_too_slow()),
        () = app.shutdown.reached(Phase::Draining) => Err(ApiError::shutting_down()),
    }
}

async fn read(
    limit: usize,
    memory: &BodyMemory,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Reserved), ApiError> {
    let mut reserved = Reserved::default();
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let too_long = length.is_some_and(|length| length > limit as u64);
    // A client that asks first is told at once, and one that claims an absurd length is not worth waiting for.
    let absurd = length.is_some_and(|length| length > 8 * limit as u64);
    if too_long && (absurd || headers.contains_key(header::EXPECT)) {
        return Err(ApiError::body_too_large(limit));
    }
    let mut chunks = body.into_data_stream();
    let mut whole = Vec::with_capacity(length.unwrap_or(0).min(limit as u64).min(64 << 10) as usize);
    let mut seen = 0usize;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::malformed("the request body ended early"))?;
        seen = seen.saturating_add(chunk.len());
        if seen <= limit {
            memory.grow(&mut reserved, seen)?;
            whole.extend_from_slice(&chunk);
        } else {
            // Read on a little without keeping it: closing a socket with unread bytes would throw the answer away.
            whole = Vec::new();
            reserved = Reserved::default();
            if seen > 8 * limit {
                break;
            }
        }
    }
    match seen <= limit {
        true => Ok((whole.into(), reserved)),
        false => Err(ApiError::body_too_large(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_a_setting_that_reads_what_it_shows() {
        let mut limits = Limits::default();
        for setting in Limits::settings() {
            let shown = setting.value(&Limits::default());
            assert_eq!(setting.set(&mut limits, &shown), Ok(()), "{}", setting.name);
            assert!(
                !setting.help.is_empty() && !setting.help.contains("  "),
                "{}: {:?}",
                setting.name,
                setting.help
            );
            for bad in ["", "-1", "many", "1e30", "NaN", "18446744073709551616"] {
                assert!(setting.set(&mut limits, bad).is_err(), "{} took {bad:?}", setting.name);
            }
        }
        assert_eq!(limits, Limits::default());
        let named = |name| Limits::settings().into_iter().find(|setting| setting.name == name);
        let timeout = named("header_timeout").unwrap_or_else(|| panic!("it is there"));
        assert_eq!(timeout.set(&mut limits, "0.5"), Ok(()));
        assert_eq!(limits.header_timeout, Duration::from_millis(500));
        assert_eq!(
            timeout.set(&mut limits, "0").expect_err("refused").to_string(),
            "\"0\" is no number of seconds above 0 and up to a year"
        );
        let choices = named("max_n").unwrap_or_else(|| panic!("it is there"));
        assert_eq!(
            choices.set(&mut limits, "0").expect_err("refused").to_string(),
            "\"0\" is no whole number from 1 to 1099511627776"
        );
    }
}
