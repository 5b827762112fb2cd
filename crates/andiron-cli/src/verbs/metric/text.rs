//! BLEU, chrF, TER, ROUGE and SQuAD's scores: a text against references.

use andiron_eval::metric::bleu::{
    Bleu, BleuStats, BleuTokenizer, ReferenceCount, Smoothing, TokenizerNameError,
};
use andiron_eval::metric::bootstrap::mean;
use andiron_eval::metric::chrf::{Chrf, ChrfStats};
use andiron_eval::metric::rouge::Rouge;
use andiron_eval::metric::squad::{SquadVersion, squad};
use andiron_eval::metric::ter::{Ter, TerStats};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::measure::{Files, Measure, means, object};
use super::row::Row;
use crate::exit::{Ending, Usage};
use crate::flags::Common;

/// The fields that hold what is expected.
const REFERENCES: &[&str] = &["reference", "references"];

/// A prediction, and at least one reference.
fn pair(mut row: Row) -> Result<(String, Vec<String>), String> {
    let (prediction, references) = (row.text("prediction")?, row.references()?);
    match references.is_empty() {
        true => Err("references is empty: give at least one".to_owned()),
        false => Ok((prediction, references)),
    }
}

/// Counts of rows, and how many references they have.
pub struct Counted<T> {
    stats: Vec<T>,
    references: ReferenceCount,
}

impl<T: Copy + std::iter::Sum> Counted<T> {
    fn new(rows: Vec<(T, usize)>) -> Self {
        let references = ReferenceCount::of(rows.iter().map(|&(_, count)| count));
        Self { stats: rows.into_iter().map(|(stats, _)| stats).collect(), references }
    }

    fn sum(&self, chosen: &[u32]) -> T {
        chosen.iter().map(|&row| self.stats[row as usize]).sum()
    }
}

/// BLEU, from 0 to 100, as sacreBLEU 2.6.0 computes it
///
/// Rows: `{"prediction": "a text", "references": ["one", "another"]}`, or "reference" with one text. Texts are as they are
/// read, not tokenized. With --each: BLEU of each row, for which --effective-order is the usual choice.
#[derive(Debug, Args)]
pub struct BleuArgs {
    #[command(flatten)]
    files: Files,
    /// How texts are cut into words: 13a, intl, zh (Chinese), char, or none if they have spaces between words already
    #[arg(long, value_name = "NAME", default_value = "13a", value_parser = tokenizer)]
    tokenize: BleuTokenizer,
    /// Treat upper and lower case as equal
    #[arg(long)]
    lowercase: bool,
    /// What takes the place of an n-gram precision of 0
    #[arg(long, value_enum, default_value = "exp")]
    smooth: SmoothName,
    /// The value of --smooth floor [default: 0.1] or add-k [default: 1]
    #[arg(long, value_name = "X")]
    smooth_value: Option<f64>,
    /// Leave out orders of which a prediction has no n-gram: for scores of single rows
    #[arg(long)]
    effective_order: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SmoothName {
    /// A half, a fourth and so on of a match
    Exp,
    /// A fixed count of matches
    Floor,
    /// A number added to all counts above order 1
    AddK,
    /// Nothing: one such order makes the score 0
    None,
}

fn tokenizer(name: &str) -> Result<BleuTokenizer, TokenizerNameError> {
    name.parse()
}

impl BleuArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let value = self.smooth_value;
        if value.is_some_and(|value| !(value >= 0.0 && value.is_finite())) {
            return Err(Usage("--smooth-value is a number from 0".to_owned()).into());
        }
        let smoothing = match self.smooth {
            SmoothName::Floor => Smoothing::Floor(value.unwrap_or(0.1)),
            SmoothName::AddK => Smoothing::AddK(value.unwrap_or(1.0)),
            _ if value.is_some() => {
                return Err(Usage("--smooth-value goes with --smooth floor or add-k".to_owned()).into());
            }
            SmoothName::Exp => Smoothing::Exp,
            SmoothName::None => Smoothing::None,
        };
        let (lowercase, effective_order) = (self.lowercase, self.effective_order);
        let bleu = Bleu { tokenizer: self.tokenize, lowercase, smoothing, effective_order };
        self.files.measure(&bleu, common)
    }
}

impl Measure for Bleu {
    type Row = (BleuStats, usize);
    type Rows = Counted<BleuStats>;
    const GOLD: &'static [&'static str] = REFERENCES;

    fn name(&self) -> &'static str {
        "bleu"
    }

    fn row(&self, row: Row) -> Result<Self::Row, String> {
        let (prediction, references) = pair(row)?;
        Ok((self.stats(&prediction, &references), references.len()))
    }

    fn gather(&self, rows: Vec<Self::Row>) -> Counted<BleuStats> {
        Counted::new(rows)
    }

    fn scores(&self, _: &Counted<BleuStats>) -> Vec<&'static str> {
        vec!["bleu"]
    }

    fn over(&self, rows: &Counted<BleuStats>, chosen: &[u32]) -> Vec<f64> {
        vec![self.score(&rows.sum(chosen)).score]
    }

    fn details(&self, rows: &Counted<BleuStats>) -> Map<String, Value> {
        let stats = rows.stats.iter().copied().sum();
        let score = self.score(&stats);
        object(json!({
            "signature": self.signature(rows.references),
            "precisions": score.precisions,
            "brevity_penalty": score.brevity_penalty,
            "prediction_words": stats.prediction_words,
            "reference_words": stats.reference_words,
        }))
    }
}

/// chrF, from 0 to 100, as sacreBLEU 2.6.0 computes it; chrF++ with --word-order 2
///
/// Rows: `{"prediction": "a text", "references": ["one", "another"]}`, or "reference" with one text.
#[derive(Debug, Args)]
pub struct ChrfArgs {
    #[command(flatten)]
    files: Files,
    /// Length of the longest character n-grams
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=6))]
    char_order: u8,
    /// Length of the longest word n-grams: 0 for chrF, 2 for chrF++
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=4))]
    word_order: u8,
    /// How much more recall weighs than precision
    #[arg(long, value_name = "N", default_value_t = 2)]
    beta: u32,
    /// Treat upper and lower case as equal
    #[arg(long)]
    lowercase: bool,
    /// Count white space as characters
    #[arg(long)]
    whitespace: bool,
    /// Average the F-scores of all orders, as Moses and NLTK do
    #[arg(long)]
    eps_smoothing: bool,
}

impl ChrfArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let chrf = Chrf {
            char_order: self.char_order.into(),
            word_order: self.word_order.into(),
            beta: self.beta,
            lowercase: self.lowercase,
            whitespace: self.whitespace,
            eps_smoothing: self.eps_smoothing,
        };
        self.files.measure(&chrf, common)
    }
}

impl Measure for Chrf {
    type Row = (ChrfStats, usize);
    type Rows = Counted<ChrfStats>;
    const GOLD: &'static [&'static str] = REFERENCES;

    fn name(&self) -> &'static str {
        "chrf"
    }

    fn row(&self, row: Row) -> Result<Self::Row, String> {
        let (prediction, references) = pair(row)?;
        Ok((self.stats(&prediction, &references), references.len()))
    }

    fn gather(&self, rows: Vec<Self::Row>) -> Counted<ChrfStats> {
        Counted::new(rows)
    }

    fn scores(&self, _: &Counted<ChrfStats>) -> Vec<&'static str> {
        vec!["chrf"]
    }

    fn over(&self, rows: &Counted<ChrfStats>, chosen: &[u32]) -> Vec<f64> {
        vec![self.score(&rows.sum(chosen))]
    }

    fn details(&self, rows: &Counted<ChrfStats>) -> Map<String, Value> {
        object(json!({ "name": Chrf::name(self), "signature": self.signature(rows.references) }))
    }
}

/// Translation edit rate, from 0, which is best, as sacreBLEU 2.6.0 computes it: edits by words of the reference
///
/// Rows: `{"prediction": "a text", "references": ["one", "another"]}`, or "reference" with one text. Above 100 if there are more edits
/// than words.
#[derive(Debug, Args)]
pub struct TerArgs {
    #[command(flatten)]
    files: Files,
    /// Tell upper and lower case apart
    #[arg(long)]
    case_sensitive: bool,
    /// Cut texts into words by Tercom's rules, instead of by white space alone
    #[arg(long)]
    normalized: bool,
    /// Leave out punctuation
    #[arg(long)]
    no_punctuation: bool,
    /// With --normalized, make each Chinese character a word; with --no-punctuation, leave out East Asian punctuation
    #[arg(long)]
    asian_support: bool,
}

impl TerArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let Self { files, case_sensitive, normalized, no_punctuation, asian_support } = self;
        files.measure(&Ter { case_sensitive, normalized, no_punctuation, asian_support }, common)
    }
}

impl Measure for Ter {
    type Row = (TerStats, usize);
    type Rows = Counted<TerStats>;
    const GOLD: &'static [&'static str] = REFERENCES;

    fn name(&self) -> &'static str {
        "ter"
    }

    fn row(&self, row: Row) -> Result<Self::Row, String> {
        let (prediction, references) = pair(row)?;
        Ok((self.stats(&prediction, &references), references.len()))
    }

    fn gather(&self, rows: Vec<Self::Row>) -> Counted<TerStats> {
        Counted::new(rows)
    }

    fn scores(&self, _: &Counted<TerStats>) -> Vec<&'static str> {
        vec!["ter"]
    }

    fn over(&self, rows: &Counted<TerStats>, chosen: &[u32]) -> Vec<f64> {
        vec![self.score(&rows.sum(chosen))]
    }

    fn details(&self, rows: &Counted<TerStats>) -> Map<String, Value> {
        let TerStats { edits, reference_words } = rows.stats.iter().copied().sum();
        let signature = self.signature(rows.references);
        object(json!({ "signature": signature, "edits": edits, "reference_words": reference_words }))
    }
}

/// ROUGE-1, -2, -L and -Lsum as rouge_score 0.1.2 computes them: mean F-measures of the rows, from 0 to 1
///
/// Rows: `{"prediction": "a text", "references": ["one", "another"]}`, or "reference" with one text. Of several references
/// the best one counts. Lsum takes lines for sentences. Words are of a to z and 0 to 9 only: texts in other scripts, such
/// as Korean, score 0.
#[derive(Debug, Args)]
pub struct RougeArgs {
    #[command(flatten)]
    files: Files,
    /// Compare stems of words (Porter's stemmer, for English)
    #[arg(long)]
    stemmer: bool,
}

impl RougeArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&Rouge { stemmer: self.stemmer }, common)
    }
}

impl Measure for Rouge {
    type Row = [f64; 4];
    type Rows = Vec<[f64; 4]>;
    const GOLD: &'static [&'static str] = REFERENCES;

    fn name(&self) -> &'static str {
        "rouge"
    }

    fn row(&self, row: Row) -> Result<Self::Row, String> {
        let (prediction, references) = pair(row)?;
        let scores = self.score(&prediction, &references);
        Ok([scores.rouge1, scores.rouge2, scores.rouge_l, scores.rouge_lsum].map(|score| score.f_measure))
    }

    fn gather(&self, rows: Vec<Self::Row>) -> Self::Rows {
        rows
    }

    fn scores(&self, _: &Self::Rows) -> Vec<&'static str> {
        vec!["rouge1", "rouge2", "rougeL", "rougeLsum"]
    }

    fn over(&self, rows: &Self::Rows, chosen: &[u32]) -> Vec<f64> {
        means(rows, chosen)
    }

    fn is_mean(&self) -> bool {
        true
    }

    fn details(&self, _: &Self::Rows) -> Map<String, Value> {
        object(json!({ "stemmer": self.stemmer }))
    }
}

/// Exact match and F1 of answers in percent, as the official script of SQuAD 1.1 computes them
///
/// Rows: `{"prediction": "an answer", "references": ["one", "another"]}`, or "reference" with one text. Two answers without
/// words have F1 0.
#[derive(Debug, Args)]
pub struct SquadArgs {
    #[command(flatten)]
    files: Files,
}

/// Exact match and F1 of answers in percent, as the official script of SQuAD 2.0 computes them
///
/// Rows: `{"prediction": "an answer", "references": ["one", "another"]}`; `"references": []` is a question without an
/// answer, to which the right prediction is "". Two answers without words have F1 100.
#[derive(Debug, Args)]
pub struct SquadV2Args {
    #[command(flatten)]
    files: Files,
}

impl SquadArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&Squad(SquadVersion::V1), common)
    }
}

impl SquadV2Args {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&Squad(SquadVersion::V2), common)
    }
}

struct Squad(SquadVersion);

/// Scores of a row.
struct SquadRows {
    scores: Vec<[f64; 2]>,
    /// Whether each question has an answer.
    answered: Vec<bool>,
}

impl Measure for Squad {
    type Row = ([f64; 2], bool);
    type Rows = SquadRows;
    const GOLD: &'static [&'static str] = REFERENCES;

    fn name(&self) -> &'static str {
        match self.0 {
            SquadVersion::V1 => "squad",
            SquadVersion::V2 => "squad-v2",
        }
    }

    fn row(&self, mut row: Row) -> Result<Self::Row, String> {
        let (prediction, references) = match self.0 {
            SquadVersion::V1 => pair(row)?,
            SquadVersion::V2 => (row.text("prediction")?, row.references()?),
        };
        let score = squad(self.0, &prediction, &references);
        Ok(([100.0 * score.exact, 100.0 * score.f1], !references.is_empty()))
    }

    fn gather(&self, rows: Vec<Self::Row>) -> SquadRows {
        let (scores, answered) = rows.into_iter().unzip();
        SquadRows { scores, answered }
    }

    fn scores(&self, _: &SquadRows) -> Vec<&'static str> {
        vec!["exact_match", "f1"]
    }

    fn over(&self, rows: &SquadRows, chosen: &[u32]) -> Vec<f64> {
        means(&rows.scores, chosen)
    }

    fn is_mean(&self) -> bool {
        true
    }

    fn details(&self, rows: &SquadRows) -> Map<String, Value> {
        if self.0 == SquadVersion::V1 {
            return Map::new();
        }
        let part = |answered: bool| {
            let chosen = rows.scores.iter().zip(&rows.answered).filter(|&(_, &has)| has == answered);
            let (exact, f1): (Vec<f64>, Vec<f64>) = chosen.map(|([exact, f1], _)| (*exact, *f1)).unzip();
            json!({ "exact_match": mean(&exact), "f1": mean(&f1), "rows": exact.len() })
        };
        object(json!({ "has_answer": part(true), "no_answer": part(false) }))
    }
}
