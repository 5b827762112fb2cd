//! A row of scores with undo.

/// The scores of all ids, and the changes made, so that they can be reverted.
#[derive(Debug)]
pub(in crate::generate) struct Scores<'a> {
    row: &'a mut [f32],
    undo: Vec<(u32, f32)>,
    /// Whether an id was forced.
    forced: bool,
    /// Ids masked by a grammar.
    banned: &'a [u32],
}

impl<'a> Scores<'a> {
    /// Masks the scores of `banned` with minus infinity.
    pub(in crate::generate) fn new(row: &'a mut [f32], banned: &'a [u32]) -> Self {
        let mut scores = Self { row, undo: Vec::new(), forced: false, banned };
        banned.iter().for_each(|&id| scores.mask(id));
        scores
    }

    /// Edits the score of `id`, if the row has one above minus infinity.
    pub(super) fn apply(&mut self, id: u32, edit: impl FnOnce(f32) -> f32) {
        if let Some(score) = self.row.get_mut(id as usize)
            && *score > f32::NEG_INFINITY
        {
            self.undo.push((id, *score));
            let edited = edit(*score);
            // An extreme but valid setting saturates; only a ban removes an id altogether.
            *score = if edited == f32::NEG_INFINITY { edited } else { edited.clamp(f32::MIN, f32::MAX) };
        }
    }

    /// Masks `id`: it cannot come.
    pub(super) fn mask(&mut self, id: u32) {
        self.apply(id, |_| f32::NEG_INFINITY);
    }

    /// Masks all ids but `ids`, which get the score 0. If none of them fits the grammar, the grammar takes
    /// precedence.
    pub(super) fn force(&mut self, ids: &[u32]) {
        if !self.banned.is_empty() && ids.iter().all(|id| self.banned.contains(id)) {
            return;
        }
        for id in 0..self.row.len() as u32 {
            self.mask(id);
        }
        for &id in ids.iter().filter(|id| !self.banned.contains(id)) {
            if let Some(score) = self.row.get_mut(id as usize) {
                self.undo.push((id, *score));
                *score = 0.0;
            }
        }
        self.forced = true;
    }

    /// Whether the next id is [forced](Self::force).
    pub(in crate::generate) fn is_forced(&self) -> bool {
        self.forced
    }

    /// The scores as they are now.
    pub(in crate::generate) fn row(&self) -> &[f32] {
        self.row
    }

    /// Whether nothing was changed.
    pub(in crate::generate) fn is_untouched(&self) -> bool {
        self.undo.is_empty()
    }

    /// Whether only one id is unmasked.
    pub(super) fn leaves_no_choice(&self) -> bool {
        self.row.iter().filter(|&&score| score > f32::NEG_INFINITY).nth(1).is_none()
    }

    /// Restores the row.
    pub(in crate::generate) fn revert(mut self) {
        for (id, score) in self.undo.drain(..).rev() {
            self.row[id as usize] = score;
        }
    }
}

/// Replaces NaN by 0 and infinity by `f32::MAX`.
pub(in crate::generate) fn remove_invalid_values(row: &mut [f32]) {
    for score in row.iter_mut().filter(|score| score.is_nan() || **score == f32::INFINITY) {
        *score = if score.is_nan() { 0.0 } else { f32::MAX };
    }
}
