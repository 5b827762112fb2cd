//! Probabilities of answers, and the response with them.

use serde_json::{Value, json};

use super::question::{Kind, Question};
use crate::http::generation::{Delta, Frame, Renderer, Usage};

/// A possible answer among the prompts of a request.
pub(super) struct Candidate {
    /// The question that it answers.
    pub(super) question: usize,
    /// Where it begins among the ids of its prompt.
    pub(super) from: usize,
}

/// Writes decisions.
pub(super) struct DecisionsRenderer {
    pub(super) model: String,
    pub(super) questions: Vec<Question>,
    pub(super) candidates: Vec<Candidate>,
}

impl Renderer for DecisionsRenderer {
    fn whole(&mut self, choices: Vec<Delta>, usage: Usage) -> Value {
        let mut scores: Vec<Vec<f64>> = vec![Vec::new(); self.questions.len()];
        for (candidate, delta) in self.candidates.iter().zip(&choices) {
            let said = delta.tokens.iter().skip(candidate.from).filter_map(|token| token.logprob);
            scores[candidate.question].push(said.map(f64::from).sum());
        }
        let answers: Vec<Value> = self
            .questions
            .iter()
            .zip(&scores)
            .map(|(question, scores)| answer(question, &softmax(scores)))
            .collect();
        response(&self.model, answers, usage)
    }

    /// Decisions are not streamed.
    fn begin(&mut self, _usage: Usage) -> Vec<Frame> {
        Vec::new()
    }

    fn update(&mut self, _index: usize, _delta: Delta, _usage: Usage) -> Vec<Frame> {
        Vec::new()
    }

    fn end(&mut self, _usage: Usage) -> Vec<Frame> {
        Vec::new()
    }
}

/// The whole response.
pub(super) fn response(model: &str, answers: Vec<Value>, usage: Usage) -> Value {
    json!({
        "model": model,
        "answers": answers,
        "usage": {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
    })
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// The answer to a question with these probabilities of its possible answers.
pub(super) fn answer(question: &Question, probabilities: &[f64]) -> Value {
    let name = &question.name;
    // Of equal ones, the first.
    let best = (0..probabilities.len()).rev().max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]));
    let best = best.unwrap_or(0);
    let confidence = probabilities.get(best).copied().unwrap_or_default();
    match &question.kind {
        Kind::Predicate => json!({"type": "predicate", "name": name, "probability": probabilities.first()}),
        Kind::Choice(choices) => {
            let each = choices.iter().zip(probabilities);
            let each: Vec<Value> = each
                .map(|(choice, probability)| json!({"value": choice.value, "probability": probability}))
                .collect();
            json!({"type": "choice", "name": name, "choice": choices[best].value, "confidence": confidence, "probabilities": each})
        }
        Kind::Score(levels) => {
            let score: f64 =
                probabilities.iter().enumerate().map(|(level, probability)| level as f64 * probability).sum();
            let each = levels.iter().zip(probabilities).enumerate();
            let each: Vec<Value> = each
                .map(|(value, (level, probability))| {
                    json!({"label": level.value, "value": value, "probability": probability})
                })
                .collect();
            json!({"type": "score", "name": name, "score": score, "confidence": confidence, "probabilities": each})
        }
    }
}
