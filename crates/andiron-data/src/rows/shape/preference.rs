//! Two answers to a prompt, of which one is preferred.

use serde::{Deserialize, Serialize};

use super::completion::{alike, answer_in, turns_in};
use super::{Shape, Turns, first_of};
use crate::rows::{Row, RowError, RowFault};

/// Rows with a chosen and a rejected answer, each text or messages.
///
/// A row may lack the prompt: then it is what both answers begin with, as in TRL: messages that are equal, or the characters up
/// to the first that differs, without a space before it. So it is, too, if the prompt is a text and the answers are
/// conversations that begin with the user's message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreferenceFields {
    /// The prompt; rows may lack it.
    pub prompt: String,
    /// The better answer.
    pub chosen: String,
    /// The worse answer.
    pub rejected: String,
}

/// A prompt with a better and a worse answer. All three are text, or all are messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preference {
    /// The prompt.
    pub prompt: Turns,
    /// The better answer.
    pub chosen: Turns,
    /// The worse answer.
    pub rejected: Turns,
}

impl Default for PreferenceFields {
    fn default() -> Self {
        Self { prompt: "prompt".into(), chosen: "chosen".into(), rejected: "rejected".into() }
    }
}

impl Shape for PreferenceFields {
    type Example = Preference;

    fn read(&self, row: &Row) -> Result<Preference, RowError> {
        let (chosen, rejected) = (answer_in(row, &self.chosen)?, answer_in(row, &self.rejected)?);
        let same = || {
            row.fail(RowFault::SameAnswers { chosen: self.chosen.clone(), rejected: self.rejected.clone() })
        };
        if chosen == rejected {
            return Err(same());
        }
        let prompt = match row.find(&self.prompt) {
            Some(_) => Some(turns_in(row, &self.prompt)?),
            None => None,
        };
        let begins_with_user = |turns: &Turns| match turns {
            Turns::Messages(messages) => messages.first().is_some_and(|message| message.role != "assistant"),
            Turns::Text(_) => false,
        };
        match prompt {
            Some(prompt @ Turns::Messages(_)) => Ok(with_prompt(prompt, chosen, rejected)),
            Some(prompt) if !begins_with_user(&chosen) => Ok(with_prompt(prompt, chosen, rejected)),
            _ => split(chosen, rejected).ok_or_else(same),
        }
    }

    fn guess(row: &Row) -> Option<Self> {
        row.find("chosen").and(row.find("rejected"))?;
        let prompt = first_of(row, &["prompt", "question", "instruction", "input", "conversations"]);
        Some(prompt.map_or_else(Self::default, |prompt| Self { prompt, ..Self::default() }))
    }
}

fn with_prompt(prompt: Turns, chosen: Turns, rejected: Turns) -> Preference {
    let (prompt, chosen) = alike(prompt, chosen);
    let (prompt, rejected) = alike(prompt, rejected);
    // A prompt that became messages for the rejected answer's sake makes messages of the chosen one.
    let (prompt, chosen) = alike(prompt, chosen);
    Preference { prompt, chosen, rejected }
}

/// The common beginning of two answers and what is left of each; `None` if one begins with the whole other, or they are no
/// two texts or two lists of messages.
fn split(chosen: Turns, rejected: Turns) -> Option<Preference> {
    match (chosen, rejected) {
        (Turns::Messages(mut chosen), Turns::Messages(mut rejected)) => {
            let common = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
            let (chosen_rest, rejected_rest) = (chosen.split_off(common), rejected.split_off(common));
            if chosen_rest.is_empty() || rejected_rest.is_empty() {
                return None;
            }
            let [chosen_rest, rejected_rest] = [chosen_rest, rejected_rest].map(Turns::Messages);
            Some(Preference { prompt: Turns::Messages(chosen), chosen: chosen_rest, rejected: rejected_rest })
        }
        (Turns::Text(chosen), Turns::Text(rejected)) => {
            let pairs = chosen.char_indices().zip(rejected.chars());
            let common = pairs.take_while(|((_, a), b)| a == b).last();
            let mut end = common.map_or(0, |((at, c), _)| at + c.len_utf8());
            if end == chosen.len() || end == rejected.len() {
                return None;
            }
            end -= usize::from(chosen[..end].ends_with(' '));
            let rest = |text: &str| Turns::Text(text[end..].to_owned());
            let (chosen_rest, rejected_rest) = (rest(&chosen), rest(&rejected));
            Some(Preference {
                prompt: Turns::Text(chosen[..end].to_owned()),
                chosen: chosen_rest,
                rejected: rejected_rest,
            })
        }
        _ => None,
    }
}
