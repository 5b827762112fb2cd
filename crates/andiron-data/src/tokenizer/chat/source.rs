//! Rewriting of a template's source: constructs of Python's Jinja that the engine lacks become ones that it has.
//!
//! - `{% generation %}` marks the assistant's text for training; it renders its body.
//! - `'…' % x` formats a text.
//! - Values assigned by `set` pass through a filter that bounds their nesting.

/// The filter that `'…' % x` becomes.
pub(super) const PERCENT: &str = "__percent";
/// The filter that bounds what `set` assigns.
pub(super) const BOUNDED: &str = "__bounded";
/// The filter that marks what `{% generation %}` renders.
pub(super) const GENERATION: &str = "__generation";

/// What becomes of `{% generation %}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    /// It renders its body.
    Plain,
    /// Its body passes through [`GENERATION`].
    Marked,
}

/// The rewritten source.
pub(crate) fn rewrite(source: &str, generation: Generation) -> String {
    let mut out = String::with_capacity(source.len() + source.len() / 8);
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match rest.as_bytes().get(1) {
            Some(b'#') => rest.find("#}").map_or(rest.len(), |end| end + 2),
            Some(b'{') => {
                let end = expression_end(&rest[2..], "}}").map_or(rest.len(), |end| end + 4);
                out.push_str(&percent_to_filter(&rest[..end]));
                rest = &rest[end..];
                continue;
            }
            Some(b'%') => {
                let Some(end) = expression_end(&rest[2..], "%}").map(|end| end + 4) else {
                    out.push_str(rest);
                    return out;
                };
                let (tag, after) = rest.split_at(end);
                let (sign, body, end_sign) = parts(&tag[2..end - 2]);
                rest = after;
                if first_word(body) == "raw" {
                    let length = raw_length(rest);
                    out.push_str(tag);
                    out.push_str(&rest[..length]);
                    rest = &rest[length..];
                } else {
                    out.push_str(&format!("{{%{sign} {} {end_sign}%}}", statement(body, generation)));
                }
                continue;
            }
            _ => 1,
        };
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out.push_str(rest);
    out
}

fn statement(body: &str, generation: Generation) -> String {
    let is_marked = generation == Generation::Marked;
    match first_word(body) {
        // Two tags in the place of one; the outer signs for white space stay where they were.
        "generation" if body == "generation" && is_marked => format!("filter {GENERATION} %}}{{% with"),
        "endgeneration" if body == "endgeneration" && is_marked => "endwith %}{% endfilter".to_owned(),
        "generation" if body == "generation" => "with".to_owned(),
        "endgeneration" if body == "endgeneration" => "endwith".to_owned(),
        "set" => match assignment(body) {
            Some((target, value)) => format!("{target}= ({})|{BOUNDED}", percent_to_filter(value.trim())),
            None => percent_to_filter(body),
        },
        _ => percent_to_filter(body),
    }
}

/// The content of a tag and its white space control signs.
fn parts(inside: &str) -> (&str, &str, &str) {
    let sign = |c: char| c == '-' || c == '+';
    let begin = usize::from(inside.starts_with(sign));
    let end = inside.len() - usize::from(inside.len() > begin && inside.ends_with(sign));
    (&inside[..begin], inside[begin..end].trim(), &inside[end..])
}

fn first_word(body: &str) -> &str {
    let end = body.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(body.len());
    &body[..end]
}

/// The two sides of `set target = value`; `None` for a block assignment.
fn assignment(body: &str) -> Option<(&str, &str)> {
    let at = Pieces(body).scan(0, |end, piece| {
        *end += piece.len();
        Some((*end - piece.len(), piece))
    });
    let (at, _) = at.into_iter().find(|(_, piece)| *piece == "=" || *piece == "|")?;
    (body.as_bytes()[at] == b'=' && !body[at + 1..].starts_with('=')).then(|| (&body[..at], &body[at + 1..]))
}

/// The position of `close` in an expression, outside of strings and brackets.
fn expression_end(text: &str, close: &str) -> Option<usize> {
    let (mut at, mut open) = (0, 0usize);
    for piece in Pieces(text) {
        if open == 0 {
            let before = text[at..].strip_prefix(['-', '+']).is_some_and(|rest| rest.starts_with(close));
            if text[at..].starts_with(close) {
                return Some(at);
            }
            if before {
                return Some(at + 1);
            }
        }
        match piece {
            "(" | "[" | "{" => open += 1,
            ")" | "]" | "}" => open = open.saturating_sub(1),
            _ => {}
        }
        at += piece.len();
    }
    None
}

/// Length of the text up to the end of the tag that ends a raw block.
fn raw_length(text: &str) -> usize {
    let mut at = 0;
    while let Some(found) = text[at..].find("{%") {
        at += found + 2;
        let Some(end) = text[at..].find("%}") else { break };
        if parts(&text[at..at + end]).1 == "endraw" {
            return at + end + 2;
        }
    }
    text.len()
}

/// `'…' % x` as a filter.
fn percent_to_filter(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut at = 0;
    let mut after_string = false;
    while let Some(piece) = Pieces(&code[at..]).next() {
        let rest = &code[at + piece.len()..];
        if after_string && piece == "%" && !rest.starts_with('}') {
            let spaces = rest.len() - rest.trim_start().len();
            let length = operand_length(&rest[spaces..]);
            if length > 0 {
                let operand = percent_to_filter(&rest[spaces..spaces + length]);
                out.push_str(&format!("|{PERCENT}({operand})"));
                at += piece.len() + spaces + length;
                continue;
            }
        }
        out.push_str(piece);
        at += piece.len();
        after_string = is_string(piece) || (after_string && piece.trim().is_empty());
    }
    out
}

fn is_string(piece: &str) -> bool {
    piece.starts_with(['"', '\''])
}

/// The length of a name, literal or bracketed expression with its trailing attributes, items, calls and filters.
fn operand_length(code: &str) -> usize {
    let mut length = 0;
    let mut complete = false;
    while let Some(piece) = Pieces(&code[length..]).next() {
        let rest = &code[length..];
        let is_word = piece.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        match piece {
            "(" | "[" | "{" if !complete || piece != "{" => length += bracketed(rest),
            "." | "|" if complete => {
                length += piece.len();
                let word = first_word(&code[length..]).len();
                if word == 0 {
                    return 0;
                }
                length += word;
            }
            _ if !complete && (is_word || is_string(piece)) => length += piece.len(),
            _ => break,
        }
        complete = true;
    }
    if complete { length } else { 0 }
}

/// The length of the bracketed expression at the beginning of `code`.
fn bracketed(code: &str) -> usize {
    let (mut length, mut open) = (0, 0usize);
    for piece in Pieces(code) {
        length += piece.len();
        match piece {
            "(" | "[" | "{" => open += 1,
            ")" | "]" | "}" => open -= 1,
            _ => {}
        }
        if open == 0 {
            break;
        }
    }
    length
}

/// Strings, words, runs of white space, and single other characters.
struct Pieces<'a>(&'a str);

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let first = self.0.chars().next()?;
        let run = |belongs: fn(char) -> bool| self.0.find(|c: char| !belongs(c)).unwrap_or(self.0.len());
        let length = if first == '"' || first == '\'' {
            string_length(self.0, first)
        } else if first.is_alphanumeric() || first == '_' {
            run(|c| c.is_alphanumeric() || c == '_')
        } else if first.is_whitespace() {
            run(char::is_whitespace)
        } else {
            first.len_utf8()
        };
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(piece)
    }
}

fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if !escaped && character == quote {
            return at + 1;
        }
        escaped = !escaped && character == '\\';
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_other_jinja_are_translated() {
        for (source, expected) in [
            ("{% generation %}x{%- endgeneration -%}", "{% with %}x{%- endwith -%}"),
            ("{# {% generation %} #}{% raw %}{% generation %}{% endraw %}", {
                "{# {% generation %} #}{% raw %}{% generation %}{% endraw %}"
            }),
            ("{{ '{% generation %}' }}", "{{ '{% generation %}' }}"),
            ("{{ '%s' % x.y[0]|upper ~ 'b' }}", "{{ '%s' |__percent(x.y[0]|upper) ~ 'b' }}"),
            ("{{ \"%s-%s\" % (a, 'b' % c) }}", "{{ \"%s-%s\" |__percent((a, 'b' |__percent(c))) }}"),
            ("{{ 5 % 3 }}{{ x % '2' }}", "{{ 5 % 3 }}{{ x % '2' }}"),
            ("{%- set ns.x = ns.x + [1] -%}", "{%- set ns.x = (ns.x + [1])|__bounded -%}"),
            ("{% set x = a == b %}", "{% set x = (a == b)|__bounded %}"),
            ("{% set x %}y{% endset %}", "{% set x %}y{% endset %}"),
            ("{% set x | upper %}y{% endset %}", "{% set x | upper %}y{% endset %}"),
            ("{{ {'a': {'b': '}}'}} }} {% if x == '%}' %}", "{{ {'a': {'b': '}}'}} }} {% if x == '%}' %}"),
            ("a { b {% if", "a { b {% if"),
            ("{{ 'é' % ", "{{ 'é' % "),
        ] {
            assert_eq!(rewrite(source, Generation::Plain), expected);
        }
    }
    #[test]
    fn generation_blocks_can_be_marked() {
        let marked = rewrite("a {%- generation %}\nx{% endgeneration -%} b", Generation::Marked);
        assert_eq!(marked, "a {%- filter __generation %}{% with %}\nx{% endwith %}{% endfilter -%} b");
    }
}
