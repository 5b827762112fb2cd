//! The size of a regular expression, measured before it is compiled.

use llguidance::regex_to_lark;
use regex_syntax::ast::parse::ParserBuilder;
use regex_syntax::ast::{Ast, ClassSet, ClassSetItem, Error, RepetitionKind, RepetitionRange};
use regex_syntax::hir::translate::Translator;

use super::bounds::Bound;
use super::width;

/// Deepest nesting of groups. Two parsers recurse over it.
const MAX_NESTING: u32 = 100;

/// Sizes of a pattern.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PatternSize {
    /// Characters and classes as written; large Unicode classes count by their ranges.
    pub(super) syntax: u64,
    /// Characters and classes after expanding counted repetitions: the longest path, alternatives added up.
    pub(super) expanded: u64,
    /// Alternatives open at once.
    pub(super) width: u64,
}

impl PatternSize {
    fn of(syntax: u64, expanded: u64) -> Self {
        Self { syntax, expanded, width: 0 }
    }
}

/// Which dialect `\d` and `\w` are read in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Classes {
    /// All of Unicode, as the crate `regex` has it.
    Unicode,
    /// ASCII only, as ECMAScript, and so JSON schema, has it.
    Ascii,
}

/// Measures `pattern`; an error message if it is invalid.
pub(super) fn measure(pattern: &str, classes: Classes) -> Result<PatternSize, String> {
    // The compiler drops a backslash that escapes nothing.
    let trailing = pattern.len() - pattern.trim_end_matches('\\').len();
    if trailing % 2 == 1 {
        return Err("it ends in a backslash that escapes nothing; write `\\\\` for a backslash".to_owned());
    }
    let read = match classes {
        Classes::Unicode => pattern.to_owned(),
        Classes::Ascii => regex_to_lark(pattern, "dw"),
    };
    let parsed = ParserBuilder::new().nest_limit(MAX_NESTING).build().parse(&read);
    let parsed = parsed.map_err(|error| explain(&error))?;
    let size = size(&parsed);
    // Classes of a pattern beyond this bound are not even looked up, as it is refused anyway.
    let is_small = Bound::PatternSyntax.check(size.syntax).is_ok();
    // What has no translation has its error from the compiler.
    let translated = is_small.then(|| Translator::new().translate(&read, &parsed).ok()).flatten();
    Ok(PatternSize { width: translated.as_ref().map_or(0, width::measure), ..size })
}

/// The parser's message without its drawing of the pattern.
fn explain(error: &Error) -> String {
    let at = error.span().start.column;
    format!("{} (at character {at})", error.kind())
}

fn size(ast: &Ast) -> PatternSize {
    match ast {
        Ast::Empty(_) | Ast::Flags(_) => PatternSize::default(),
        Ast::Literal(_) | Ast::Assertion(_) => PatternSize::of(1, 1),
        Ast::Dot(_) => PatternSize::of(4, 1),
        Ast::ClassUnicode(_) | Ast::ClassPerl(_) => PatternSize::of(LARGE_CLASS, 1),
        Ast::ClassBracketed(class) => PatternSize::of(set_size(&class.kind), 1),
        Ast::Group(group) => size(&group.ast),
        Ast::Concat(concat) => sum(&concat.asts),
        Ast::Alternation(alternation) => sum(&alternation.asts),
        Ast::Repetition(repetition) => {
            let PatternSize { syntax, expanded, .. } = size(&repetition.ast);
            let times = match &repetition.op.kind {
                RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => 1,
                RepetitionKind::Range(RepetitionRange::Exactly(n) | RepetitionRange::Bounded(_, n)) => *n,
                RepetitionKind::Range(RepetitionRange::AtLeast(n)) => n.saturating_add(1),
            };
            // Nothing repeated is still a step of the compiler.
            PatternSize::of(syntax.saturating_add(1), expanded.max(1).saturating_mul(u64::from(times)))
        }
    }
}

/// About as many ranges as `\w` has.
const LARGE_CLASS: u64 = 800;

fn set_size(set: &ClassSet) -> u64 {
    match set {
        ClassSet::Item(item) => item_size(item),
        ClassSet::BinaryOp(op) => set_size(&op.lhs).saturating_add(set_size(&op.rhs)),
    }
}

fn item_size(item: &ClassSetItem) -> u64 {
    match item {
        ClassSetItem::Unicode(_) | ClassSetItem::Perl(_) => LARGE_CLASS,
        ClassSetItem::Bracketed(class) => set_size(&class.kind),
        ClassSetItem::Union(union) => {
            union.items.iter().fold(1, |sum: u64, item| sum.saturating_add(item_size(item)))
        }
        _ => 4,
    }
}

fn sum(asts: &[Ast]) -> PatternSize {
    asts.iter().fold(PatternSize::default(), |sum, ast| {
        let PatternSize { syntax, expanded, .. } = size(ast);
        PatternSize::of(sum.syntax.saturating_add(syntax), sum.expanded.saturating_add(expanded))
    })
}
