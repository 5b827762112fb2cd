//! Questions about contexts, in windows that a model can read.

use std::sync::Arc;

use andiron_data::collate;
use andiron_data::records::{ColumnType, Record, columns};
use andiron_data::rows::{Question, QuestionFields};
use andiron_data::tokenizer::{Framed, Tokenizer, TokenizerError};
use andiron_models::EncoderHead;
use serde_json::json;

use super::{Answer, AnswerConfig, Asked, Window};
use crate::config::check;
use crate::objective::FromConfig;
use crate::plan::{Plan, Setup};
use crate::rows::{EncodeFault, Encoding, RowFile, text_columns};
use crate::trainer::TrainError;

/// Divides contexts into windows.
struct Windows {
    tokenizer: Tokenizer,
    max_length: usize,
    overlap: usize,
}

impl Windows {
    fn of(&self, question: &Question) -> Result<Vec<Framed>, TokenizerError> {
        self.tokenizer.frame_windows(&question.question, &question.context, self.max_length, self.overlap)
    }

    /// First and last token of the first answer in a window; those of "no answer", if it is not there.
    fn span(&self, question: &Question, window: &Framed) -> [u32; 2] {
        let answer = question.answers.first();
        let span = answer.and_then(|answer| window.answer_span(1, answer.bytes.clone()));
        span.unwrap_or_else(|| [self.tokenizer.no_answer(window); 2])
    }

    /// The questions of the validation data and their windows, in the order of the records.
    fn asked(
        &self,
        setup: &Setup<'_>,
        fields: &QuestionFields,
    ) -> Result<(Vec<Asked>, Vec<Window>), TrainError> {
        let (mut questions, mut windows) = (Vec::new(), Vec::new());
        let Some(RowFile { path, part }) = setup.valid_rows() else { return Ok((questions, windows)) };
        for found in setup.examples(path, fields.clone()).of_part(part) {
            let (question, origin) = found?;
            let failed = |source| TrainError::Tokenize { origin: Box::new(origin), source: Box::new(source) };
            let framed = self.of(&question).map_err(failed)?;
            questions.push(Asked {
                context: question.context,
                answers: question.answers.into_iter().map(|answer| answer.text).collect(),
                n_windows: framed.len(),
            });
            windows.extend(framed.into_iter().map(|framed| {
                let no_answer = self.tokenizer.no_answer(&framed) as usize;
                let of_context =
                    framed.places.into_iter().map(|place| Some(place.filter(|place| place.text == 1)?.bytes));
                Window { no_answer, places: of_context.collect() }
            }));
        }
        Ok((questions, windows))
    }
}

impl FromConfig for Answer {
    type Config = AnswerConfig;

    fn plan(config: &AnswerConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        let max_answer_tokens = config.max_answer_tokens;
        check(max_answer_tokens > 0, "objective.max_answer_tokens", max_answer_tokens, "at least 1")?;
        let fields: QuestionFields =
            setup.fields("a question, a context and its answers: name them in data.fields")?;
        let (model, start) = setup.base.start_encoder(EncoderHead::Span, &[])?;
        let max_length = setup.max_length(model.max_positions());
        let overlap = config.overlap.min(max_length / 4);
        let cut = Windows { tokenizer: setup.open_tokenizer()?, max_length, overlap };
        let typed = model.n_token_types() > 1;
        let mut columns = text_columns(typed);
        columns.push((columns::SPAN, ColumnType::Ids));
        let encode = |question: Question| -> Result<Vec<Record<'static>>, EncodeFault> {
            let record = |framed: Framed| {
                let span = cut.span(&question, &framed).to_vec();
                let record =
                    Record::default().with_ids(columns::IDS, framed.ids).with_ids(columns::SPAN, span);
                if typed { record.with_ids(columns::TYPE_IDS, framed.type_ids) } else { record }
            };
            Ok(cut.of(&question)?.into_iter().map(record).collect())
        };
        let encoding = Encoding {
            shape: fields.clone(),
            columns: &columns,
            settings: json!({ "max_length": max_length, "overlap": overlap }),
            vocabularies: &[(columns::IDS, model.vocab_size())],
            encode: &encode,
        };
        let collator = collate::QuestionAnswering { pad: model.pad_token_id() };
        let data = setup.records(&encoding, Arc::new(collator))?;
        let (questions, windows) = cut.asked(setup, &fields)?;
        Ok(Plan { objective: Self { max_answer_tokens, questions, windows }, start, data })
    }
}
