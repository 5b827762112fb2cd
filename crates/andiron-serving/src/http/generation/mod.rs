//! Generation for all routes that generate: options, jobs, and the merged updates of the choices.
//!
//! ```text
//!  fields ─► GenerationOptions ┐
//!  text, messages ─► prompts ──┴─► Work ─► jobs ─► engine ─► Delta (text and tokens) ─► Renderer ─► JSON or events
//! ```
//!
//! A route makes the [`Work`] and a [`Renderer`]; [`respond`](fn@respond) does the rest.

mod answer;
mod choice;
mod grammar;
mod known;
mod options;
mod plan;
mod respond;

pub(super) use answer::Usage;
pub(super) use choice::{Delta, ScoredToken};
pub(super) use grammar::RequestedGrammar;
pub(super) use known::{Refused, check as check_known};
pub(super) use options::{Bounds, GenerationOptions};
pub(super) use plan::{Prompt, Work};
pub(super) use respond::{Frame, Identity, Renderer, respond};
