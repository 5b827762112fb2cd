//! Token streams, and rows of texts or of completions.

use std::sync::Arc;

use andiron_data::collate::{
    self, Around, CausalInTheMiddle, CollatePacked, FillInTheMiddle, SupervisedInTheMiddle,
};
use andiron_data::records::{ColumnType, Record, columns};
use andiron_data::rows::{Completion, CompletionFields, Row, RowError, Shape, TextFields, Turns};
use andiron_data::tokenizer::Tokenizer;
use andiron_models::DecoderConfig;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Causal, CausalConfig};
use crate::config::{ConfigError, check};
use crate::objective::weighted_text::WeightedText;
use crate::objective::{FromConfig, Learn};
use crate::plan::{Plan, Setup, TrainingData};
use crate::rows::{EncodeFault, Encoding};
use crate::trainer::TrainError;

/// Tokens that a text may grow by when it is rearranged.
const MIDDLE_TOKENS: usize = 3;

/// The fields of a row of text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected fields of texts (text) or of completions (prompt, completion)")]
pub enum CausalRows {
    /// A text, which is learned whole.
    Text(TextFields),
    /// A prompt and its completion.
    Completion(CompletionFields),
}

/// What is read from such a row.
#[derive(Clone, Debug, PartialEq)]
pub enum CausalExample {
    /// A text.
    Text(String),
    /// A prompt and its completion.
    Completion(Completion),
}

impl Shape for CausalRows {
    type Example = CausalExample;

    fn read(&self, row: &Row) -> Result<CausalExample, RowError> {
        match self {
            Self::Text(fields) => fields.read(row).map(CausalExample::Text),
            Self::Completion(fields) => fields.read(row).map(CausalExample::Completion),
        }
    }

    fn guess(row: &Row) -> Option<Self> {
        CompletionFields::guess(row).map(Self::Completion).or_else(|| TextFields::guess(row).map(Self::Text))
    }
}

impl CausalConfig {
    /// How documents are rearranged; `None` if they are not.
    fn fill_in_the_middle(
        &self,
        setup: &Setup<'_>,
    ) -> Result<Option<(FillInTheMiddle, Tokenizer)>, TrainError> {
        let Self { fim_rate: rate, fim_spm_rate: suffix_first, .. } = *self;
        let is_share = |value: f32| (0.0..=1.0).contains(&value);
        check(is_share(rate), "objective.fim_rate", rate, "in 0..=1")?;
        check(is_share(suffix_first), "objective.fim_spm_rate", suffix_first, "in 0..=1")?;
        if rate == 0.0 {
            return Ok(None);
        }
        let tokenizer = setup.open_tokenizer()?;
        setup.check_vocabulary(&tokenizer, setup.base.decoder()?.vocab_size())?;
        let Some(tokens) = tokenizer.middle_tokens() else {
            let path = setup.tokenizer_path();
            let tokens = tokenizer.missing_middle_tokens().join(", ");
            return Err(TrainError::MiddleTokens { path, tokens });
        };
        Ok(Some((FillInTheMiddle { tokens, rate, suffix_first }, tokenizer)))
    }
}

impl FromConfig for Causal {
    type Config = CausalConfig;

    fn plan(config: &CausalConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        let model = setup.base.decoder()?;
        let data = match setup.has_rows()? {
            true => of_rows(config, setup, model)?,
            false => of_stream(config, setup, model)?,
        };
        Ok(Plan { objective: Self, start: setup.base.start(model.clone()), data })
    }
}

fn of_stream(
    config: &CausalConfig,
    setup: &Setup<'_>,
    model: &DecoderConfig,
) -> Result<TrainingData, TrainError> {
    let causal = collate::Causal { columns: setup.context()?, pad: 0 };
    let vocab_size = model.vocab_size();
    let Some((transform, tokenizer)) = config.fill_in_the_middle(setup)? else {
        return setup.windows(Arc::new(causal), vocab_size);
    };
    let why =
        "the tokenizer has no end-of-sequence token, which tells documents apart: set objective.fim_rate = 0";
    let end = tokenizer.eos_id().ok_or(ConfigError::Missing { field: "data.tokenizer", why })?;
    let collator = Arc::new(CausalInTheMiddle { causal, transform, end });
    // Control tokens are targets too, and stand for no text.
    Ok(TrainingData { bytes_per_target: None, ..setup.windows(collator, vocab_size)? })
}

fn of_rows(
    config: &CausalConfig,
    setup: &Setup<'_>,
    model: &DecoderConfig,
) -> Result<TrainingData, TrainError> {
    let tokenizer = setup.open_tokenizer()?;
    let max_length = setup.max_length(model.max_positions());
    let shape: CausalRows =
        setup.fields("a text, or a prompt with its completion: name them in data.fields")?;
    let middle = config.fill_in_the_middle(setup)?.map(|(transform, _)| transform);
    if matches!(shape, CausalRows::Completion(_)) {
        let wanted = "0 for rows with a prompt and its completion: only texts are rearranged";
        check(middle.is_none(), "objective.fim_rate", config.fim_rate, wanted)?;
    }
    let text_length = if middle.is_some() { max_length.saturating_sub(MIDDLE_TOKENS) } else { max_length };
    let encode = |example: CausalExample| -> Result<Vec<Record<'static>>, EncodeFault> {
        let texts = match example {
            CausalExample::Text(text) => {
                let nothing = Turns::Text(String::new());
                let text = WeightedText::of_answer(&tokenizer, nothing, Turns::Text(text))?;
                text.learned_whole().divided(text_length)?
            }
            CausalExample::Completion(Completion { prompt, completion }) => {
                let text = WeightedText::of_answer(&tokenizer, prompt, completion)?;
                let text = match config.learn {
                    Learn::Answers => text,
                    Learn::All => text.learned_whole(),
                };
                vec![text.truncated(max_length)?]
            }
        };
        Ok(texts.into_iter().map(WeightedText::into_record).collect())
    };
    let encoding = Encoding {
        shape,
        columns: &[(columns::IDS, ColumnType::Ids), (columns::WEIGHTS, ColumnType::Numbers)],
        settings: json!({ "learn": config.learn, "max_length": max_length, "text_length": text_length }),
        vocabularies: &[(columns::IDS, model.vocab_size())],
        encode: &encode,
    };
    let supervised = collate::Supervised { limit: max_length, pad: 0 };
    let collator: Arc<dyn CollatePacked> = match middle {
        None => Arc::new(supervised),
        Some(transform) => {
            let failed = |source| setup.tokenizer_error(source);
            let before = tokenizer.added_around().map_err(failed)?.before;
            let around = Around { before, after: tokenizer.eos_id().into_iter().collect() };
            Arc::new(SupervisedInTheMiddle { supervised, transform, around })
        }
    };
    setup.packable_records(&encoding, collator)
}
