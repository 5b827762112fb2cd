//! Errors of the API: the only place that maps errors to status codes.

use andiron_data::tokenizer::TokenizerError;
use andiron_models::generate::{GenerateError, SamplingError};
use andiron_pipelines::{
    AnswerError, AttentionError, CompletionError, FillError, InputError, SourceError, TextError,
    TextStreamError,
};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::engine::{GenerationError, SubmitError};
use crate::registry::{Incapable, RegistryError};
use crate::runner::TaskError;

/// Characters of what is wrong with a grammar: such messages repeat the grammar.
const MAX_GRAMMAR_MESSAGE: usize = 400;

/// An error in OpenAI's format: a status, and a body
/// `{"error": {"message", "type", "param", "code"}}`.
///
/// OpenAI's clients retry 408, 409, 429 and 5xx, so mistakes of the user never get these.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
    retry_after_s: Option<u32>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), param: None, code: None, retry_after_s: None }
    }

    fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    fn param(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The same about the field `theirs`, if it is about `ours` or something in it.
    pub(super) fn renamed(mut self, ours: &str, theirs: &str) -> Self {
        let Some(rest) = self.param.as_deref().and_then(|param| param.strip_prefix(ours)) else {
            return self;
        };
        if !rest.is_empty() && !rest.starts_with('.') {
            return self;
        }
        self.param = Some(format!("{theirs}{rest}"));
        if let Some(rest) = self.message.strip_prefix(ours) {
            self.message = format!("{theirs}{rest}");
        }
        self
    }

    /// The message.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The field that it is about.
    pub(super) fn about(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// The machine-readable code.
    pub(super) fn code_name(&self) -> Option<&'static str> {
        self.code
    }

    /// Status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The value of the field `param` is invalid.
    pub(super) fn invalid(param: &str, message: impl std::fmt::Display) -> Self {
        let message = format!("{param}: {message}");
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
            .param(param)
            .code("invalid_value")
    }

    /// The field `param` has an id that the model does not have.
    pub(super) fn outside_vocabulary(param: &str, id: u32, vocab_size: usize) -> Self {
        let message = format_args!("token id {id} is outside the vocabulary of {vocab_size} ids");
        Self::invalid(param, message)
    }

    /// The field `param` is known, would change the answer, and is not supported.
    pub(super) fn unsupported(param: &str, hint: &str) -> Self {
        let message = format!("{param}: not supported by this server{hint}");
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
            .param(param)
            .code("unsupported_parameter")
    }

    /// The body as a whole is invalid.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message).code("invalid_body")
    }

    pub(super) fn no_tokenizer(param: &str) -> Self {
        let message = format!("{param}: this model has no tokenizer, send token ids instead of text");
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
            .param(param)
            .code("tokenizer_missing")
    }

    pub(super) fn context_length_exceeded(param: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
            .param(param)
            .code("context_length_exceeded")
    }

    /// The text in the field `param` has more than the `limit` tokens that the model reads.
    pub(super) fn too_long(param: &str, limit: usize) -> Self {
        let message = format!("{param}: longer than the {limit} tokens that this model reads; shorten it");
        Self::context_length_exceeded(param, message)
    }

    pub(super) fn body_too_large(limit: usize) -> Self {
        let message = format!("the request body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message).code("body_too_large")
    }

    /// Too many large bodies are being read and tokenized.
    pub(super) fn bodies_full() -> Self {
        let message = "the server is busy with other large requests; try again in a moment";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
            .code("server_overloaded")
            .retry_after_s(2)
    }

    pub(super) fn body_too_slow() -> Self {
        let message = "the request body did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message).code("body_timeout")
    }

    pub(super) fn not_json() -> Self {
        let message = "send the body as JSON with the header `Content-Type: application/json`";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message)
            .code("unsupported_media_type")
    }

    pub(super) fn unauthorized() -> Self {
        let message = "this server needs an API key: send `Authorization: Bearer KEY`";
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message).code("invalid_api_key")
    }

    pub(super) fn foreign_host() -> Self {
        let message =
            "the Host header does not name this machine; a server without a key answers local requests only";
        Self::new(StatusCode::FORBIDDEN, "permission_error", message).code("host_not_allowed")
    }

    pub(super) fn no_such_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found_error", "there is nothing at this path")
            .code("route_not_found")
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "this path does not take this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message).code("method_not_allowed")
    }

    /// Models are not loaded or unloaded here.
    pub(super) fn models_are_fixed() -> Self {
        let message = "this server does not load or unload models: it was started without a folder of them (--models-dir)";
        Self::new(StatusCode::FORBIDDEN, "permission_error", message).code("models_fixed")
    }

    pub(super) fn shutting_down() -> Self {
        let message = "the server is shutting down";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
            .code("shutting_down")
            .retry_after_s(5)
    }

    pub(super) fn loading() -> Self {
        let message = "the server is loading its models; try again in a moment";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message).code("loading").retry_after_s(2)
    }

    pub(super) fn unhealthy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message).code("not_ready").retry_after_s(1)
    }

    pub(super) fn deadline_exceeded(seconds: u64) -> Self {
        let message = format!("the request took longer than {seconds} seconds; ask for fewer tokens");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "server_error", message).code("request_timeout")
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message).code("internal_error")
    }

    /// The text or grammar in the field `param` is invalid, or the tokenizer fails.
    pub(super) fn of_text(param: &str, error: TextError) -> Self {
        match error {
            TextError::NoTokenizer | TextError::GrammarWithoutTokenizer => Self::no_tokenizer(param),
            TextError::Tokenizer(
                error @ (TokenizerError::NoChatTemplate | TokenizerError::NoDefaultTemplate { .. }),
            ) => Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", format!("{param}: {error}"))
                .param(param)
                .code("chat_template_missing"),
            TextError::Tokenizer(error @ TokenizerError::ChatTemplate { .. }) => Self::invalid(param, error),
            TextError::Tokenizer(error) if error.is_about_text() => Self::invalid(param, error),
            TextError::Tokenizer(error) => Self::tokenizer(&error),
            error => {
                let message: String = error.to_string().chars().take(MAX_GRAMMAR_MESSAGE).collect();
                Self::invalid(param, message)
            }
        }
    }

    /// A task whose text is in the field `param` has no output.
    pub(super) fn of_task(param: &str, error: TaskError) -> Self {
        match error {
            TaskError::Input(error)
            | TaskError::Answer(AnswerError::Input(error))
            | TaskError::Fill(FillError::Input(error))
            | TaskError::Source(SourceError::Input(error)) => Self::of_input(param, error),
            TaskError::Source(SourceError::Text(error)) => Self::of_text(param, error),
            TaskError::Source(SourceError::Completion(CompletionError::Generate(error))) => Self::from(error),
            TaskError::Answer(error) => Self::invalid(param, error),
            TaskError::Attention(error) => Self::of_attention(param, error),
            TaskError::Fill(error) => Self::invalid(param, error),
            TaskError::Source(error) => Self::invalid(param, error),
            TaskError::Stopped => Self::shutting_down(),
            error @ (TaskError::Panicked | TaskError::Unable) => Self::internal(error.to_string()),
        }
    }

    fn of_attention(param: &str, error: AttentionError) -> Self {
        let message = error.to_string();
        match error {
            AttentionError::Input(error) => Self::of_input(param, error),
            AttentionError::Text(error) => Self::of_text(param, error),
            AttentionError::Target(error) => Self::of_task(param, TaskError::Source(error)),
            AttentionError::TooLong { .. } => Self::context_length_exceeded(param, message),
            AttentionError::NoLayer { .. } => Self::invalid("layer", message),
            AttentionError::NoTarget => Self::invalid("target", message),
            error => Self::invalid(param, error),
        }
    }

    fn of_input(param: &str, error: InputError) -> Self {
        match error {
            InputError::NoTokenizer => Self::no_tokenizer(param),
            InputError::Tokenizer(error) if error.is_about_text() => Self::invalid(param, error),
            InputError::Tokenizer(error) => Self::tokenizer(&error),
            InputError::TooLong { limit } | InputError::TooManyIds { limit, .. } => {
                Self::too_long(param, limit)
            }
            InputError::TokenizerType { .. } => {
                tracing::error!(%error, "the tokenizer does not fit the model");
                Self::internal("the tokenizer does not fit the model")
            }
            error => Self::invalid(param, error),
        }
    }

    fn tokenizer(error: &TokenizerError) -> Self {
        tracing::error!(%error, "the tokenizer failed");
        Self::internal("the tokenizer failed on this request")
    }

    /// The body, also sent as the last event of a stream that fails half-way.
    pub(super) fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        match error {
            RegistryError::Unknown { .. } | RegistryError::Empty => {
                Self::new(StatusCode::NOT_FOUND, "not_found_error", message).code("model_not_found")
            }
            RegistryError::Taken { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message).code("model_exists")
            }
            RegistryError::Full { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message).code("too_many_models")
            }
            RegistryError::Loading { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
                    .code("model_loading")
                    .retry_after_s(2)
            }
        }
        .param("model")
    }
}

impl From<Incapable> for ApiError {
    fn from(error: Incapable) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", error.to_string())
            .param("model")
            .code("unsupported_by_model")
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Full { .. } | SubmitError::ShareFull { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
                    .code("server_overloaded")
                    .retry_after_s(1)
            }
            SubmitError::TooLarge { .. } | SubmitError::NeverFits { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
                    .param("prompt")
                    .code("request_too_large")
            }
            SubmitError::Draining | SubmitError::Stopped => Self::shutting_down(),
        }
    }
}

impl From<GenerationError> for ApiError {
    fn from(error: GenerationError) -> Self {
        match error {
            GenerationError::Stopped => Self::shutting_down(),
            GenerationError::Behind { .. } => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", error.to_string())
                    .code("slow_reader")
            }
            GenerationError::Panicked => Self::internal(error.to_string()),
            GenerationError::Invalid(error) => Self::from(error),
        }
    }
}

impl From<GenerateError> for ApiError {
    fn from(error: GenerateError) -> Self {
        let message = error.to_string();
        match error {
            GenerateError::EmptyPrompt => Self::invalid("prompt", "empty, send at least one token"),
            GenerateError::PromptTooLong { .. } => Self::context_length_exceeded("prompt", message),
            GenerateError::IdOutsideVocabulary { what, id, vocab_size } => {
                Self::outside_vocabulary(what, id, vocab_size)
            }
            GenerateError::Sampling(SamplingError::Parameter { name, .. }) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
                    .param(name)
                    .code("invalid_value")
            }
            // What the model computed cannot be drawn from: not the user's fault.
            GenerateError::Sampling(SamplingError::NonFinite { .. } | SamplingError::NoCandidate { .. }) => {
                Self::internal(message)
            }
            _ => Self::malformed(message),
        }
    }
}

impl From<TextStreamError> for ApiError {
    fn from(error: TextStreamError) -> Self {
        match error {
            TextStreamError::StopWithoutTokenizer => Self::no_tokenizer("stop"),
            TextStreamError::Tokenizer(error) => Self::tokenizer(&error),
            error => Self::invalid("stop", error),
        }
    }
}

impl ApiError {
    /// The response with another body, for a route in another server's shape.
    pub(super) fn with_body(&self, body: impl FnOnce(&Self) -> Value) -> Response {
        let mut response = (self.status, Json(body(self))).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.with_body(Self::body)
    }
}
