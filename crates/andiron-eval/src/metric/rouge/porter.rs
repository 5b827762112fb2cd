//! Porter's stemmer with the extensions of NLTK, which rouge_score uses.
//!
//! Source: Porter 1980, "An algorithm for suffix stripping", <https://doi.org/10.1108/eb046814>; NLTK 3.10's
//! `PorterStemmer`, whose extensions are: a list of irregular words, `ie` for `ies` and `ied` after one letter, `y` becomes
//! `i` after a consonant only, `alli` is followed by a second round of step 2, `fulli` and `logi` in step 2, and two
//! letters, a vowel and a consonant, count as a short syllable.

/// Words with a stem of their own.
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// Suffixes of step 2 and what takes their place, if the rest has a syllable.
const STEP2: [(&str, &str); 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];

const STEP3: [(&str, &str); 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

/// Suffixes that step 4 removes, if the rest has two syllables.
const STEP4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism",
    "ate", "iti", "ous", "ive", "ize",
];

/// The stem of `word`, which is of ASCII letters in lower case and digits. `memory` is where it is made.
pub(super) fn stem<'a>(word: &'a str, memory: &'a mut Vec<u8>) -> &'a str {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(form, _)| *form == word) {
        return stem;
    }
    if word.len() <= 2 {
        return word;
    }
    memory.clear();
    memory.extend_from_slice(word.as_bytes());
    plural(memory);
    past(memory);
    final_y(memory);
    derived(memory);
    apply(memory, &STEP3);
    remove(memory);
    final_e(memory);
    final_l(memory);
    std::str::from_utf8(memory).expect("suffixes are ASCII")
}

/// Whether each letter is a consonant: a `y` is one unless it follows one.
fn consonants(word: &[u8]) -> impl Iterator<Item = bool> {
    let mut previous = false;
    word.iter().map(move |letter| {
        previous = match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => !previous,
            _ => true,
        };
        previous
    })
}

fn ends_in_consonant(word: &[u8]) -> bool {
    consonants(word).last().unwrap_or(false)
}

/// Porter's measure: how often a consonant follows a vowel.
fn measure(word: &[u8]) -> usize {
    let mut after_vowel = false;
    let mut count = 0;
    for consonant in consonants(word) {
        count += usize::from(consonant && after_vowel);
        after_vowel = !consonant;
    }
    count
}

/// Whether the word ends in consonant, vowel, consonant other than w, x and y; or is a vowel and a consonant.
fn ends_in_short_syllable(word: &[u8]) -> bool {
    let mut last = [None; 3];
    for consonant in consonants(word) {
        last = [last[1], last[2], Some(consonant)];
    }
    match last {
        [None, Some(false), Some(true)] => true,
        [Some(true), Some(false), Some(true)] => {
            !word.ends_with(b"w") && !word.ends_with(b"x") && !word.ends_with(b"y")
        }
        _ => false,
    }
}

fn ends_in_double_consonant(word: &[u8]) -> bool {
    matches!(word, [.., a, b] if a == b) && ends_in_consonant(word)
}

/// The word without `suffix`, if it ends in it.
fn without<'a>(word: &'a [u8], suffix: &str) -> Option<&'a [u8]> {
    word.strip_suffix(suffix.as_bytes())
}

fn replace(word: &mut Vec<u8>, rest: usize, suffix: &str) {
    word.truncate(rest);
    word.extend_from_slice(suffix.as_bytes());
}

/// Step 1a.
fn plural(word: &mut Vec<u8>) {
    if word.ends_with(b"sses") {
        word.truncate(word.len() - 2);
    } else if word.ends_with(b"ies") {
        word.truncate(word.len() - if word.len() == 4 { 1 } else { 2 });
    } else if word.ends_with(b"s") && !word.ends_with(b"ss") {
        word.pop();
    }
}

/// Step 1b.
fn past(word: &mut Vec<u8>) {
    if word.ends_with(b"ied") {
        word.truncate(word.len() - if word.len() == 4 { 1 } else { 2 });
        return;
    }
    if let Some(rest) = without(word, "eed") {
        if measure(rest) > 0 {
            word.pop();
        }
        return;
    }
    let Some(rest) = without(word, "ed").or_else(|| without(word, "ing")) else { return };
    if consonants(rest).all(|consonant| consonant) {
        return;
    }
    let len = rest.len();
    word.truncate(len);
    if word.ends_with(b"at") || word.ends_with(b"bl") || word.ends_with(b"iz") {
        word.push(b'e');
    } else if ends_in_double_consonant(word) {
        if !matches!(word[len - 1], b'l' | b's' | b'z') {
            word.pop();
        }
    } else if measure(word) == 1 && ends_in_short_syllable(word) {
        word.push(b'e');
    }
}

/// Step 1c.
fn final_y(word: &mut [u8]) {
    if let [rest @ .., last @ b'y'] = word
        && rest.len() > 1
        && ends_in_consonant(rest)
    {
        *last = b'i';
    }
}

/// Step 2.
fn derived(word: &mut Vec<u8>) {
    while let Some(rest) = without(word, "alli")
        && measure(rest) > 0
    {
        let len = rest.len();
        replace(word, len, "al");
    }
    // Here the rest is measured with the l of the suffix.
    if let Some(rest) = without(word, "logi") {
        let len = rest.len();
        if measure(&word[..len + 1]) > 0 {
            replace(word, len, "log");
        }
        return;
    }
    apply(word, &STEP2);
}

/// The first rule whose suffix fits decides, whether the rest has a syllable or not.
fn apply(word: &mut Vec<u8>, rules: &[(&str, &str)]) {
    for (suffix, replacement) in rules {
        if let Some(rest) = without(word, suffix) {
            let len = rest.len();
            if measure(rest) > 0 {
                replace(word, len, replacement);
            }
            return;
        }
    }
}

/// Step 4.
fn remove(word: &mut Vec<u8>) {
    for suffix in STEP4 {
        if let Some(rest) = without(word, suffix) {
            let len = rest.len();
            if measure(rest) > 1 && (suffix != "ion" || matches!(rest.last(), Some(b's' | b't'))) {
                word.truncate(len);
            }
            return;
        }
    }
}

/// Step 5a.
fn final_e(word: &mut Vec<u8>) {
    if let Some(rest) = without(word, "e") {
        let measure = measure(rest);
        if measure > 1 || measure == 1 && !ends_in_short_syllable(rest) {
            word.pop();
        }
    }
}

/// Step 5b.
fn final_l(word: &mut Vec<u8>) {
    if word.ends_with(b"ll") && measure(&word[..word.len() - 1]) > 1 {
        word.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NLTK 3.10.4's stems.
    #[test]
    fn stems_are_those_of_nltk() {
        let expected = include_str!("../../../tests/golden/stems.txt");
        assert!(expected.lines().count() > 400);
        let mut memory = Vec::new();
        for line in expected.lines() {
            let (word, expected) = line.split_once(' ').unwrap();
            assert_eq!(stem(word, &mut memory), expected, "{word}");
        }
    }
}
