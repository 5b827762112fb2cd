//! Taking an answer apart while it is generated.

use serde_json::Value;

use super::calls::{self, Call};
use super::scan::{certain, find_first};
use super::{ReplyFormat, ToolFormat};

const THINK: &str = "<think>";
const THOUGHT: &str = "</think>";

/// A part of an answer, as it becomes certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyPiece {
    /// More of the reasoning.
    Reasoning(String),
    /// More of the content.
    Content(String),
    /// A whole call of a tool.
    Call {
        /// The function.
        name: String,
        /// Its arguments: the text of a JSON object.
        arguments: String,
    },
}

/// Takes the text of an answer and gives its parts. What could be the beginning of a mark or of a call is held back.
#[derive(Debug)]
pub struct ReplyParser {
    tools: Option<ToolFormat>,
    /// The tools that may be called, for the types of their arguments.
    offered: Vec<Value>,
    place: Place,
    /// Text that is not decided.
    held: String,
    /// Whether this place has said something other than blanks.
    has_begun: bool,
    /// Whether blanks before the content belong to the notation, as after reasoning and calls.
    trims: bool,
    /// Blanks after content or reasoning, which count if more of it follows.
    blanks: String,
}

/// Where in an answer the text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At the beginning, where reasoning may start.
    Start,
    /// Within the reasoning.
    Reasoning,
    /// At the beginning of the content, where a call without a mark may start.
    Beginning,
    /// Within the content.
    Content,
    /// Within a call.
    Call,
}

impl ReplyParser {
    /// A parser for an answer in `format` to a prompt that offers the tools `offered`.
    pub fn new(format: ReplyFormat, offered: &[Value]) -> Self {
        Self {
            tools: format.tools,
            offered: offered.to_vec(),
            place: if format.reasoning { Place::Start } else { Place::Beginning },
            held: String::new(),
            has_begun: false,
            trims: false,
            blanks: String::new(),
        }
    }

    /// The same after a prompt that ends with the text `prompt`: it may have opened the reasoning.
    #[must_use]
    pub fn after(mut self, prompt: &str) -> Self {
        if self.place == Place::Start && prompt.trim_end().ends_with(THINK) {
            self.place = Place::Reasoning;
        }
        self
    }

    /// Takes more text.
    pub fn push(&mut self, text: &str) -> Vec<ReplyPiece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.step(&mut pieces) {}
        pieces
    }

    /// The rest, when the answer has ended.
    pub fn finish(&mut self) -> Vec<ReplyPiece> {
        let mut pieces = Vec::new();
        let rest = std::mem::take(&mut self.held);
        match self.place {
            Place::Reasoning => self.say(&rest, &mut pieces),
            Place::Call => match self.tools.and_then(|tools| calls::parse(tools, &rest, &self.offered)) {
                Some(calls) => pieces.extend(calls.into_iter().map(ReplyPiece::from)),
                None => {
                    self.place = Place::Content;
                    self.say(&rest, &mut pieces);
                }
            },
            Place::Start | Place::Beginning | Place::Content => {
                self.place = Place::Content;
                self.say(&rest, &mut pieces);
            }
        }
        // Blanks at the end of a content without calls are the model's own.
        if self.place == Place::Content && (self.has_begun || !self.trims) && !self.blanks.is_empty() {
            pieces.push(ReplyPiece::Content(std::mem::take(&mut self.blanks)));
        }
        pieces
    }

    /// Goes one mark further; `false` if it needs more text.
    fn step(&mut self, pieces: &mut Vec<ReplyPiece>) -> bool {
        match self.place {
            Place::Start => {
                let text = self.held.trim_start();
                if text.is_empty() || (text.len() < THINK.len() && THINK.starts_with(text)) {
                    return false;
                }
                if let Some(after) = text.strip_prefix(THINK) {
                    self.held = after.to_owned();
                    self.place = Place::Reasoning;
                } else {
                    self.place = Place::Beginning;
                }
                true
            }
            Place::Reasoning => {
                if let Some((before, after)) = self.held.split_once(THOUGHT) {
                    let (before, after) = (before.to_owned(), after.to_owned());
                    self.say(&before, pieces);
                    self.trim_from_here();
                    self.held = after;
                    self.place = Place::Beginning;
                    return true;
                }
                self.say_certain(&[THOUGHT], pieces);
                false
            }
            Place::Beginning => {
                let blank = self.held.len() - self.held.trim_start().len();
                match self.tools {
                    Some(ToolFormat::Llama) => match calls::may_begin(&self.held[blank..]) {
                        None => return false,
                        Some(true) => self.place = Place::Call,
                        Some(false) => self.place = Place::Content,
                    },
                    _ => self.place = Place::Content,
                }
                true
            }
            Place::Content => {
                let marks: &[&str] = match self.tools.and_then(ToolFormat::opening) {
                    Some("<tool_call>") => &["<tool_call>"],
                    Some(_) => &["[TOOL_CALLS]"],
                    None => &[],
                };
                if let Some((at, _)) = find_first(&self.held, marks) {
                    let call = self.held.split_off(at);
                    let before = std::mem::replace(&mut self.held, call);
                    self.say(&before, pieces);
                    self.place = Place::Call;
                    return true;
                }
                self.say_certain(marks, pieces);
                false
            }
            Place::Call => match self.tools {
                Some(tools @ (ToolFormat::Hermes | ToolFormat::QwenXml | ToolFormat::Glm)) => {
                    const END: &str = "</tool_call>";
                    let Some(at) = self.held.find(END) else { return false };
                    let rest = self.held.split_off(at + END.len());
                    let whole = std::mem::replace(&mut self.held, rest);
                    self.place = Place::Content;
                    match calls::parse(tools, &whole, &self.offered) {
                        // Blanks around calls are part of their notation.
                        Some(calls) => {
                            pieces.extend(calls.into_iter().map(ReplyPiece::from));
                            self.trim_from_here();
                        }
                        None => self.say(&whole, pieces),
                    }
                    true
                }
                // Only the end of the answer ends these.
                Some(ToolFormat::Llama | ToolFormat::Mistral) | None => false,
            },
        }
    }

    /// Says as much of the held text as belongs to this place, whatever follows.
    fn say_certain(&mut self, marks: &[&str], pieces: &mut Vec<ReplyPiece>) {
        let rest = self.held.split_off(certain(&self.held, marks));
        let text = std::mem::replace(&mut self.held, rest);
        self.say(&text, pieces);
    }

    /// Adds text to the reasoning or the content. Blanks before it are dropped, those after it held back.
    fn say(&mut self, text: &str, pieces: &mut Vec<ReplyPiece>) {
        let reasoning = self.place == Place::Reasoning;
        let text = match !self.has_begun && (reasoning || self.trims) {
            true => text.trim_start(),
            false => text,
        };
        let solid = text.trim_end();
        if solid.is_empty() {
            self.blanks.push_str(text);
            return;
        }
        let mut said = std::mem::take(&mut self.blanks);
        said.push_str(solid);
        self.blanks.push_str(&text[solid.len()..]);
        self.has_begun = true;
        pieces.push(if reasoning { ReplyPiece::Reasoning(said) } else { ReplyPiece::Content(said) });
    }

    /// What follows is another part: blanks in between are not said.
    fn trim_from_here(&mut self) {
        self.blanks.clear();
        (self.has_begun, self.trims) = (false, true);
    }
}

impl From<Call> for ReplyPiece {
    fn from(call: Call) -> Self {
        Self::Call { name: call.name, arguments: call.arguments }
    }
}
