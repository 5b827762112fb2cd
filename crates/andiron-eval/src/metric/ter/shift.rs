//! Shifts of words, which are made as long as one saves edits.

use super::distance::{Edit, Matrix};

/// Words of a shift, at most.
const LONGEST: usize = 10;
/// Places between the words and those that they match, at most.
const FARTHEST: usize = 50;
/// Shifts that are tried for a pair of texts, about.
const MOST_TRIED: usize = 1000;

/// Edits that turn a prediction into a reference, shifts included.
pub(super) fn edits(prediction: &[u32], reference: &[u32]) -> u64 {
    if reference.is_empty() {
        return prediction.len() as u64;
    }
    let mut matrix = Matrix::new(prediction.to_vec(), reference);
    let (mut shifts, mut tried) = (0, 0);
    loop {
        let best = best_shift(&matrix, reference, &mut tried);
        // The last one counts only if it was not the one too many.
        match best {
            Some(Shifted { saved: 1.., words }) if tried < MOST_TRIED => {
                shifts += 1;
                matrix = Matrix::new(words, reference);
            }
            _ => return shifts + u64::from(matrix.distance()),
        }
    }
}

/// What tells the best shift: edits saved, length, and how early it begins and ends.
type Rank = (i64, usize, i64, i64);

/// A prediction with words at another place.
struct Shifted {
    /// Edits that this saves, without its own.
    saved: i64,
    words: Vec<u32>,
}

/// The shift that saves the most; of those that save the same the longest, then the first, then the one to the first place.
fn best_shift(matrix: &Matrix<'_>, reference: &[u32], tried: &mut usize) -> Option<Shifted> {
    let prediction = matrix.prediction();
    let before = i64::from(matrix.distance());
    let Alignment { places, wrong_references, wrong_predictions } = Alignment::of(&matrix.edits());
    let mut best: Option<(Rank, Vec<u32>)> = None;
    for (start, target, length) in matches(prediction, reference) {
        // Neither the words nor their place are right yet.
        let is_wrong = |wrong: &[bool], from: usize| wrong[from..from + length].contains(&true);
        if !is_wrong(&wrong_predictions, start) || !is_wrong(&wrong_references, target) {
            continue;
        }
        let here = start as i64..(start + length) as i64;
        if here.contains(&places[target]) {
            continue;
        }
        let mut last = None;
        // Before the first of the words that they match, and behind each of them.
        let before_and_behind =
            std::iter::once(target.checked_sub(1)).chain((target..target + length).map(Some));
        for behind in before_and_behind {
            let to = match behind {
                None => 0,
                Some(word) => (places[word] + 1) as usize,
            };
            if last.replace(to) == Some(to) {
                continue;
            }
            let words = shifted(prediction, start, length, to);
            let saved = before - i64::from(matrix.distance_of(&words));
            *tried += 1;
            let rank = (saved, length, -(start as i64), -(to as i64));
            if best.as_ref().is_none_or(|(known, _)| rank > *known) {
                best = Some((rank, words));
            }
        }
        if *tried >= MOST_TRIED {
            break;
        }
    }
    best.map(|((saved, ..), words)| Shifted { saved, words })
}

/// Runs of words that both texts have, at different places perhaps: where they begin in each, and their length. Of a run, its
/// beginnings come too.
fn matches(prediction: &[u32], reference: &[u32]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..prediction.len()).flat_map(move |start| {
        let near = start.saturating_sub(FARTHEST)..reference.len().min(start + FARTHEST + 1);
        near.flat_map(move |target| {
            let pairs = prediction[start..].iter().zip(&reference[target..]).take(LONGEST);
            let longest = pairs.take_while(|(a, b)| a == b).count();
            (1..=longest).map(move |length| (start, target, length))
        })
    })
}

/// The words with `length` of them, from `start` on, moved before the word at `to`.
fn shifted(words: &[u32], start: usize, length: usize, to: usize) -> Vec<u32> {
    let end = start + length;
    let moved = &words[start..end];
    if to < start {
        [&words[..to], moved, &words[to..start], &words[end..]].concat()
    } else if to > end {
        [&words[..start], &words[end..to], moved, &words[to..]].concat()
    } else {
        // Within themselves they move as far behind as the place is from their beginning.
        let behind = words.len().min(to + length);
        [&words[..start], &words[end..behind], moved, &words[behind..]].concat()
    }
}

/// Which word of the prediction stands for which of the reference.
struct Alignment {
    /// For each word of the reference the one of the prediction, or the one before it; -1 before the first.
    places: Vec<i64>,
    /// Whether a word of the reference is not where it is in the prediction.
    wrong_references: Vec<bool>,
    /// The same of the prediction.
    wrong_predictions: Vec<bool>,
}

impl Alignment {
    fn of(edits: &[Edit]) -> Self {
        let (mut places, mut wrong_references, mut wrong_predictions) = (Vec::new(), Vec::new(), Vec::new());
        for &edit in edits {
            if edit != Edit::Insert {
                wrong_predictions.push(edit != Edit::Same);
            }
            if edit != Edit::Delete {
                places.push(wrong_predictions.len() as i64 - 1);
                wrong_references.push(edit != Edit::Same);
            }
        }
        Self { places, wrong_references, wrong_predictions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_move_to_any_place() {
        let words = [0, 1, 2, 3, 4, 5];
        let check = |start, length, to, expected: [u32; 6]| {
            assert_eq!(shifted(&words, start, length, to), expected, "{start}, {length}, {to}");
        };
        check(3, 2, 1, [0, 3, 4, 1, 2, 5]);
        check(1, 2, 5, [0, 3, 4, 1, 2, 5]);
        check(1, 2, 3, [0, 3, 4, 1, 2, 5]);
        check(1, 2, 2, [0, 3, 1, 2, 4, 5]);
        check(1, 2, 1, [0, 1, 2, 3, 4, 5]);
        check(4, 2, 6, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn runs_of_equal_words_are_found_with_their_beginnings() {
        let found: Vec<_> = matches(&[7, 8, 9], &[8, 9, 7]).collect();
        assert_eq!(found, [(0, 2, 1), (1, 0, 1), (1, 0, 2), (2, 1, 1)]);
    }
}
