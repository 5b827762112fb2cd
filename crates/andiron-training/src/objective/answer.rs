//! Extractive question answering, for encoders: the answer to a question is a span of a context.

mod data;

use std::ops::Range;

use andiron_core::{Forward, ids, loss};
use andiron_data::batch::{HostBatch, Labels};
use andiron_eval::metric::squad::{SquadScore, SquadVersion, squad};
use andiron_models::encoder::{Head, Span};
use andiron_models::{Encoder as _, EncoderConfig};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Measured, Metrics, ModelOf, Objective, Pass};

/// Options of [`Answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnswerConfig {
    /// Tokens that consecutive windows of a long context share; at most a quarter of a sequence.
    pub overlap: usize,
    /// Longest answer in validation, in tokens.
    pub max_answer_tokens: usize,
}

impl Default for AnswerConfig {
    fn default() -> Self {
        Self { overlap: 128, max_answer_tokens: 30 }
    }
}

/// Mean of the cross-entropies of an answer's first and last token. A window of the context without the answer has its
/// classification token for both.
///
/// Source: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers", <https://arxiv.org/abs/1810.04805>;
/// windows as in the `run_qa` example of `transformers`.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Longest answer in validation, in tokens.
    pub max_answer_tokens: usize,
    /// The questions of the validation data, in its order.
    questions: Vec<Asked>,
    /// The windows of all of them, one for each record.
    windows: Vec<Window>,
}

/// A question of the validation data.
#[derive(Clone, Debug)]
struct Asked {
    context: String,
    answers: Vec<String>,
    n_windows: usize,
}

/// A question with a part of its context.
#[derive(Clone, Debug)]
struct Window {
    /// Where the token that stands for "no answer" is.
    no_answer: usize,
    /// The bytes of the context that each token is, for those that may be part of an answer.
    places: Vec<Option<Range<usize>>>,
}

/// What question answering collects over the validation data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnswerTally {
    /// What was found in each window that was read.
    windows: Vec<Found>,
}

/// The likeliest answer in a window.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    /// Its bytes in the context, its probability, and the sum of its logits.
    answer: Option<(Range<usize>, f32, f32)>,
    /// The sum of the logits of "no answer".
    no_answer: f32,
}

impl Answer {
    /// Logits of first and last tokens, and the context in which they were computed.
    ///
    /// # Shape
    /// `[rows, columns, 2]`.
    fn logits(model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> (Tensor<3>, Forward<'static>) {
        let inputs = &batch.inputs;
        let mut cx = pass.context(inputs);
        let hidden_btd = model.hidden(pass.ids(inputs), pass.type_ids(inputs), &mut cx);
        let Head::QuestionAnswering(head) = model.head() else { panic!("an encoder with a head for spans") };
        (head.forward(hidden_btd, &mut cx), cx)
    }

    /// The sum of the losses of the rows.
    fn loss_of(logits_bt2: Tensor<3>, labels: &Labels, cx: &Forward<'_>, pass: &Pass<'_>) -> Tensor<1> {
        let Labels::Spans(spans) = labels else { panic!("a collator of spans") };
        let [b, t, _] = logits_bt2.dims();
        let column = |at: usize| logits_bt2.clone().slice([0..b, 0..t, at..at + 1]).reshape([b, t]);
        let spans_b2 = ids::upload(spans.as_flattened(), [b, 2], pass.device);
        let losses_b = loss::span_cross_entropy(column(0), column(1), spans_b2, cx.padding_mask());
        losses_b.sum().mul_scalar(pass.scale)
    }

    /// The likeliest answer in a window with these logits.
    fn found(&self, logits: &[f32], window: &Window) -> Found {
        let allowed: Vec<bool> = window.places.iter().map(Option::is_some).collect();
        let sum = |first: usize, last: usize| logits[2 * first] + logits[2 * last + 1];
        let span = Span::best(&logits[..2 * allowed.len()], &allowed, self.max_answer_tokens);
        let answer = span.and_then(|Span { tokens, score }| {
            let (first, last) = (tokens.start, tokens.end - 1);
            let bytes = window.places.get(first)?.as_ref()?.start..window.places.get(last)?.as_ref()?.end;
            Some((bytes, score, sum(first, last)))
        });
        Found { answer, no_answer: sum(window.no_answer, window.no_answer) }
    }

    /// The text that answers a question, by what was found in its windows: the likeliest answer within its window. If a
    /// question may have no answer, the answer is empty where that is likelier in every window.
    fn text<'a>(question: &'a Asked, found: &[Found], version: SquadVersion) -> &'a str {
        let answers = found.iter().filter_map(|found| found.answer.as_ref());
        let best = answers.reduce(|best, other| if other.1 > best.1 { other } else { best });
        let none = found.iter().map(|found| found.no_answer).fold(f32::INFINITY, f32::min);
        match best {
            Some((bytes, _, logits)) if version == SquadVersion::V1 || *logits >= none => {
                &question.context[bytes.clone()]
            }
            _ => "",
        }
    }
}

impl Objective for Answer {
    type Family = EncoderConfig;
    type Tally = AnswerTally;
    const UNIT: &'static str = "windows";

    fn loss(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        let (logits_bt2, cx) = Self::logits(model, batch, pass);
        Self::loss_of(logits_bt2, &batch.labels, &cx, pass)
    }

    fn measure(
        &self,
        model: &ModelOf<Self>,
        batch: &HostBatch,
        pass: &Pass<'_>,
        tally: &mut AnswerTally,
    ) -> Tensor<1> {
        let (logits_bt2, cx) = Self::logits(model, batch, pass);
        let loss = Self::loss_of(logits_bt2.clone(), &batch.labels, &cx, pass);
        let logits = logits_bt2.into_data().try_into_vec::<f32>().expect("logits are f32");
        let rows = logits.chunks_exact(2 * batch.inputs.columns);
        // Validation reads the records in their order.
        let windows = self.windows.iter().skip(tally.windows.len());
        tally.windows.extend(rows.zip(windows).map(|(logits, window)| self.found(logits, window)));
        loss
    }

    /// Exact match and F1 of the questions whose windows were all read.
    fn metrics(&self, _: &Measured, tally: &AnswerTally) -> Metrics {
        let unanswerable = self.questions.iter().any(|question| question.answers.is_empty());
        let version = if unanswerable { SquadVersion::V2 } else { SquadVersion::V1 };
        let mut rest = &tally.windows[..];
        let (mut sum, mut n) = (SquadScore::default(), 0);
        for question in &self.questions {
            let Some((found, others)) = rest.split_at_checked(question.n_windows) else { break };
            rest = others;
            let score = squad(version, Self::text(question, found, version), &question.answers);
            sum = SquadScore { exact: sum.exact + score.exact, f1: sum.f1 + score.f1 };
            n += 1;
        }
        let mean = |sum: f64| if n > 0 { sum / f64::from(n) } else { 0.0 };
        let values = vec![("exact_match".to_owned(), mean(sum.exact)), ("f1".to_owned(), mean(sum.f1))];
        Metrics { values, confusion: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_answer_where_that_is_likelier_in_every_window() {
        let question = Asked { context: "the né cat".to_owned(), answers: Vec::new(), n_windows: 2 };
        let found = |no_answers: [f32; 2]| {
            [
                Found { answer: Some((0..3, 0.2, 1.5)), no_answer: no_answers[0] },
                Found { answer: Some((4..7, 0.3, 1.0)), no_answer: no_answers[1] },
            ]
        };
        let text = |no_answers, version| Answer::text(&question, &found(no_answers), version).to_owned();
        assert_eq!(text([9.0, 9.0], SquadVersion::V1), "né");
        assert_eq!(text([9.0, 0.9], SquadVersion::V2), "né");
        assert_eq!(text([9.0, 1.1], SquadVersion::V2), "");
        assert_eq!(Answer::text(&question, &[], SquadVersion::V1), "");
    }

    #[test]
    fn an_answer_is_a_span_of_the_context() {
        let objective = Answer { max_answer_tokens: 2, ..Answer::default() };
        let window = Window { no_answer: 0, places: vec![None, Some(0..3), Some(4..7), None] };
        // First and last token of each; the special tokens have the greatest logits.
        let found = objective.found(&[5.0, 5.0, 1.0, 0.0, 0.0, 2.0, 9.0, 9.0, 8.0, 8.0], &window);
        let (bytes, _, logits) = found.answer.unwrap();
        assert_eq!((bytes, logits, found.no_answer), (0..7, 3.0, 10.0));
    }
}
