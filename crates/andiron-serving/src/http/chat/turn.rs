//! One answer of a conversation, taken apart as it is generated.

use andiron_data::reply::{ReplyParser, ReplyPiece};
use andiron_kernels::random::Seed;
use andiron_models::generate::FinishReason;

use super::prepare::ReplyReading;
use crate::http::generation::{Delta, ScoredToken};

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::http) enum Part {
    /// More of the reasoning.
    Reasoning(String),
    /// More of the content.
    Content(String),
    /// A whole call.
    Call {
        /// Its place among the calls of the answer.
        index: usize,
        /// Its id, without the prefix of an API.
        id: String,
        name: String,
        /// A JSON object as text.
        arguments: String,
    },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Finish {
    Stop,
    /// A stop string, by its index.
    StopString(usize),
    Length,
    ToolCalls,
}

/// An update of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::http) struct TurnUpdate {
    pub(in crate::http) parts: Vec<Part>,
    /// The tokens of this update, without one that ends the text. Text that is held back comes later than its tokens.
    pub(in crate::http) tokens: Vec<ScoredToken>,
    pub(in crate::http) finish: Option<Finish>,
}

/// An answer in progress.
pub(in crate::http) struct Turn {
    parser: ReplyParser,
    parallel: bool,
    short_ids: bool,
    /// Source of the calls' ids.
    seed: Seed,
    calls: usize,
}

impl Turn {
    /// An answer that is read by `reading`; `number` is its place among the choices of the response `id`.
    pub(in crate::http) fn new(reading: &ReplyReading, id: &str, number: usize) -> Self {
        let response = u64::from_str_radix(id, 16).unwrap_or_default();
        Self {
            parser: reading.parser(),
            parallel: reading.parallel,
            short_ids: reading.has_short_ids(),
            seed: Seed::new(response).at(number as u64),
            calls: 0,
        }
    }

    /// Takes the next update.
    pub(in crate::http) fn take(&mut self, delta: Delta) -> TurnUpdate {
        let mut pieces = self.parser.push(&delta.text);
        if delta.finish.is_some() {
            pieces.extend(self.parser.finish());
        }
        let parts = pieces.into_iter().filter_map(|piece| self.part(piece)).collect();
        let finish = delta.finish.map(|reason| match (reason, delta.stop) {
            (FinishReason::Length, _) => Finish::Length,
            (FinishReason::Stop, _) if self.calls > 0 => Finish::ToolCalls,
            (FinishReason::Stop, Some(stop)) => Finish::StopString(stop),
            (FinishReason::Stop, None) => Finish::Stop,
        });
        let tokens = delta.tokens.into_iter().filter(|token| !token.ends).collect();
        TurnUpdate { parts, tokens, finish }
    }

    fn part(&mut self, piece: ReplyPiece) -> Option<Part> {
        match piece {
            ReplyPiece::Reasoning(text) => Some(Part::Reasoning(text)),
            ReplyPiece::Content(text) => Some(Part::Content(text)),
            // Without parallel calls the first one counts.
            ReplyPiece::Call { .. } if self.calls > 0 && !self.parallel => None,
            ReplyPiece::Call { name, arguments } => {
                let index = self.calls;
                self.calls += 1;
                Some(Part::Call { index, id: self.id(index), name, arguments })
            }
        }
    }

    fn id(&self, index: usize) -> String {
        let bits = |at| self.seed.at(index as u64).bits(at);
        match self.short_ids {
            true => {
                const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
                let mut rest = bits(0);
                let letter = |_| {
                    let letter = LETTERS[(rest % 62) as usize];
                    rest /= 62;
                    char::from(letter)
                };
                (0..9).map(letter).collect()
            }
            false => format!("{:016x}{:08x}", bits(0), bits(1) as u32),
        }
    }
}
