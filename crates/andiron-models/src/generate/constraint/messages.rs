//! Messages of the grammar compiler, rewritten for the author of the grammar.

/// Rewrites a compiler message in plain words; unknown messages stay as they are, without their drawing.
pub(super) fn plain(message: &str) -> String {
    let message = message.replace("<non-verbose/>", "");
    for (mark, said) in KNOWN {
        if message.contains(mark) {
            return (*said).to_owned();
        }
    }
    for (mark, say) in QUOTING {
        if let Some((_, rest)) = message.split_once(mark) {
            return say(rest.trim());
        }
    }
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.first().map_or_else(|| "it cannot be compiled".to_owned(), |line| (*line).to_owned())
}

const TOO_MUCH: &str = "finding out what may come next takes too much; make it simpler";

const KNOWN: &[(&str, &str)] = &[
    ("too many expressions constructed", TOO_MUCH),
    ("too many states", TOO_MUCH),
    ("fuel exhausted", TOO_MUCH),
    ("initial lexer configuration", TOO_MUCH),
    ("grammar size (number of symbols)", TOO_MUCH),
    ("schema too large", TOO_MUCH),
    ("stack level exceeded", TOO_MUCH),
    ("Current row has", TOO_MUCH),
    (
        "Unable to determine if regex is empty",
        "it takes too much to find out whether any text fits a pattern and its lengths",
    ),
    (
        "lookarounds not supported yet",
        "anchors are supported only at the ends of a pattern, and word boundaries not at all",
    ),
    (
        "oneOf constraints are not supported",
        "oneOf is supported only where its alternatives plainly exclude each other; write anyOf if any will do",
    ),
    (
        "min/maxProperties only supported",
        "minProperties and maxProperties are supported only where every listed property is required",
    ),
    ("decimal literal invalid", "minLength and maxLength must be below 4294967296"),
    (
        "Failed to generate regex for float range",
        "minimum and maximum of more than 18 digits are supported for integers only; leave them out",
    ),
    (
        "Failed to generate regex for integer range",
        "a minimum or maximum so large is not supported; leave it out",
    ),
    ("NoExtensionBias", "no token of the vocabulary can begin such a text"),
    ("has too many digits", "multipleOf has too many digits"),
];

type Say = fn(&str) -> String;

/// Messages that end in a quotation.
const QUOTING: &[(&str, Say)] = &[
    ("Unimplemented keys: ", |keys| {
        let keys: Vec<String> = serde_json::from_str(keys.lines().next().unwrap_or(keys)).unwrap_or_default();
        match keys.is_empty() {
            true => "it has keywords that are not supported".to_owned(),
            false => format!("not supported: `{}`", keys.join("`, `")),
        }
    }),
    ("Invalid type: ", |name| {
        format!(
            "type `{}` is none of null, boolean, number, integer, string, array and object",
            first_line(name)
        )
    }),
    ("Unknown format: ", |name| format!("format `{}` is not supported", first_line(name))),
    ("without 'referencing' feature; ref ", |name| {
        format!("$ref {}: only references within the schema (`#/…`) are supported", first_line(name))
    }),
    ("Reference segment ", |rest| {
        let name = rest.rsplit(" in ").next().unwrap_or(rest);
        format!("$ref {} names nothing in the schema", first_line(name).trim_end_matches('.'))
    }),
    ("circular references with sibling keys are not supported: ", |name| {
        format!(
            "$ref `{}` leads back to itself with other keywords beside it, which is not supported",
            first_line(name)
        )
    }),
    ("patternProperty regexes ", |rest| {
        format!("patternProperties {}, which is not supported", first_line(rest))
    }),
    ("Unsatisfiable schema: ", |why| format!("no text fits it: {}", first_line(why))),
];

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_to_do_and_no_drawing() {
        assert_eq!(plain("Unimplemented keys: [\"if\", \"then\"]"), "not supported: `if`, `then`");
        let placed = "at 3(7): failed to compile JSON schema: Unknown format: nope\n   3 | json\n   ^";
        assert_eq!(plain(placed), "format `nope` is not supported");
        let reference = "Reference segment 'nowhere' not found in '#/nowhere'.";
        assert_eq!(plain(reference), "$ref '#/nowhere' names nothing in the schema");
        assert_eq!(plain("lexer error: too many expressions constructed\n<non-verbose/>"), TOO_MUCH);
        assert_eq!(plain("Parser Error: Current row has 2007 items; max is 2000"), TOO_MUCH);
        assert_eq!(plain("something new\n  in a picture"), "something new");
    }
}
