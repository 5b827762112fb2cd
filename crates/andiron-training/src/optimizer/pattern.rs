//! Patterns of parameter names.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pattern of whole parameter names, as they are in files: `*` is any run of characters, dots included, and `?` is any
/// one character. Everything else is itself; case matters.
///
/// # Example
/// ```
/// use andiron_training::optimizer::NamePattern;
/// let pattern = NamePattern::new("bert.encoder.layer.?.*.bias");
/// assert!(pattern.matches("bert.encoder.layer.3.attention.self.query.bias"));
/// assert!(!pattern.matches("bert.encoder.layer.11.attention.self.query.bias"));
/// assert!(!pattern.matches("bert.encoder.layer.3.attention.self.query.bias.lora_a"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NamePattern(String);

impl NamePattern {
    /// From its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether `name` matches, from its beginning to its end.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name): (Vec<char>, Vec<char>) = (self.0.chars().collect(), name.chars().collect());
        let (mut at, mut next) = (0, 0);
        // After the last star: where the pattern goes on, and the first character that the star does not cover.
        let mut star: Option<(usize, usize)> = None;
        while next < name.len() {
            match pattern.get(at) {
                Some('*') => {
                    at += 1;
                    star = Some((at, next));
                }
                Some(&wanted) if wanted == '?' || wanted == name[next] => {
                    at += 1;
                    next += 1;
                }
                // The star covers one more character.
                _ => match &mut star {
                    Some((resume, covered)) => {
                        *covered += 1;
                        (at, next) = (*resume, *covered);
                    }
                    None => return false,
                },
            }
        }
        pattern[at..].iter().all(|&left| left == '*')
    }

    /// Whether the pattern is empty, so that it matches nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, matching: &[&str], others: &[&str]) {
        let matches = |name: &&&str| NamePattern::new(pattern).matches(name);
        assert_eq!(matching.iter().find(|name| !matches(name)), None, "{pattern} matches");
        assert_eq!(others.iter().find(matches), None, "{pattern} does not match");
    }

    #[test]
    fn a_star_covers_any_run_of_characters() {
        check("*", &["", "a", "a.b"], &[]);
        check("*.bias", &[".bias", "h.0.bias", "bias.bias"], &["bias", "h.0.bias.x", "h.0.biases"]);
        check("h.*.attn.*", &["h.0.attn.c", "h.0.1.attn.attn."], &["h.attn.c", "g.0.attn.c"]);
        check("*a*b*", &["ab", "xaxbx", "aab", "abab"], &["ba", "a", "b"]);
        check("a**b", &["ab", "axb"], &["a", "abx"]);
    }

    #[test]
    fn a_question_mark_is_one_character() {
        check("h.?.w", &["h.0.w", "h.é.w"], &["h..w", "h.10.w"]);
        check("?*", &["a", "ab"], &[""]);
    }

    #[test]
    fn everything_else_is_itself() {
        check("h.[01].w", &["h.[01].w"], &["h.0.w", "H.[01].w"]);
        check("h.0", &["h.0"], &["h.0.w", "th.0", "hx0"]);
        check("", &[""], &["a"]);
    }

    #[test]
    fn a_long_pattern_of_stars_is_fast() {
        let (pattern, name) = ("*a".repeat(200) + "b", "a".repeat(2000));
        assert!(!NamePattern::new(pattern).matches(&name));
    }
}
