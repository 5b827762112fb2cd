//! What each document passes: the filters in their order, and the counts of each.

use andiron_data::Document;
use andiron_page::text::shortened;
use serde_json::{Value, json};

use super::report::StepCounts;
use super::{PrepareConfigError, PrepareError};
use crate::clean::{Filter, FilterSettings, Verdict};

/// Characters of a text that are kept with the reason why it was removed.
pub(super) const EXCERPT: usize = 400;

/// The step that removes documents without text.
const EMPTY: &str = "empty";

/// The filters of a pipeline.
pub(super) struct Chain {
    filters: Vec<(&'static str, Box<dyn Filter>)>,
}

/// A document that a filter removed.
pub(super) struct Removed {
    /// Which step: 0 is the first filter, and after the last one comes the check for text.
    pub(super) step: usize,
    pub(super) reason: &'static str,
    /// A line of `removed.jsonl`.
    pub(super) record: Value,
}

impl Chain {
    pub(super) fn new(settings: &[FilterSettings]) -> Result<Self, PrepareError> {
        let mut filters = Vec::with_capacity(settings.len());
        for (number, settings) in (1..).zip(settings) {
            let filter = settings.build().map_err(|source| PrepareConfigError::Filter { number, source })?;
            filters.push((settings.name(), filter));
        }
        Ok(Self { filters })
    }

    /// Passes a document through the filters; says which one removed it, if any did.
    pub(super) fn apply(&self, document: &mut Document) -> Result<(), Removed> {
        for (step, (name, filter)) in self.filters.iter().enumerate() {
            if let Verdict::Remove(removal) = filter.apply(document) {
                let mut record = json!({ "id": document.id, "filter": name, "reason": removal.reason });
                if let Some(score) = removal.score {
                    record["score"] = json!(score);
                }
                record["text"] = shortened(&document.text, EXCERPT).into();
                return Err(Removed { step, reason: removal.reason, record });
            }
        }
        if document.text.is_empty() {
            let record = json!({ "id": document.id, "filter": EMPTY, "reason": EMPTY });
            return Err(Removed { step: self.filters.len(), reason: EMPTY, record });
        }
        Ok(())
    }

    /// Counts of nothing, one for each step.
    pub(super) fn counts(&self) -> Vec<StepCounts> {
        let names = self.filters.iter().map(|(name, _)| *name).chain([EMPTY]);
        names.map(StepCounts::new).collect()
    }
}

impl StepCounts {
    pub(super) fn new(step: &str) -> Self {
        Self { step: step.to_owned(), ..Self::default() }
    }

    /// A step that has one reason: how many documents it kept, and removed.
    pub(super) fn of(step: &str, reason: &str, (kept, removed): (u64, u64)) -> Self {
        let reasons = (removed > 0).then(|| (reason.to_owned(), removed)).into_iter().collect();
        Self { step: step.to_owned(), documents: kept + removed, kept, removed: reasons }
    }

    /// Counts a document that goes on.
    pub(super) fn keep(&mut self) {
        self.documents += 1;
        self.kept += 1;
    }

    /// Counts one that does not.
    pub(super) fn remove(&mut self, reason: &str) {
        self.documents += 1;
        match self.removed.get_mut(reason) {
            Some(count) => *count += 1,
            None => drop(self.removed.insert(reason.to_owned(), 1)),
        }
    }

    /// Adds the counts of the same steps over other documents.
    pub(super) fn add_all(sums: &mut Vec<Self>, steps: &[Self]) {
        if sums.is_empty() {
            *sums = steps.to_vec();
        } else {
            sums.iter_mut().zip(steps).for_each(|(sum, step)| sum.add(step));
        }
    }

    /// Adds the counts of the same step over other documents.
    pub(super) fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.kept += other.kept;
        for (reason, count) in &other.removed {
            *self.removed.entry(reason.clone()).or_default() += count;
        }
    }
}
