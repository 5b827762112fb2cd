//! A row of scores that is being changed.

/// The scores of all ids, with what is needed to change them back.
#[derive(Debug)]
pub(in crate::generate) struct Scores<'a> {
    row: &'a mut [f32],
    undo: Vec<(u32, f32)>,
    /// Whether all ids but some were ruled out, whatever the model thinks.
    forced: bool,
    /// Ids that a grammar rules out.
    banned: &'a [u32],
}

impl<'a> Scores<'a> {
    /// Scores of which those of `banned` are minus infinity.
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

    /// Lets nothing but `ids` come, each with the score 0. A grammar that none of them fits goes before.
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

    /// Whether the id that comes was [forced](Self::force).
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

    /// Whether a single id can come.
    pub(super) fn leaves_no_choice(&self) -> bool {
        self.row.iter().filter(|&&score| score > f32::NEG_INFINITY).nth(1).is_none()
    }

    /// Makes the row what it was.
    pub(in crate::generate) fn revert(mut self) {
        for (id, score) in self.undo.drain(..).rev() {
            self.row[id as usize] = score;
        }
    }
}

/// Makes what is not a number 0, and what is infinite the greatest number.
pub(in crate::generate) fn remove_invalid_values(row: &mut [f32]) {
    for score in row.iter_mut().filter(|score| score.is_nan() || **score == f32::INFINITY) {
        *score = if score.is_nan() { 0.0 } else { f32::MAX };
    }
}
