//! Task `fill-mask`: guess what is hidden.

use andiron_data::tokenizer::Special;
use serde_json::{Value, json};

use super::input::{Input, too_long};
use super::reader::EncoderReader;
use super::{Answer, Row, RowError, ensure_empty, object, take};

pub(super) struct FillMask {
    pub(super) model: EncoderReader,
    /// How many guesses to show.
    pub(super) top: usize,
}

impl Answer for FillMask {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let limit = self.model.bundle.config.max_positions();
        let tokenizer = self.model.tokenizer();
        let mask = tokenizer.as_ref().ok().and_then(|tokenizer| tokenizer.mask_id());
        let positions: Option<Vec<usize>> = take(&mut row, "mask_positions", "a list of positions")?;
        let input = match take::<String>(&mut row, "text", "a string")? {
            Some(_) if row.contains_key("ids") => {
                return Err(RowError::invalid("give text or ids, not both"));
            }
            Some(text) => {
                let framed = tokenizer?.frame_masked(&text, limit).map_err(RowError::failed)?;
                if framed.truncated {
                    return Err(too_long(limit));
                }
                Input::of_text(framed, &self.model, limit)?
            }
            None => Input::take_ids(&mut row, &self.model, limit, false)?,
        };
        ensure_empty(&row)?;
        let ids = &input.framed.ids;
        let masked = || (0..ids.len()).filter(|&at| Some(ids[at]) == mask).collect();
        let positions = positions.unwrap_or_else(masked);
        if let Some(position) = positions.iter().find(|&&position| position >= ids.len()) {
            return Err(RowError::invalid(format!(
                "there is no position {position}: the text has {} tokens",
                ids.len()
            )));
        }
        let mut seen = vec![false; ids.len()];
        if let Some(twice) = positions.iter().find(|&&at| std::mem::replace(&mut seen[at], true)) {
            return Err(RowError::invalid(format!("mask_positions has the position {twice} twice")));
        }
        if positions.is_empty() {
            let mask =
                self.model.tokenizer().ok().and_then(|tokenizer| tokenizer.special_tokens().mask.clone());
            let hint =
                mask.map_or_else(|| "give mask_positions".to_owned(), |mask| format!("write {mask} in it"));
            return Err(RowError::invalid(format!("nothing is masked: {hint}")));
        }
        let guesses = self.model.bundle.fill(input.view(), &positions, self.top);
        let spell = |id: u32| match self.model.tokenizer() {
            Ok(tokenizer) => tokenizer.decode(&[id], Special::Keep).map_or(Value::Null, Value::from),
            Err(_) => Value::Null,
        };
        let masks = positions.iter().zip(guesses).map(|(position, guesses)| {
            let top =
                guesses.into_iter().map(|(id, prob)| json!({ "token": spell(id), "id": id, "prob": prob }));
            json!({ "position": position, "top": top.collect::<Vec<_>>() })
        });
        Ok(object(json!({ "masks": masks.collect::<Vec<_>>() })))
    }
}
