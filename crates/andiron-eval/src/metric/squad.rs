//! Exact match and F1 of answers, as the two official scripts of SQuAD compute them.
//!
//! Both compare answers in lower case, without ASCII punctuation and without the articles a, an and the. They differ where an
//! answer has no words left: F1 of two such answers is 0 in version 1.1 and 1 in version 2.0. (torchmetrics gives 1 for version
//! 1.1; we follow the script.)

use std::collections::HashMap;

use super::text::{WORD_CHARS, words};

/// The script that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SquadVersion {
    /// `evaluate-v1.1.py`: every question has an answer.
    V1,
    /// `evaluate-v2.0.py`: a question may have none, to which the right answer is the empty text.
    V2,
}

/// Scores of one answer, 0 to 1. The scripts report the means in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SquadScore {
    /// 1 if the answer is one of the expected ones, else 0.
    pub exact: f64,
    /// F1 of the words, for the expected answer with the highest.
    pub f1: f64,
}

/// Scores of the answer `prediction` where `answers` are expected. In version 2, none, or none with a word in it, means that
/// the question has no answer.
///
/// Source: Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text",
/// <https://arxiv.org/abs/1606.05250>; Rajpurkar, Jia, Liang 2018, "Know What You Don't Know: Unanswerable Questions for
/// SQuAD", <https://arxiv.org/abs/1806.03822>.
///
/// # Panics
/// If `answers` is empty in version 1.
///
/// # Example
/// ```
/// use andiron_eval::metric::squad::{SquadVersion, squad};
/// let score = squad(SquadVersion::V1, "the Eiffel tower", &["Eiffel Tower!", "tower"]);
/// assert_eq!((score.exact, score.f1), (1.0, 1.0));
/// let score = squad(SquadVersion::V2, "Paris", &[] as &[&str]);
/// assert_eq!((score.exact, score.f1), (0.0, 0.0));
/// ```
pub fn squad<S: AsRef<str>>(version: SquadVersion, prediction: &str, answers: &[S]) -> SquadScore {
    let prediction = normalize_answer(prediction);
    let mut answers: Vec<String> = answers.iter().map(|answer| normalize_answer(answer.as_ref())).collect();
    match version {
        SquadVersion::V1 => assert!(!answers.is_empty(), "SQuAD 1.1 expects an answer"),
        SquadVersion::V2 => {
            answers.retain(|answer| !answer.is_empty());
            if answers.is_empty() {
                answers.push(String::new());
            }
        }
    }
    let scores = answers.iter().map(|answer| SquadScore {
        exact: f64::from(u8::from(*answer == prediction)),
        f1: match (version, answer.is_empty() || prediction.is_empty()) {
            (SquadVersion::V2, true) => f64::from(u8::from(*answer == prediction)),
            _ => f1(&prediction, answer),
        },
    });
    scores.fold(SquadScore::default(), |best, score| SquadScore {
        exact: best.exact.max(score.exact),
        f1: best.f1.max(score.f1),
    })
}

/// An answer in lower case, without ASCII punctuation and English articles, and with single spaces.
pub fn normalize_answer(answer: &str) -> String {
    let mut text = answer.to_lowercase();
    text.retain(|c| !c.is_ascii_punctuation());
    let mut out = String::with_capacity(text.len());
    for word in words(&text) {
        // An article counts wherever the letters beside it are none, as in "the‑end" with a hyphen outside ASCII.
        let mut rest = word;
        let mut kept = String::with_capacity(word.len());
        while let Some(c) = rest.chars().next() {
            let is_part = WORD_CHARS.contains(c);
            let end = rest.find(|c| WORD_CHARS.contains(c) != is_part).unwrap_or(rest.len());
            let (part, after) = rest.split_at(end);
            kept.push_str(if matches!(part, "a" | "an" | "the") { " " } else { part });
            rest = after;
        }
        for part in words(&kept) {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(part);
        }
    }
    out
}

/// F1 of the words of two normalized answers; 0 if they have none in common.
fn f1(prediction: &str, answer: &str) -> f64 {
    let mut left: HashMap<&str, usize> = HashMap::new();
    let mut expected = 0;
    for word in words(answer) {
        *left.entry(word).or_default() += 1;
        expected += 1;
    }
    let (mut given, mut common) = (0, 0);
    for word in words(prediction) {
        given += 1;
        if let Some(count) = left.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    if common == 0 {
        return 0.0;
    }
    let (precision, recall) = (f64::from(common) / f64::from(given), f64::from(common) / f64::from(expected));
    2.0 * precision * recall / (precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers of both official scripts, on Python 3.11.
    #[test]
    fn answers_are_normalized_as_in_the_scripts() {
        assert_eq!(
            normalize_answer("  The U.S.-based\ta-team, and an \u{201c}a\u{201d}!"),
            "usbased ateam and \u{201c} \u{201d}"
        );
        assert_eq!(normalize_answer("the\u{2011}end of Theatre"), "\u{2011}end of theatre");
        assert_eq!(normalize_answer("a 한국어 a\u{301}"), "한국어 \u{301}");
    }

    #[test]
    fn answers_without_words_are_equal_in_version_2_only() {
        for (version, f1) in [(SquadVersion::V1, 0.0), (SquadVersion::V2, 1.0)] {
            assert_eq!(squad(version, "The", &["a!"]), SquadScore { exact: 1.0, f1 });
        }
        assert_eq!(squad(SquadVersion::V2, "", &["Paris"]), SquadScore::default());
    }
}
