//! The held-out part: which documents or characters go to the validation dataset.

use serde::Serialize;

use super::{PrepareConfig, PrepareError, SplitBy};
use andiron_data::seed::{SPLIT, Seed};

/// How documents are divided between training and validation.
#[derive(Serialize)]
pub(super) enum Plan {
    Nothing,
    Documents {
        #[serde(skip)]
        order: Seed,
        seed: u64,
        of: u64,
        held_out: u64,
    },
    Hashes {
        #[serde(skip)]
        order: Seed,
        seed: u64,
        fraction: f64,
    },
    Characters {
        kept: f64,
    },
}

/// The two parts of a text; either may be empty.
pub(super) struct Parts<'a> {
    pub(super) train: &'a str,
    pub(super) valid: &'a str,
    /// If the document was cut in two: after how many characters.
    pub(super) cut: Option<usize>,
}

pub(super) fn plan(config: &PrepareConfig, of: u64) -> Result<Plan, PrepareError> {
    let (fraction, seed) = (config.split.fraction, config.seed);
    if fraction == 0.0 {
        return Ok(Plan::Nothing);
    }
    let order = Seed::new(seed).derive(SPLIT);
    match config.split.by {
        SplitBy::Hash => return Ok(Plan::Hashes { order, seed, fraction }),
        SplitBy::Characters => return Ok(Plan::Characters { kept: 1.0 - fraction }),
        SplitBy::Auto if of <= 1 => return Ok(Plan::Characters { kept: 1.0 - fraction }),
        SplitBy::Auto | SplitBy::Documents => {}
    }
    let held_out = ((of as f64 * fraction).round() as u64).max(1);
    if held_out >= of {
        return Err(PrepareError::EmptyPart { part: "training", documents: of });
    }
    Ok(Plan::Documents { order, seed, of, held_out })
}

impl Plan {
    /// The parts of the document with a number.
    pub(super) fn parts<'t>(&self, index: u64, text: &'t str) -> Parts<'t> {
        let is_held_out = match self {
            Self::Nothing => false,
            Self::Documents { order, of, held_out, .. } => order.permute(index, *of) < *held_out,
            Self::Hashes { order, fraction, .. } => {
                const STEPS: u64 = 1 << 53;
                let drawn = order.below(hash(text), STEPS);
                (drawn as f64) < fraction * STEPS as f64
            }
            Self::Characters { kept } => {
                let cut = (text.chars().count() as f64 * kept) as usize;
                let at = text.char_indices().nth(cut).map_or(text.len(), |(at, _)| at);
                return Parts { train: &text[..at], valid: &text[at..], cut: Some(cut) };
            }
        };
        match is_held_out {
            true => Parts { train: "", valid: text, cut: None },
            false => Parts { train: text, valid: "", cut: None },
        }
    }
}

/// 64 bits of the hash of a text.
pub(super) fn hash(text: &str) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::{Split, TokenizerChoice};
    use andiron_data::tokenizer::SpecialTokens;

    #[test]
    fn a_place_by_hash_depends_on_the_text_and_the_seed_alone() {
        let characters = TokenizerChoice::Characters(SpecialTokens::default());
        let mut config = PrepareConfig::new(vec!["a".into()], "out".into(), characters);
        config.split = Split { fraction: 0.2, by: SplitBy::Hash };
        let held_out = |config: &PrepareConfig, of: u64, from: u64| -> Vec<String> {
            let plan = plan(config, of).unwrap();
            let texts = (0..2000).map(|n| format!("text {n}"));
            texts
                .zip(from..)
                .filter(|(text, at)| plan.parts(*at, text).train.is_empty())
                .map(|(text, _)| text)
                .collect()
        };
        let first = held_out(&config, 2000, 0);
        assert_eq!(first, held_out(&config, 5000, 777));
        assert!((350..450).contains(&first.len()), "{}", first.len());
        config.seed = 1;
        assert_ne!(first, held_out(&config, 2000, 0));
    }
}
