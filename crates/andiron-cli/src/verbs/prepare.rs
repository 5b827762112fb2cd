//! `andiron prepare`: tokenize text into datasets.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use andiron_corpus::clean::LineEndings;
use andiron_corpus::prepare::{
    Duplicates, Existing, PrepareError, PrepareOptions, PrepareProgress, PrepareReport, Split, SplitBy,
    Stage, TokenizerChoice, prepare,
};
use andiron_data::source::{OnError, SourceOptions};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::tokenizer::{Vocabulary, VocabularyArgs, advising_field};
use crate::exit::Ending;
use crate::flags::Common;
use crate::lines::{note, out};
use crate::progress::Progress;

/// Tokenize text into datasets for training and validation
///
/// Writes a tokenizer and two datasets of token ids to the output directory. If the output of the same command over the same files is
/// already there, it is kept.
#[derive(Debug, Args)]
pub struct Prepare {
    /// Text and JSONL files, plain or gzip, or directories of them
    #[arg(required = true)]
    input: Vec<PathBuf>,
    /// Output directory: tokenizer/, train/, valid/, removed.jsonl, prepare.json
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Directory of an existing tokenizer to use, instead of training one
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kind", "model", "vocab_size"])]
    tokenizer: Option<PathBuf>,
    #[command(flatten)]
    vocabulary: VocabularyArgs,
    /// Field of JSONL records that holds the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    field: String,
    /// Fraction of the text held out for validation
    #[arg(long, default_value_t = 0.1, value_name = "0..1")]
    held_out: f64,
    /// Hold out whole documents, or the last characters of the text; auto is characters for a single document, else documents
    #[arg(long, value_enum, default_value = "auto")]
    split_by: By,
    /// Convert line endings (`\r\n`, `\r`) to `\n`
    #[arg(long)]
    unix_line_endings: bool,
    /// Keep exact duplicates of documents, instead of removing them
    #[arg(long)]
    keep_duplicates: bool,
    /// Skip unreadable records, and unreadable files in an input directory, instead of failing
    #[arg(long)]
    skip_errors: bool,
    /// Replace an output directory made from other inputs or options
    #[arg(long)]
    replace: bool,
    /// Random seed of the choice of held-out documents
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    Auto,
    Documents,
    Characters,
}

impl Prepare {
    /// Prepares and reports.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let tokenizer = match self.tokenizer {
            Some(path) => TokenizerChoice::Load(path),
            None => match self.vocabulary.vocabulary()? {
                Vocabulary::Bpe(options) => TokenizerChoice::Bpe(options),
                Vocabulary::Characters(special) => TokenizerChoice::Characters(special),
            },
        };
        let by = match self.split_by {
            By::Auto => SplitBy::Auto,
            By::Documents => SplitBy::Documents,
            By::Characters => SplitBy::Characters,
        };
        let options = PrepareOptions {
            existing: if self.replace { Existing::Replace } else { Existing::Refuse },
            on_error: if self.skip_errors { OnError::Skip } else { OnError::Fail },
            line_endings: if self.unix_line_endings { LineEndings::Unix } else { LineEndings::Keep },
            duplicates: if self.keep_duplicates { Duplicates::Keep } else { Duplicates::Remove },
            split: Split { fraction: self.held_out, by },
            seed: self.seed,
            sources: SourceOptions::of_field(&self.field),
            ..PrepareOptions::new(self.input, self.output.clone(), tokenizer)
        };
        let report = run(options, common).map_err(|error| match error.downcast_ref() {
            Some(PrepareError::Exists { .. }) => {
                error.context(format!("{} is taken; --replace makes it anew", self.output.display()))
            }
            _ => advising_field(error),
        })?;
        if common.json {
            let mut object = serde_json::to_value(&report)?;
            object["reused"] = json!(report.reused);
            let passed_over = |(path, why): &(PathBuf, String)| json!({ "path": path, "reason": why });
            object["passed_over"] = report.passed_over.iter().map(passed_over).collect();
            out!("{object}")?;
        } else {
            print(&report)?;
            out!("in {}", self.output.display())?;
        }
        Ok(Ending::Done)
    }
}

/// Prepares with all threads, showing progress.
pub fn run(mut options: PrepareOptions, common: &Common) -> anyhow::Result<PrepareReport> {
    options.threads = NonZeroUsize::new(common.threads()).unwrap_or(NonZeroUsize::MIN);
    let mut shown: Option<(Stage, Progress)> = None;
    let mut show = |at: PrepareProgress| {
        if shown.as_ref().is_none_or(|(stage, _)| *stage != at.stage) {
            let title = match at.stage {
                Stage::Hash => "checking",
                Stage::Survey => "reading",
                Stage::Train => "vocabulary",
                Stage::Encode => "encoding",
            };
            if let Some((_, progress)) = &shown {
                progress.finish();
            }
            shown = Some((at.stage, Progress::new(title, at.bytes_total)));
        }
        if let Some((_, progress)) = &mut shown {
            progress
                .set(at.bytes_done, || format!("bytes, {} documents, {} tokens", at.documents, at.tokens));
        }
    };
    let report = prepare(&options, &mut show);
    if let Some((_, progress)) = &shown {
        progress.finish();
    }
    report.map_err(|error| {
        // These speak of the text as a whole; say which text it was.
        let nameless = matches!(
            error,
            PrepareError::NoText { .. } | PrepareError::EmptyPart { .. } | PrepareError::Train(_)
        );
        let error = anyhow::Error::new(error);
        if !nameless {
            return error;
        }
        let names: Vec<String> = options.inputs.iter().map(|path| path.display().to_string()).collect();
        error.context(names.join(", "))
    })
}

/// At most so many paths are named; the rest is counted.
const NAMED: usize = 20;

/// Names what was found in input folders and not read.
pub fn tell_passed_over(passed_over: &[(PathBuf, String)]) {
    for (path, why) in passed_over.iter().take(NAMED) {
        note!("warning: {} was left out: {why}", path.display());
    }
    if let Some(more @ 1..) = passed_over.len().checked_sub(NAMED) {
        note!("warning: {more} more were left out");
    }
}

/// Prints what became of the documents.
fn print(report: &PrepareReport) -> anyhow::Result<()> {
    let counts = &report.documents;
    out!("documents  {} read, {} kept", counts.read, counts.kept)?;
    for (reason, count) in &counts.dropped {
        out!("           {count} left out: {reason}")?;
    }
    tell_passed_over(&report.passed_over);
    out!("vocabulary {}", report.vocab_size)?;
    out!("train      {} tokens", report.train.stats.tokens)?;
    if let Some(valid) = &report.valid {
        out!("valid      {} tokens", valid.stats.tokens)?;
    }
    if report.reused {
        out!("(all of it was there already)")?;
    }
    Ok(())
}
