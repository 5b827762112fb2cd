//! The core of the routes that chat: messages and tools to a prompt, and the generated text back to a reply.
//!
//! `/v1/chat/completions`, `/v1/responses` and `/v1/messages` differ in how a request is written and how a reply is. All three
//! become a [`ChatRequest`]; [`Prepared`] is its prompt and how its answer is read; a [`Turn`] takes one answer apart.

mod convert;
mod prepare;
mod request;
mod tools;
mod turn;

pub(super) use convert::{Foreign, Messages, function};
pub(super) use prepare::{Prepared, prepare, render};
pub(super) use request::{ChatRequest, ConversationRequest};
pub(super) use turn::{Finish, Part, Turn, TurnUpdate};
