//! The held-out part: which documents or characters go to the validation dataset.

use super::{PrepareConfig, PrepareError, SplitBy};
use andiron_data::seed::{SPLIT, Seed};

/// How documents are divided between training and validation.
pub(super) enum Plan {
    Nothing,
    Documents { order: Seed, of: u64, held_out: u64 },
    Characters { kept: f64 },
}

/// The two parts of a text; either may be empty.
pub(super) struct Parts<'a> {
    pub(super) train: &'a str,
    pub(super) valid: &'a str,
    /// If the document was cut in two: after how many characters.
    pub(super) cut: Option<usize>,
}

pub(super) fn plan(config: &PrepareConfig, of: u64) -> Result<Plan, PrepareError> {
    let fraction = config.split.fraction;
    if fraction == 0.0 {
        return Ok(Plan::Nothing);
    }
    let by_documents = match config.split.by {
        SplitBy::Auto => of > 1,
        SplitBy::Documents => true,
        SplitBy::Characters => false,
    };
    if !by_documents {
        return Ok(Plan::Characters { kept: 1.0 - fraction });
    }
    let held_out = ((of as f64 * fraction).round() as u64).max(1);
    if held_out >= of {
        return Err(PrepareError::EmptyPart { part: "training", documents: of });
    }
    Ok(Plan::Documents { order: Seed::new(config.seed).derive(SPLIT), of, held_out })
}

impl Plan {
    pub(super) fn parts<'t>(&self, index: u64, text: &'t str) -> Parts<'t> {
        match *self {
            Self::Nothing => Parts { train: text, valid: "", cut: None },
            // More documents than were counted: the inputs changed, which is detected at the end.
            Self::Documents { order, of, held_out } if index < of && order.permute(index, of) < held_out => {
                Parts { train: "", valid: text, cut: None }
            }
            Self::Documents { .. } => Parts { train: text, valid: "", cut: None },
            Self::Characters { kept } => {
                let cut = (text.chars().count() as f64 * kept) as usize;
                let at = text.char_indices().nth(cut).map_or(text.len(), |(at, _)| at);
                Parts { train: &text[..at], valid: &text[at..], cut: Some(cut) }
            }
        }
    }
}
