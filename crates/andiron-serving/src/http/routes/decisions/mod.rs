//! `POST /v1/decisions`: typed questions about an input, answered with probabilities, as OpenAI has it.
//!
//! A language model answers by scoring: each possible answer's log-probability as the assistant's whole message, normalised over the
//! answers of its question. So nothing is sampled, and the same request gets the same answer. Levels of a score count from zero,
//! and the score is their mean. Source: OpenAI, "Decisions", `decision.py` and `decision_create_params.py` in openai-python 3.57.

mod question;
mod score;

use std::sync::Arc;

use andiron_data::tokenizer::{ChatInputs, Message};
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::Value;

use crate::http::chat::{ConversationRequest, Foreign};
use crate::http::fields::Fields;
use crate::http::generation::{Bounds, GenerationOptions, Identity, Prompt, Work, respond};
use crate::http::limits::read_json;
use crate::http::openapi::schema_of;
use crate::http::routes::responses::conversation;
use crate::http::{ApiError, App, Phase};
use crate::registry::{Capability, Served};

use question::Question;
use score::{Candidate, DecisionsRenderer};

/// Reads a request, for the description of the API.
pub(super) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    fields.one_of("input", "a string or an array of items", &[schema_of::<String>, schema_of::<Vec<Value>>]);
    fields.one_of("instructions", "a string", &[schema_of::<String>]);
    let served = app.served_for(fields.model()?.as_deref(), Capability::Generate)?;
    parse(fields, app, &served).map(drop)
}

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    if app.shutdown.phase() != Phase::Serving {
        return Err(ApiError::shutting_down());
    }
    let (head, body) = request.into_parts();
    let (body, reserved) = read_json(&app, &head.headers, body).await?;
    let (served, messages, questions, options) = {
        let fields = Fields::parse(&body)?;
        let served = app.served_for(fields.model()?.as_deref(), Capability::Generate)?;
        let (messages, questions) = parse(&fields, &app, &served)?;
        (Arc::clone(&served), messages, questions, options(&app, &served)?)
    };
    drop(body);
    let (mut prompts, mut candidates) = (Vec::new(), Vec::new());
    let tokenizer = served.text.tokenizer().ok_or_else(|| ApiError::no_tokenizer("input"))?;
    let end = served.text.end_ids().first().copied();
    for (at, question) in questions.iter().enumerate() {
        let asked = [messages.as_slice(), &[Message::new("user", question.text())]].concat();
        let rendered = app.render_chat(&served, asked, ChatInputs::default()).await;
        let prompt = rendered.map_err(|error| error.renamed("messages", "input"))?.ids;
        for answer in question.answers() {
            let said = tokenizer
                .encode(&answer)
                .map_err(|error| ApiError::of_text(&format!("questions.{at}"), error.into()))?;
            // Its end counts too: what only begins like an answer is another one.
            let ids: Vec<u32> = prompt.iter().copied().chain(said).chain(end).collect();
            candidates.push(Candidate { question: at, from: prompt.len() });
            prompts.push(Prompt { ids, text: None });
        }
    }
    drop(reserved);
    let identity = Identity::next(&app, &served);
    let renderer = DecisionsRenderer { model: identity.model.clone(), questions, candidates };
    let work = Work { prompts, options, constraint: None, echo: true, markers: Vec::new() };
    let client = app.config.access.client(&head);
    respond(&app, &served, work, (&identity, client), renderer).await
}

/// The conversation and the questions about it.
fn parse(fields: &Fields<'_>, app: &App, served: &Served) -> Result<(Vec<Message>, Vec<Question>), ApiError> {
    let limits = &app.config.limits;
    let questions: Vec<Value> = fields.required("questions", "an array of questions")?;
    let parsed = questions.iter().enumerate().map(|(at, question)| Question::parse(at, question));
    let questions = parsed.collect::<Result<Vec<Question>, ApiError>>()?;
    if questions.is_empty() {
        return Err(ApiError::invalid("questions", "empty, send at least one"));
    }
    let answers: usize = questions.iter().map(|question| question.answers().len()).sum();
    if answers > limits.max_choices {
        let message = format_args!(
            "{answers} possible answers, at most {} are scored at once; send fewer questions",
            limits.max_choices
        );
        return Err(ApiError::invalid("questions", message));
    }
    const NAMES: &[(&str, &str)] = &[("messages", "input")];
    let mut request = Foreign::new(fields, NAMES)?;
    let messages = conversation(&mut request)?;
    request.set_messages(messages);
    let conversation = request.parse(|fields| ConversationRequest::parse(fields, app, served))?;
    Ok((conversation.messages, questions))
}

/// Nothing is generated; the log-probabilities of the prompts are wanted.
fn options(app: &App, served: &Served) -> Result<GenerationOptions, ApiError> {
    let bounds = Bounds { prompt: "input", max_tokens: "max_tokens", least: 0, usual: Some(0) };
    let fields = Fields::parse(b"{\"max_tokens\": 0}")?;
    let options = GenerationOptions::parse(&fields, app, served, bounds)?;
    Ok(GenerationOptions { logprobs: Some(0), ..options })
}
