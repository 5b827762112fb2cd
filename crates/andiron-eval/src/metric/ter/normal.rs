//! Tercom's rules for cutting a text into words.

use std::sync::LazyLock;

use fancy_regex::Regex;

/// Patterns and what takes their place, in this order.
static RULES: LazyLock<[(Regex, &str); 5]> = LazyLock::new(|| {
    let rule = |pattern, by| (Regex::new(pattern).expect("the pattern is written in this file"), by);
    [
        rule(r"([{-~\[-` -&(-+:-@/])", " ${1} "),
        rule("'s ", " 's "),
        // Points and commas are no words between digits.
        rule(r"([^0-9])([.,])", "${1} ${2} "),
        rule(r"([.,])([^0-9])", " ${1} ${2}"),
        rule("([0-9])(-)", "${1} ${2} "),
    ]
});

/// The text with white space between its words.
pub(super) fn cut(text: &str, asian: bool) -> String {
    if text.is_empty() {
        return String::new();
    }
    let text = text.replace("\n-", "").replace('\n', " ");
    let text = [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")]
        .iter()
        .fold(text, |text, (entity, character)| text.replace(entity, character));
    let text = RULES
        .iter()
        .fold(format!(" {text} "), |text, (pattern, by)| pattern.replace_all(&text, *by).into_owned());
    if !asian {
        return text;
    }
    let spaced = |c: char| {
        let is_word = is_ideograph(c) || is_asian_punctuation(c);
        [is_word.then_some(' '), Some(c), is_word.then_some(' ')].into_iter().flatten()
    };
    text.chars().flat_map(spaced).collect()
}

/// Whether a character is left out without punctuation.
pub(super) fn is_punctuation(c: char, asian: bool) -> bool {
    matches!(c, '.' | ',' | '?' | ':' | ';' | '!' | '"' | '(' | ')') || (asian && is_asian_punctuation(c))
}

/// Characters that are words by themselves. That U+3F22 ends a range is a slip of sacreBLEU's, for U+32FF, without effect: what
/// it adds is in others.
fn is_ideograph(c: char) -> bool {
    matches!(c,
        '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}'
        | '\u{31c0}'..='\u{31ef}' | '\u{2e80}'..='\u{2eff}'
        | '\u{3200}'..='\u{3f22}' | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe4f}')
}

fn is_asian_punctuation(c: char) -> bool {
    matches!(c,
        '\u{3001}' | '\u{3002}' | '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301f}' | '\u{ff61}'..='\u{ff65}' | '\u{30fb}'
        | '\u{ff0e}' | '\u{ff0c}' | '\u{ff1f}' | '\u{ff1a}' | '\u{ff1b}' | '\u{ff01}' | '\u{ff02}' | '\u{ff08}' | '\u{ff09}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// sacreBLEU 2.6.0's `TercomTokenizer(normalized=True)`.
    #[test]
    fn words_are_those_of_tercom() {
        let check = |text: &str, asian, expected: &str| {
            let cut = cut(text, asian);
            assert_eq!(super::super::words(&cut).collect::<Vec<_>>().join(" "), expected);
        };
        check("It's 1,000.5 kg-x, 3-4 (&quot;so&quot;).", false, "It 's 1,000.5 kg-x , 3 - 4 ( \" so \" ) .");
        check("to-\n-day\nnow", false, "to-day now");
        check("東京、です ㌀", true, "東 京 、 です ㌀");
        check("東京、です", false, "東京、です");
    }
}
