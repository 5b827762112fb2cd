//! Bounds on the size of a grammar, checked before it is compiled.
//!
//! The compiler can hardly be interrupted, and not be limited in memory, so everything costly is counted first. The bounds
//! are well above what people and their tools write, and low enough that a grammar within them compiles in half a
//! second and 64 MB.

use serde_json::Value;

use super::expansion::{self, Refused};
use super::pattern::{self, Classes};
use super::{ConstraintError, Grammar, MAX_GRAMMAR};

/// Checks that `grammar` is valid and within its bounds.
pub(super) fn check(grammar: &Grammar) -> Result<(), ConstraintError> {
    let name = grammar.name();
    let of = |exceeded: Exceeded| exceeded.of(name);
    if matches!(grammar, Grammar::Choice(texts) if texts.is_empty()) {
        return Err(ConstraintError::NoChoice);
    }
    let bytes = grammar.bytes();
    if bytes > MAX_GRAMMAR {
        return Err(ConstraintError::TooLarge { grammar: name, bytes, limit: MAX_GRAMMAR });
    }
    let wrong = |message: String| ConstraintError::Grammar { grammar: name, message };
    match grammar {
        Grammar::Choice(texts) => {
            Bound::Choices.check(texts.len() as u64).map_err(of)?;
            Bound::ChoiceBytes.check(bytes as u64).map_err(of)?;
            match texts.iter().all(String::is_empty) {
                true => Err(wrong("all of its texts are empty, give at least one that is not".to_owned())),
                false => Ok(()),
            }
        }
        Grammar::Regex(pattern) => {
            Bound::PatternBytes.check(bytes as u64).map_err(of)?;
            let size = pattern::measure(pattern, Classes::Unicode).map_err(wrong)?;
            Bound::PatternSyntax.check(size.syntax).map_err(of)?;
            Bound::PatternExpanded.check(size.expanded).map_err(of)?;
            Bound::PatternWidth.check(size.width).map_err(of)
        }
        Grammar::JsonSchema(schema) => check_schema(name, schema),
        Grammar::TextOrCalls(calls) => calls.schemas().try_for_each(|schema| check_schema(name, schema)),
    }
}

fn check_schema(name: &'static str, schema: &Value) -> Result<(), ConstraintError> {
    let wrong = |message: String| ConstraintError::Grammar { grammar: name, message };
    if schema.get("x-guidance").is_some() {
        return Err(wrong("`x-guidance` is not supported".to_owned()));
    }
    expansion::measure(schema).map_err(|refused| match refused {
        Refused::Exceeded(exceeded) => exceeded.of(name),
        Refused::Pattern(message) => wrong(message),
    })
}

/// A bounded quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// Steps of walking a schema.
    Steps,
    /// Nodes of the expanded schema, copies included.
    Nodes,
    /// Nesting depth, through references.
    Depth,
    /// Properties of one object, or items of a tuple.
    Properties,
    PatternProperties,
    /// Values of one `enum`.
    Enum,
    PatternBytes,
    PatternSyntax,
    PatternExpanded,
    /// Alternatives that one pattern keeps open at once.
    PatternWidth,
    Choices,
    ChoiceBytes,
    /// `multipleOf` without its decimal point.
    Multiple,
}

/// An exceeded bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exceeded(Bound);

impl Bound {
    pub(super) fn limit(self) -> u64 {
        match self {
            Self::Steps => 20_000,
            Self::Nodes => 20_000,
            Self::Depth => 400,
            Self::Properties => 1_000,
            Self::PatternProperties => 8,
            Self::Enum => 2_000,
            Self::PatternBytes => 8 << 10,
            Self::PatternSyntax => 40_000,
            Self::PatternExpanded => 20_000,
            Self::PatternWidth => 500,
            Self::Choices => 4_000,
            Self::ChoiceBytes => 64 << 10,
            Self::Multiple => 20_000,
        }
    }

    /// Name of the quantity in a message.
    fn what(self) -> &'static str {
        match self {
            Self::Steps => "parts",
            Self::Nodes => "parts once references and combinators are written out",
            Self::Depth => "levels of nesting and references",
            Self::Properties => "properties or items in one place",
            Self::PatternProperties => "patternProperties in one place",
            Self::Enum => "values in one enum",
            Self::PatternBytes => "bytes in one pattern",
            Self::PatternSyntax => "characters and ranges in one pattern",
            Self::PatternExpanded => "characters in a pattern once counted repetitions are written out",
            Self::PatternWidth => {
                "ways of reading one text that a pattern leaves open at once, such as counts of repetitions"
            }
            Self::Choices => "texts",
            Self::ChoiceBytes => "bytes of text",
            Self::Multiple => "remainders of multipleOf, those of alternatives and of allOf multiplied",
        }
    }

    pub(super) fn check(self, found: u64) -> Result<(), Exceeded> {
        if found <= self.limit() { Ok(()) } else { Err(Exceeded(self)) }
    }
}

impl Exceeded {
    fn of(self, grammar: &'static str) -> ConstraintError {
        ConstraintError::TooComplex { grammar, what: self.0.what(), limit: self.0.limit() }
    }
}
