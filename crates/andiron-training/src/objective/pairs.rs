//! Rows of texts that belong together: groups of an anchor, positives and negatives, or pairs with a score.

use andiron_data::rows::{
    ClassifyFields, Contrast, ContrastFields, Label, LabelType, LabelledText, Row, RowError, RowFault, Shape,
};
use serde::{Deserialize, Serialize};

use crate::plan::Setup;
use crate::trainer::TrainError;

/// The fields of such rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum PairFields {
    /// An anchor, what belongs to it and what does not.
    Group(ContrastFields),
    /// Two texts and a score.
    Scored(ClassifyFields),
}

/// A row.
#[derive(Clone, Debug)]
pub(super) enum Pairs {
    Group(Contrast),
    Scored(ScoredPair),
}

/// Two texts and how well they fit.
#[derive(Clone, Debug)]
pub(super) struct ScoredPair {
    pub(super) texts: [String; 2],
    pub(super) score: f32,
}

impl PairFields {
    /// The fields of a run's rows.
    pub(super) fn of(setup: &Setup<'_>) -> Result<Self, TrainError> {
        let wanted = "a query with a positive and perhaps negatives, or two texts with a score: name them in data.fields";
        Ok(match setup.fields::<Self>(wanted)? {
            Self::Scored(fields) => Self::Scored(scored(fields)),
            group => group,
        })
    }

    /// The name of the field with the score, or with the negatives.
    pub(super) fn judged(&self) -> &str {
        match self {
            Self::Group(fields) => fields.negatives.first().map_or("negatives", String::as_str),
            Self::Scored(fields) => &fields.label,
        }
    }

    /// The error of a row with this score.
    pub(super) fn bad_score(&self, score: f32, wanted: &'static str) -> RowFault {
        RowFault::Type { field: self.judged().to_owned(), found: score.to_string(), wanted }
    }
}

/// The same fields, the label being a number.
fn scored(fields: ClassifyFields) -> ClassifyFields {
    ClassifyFields { label_type: LabelType::Numbers, label_name: None, ..fields }
}

impl Shape for PairFields {
    type Example = Pairs;

    fn read(&self, row: &Row) -> Result<Pairs, RowError> {
        let fields = match self {
            Self::Group(fields) => return fields.read(row).map(Pairs::Group),
            Self::Scored(fields) => fields,
        };
        let LabelledText { text, pair, label } = fields.read(row)?;
        let Some(pair) = pair else {
            let has = row.names().map(str::to_owned).collect();
            return Err(row.fail(RowFault::Missing { field: "pair".to_owned(), has }));
        };
        match label {
            Label::Numbers(numbers) if numbers.len() == 1 => {
                Ok(Pairs::Scored(ScoredPair { texts: [text, pair], score: numbers[0] }))
            }
            _ => Err(row.fail(RowFault::Type {
                field: fields.label.clone(),
                found: "something else".to_owned(),
                wanted: "one number",
            })),
        }
    }

    fn guess(row: &Row) -> Option<Self> {
        let group = || ContrastFields::guess(row).map(Self::Group);
        let pair = || ClassifyFields::guess(row).filter(|fields| fields.pair.is_some());
        group().or_else(|| Some(Self::Scored(scored(pair()?))))
    }
}
