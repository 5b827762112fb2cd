//! `POST /v1/decisions`: typed questions about an input, answered with probabilities, as OpenAI has it.
//!
//! A classifier answers with the probabilities of its head, if all possible answers are among its labels; what the questions say
//! besides, it does not read. A language model answers by scoring: each possible answer's log-probability as the assistant's whole message, normalised over the
//! answers of its question. So nothing is sampled, and the same request gets the same answer. Levels of a score count from zero,
//! and the score is their mean. Source: OpenAI, "Decisions", `decision.py` and `decision_create_params.py` in openai-python 3.57.

mod head;
mod question;
mod score;

use std::sync::Arc;

use andiron_data::tokenizer::{ChatInputs, Message};
use andiron_pipelines::TextInput;
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::http::asked::{self, Asked};
use crate::http::chat::{ConversationRequest, Foreign};
use crate::http::fields::Fields;
use crate::http::generation::{Bounds, GenerationOptions, Identity, Prompt, Work, respond};
use crate::http::openapi::schema_of;
use crate::http::routes::responses::conversation;
use crate::http::{ApiError, App};
use crate::registry::{Capability, Served};

use question::Question;
use score::{Candidate, DecisionsRenderer};

/// Reads a request, for the description of the API.
pub(super) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    fields.one_of("input", "a string or an array of items", &[schema_of::<String>, schema_of::<Vec<Value>>]);
    fields.one_of("instructions", "a string", &[schema_of::<String>]);
    parse(fields, app).map(drop)
}

/// A checked request.
struct DecisionsRequest {
    about: About,
    questions: Vec<Question>,
}

/// What the questions are about.
enum About {
    /// A text for a classifier.
    Text(TextInput),
    /// A conversation for a language model.
    Conversation(Vec<Message>),
}

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let Asked { served, parsed, client, reserved } =
        asked::read_with(&app, request, |fields| parse(fields, &app)).await?;
    let DecisionsRequest { about, questions } = parsed;
    let messages = match about {
        About::Conversation(messages) => messages,
        About::Text(text) => {
            return Ok(Json(head::answer(&app, &served, client, text, &questions).await?).into_response());
        }
    };
    let options = options(&app, &served)?;
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
    respond(&app, &served, work, (&identity, client), renderer).await
}

/// The model, and what it is asked.
fn parse(fields: &Fields<'_>, app: &App) -> Result<(Arc<Served>, DecisionsRequest), ApiError> {
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
    let served = model_for(app, fields.model()?.as_deref(), &questions)?;
    let about = match served.can().contains(&Capability::Classify) {
        true => About::Text(request.parse(|fields| head::text(fields, &served))?),
        false => {
            let conversation = request.parse(|fields| ConversationRequest::parse(fields, app, &served))?;
            About::Conversation(conversation.messages)
        }
    };
    Ok((served, DecisionsRequest { about, questions }))
}

/// The model of a request: without a name, the first classifier that has all the answers as labels, else the first that generates.
fn model_for(app: &App, name: Option<&str>, questions: &[Question]) -> Result<Arc<Served>, ApiError> {
    let is_classifier = |served: &Served| served.can().contains(&Capability::Classify);
    let classifiers: Vec<Arc<Served>> = match name {
        Some(name) => vec![app.served(Some(name))?],
        None => app.registry.list(),
    };
    let mut unfit = None;
    for served in classifiers.into_iter().filter(|served| is_classifier(served)) {
        match head::check(&served, questions) {
            Ok(()) => return Ok(served),
            Err(error) => unfit = unfit.or(Some(error)),
        }
    }
    match (app.served_for(name, Capability::Generate), unfit) {
        (Err(_), Some(unfit)) => Err(unfit),
        (found, _) => found,
    }
}

/// Nothing is generated; the log-probabilities of the prompts are wanted.
fn options(app: &App, served: &Served) -> Result<GenerationOptions, ApiError> {
    let bounds = Bounds { prompt: "input", max_tokens: "max_tokens", least: 0, usual: Some(0) };
    let fields = Fields::parse(b"{\"max_tokens\": 0}")?;
    let options = GenerationOptions::parse(&fields, app, served, bounds)?;
    Ok(GenerationOptions { logprobs: Some(0), ..options })
}
