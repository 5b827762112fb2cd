//! Task `fill-mask`: predict masked tokens.

use andiron_pipelines::{EncoderPipeline, FilledMask, MaskedText, TextInput};
use serde_json::{Value, json};

use super::rows::{Answer, Row, RowError, answer_parsed, object, take, take_typed_ids};

pub(super) struct FillMask {
    pub(super) model: EncoderPipeline,
    /// Number of candidates per mask.
    pub(super) top: usize,
}

impl Answer for FillMask {
    fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        answer_parsed(rows, masked_text, |texts| {
            let found = self.model.fill(&texts, self.top);
            found.into_iter().map(|masks| Ok(row(&masks?))).collect()
        })
    }
}

fn masked_text(row: &mut Row) -> Result<MaskedText, RowError> {
    let positions = take(row, "mask_positions", "a list of positions")?;
    let input = match take::<String>(row, "text", "a string")? {
        Some(_) if row.contains_key("ids") => {
            return Err(RowError::invalid("give text or ids, not both"));
        }
        Some(text) => TextInput::Text { text, pair: None },
        None => {
            let (ids, type_ids) = take_typed_ids(row)?;
            TextInput::Ids { ids, type_ids }
        }
    };
    Ok(MaskedText { input, positions })
}

fn row(masks: &[FilledMask]) -> Row {
    let mask = |mask: &FilledMask| {
        let guesses = mask.top.iter();
        let top: Vec<Value> = guesses
            .map(|guess| json!({ "token": guess.token, "id": guess.id, "prob": guess.probability }))
            .collect();
        json!({ "position": mask.position, "top": top })
    };
    object(json!({ "masks": masks.iter().map(mask).collect::<Vec<_>>() }))
}
