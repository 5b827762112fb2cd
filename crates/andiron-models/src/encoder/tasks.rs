//! Encoder tasks on token ids: fill-mask, classification, entities, question answering.

use std::ops::Range;

use andiron_core::{Forward, ids};
use burn::tensor::{Tensor, activation};

use super::{EncoderBundle, EncoderHead, Head};
use crate::batch::evaluation_over;
use crate::family::Encoder as _;
use crate::generate::top_logprobs;

/// Maximum logits on the host at one time, in elements: 64 MiB of f32.
const LOGITS_AT_ONCE: usize = 1 << 24;

/// A text or a pair of texts with the tokenizer's special tokens.
#[derive(Clone, Copy, Debug)]
pub struct EncoderInput<'a> {
    /// Token ids, special tokens included.
    pub ids: &'a [u32],
    /// Token type ids; empty for a single text. Ignored by models with fewer than two token types.
    pub type_ids: &'a [u32],
}

impl<'a> From<&'a [u32]> for EncoderInput<'a> {
    fn from(ids: &'a [u32]) -> Self {
        Self { ids, type_ids: &[] }
    }
}

/// Consecutive tokens with the same label.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// Index of the label; that of the `B-` label if there are two.
    pub label: usize,
    /// Token range.
    pub tokens: Range<usize>,
    /// Mean probability of the label over the tokens.
    pub score: f32,
}

/// A token span that answers a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Token range.
    pub tokens: Range<usize>,
    /// Start probability times end probability.
    pub score: f32,
}

impl Span {
    /// The likeliest answer span of a window; `None` if no token is allowed.
    ///
    /// `logits` are the outputs of the span head, two for each token: as the first token of an answer and as the last.
    /// Probabilities are taken over the `allowed` tokens. An answer has at most `max_len` tokens.
    pub fn best(logits: &[f32], allowed: &[bool], max_len: usize) -> Option<Self> {
        let column = |at: usize| softmax_where(logits.iter().skip(at).step_by(2).copied(), allowed);
        best_span(&column(0), &column(1), allowed, max_len)
    }
}

impl EncoderBundle {
    /// The `n` likeliest ids with their probabilities at each of a text's `positions`, likeliest first.
    ///
    /// # Panics
    /// If the model has no masked-LM head, a text is empty or too long, a position is outside it, an id or token type
    /// is out of range, or `positions` does not match the texts.
    pub fn fill(
        &self,
        inputs: &[EncoderInput<'_>],
        positions: &[&[usize]],
        n: usize,
    ) -> Vec<Vec<Vec<(u32, f32)>>> {
        assert_eq!(inputs.len(), positions.len(), "positions for each text");
        if inputs.is_empty() {
            return Vec::new();
        }
        let vocab_size = self.config.vocab_size();
        let n = n.min(vocab_size);
        let lens = inputs.iter().map(|input| input.ids.len());
        assert!(
            lens.zip(positions).all(|(len, at)| at.iter().all(|&position| position < len)),
            "positions lie in the text"
        );
        let likeliest = |row: &[f32]| -> Vec<(u32, f32)> {
            top_logprobs(row, n).into_iter().map(|(id, logprob)| (id, logprob.exp())).collect()
        };
        let found = self.read(inputs, |head, hidden_btd, _| {
            let Head::MaskedLm(head) = head else { panic!("the model has no head for masked tokens") };
            let [b, t, d] = hidden_btd.dims();
            let hidden_rd: Tensor<2> = hidden_btd.reshape([b * t, d]);
            let wanted: Vec<u32> = positions
                .iter()
                .enumerate()
                .flat_map(|(row, at)| at.iter().map(move |&position| (row * t + position) as u32))
                .collect();
            let mut found = Vec::with_capacity(wanted.len());
            for wanted in wanted.chunks((LOGITS_AT_ONCE / vocab_size).max(1)) {
                let wanted = ids::upload(wanted, [wanted.len()], self.device());
                let logits = values(head.forward(hidden_rd.clone().select(0, wanted)));
                found.extend(logits.chunks_exact(vocab_size).map(likeliest));
            }
            found
        });
        let mut found = found.into_iter();
        positions.iter().map(|at| found.by_ref().take(at.len()).collect()).collect()
    }

    /// Label scores of each text, in label order: probabilities, or raw outputs for regression.
    ///
    /// # Panics
    /// If the model has no sequence-classification head, a text is empty or too long, or an id or token type is out
    /// of range.
    pub fn classify(&self, inputs: &[EncoderInput<'_>]) -> Vec<Vec<f32>> {
        let EncoderHead::Classify { problem } = self.config.head() else {
            panic!("the model has no head for labels of texts");
        };
        if inputs.is_empty() {
            return Vec::new();
        }
        problem.scores(self.read(inputs, sequence_logits))
    }

    /// Cross-encoder relevance of each pair: the first output through [`EncoderBundle::relevance`].
    ///
    /// # Panics
    /// As [`classify`](Self::classify).
    pub fn relevances(&self, inputs: &[EncoderInput<'_>]) -> Vec<f32> {
        self.relevance_logits(inputs).into_iter().map(|logit| self.relevance.of(logit)).collect()
    }

    /// The same before the activation.
    ///
    /// # Panics
    /// As [`classify`](Self::classify).
    pub fn relevance_logits(&self, inputs: &[EncoderInput<'_>]) -> Vec<f32> {
        if inputs.is_empty() {
            return Vec::new();
        }
        let logits_bl = self.read(inputs, sequence_logits);
        let n_labels = logits_bl.dims()[1];
        values(logits_bl).chunks_exact(n_labels).map(|row| row[0]).collect()
    }

    /// Entities of each text: runs of tokens that share a label other than `O`.
    ///
    /// `B-PER` and `I-PER` are one kind; `B-` starts a new entity. Only tokens where `counts` is true are considered;
    /// exclude special tokens. Source: `simple` aggregation of Hugging Face's token classification.
    ///
    /// # Panics
    /// If the model has no token-classification head, a text is empty or too long, an id or token type is out of
    /// range, or `counts` has other lengths.
    pub fn entities(&self, inputs: &[EncoderInput<'_>], counts: &[Vec<bool>]) -> Vec<Vec<Entity>> {
        assert_lengths(inputs, counts);
        if inputs.is_empty() {
            return Vec::new();
        }
        let logits_btl = self.read(inputs, |head, hidden_btd, cx| match head {
            Head::TokenClassification(head) => head.forward(hidden_btd, cx),
            _ => panic!("the model has no head for labels of tokens"),
        });
        let columns = logits_btl.dims()[1];
        let scores = values(activation::softmax(logits_btl, 2));
        let labels = self.config.labels();
        let best: Vec<(usize, f32)> = scores.chunks_exact(labels.len()).map(greatest).collect();
        let rows = best.chunks_exact(columns).zip(counts);
        rows.map(|(best, counts)| group(labels, &best[..counts.len()], counts)).collect()
    }

    /// The likeliest answer span in each window; `None` if no token is allowed.
    ///
    /// `allowed` marks the tokens of each window that may be part of an answer. An answer has at most `max_len`
    /// tokens.
    ///
    /// # Panics
    /// If the model has no span head, a window is empty or too long, an id or token type is out of range, or
    /// `allowed` has other lengths.
    pub fn spans(
        &self,
        windows: &[EncoderInput<'_>],
        allowed: &[&[bool]],
        max_len: usize,
    ) -> Vec<Option<Span>> {
        assert_lengths(windows, allowed);
        if windows.is_empty() {
            return Vec::new();
        }
        let logits_bts = self.read(windows, |head, hidden_btd, cx| match head {
            Head::QuestionAnswering(head) => head.forward(hidden_btd, cx),
            _ => panic!("the model has no head for spans"),
        });
        let columns = logits_bts.dims()[1];
        let logits = values(logits_bts);
        let rows = logits.chunks_exact(2 * columns).zip(allowed);
        rows.map(|(logits, allowed)| Span::best(logits, allowed, max_len)).collect()
    }

    /// Applies `head` to the hidden states of a batch, in the bundle's precision.
    fn read<T>(
        &self,
        inputs: &[EncoderInput<'_>],
        head: impl FnOnce(Head<'_>, Tensor<3>, &mut Forward<'_>) -> T,
    ) -> T {
        self.read_with(inputs, |cx| cx, |head_of, hidden_btd, mut cx| head(head_of, hidden_btd, &mut cx))
    }

    /// [`read`](Self::read) in a context that `context` makes of the usual one.
    pub(crate) fn read_with<T>(
        &self,
        inputs: &[EncoderInput<'_>],
        context: impl FnOnce(Forward<'static>) -> Forward<'static>,
        head: impl FnOnce(Head<'_>, Tensor<3>, Forward<'static>) -> T,
    ) -> T {
        let texts: Vec<&[u32]> = inputs.iter().map(|input| input.ids).collect();
        let (ids_bt, rows) = self.batch(&texts);
        let [b, t] = ids_bt.dims();
        let typed = self.config.n_token_types() > 1
            && inputs.iter().any(|input| input.type_ids.iter().any(|&id| id != 0));
        let types_bt = typed.then(|| {
            let mut flat = Vec::with_capacity(b * t);
            for (row, input) in inputs.iter().enumerate() {
                flat.extend_from_slice(input.type_ids);
                flat.resize((row + 1) * t, 0);
            }
            ids::upload(&flat, [b, t], self.device())
        });
        let mut cx = context(evaluation_over(rows, t));
        self.precision.run(|| {
            let hidden_btd = self.model.hidden(ids_bt, types_bt, &mut cx);
            head(self.model.head(), hidden_btd, cx)
        })
    }
}

fn assert_lengths<M: AsRef<[bool]>>(inputs: &[EncoderInput<'_>], marks: &[M]) {
    assert!(
        inputs.iter().map(|input| input.ids.len()).eq(marks.iter().map(|marks| marks.as_ref().len())),
        "one entry for each token"
    );
}

/// Label logits of each text.
fn sequence_logits(head: Head<'_>, hidden_btd: Tensor<3>, cx: &mut Forward<'_>) -> Tensor<2> {
    match head {
        Head::SequenceClassification(head) => head.forward(hidden_btd, cx),
        _ => panic!("the model has no head for labels of texts"),
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("scores are f32")
}

fn greatest(row: &[f32]) -> (usize, f32) {
    let start = (0, f32::NEG_INFINITY);
    row.iter().enumerate().fold(start, |best, (id, &score)| if score > best.1 { (id, score) } else { best })
}

/// Splits a label into its entity type and whether it starts one (`B-`).
fn kind(label: &str) -> (&str, bool) {
    match label.split_at_checked(2) {
        Some(("B-", kind)) => (kind, true),
        Some(("I-", kind)) => (kind, false),
        _ => (label, false),
    }
}

fn group(labels: &[String], best: &[(usize, f32)], counts: &[bool]) -> Vec<Entity> {
    let mut entities: Vec<Entity> = Vec::new();
    // Entity type of the previous token, if it is in an entity.
    let mut open: Option<&str> = None;
    let tokens = best.iter().enumerate().filter(|(at, _)| counts[*at]);
    for (at, &(label, score)) in tokens {
        let (this, begins) = kind(&labels[label]);
        match entities.last_mut().filter(|_| open == Some(this) && !begins) {
            Some(entity) => {
                entity.tokens.end = at + 1;
                entity.score += score;
            }
            None if this == "O" => {}
            None => entities.push(Entity { label, tokens: at..at + 1, score }),
        }
        open = Some(this).filter(|kind| *kind != "O");
    }
    for entity in &mut entities {
        entity.score /= counts[entity.tokens.clone()].iter().filter(|counts| **counts).count() as f32;
    }
    entities
}

/// Softmax over the allowed entries; 0 elsewhere.
fn softmax_where(logits: impl Iterator<Item = f32>, allowed: &[bool]) -> Vec<f32> {
    let logits: Vec<f32> = logits
        .zip(allowed)
        .map(|(logit, &allowed)| if allowed { logit } else { f32::NEG_INFINITY })
        .collect();
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return vec![0.0; logits.len()];
    }
    let exps: Vec<f32> = logits.iter().map(|logit| (logit - max).exp()).collect();
    let sum: f32 = exps.iter().sum();
    exps.into_iter().map(|exp| exp / sum).collect()
}

fn best_span(starts: &[f32], ends: &[f32], allowed: &[bool], max_len: usize) -> Option<Span> {
    let mut best: Option<Span> = None;
    for start in (0..starts.len()).filter(|&start| allowed[start]) {
        let last = ends.len().min(start.saturating_add(max_len));
        for end in (start..last).filter(|&end| allowed[end]) {
            let score = starts[start] * ends[end];
            if best.as_ref().is_none_or(|best| score > best.score) {
                best = Some(Span { tokens: start..end + 1, score });
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Vec<String> {
        ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"].map(str::to_owned).to_vec()
    }

    fn grouped(tokens: &[usize], counts: &[bool]) -> Vec<(usize, Range<usize>)> {
        let best: Vec<(usize, f32)> = tokens.iter().map(|&label| (label, 0.5)).collect();
        let entities = group(&labels(), &best, counts);
        assert!(entities.iter().all(|entity| entity.score == 0.5));
        entities.into_iter().map(|entity| (entity.label, entity.tokens)).collect()
    }

    #[test]
    fn tokens_of_one_kind_are_one_entity_until_another_begins() {
        let all = [true; 8];
        assert_eq!(grouped(&[0, 1, 2, 2, 0, 3, 4, 0], &all), [(1, 1..4), (3, 5..7)]);
        assert_eq!(
            grouped(&[1, 2, 1, 1, 2, 4, 2, 0], &all),
            [(1, 0..2), (1, 2..3), (1, 3..5), (4, 5..6), (2, 6..7)]
        );
        assert_eq!(grouped(&[2, 0, 2, 0, 0, 0, 0, 1], &all), [(2, 0..1), (2, 2..3), (1, 7..8)]);
    }

    #[test]
    fn tokens_that_do_not_count_are_passed_over() {
        assert_eq!(grouped(&[1, 2, 2], &[false, true, false]), [(2, 1..2)]);
        assert_eq!(grouped(&[1, 0, 2], &[true, false, true]), [(1, 0..3)]);
    }

    #[test]
    fn the_best_span_is_ordered_allowed_and_short() {
        let starts = [0.1, 0.2, 0.6, 0.1];
        let ends = [0.5, 0.1, 0.1, 0.3];
        let all = [true; 4];
        assert_eq!(best_span(&starts, &ends, &all, 9).unwrap().tokens, 2..4);
        assert_eq!(best_span(&starts, &ends, &all, 1).unwrap().tokens, 2..3);
        assert_eq!(best_span(&starts, &ends, &[true, true, false, true], 9).unwrap().tokens, 1..4);
        assert_eq!(best_span(&starts, &ends, &[false; 4], 9), None);
    }

    #[test]
    fn a_softmax_leaves_out_what_is_not_allowed() {
        let found = softmax_where([1.0, 50.0, 1.0].into_iter(), &[true, false, true]);
        assert_eq!(found, [0.5, 0.0, 0.5]);
        assert_eq!(softmax_where([1.0].into_iter(), &[false]), [0.0]);
    }
}
