//! Measures one sequence on its way through the engine.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{ModelMetrics, Outcome};

/// Takes the times and tokens of one sequence. Each event comes once, but for [`Meter::token`]; those after the end count for nothing.
#[derive(Debug)]
pub(crate) struct Meter {
    metrics: Arc<ModelMetrics>,
    /// Prompt tokens of the sequence.
    prompt_len: usize,
    /// Whether these were counted, or another sequence counts them.
    prompt_counted: Cell<bool>,
    submitted: Instant,
    started: Cell<bool>,
    last_token: Cell<Option<Instant>>,
    tokens: Cell<u64>,
    over: Cell<bool>,
}

impl Meter {
    /// A sequence that is submitted now. With `counts_prompt` unset, another sequence counts their common prompt.
    pub(crate) fn new(metrics: Arc<ModelMetrics>, prompt_len: usize, counts_prompt: bool) -> Self {
        Self {
            metrics,
            prompt_len,
            prompt_counted: Cell::new(!counts_prompt),
            submitted: Instant::now(),
            started: Cell::new(false),
            last_token: Cell::new(None),
            tokens: Cell::new(0),
            over: Cell::new(false),
        }
    }

    /// It leaves the queue. A sequence that was preempted and starts again waited once.
    pub(crate) fn started(&self) {
        if !self.started.replace(true) {
            self.metrics.queue.observe(self.submitted.elapsed().as_secs_f64());
        }
    }

    /// Its prompt has been read.
    pub(crate) fn prompt_read(&self) {
        if !self.prompt_counted.replace(true) {
            self.metrics.add_prompt_tokens(self.prompt_len);
        }
    }

    /// A token was generated.
    pub(crate) fn token(&self) {
        self.prompt_read();
        let now = Instant::now();
        match self.last_token.replace(Some(now)) {
            Some(before) => self.metrics.between_tokens.observe((now - before).as_secs_f64()),
            None => self.metrics.first_token.observe((now - self.submitted).as_secs_f64()),
        }
        self.tokens.set(self.tokens.get() + 1);
        self.metrics.generation_tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// It ended.
    pub(crate) fn end(&self, outcome: Outcome) {
        if self.over.replace(true) {
            return;
        }
        self.metrics.add_finished(outcome);
        if matches!(outcome, Outcome::Stop | Outcome::Length) {
            self.prompt_read();
            self.metrics.latency.observe(self.submitted.elapsed().as_secs_f64());
            self.metrics.prompt_len.observe(self.prompt_len as f64);
            self.metrics.generation_len.observe(self.tokens.get() as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(metrics: &ModelMetrics) -> [u64; 2] {
        [&metrics.prompt_tokens, &metrics.generation_tokens].map(|count| count.load(Ordering::Relaxed))
    }

    #[test]
    fn a_sequence_counts_its_prompt_once_and_ends_once() {
        let metrics = Arc::new(ModelMetrics::default());
        let meter = Meter::new(Arc::clone(&metrics), 5, true);
        meter.started();
        meter.started();
        assert_eq!(counts(&metrics), [0, 0]);
        meter.token();
        meter.token();
        meter.end(Outcome::Length);
        meter.end(Outcome::Abort);
        assert_eq!(counts(&metrics), [5, 2]);
        // The second of two choices that share a prompt.
        let meter = Meter::new(Arc::clone(&metrics), 5, false);
        meter.token();
        meter.end(Outcome::Error);
        assert_eq!(counts(&metrics), [5, 3]);
        let finished = metrics.finished.each_ref().map(|count| count.load(Ordering::Relaxed));
        assert_eq!(finished, [0, 1, 0, 1]);
        let mut page = super::super::Exposition::default();
        metrics.queue.write("queue", &[], &mut page);
        metrics.between_tokens.write("between", &[], &mut page);
        metrics.first_token.write("first", &[], &mut page);
        metrics.generation_len.write("tokens", &[], &mut page);
        let text = page.into_text();
        for line in ["queue_count 1", "between_count 1", "first_count 2", "tokens_count 1", "tokens_sum 2"] {
            assert!(text.contains(&format!("andiron:{line}\n")), "{line}\n{text}");
        }
    }
}
