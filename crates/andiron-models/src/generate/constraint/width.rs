//! The number of alternatives that a regular expression keeps open at once.
//!
//! While matching, the compiler's state is a list of alternatives for the rest of the expression. Most expressions
//! keep a few. But in `([a-z]+ ?){1,5000}` a word of forty letters may be one word or forty, so forty counters are
//! open after it, and every later character costs forty steps and their memory. [`measure`] gives an upper bound on
//! that list from the characters that can appear in each position, without building anything.
//!
//! Source: Brüggemann-Klein 1993, "Regular expressions into finite automata", for `first`, `last` and what follows; Gelade, Gyssens &
//! Martens 2012, "Regular expressions with counting: weak versus strong determinism", for counters. Ours is the bound where an
//! expression is not deterministic.

use regex_syntax::hir::{Class, Hir, HirKind, Repetition};

/// Upper bound on the number of alternatives that `expression` keeps open at once.
pub(super) fn measure(expression: &Hir) -> u64 {
    part(expression).width
}

/// Number of ranges from which a class counts as two alternatives: its multi-byte characters have intermediate
/// states.
const LARGE_CLASS: usize = 50;

/// A set of characters, overapproximated: those beyond ASCII share 128 slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Chars {
    ascii: u128,
    others: u128,
}

impl Chars {
    fn add(&mut self, first: u32, last: u32) {
        for code in first..=last.min(127) {
            self.ascii |= 1 << code;
        }
        if last > 127 {
            let (first, last) = (first.max(128) >> 6, last >> 6);
            for block in first..=last.min(first + 127) {
                self.others |= 1 << (block % 128);
            }
        }
    }

    fn of(c: char) -> Self {
        let mut chars = Self::default();
        chars.add(c.into(), c.into());
        chars
    }

    fn or(self, other: Self) -> Self {
        Self { ascii: self.ascii | other.ascii, others: self.others | other.others }
    }

    fn or_if(self, condition: bool, other: Self) -> Self {
        if condition { self.or(other) } else { self }
    }

    fn meets(self, other: Self) -> bool {
        self.ascii & other.ascii != 0 || self.others & other.others != 0
    }
}

/// Properties of a part of an expression.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Fewest and most characters.
    len: (u64, u64),
    /// Characters that can be first, last, and anywhere.
    first: Chars,
    last: Chars,
    all: Chars,
    /// Characters that can be anywhere but first, anywhere but last.
    inner: Chars,
    outer: Chars,
    /// Characters that can continue a text which could also end here.
    after: Chars,
    /// Whether each next character leaves a single alternative (determinism).
    deterministic: bool,
    /// Alternatives open at once if the part begins at one position of the text.
    width: u64,
    /// Alternatives open at once however often it begins: its characters after expanding counted repetitions.
    total: u64,
}

const EMPTY: Part = Part {
    len: (0, 0),
    first: Chars { ascii: 0, others: 0 },
    last: Chars { ascii: 0, others: 0 },
    all: Chars { ascii: 0, others: 0 },
    inner: Chars { ascii: 0, others: 0 },
    outer: Chars { ascii: 0, others: 0 },
    after: Chars { ascii: 0, others: 0 },
    deterministic: true,
    width: 0,
    total: 0,
};

fn part(expression: &Hir) -> Part {
    match expression.kind() {
        HirKind::Empty | HirKind::Look(_) => EMPTY,
        HirKind::Literal(literal) => String::from_utf8_lossy(&literal.0)
            .chars()
            .map(|c| Part::one(Chars::of(c)))
            .fold(EMPTY, Part::then),
        HirKind::Class(class) => {
            let mut chars = Chars::default();
            let mut ranges = 0;
            let mut add = |first: u32, last: u32| {
                chars.add(first, last);
                ranges += 1;
            };
            match class {
                Class::Unicode(class) => {
                    class.iter().for_each(|range| add(range.start().into(), range.end().into()));
                }
                Class::Bytes(class) => {
                    class.iter().for_each(|range| add(range.start().into(), range.end().into()));
                }
            }
            let ways = if ranges > LARGE_CLASS { 2 } else { 1 };
            Part { width: ways, total: ways, ..Part::one(chars) }
        }
        HirKind::Capture(group) => part(&group.sub),
        HirKind::Concat(parts) => parts.iter().map(part).fold(EMPTY, Part::then),
        HirKind::Alternation(parts) => {
            let mut parts = parts.iter().map(part);
            let first = parts.next().unwrap_or(EMPTY);
            parts.fold(first, Part::either)
        }
        HirKind::Repetition(repetition) => part(&repetition.sub).repeated(repetition),
    }
}

impl Part {
    fn one(chars: Chars) -> Self {
        Self { len: (1, 1), first: chars, last: chars, all: chars, width: 1, total: 1, ..EMPTY }
    }

    fn may_be_empty(&self) -> bool {
        self.len.0 == 0
    }

    fn is_fixed(&self) -> bool {
        self.len.0 == self.len.1
    }

    /// Whether all parses of a text that begins with this part leave it at the same position, if a text of `next`
    /// follows.
    fn ends_at_one_place(&self, next: Chars) -> bool {
        self.is_fixed()
            || (self.is_left_by(next) && self.deterministic)
            || !next.meets(self.all)
            || (!self.may_be_empty() && !self.last.meets(self.outer))
    }

    /// Whether a character of `next` after a complete text of this part cannot be part of it.
    fn is_left_by(&self, next: Chars) -> bool {
        let goes_on = self.after.meets(next) || (self.may_be_empty() && self.first.meets(next));
        !goes_on
    }

    fn then(self, next: Self) -> Self {
        let width = if self.ends_at_one_place(next.first) {
            self.width.max(next.width)
        } else {
            let places = (self.len.1 - self.len.0).saturating_add(1);
            self.width.saturating_add(next.total.min(next.width.saturating_mul(places)))
        };
        let goes_on = next.may_be_empty();
        Self {
            len: (self.len.0.saturating_add(next.len.0), self.len.1.saturating_add(next.len.1)),
            first: self.first.or_if(self.may_be_empty(), next.first),
            last: next.last.or_if(goes_on, self.last),
            all: self.all.or(next.all),
            inner: self.inner.or(next.inner).or_if(self.len.1 > 0, next.first),
            outer: self.outer.or(next.outer).or_if(next.len.1 > 0, self.last),
            after: next.after.or_if(goes_on, self.after.or(next.first)),
            deterministic: self.deterministic && next.deterministic && self.is_left_by(next.first),
            width,
            total: self.total.saturating_add(next.total),
        }
    }

    fn either(self, other: Self) -> Self {
        let apart = !self.first.meets(other.first);
        Self {
            len: (self.len.0.min(other.len.0), self.len.1.max(other.len.1)),
            first: self.first.or(other.first),
            last: self.last.or(other.last),
            all: self.all.or(other.all),
            inner: self.inner.or(other.inner),
            outer: self.outer.or(other.outer),
            after: self.after.or(other.after),
            deterministic: self.deterministic && other.deterministic && apart,
            width: if apart { self.width.max(other.width) } else { self.width.saturating_add(other.width) },
            total: self.total.saturating_add(other.total),
        }
    }

    fn repeated(self, repetition: &Repetition) -> Self {
        let (fewest, most) = (u64::from(repetition.min), repetition.max.map(u64::from));
        let written_out = most.unwrap_or(fewest.max(1));
        if written_out == 0 {
            return EMPTY;
        }
        let loops = most != Some(1);
        let alone = self.deterministic && !self.after.meets(self.first);
        let total = self.total.saturating_mul(written_out);
        // If each repetition begins or ends at a character that appears nowhere else in it, all alternatives begin it
        // together.
        let together = self.is_fixed()
            || alone
            || !self.first.meets(self.inner)
            || (!self.may_be_empty() && !self.last.meets(self.outer));
        Self {
            len: (
                self.len.0.saturating_mul(fewest),
                if self.len.1 == 0 { 0 } else { self.len.1.saturating_mul(most.unwrap_or(u64::MAX)) },
            ),
            inner: self.inner.or_if(loops, self.first),
            outer: self.outer.or_if(loops, self.last),
            after: self.after.or_if(loops && most != Some(fewest), self.first),
            deterministic: self.deterministic && (!loops || alone),
            width: if loops && !together { total } else { self.width },
            total,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, width: u64) {
        let expression = regex_syntax::parse(pattern).expect("a pattern");
        assert_eq!(measure(&expression), width, "{pattern}");
    }

    #[test]
    fn what_can_be_read_in_one_way_keeps_one_way_open() {
        for pattern in [
            "a",
            r"\w{1,9999}",
            "(a{140}){140}",
            r"([0-9]{1,3}\.){3}[0-9]{1,3}",
            "([A-Z][a-z]* ?){1,5000}",
            r#"("[^"]*",){0,5000}"#,
            "(,(apple|avocado|pear)){0,5000}",
            r"[^@]{1,2000}@[a-z]{1,2000}\.[a-z]{2}",
            "(ab|cd){0,5000}",
            "(a?){500}",
        ] {
            let expression = regex_syntax::parse(pattern).expect("a pattern");
            let width = measure(&expression);
            assert!(width <= 2, "{pattern}: {width}");
        }
    }

    #[test]
    fn counts_that_a_text_leaves_open_multiply() {
        check("(?:[a-z]+ ?){1,5000}", 10_000);
        check(r"(\w{1,100}\s?){1,100}", 20_100);
        check(".*a.{300}", 302);
        check("(a?){500}a{500}", 501);
        check("(a?b?){500}", 1000);
        check("(.{0,200}x){0,50}", 10_050);
        check("((a|ab)(c|bad)?){30}", 210);
    }

    #[test]
    fn no_pattern_makes_it_overflow() {
        check("(((((a|aa){9999}){9999}){9999}){9999}){9999}", u64::MAX);
    }
}
