//! Answers from the head of a classifier.

use std::sync::Arc;

use andiron_data::tokenizer::Message;
use andiron_pipelines::TextInput;
use serde_json::Value;

use super::question::Question;
use super::score;
use crate::http::fields::Fields;
use crate::http::generation::Usage;
use crate::http::inputs::text_input;
use crate::http::routes::tasks::{mixed_up, run};
use crate::http::text::Overlong;
use crate::http::{ApiError, App};
use crate::registry::{Capability, Served};
use crate::runner::{Output, Task};

/// Labels in an error message at most.
const MAX_LISTED: usize = 20;

fn labels(served: &Served) -> &[String] {
    served.shape().map_or(&[], |shape| &shape.labels)
}

/// Checks that all possible answers are labels of a classifier.
pub(super) fn check(served: &Served, questions: &[Question]) -> Result<(), ApiError> {
    let labels = labels(served);
    let Some(at) = questions.iter().position(|question| question.places_in(labels).is_none()) else {
        return Ok(());
    };
    let listed: Vec<String> = labels.iter().take(MAX_LISTED).map(|label| format!("`{label}`")).collect();
    let more = if labels.len() > MAX_LISTED { ", \u{2026}" } else { "" };
    let message = format_args!(
        "the labels of this model are {}{more}, and not all answers are among them; ask about labels, or ask a model that generates",
        listed.join(", ")
    );
    Err(ApiError::invalid(&format!("questions.{at}"), message))
}

/// The text of a conversation: that of its messages, one after the other.
pub(super) fn text(fields: &Fields<'_>, served: &Served) -> Result<TextInput, ApiError> {
    let messages: Vec<Value> = fields.required("messages", "an array of messages")?;
    let text = |(at, message): (usize, &Value)| {
        let message = Message::from_json(message);
        message
            .map(|message| message.text())
            .map_err(|error| ApiError::invalid(&format!("messages.{at}.{}", error.field), error.problem))
    };
    let texts: Vec<String> = messages.iter().enumerate().map(text).collect::<Result<_, ApiError>>()?;
    text_input("messages", texts.join("\n"), Overlong::Refused, served)
}

/// Answers all questions from one run of the classifier.
pub(super) async fn answer(
    app: &Arc<App>,
    served: &Served,
    client: u64,
    text: TextInput,
    questions: &[Question],
) -> Result<Value, ApiError> {
    let wanted = Capability::Classify;
    let outputs = run(app, served, wanted, (client, "input"), vec![Task::Classify(text)]).await?;
    let Some(Output::Labels(found)) = outputs.into_iter().next() else { return Err(mixed_up()) };
    if found.truncated {
        return Err(ApiError::too_long("input", served.sizes().context_len));
    }
    let names: Vec<String> = found.labels.iter().map(|(label, _)| label.clone()).collect();
    let answers: Option<Vec<Value>> = questions
        .iter()
        .map(|question| {
            let places = question.places_in(&names)?;
            let scores: Vec<f64> = places.iter().map(|&place| f64::from(found.labels[place].1)).collect();
            Some(score::answer(question, &shares(&scores)))
        })
        .collect();
    let usage = Usage { prompt_tokens: found.tokens, ..Usage::default() };
    Ok(score::response(&served.info.id, answers.ok_or_else(mixed_up)?, usage))
}

/// Scores as parts of their sum: a question may ask about some of the labels.
fn shares(scores: &[f64]) -> Vec<f64> {
    let sum: f64 = scores.iter().sum();
    let share = |score: &f64| if sum > 0.0 { score / sum } else { 1.0 / scores.len() as f64 };
    scores.iter().map(share).collect()
}
