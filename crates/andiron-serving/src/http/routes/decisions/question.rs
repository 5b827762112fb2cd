//! A question with its possible answers.

use serde_json::Value;

use crate::http::ApiError;

/// Most choices of a question, and levels of a score, as in OpenAI's API.
const MAX_CHOICES: usize = 255;
const MAX_LEVELS: usize = 10;

/// A typed question.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Question {
    pub(super) name: Option<String>,
    pub(super) kind: Kind,
    instructions: String,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Whether a statement is true.
    Predicate,
    /// One of some values.
    Choice(Vec<Described>),
    /// A place on a scale.
    Score(Vec<Described>),
}

/// A value or level.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Described {
    /// A string, or true or false.
    pub(super) value: Value,
    description: Option<String>,
}

impl Described {
    /// What the model would say.
    pub(super) fn text(&self) -> String {
        self.value.as_str().map_or_else(|| self.value.to_string(), str::to_owned)
    }
}

impl Question {
    pub(super) fn parse(at: usize, question: &Value) -> Result<Self, ApiError> {
        let invalid =
            |field: &str, problem: &str| ApiError::invalid(&format!("questions.{at}{field}"), problem);
        let instructions = instructions(&question["instructions"])
            .ok_or_else(|| invalid(".instructions", "expected a string or an array of text parts"))?;
        let name = match &question["name"] {
            Value::Null => None,
            Value::String(name) => Some(name.clone()),
            _ => return Err(invalid(".name", "expected a string")),
        };
        let kind = match question["type"].as_str() {
            Some("predicate") => Kind::Predicate,
            Some("choice") => {
                let wanted = "expected 2 to 255 choices, each with another `value`, a string or boolean";
                let choices = described(&question["choices"], "value", MAX_CHOICES);
                Kind::Choice(choices.ok_or_else(|| invalid(".choices", wanted))?)
            }
            Some("score") => {
                let wanted = "expected 2 to 10 levels, each with another `label`, a string";
                let levels = described(&question["levels"], "label", MAX_LEVELS);
                let levels = levels.filter(|levels| levels.iter().all(|level| level.value.is_string()));
                Kind::Score(levels.ok_or_else(|| invalid(".levels", wanted))?)
            }
            _ => return Err(invalid(".type", "expected predicate, choice or score")),
        };
        Ok(Self { name, kind, instructions })
    }

    /// The question as the model reads it.
    pub(super) fn text(&self) -> String {
        let instructions = &self.instructions;
        let list = |options: &[Described]| -> String {
            let line = |option: &Described| match &option.description {
                Some(description) => format!("\n- {}: {description}", option.text()),
                None => format!("\n- {}", option.text()),
            };
            options.iter().map(line).collect()
        };
        match &self.kind {
            Kind::Predicate => format!("Is this true? {instructions}\nAnswer only yes or no."),
            Kind::Choice(choices) => format!("{instructions}\nAnswer only one of these:{}", list(choices)),
            Kind::Score(levels) => {
                format!("{instructions}\nAnswer only one of these levels, the lowest first:{}", list(levels))
            }
        }
    }

    /// The possible answers, in order.
    pub(super) fn answers(&self) -> Vec<String> {
        match &self.kind {
            Kind::Predicate => vec!["yes".to_owned(), "no".to_owned()],
            Kind::Choice(options) | Kind::Score(options) => options.iter().map(Described::text).collect(),
        }
    }
}

/// What classifiers call a true and a false statement.
const VERDICTS: [[&str; 2]; 2] = [["yes", "no"], ["true", "false"]];

impl Question {
    /// The place of each possible answer among `labels`, if all are there. Case does not count.
    pub(super) fn places_in(&self, labels: &[String]) -> Option<Vec<usize>> {
        let place = |answer: &str| {
            let answer = answer.to_lowercase();
            labels.iter().position(|label| label.to_lowercase() == answer)
        };
        let places = |answers: &[&str]| answers.iter().map(|answer| place(answer)).collect();
        match &self.kind {
            Kind::Predicate => VERDICTS.iter().find_map(|verdicts| places(verdicts)),
            Kind::Choice(_) | Kind::Score(_) => {
                let answers = self.answers();
                places(&answers.iter().map(String::as_str).collect::<Vec<_>>())
            }
        }
    }
}

fn instructions(value: &Value) -> Option<String> {
    let part = |part: &Value| match part["type"].as_str() {
        Some("input_text") => part["text"].as_str().map(str::to_owned),
        Some("input_json") => part.get("data").map(Value::to_string),
        _ => None,
    };
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            parts.iter().map(part).collect::<Option<Vec<_>>>().map(|parts| parts.join("\n"))
        }
        _ => None,
    }
    .filter(|text| !text.trim().is_empty())
}

/// Two to `limit` different values under `key`.
fn described(options: &Value, key: &str, limit: usize) -> Option<Vec<Described>> {
    let options = options.as_array().filter(|options| (2..=limit).contains(&options.len()))?;
    let mut described: Vec<Described> = Vec::with_capacity(options.len());
    for option in options {
        let value = option.get(key)?.clone();
        let is_text = value.as_str().is_some_and(|text| !text.is_empty());
        if !(is_text || value.is_boolean()) || described.iter().any(|before| before.value == value) {
            return None;
        }
        let description = option.get("description").and_then(Value::as_str).map(str::to_owned);
        described.push(Described { value, description });
    }
    Some(described)
}
