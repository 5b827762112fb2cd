//! What a generated answer says: reasoning, content, and calls of tools.
//!
//! Models write all three as one text, each family in its own notation. A [`ReplyFormat`] is read from the chat template, and a
//! [`ReplyParser`] takes the text as it is generated and gives its parts. What only looks like a call stays content.

mod calls;
pub mod described;
mod forced;
mod format;
mod parser;
mod scan;

pub use forced::{ForcedCall, HeldTools, ToolsError, any_strict, check as check_tools};
pub use format::{ReplyFormat, ToolFormat, UnknownToolFormat};
pub use parser::{ReplyParser, ReplyPiece};

#[cfg(test)]
mod tests;
