//! `andiron prepare`: tokenize text into datasets.

mod scheduler;
mod tasks;
mod trace;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use andiron_corpus::clean::{FilterSettings, HtmlToText};
use andiron_corpus::dedup::ParagraphConfig;
use andiron_corpus::prepare::{
    DedupConfig, Duplicates, Existing, ParagraphReport, PrepareConfig, PrepareConfigError, PrepareError,
    PrepareOptions, PrepareProgress, PrepareReport, SourceReport, Split, SplitBy, Stage, TokenizerChoice,
    prepare,
};
use andiron_data::source::{self, Expanded, OnError, RecordError, RecordFault, SourceError, SourceOptions};
use andiron_training::config::{ParameterCount, SizedDecoder};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use scheduler::TaskChoice;

use super::tokenizer::{Vocabulary, VocabularyArgs, advising_field};
use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::lines::{note, out};
use crate::program::{Program, quoted};
use crate::progress::Progress;

/// Tokenize text into datasets for training and validation
///
/// Writes a tokenizer and two datasets of token ids to the output directory. If the output of the same settings over the same files is
/// already there, it is kept. The settings come from flags, or from a TOML file: several sources, filters and deduplication besides.
///
/// A run that was killed goes on where it was. `--task` splits the work over processes or machines that share a file system; `prepare
/// merge` completes it.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Prepare {
    #[command(subcommand)]
    verb: Option<PrepareVerb>,
    /// Text, Markdown, HTML, JSONL, JSON, CSV, TSV, Parquet and WARC files, plain, gzip or zstd, globs or directories of them; or one
    /// TOML file of settings
    #[arg(required = true)]
    input: Vec<PathBuf>,
    /// Output directory: tokenizer/, train/, valid/, removed.jsonl, report.html, prepare.json [required, unless the TOML file has it]
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Replace an output directory made from other inputs or settings
    #[arg(long)]
    replace: bool,
    /// Only read and filter the share of task R of `--of`, from 1; `andiron prepare merge` does the rest when all are done. After `merge
    /// --leave-encoding`, encode that share. `auto`: the number that a scheduler gave this process: a Slurm array (--array=1-N), an
    /// Indexed Job of Kubernetes (with --of), or a rank of MPI
    #[arg(long, value_name = "R|auto", conflicts_with = "replace")]
    task: Option<TaskChoice>,
    /// Number of tasks; with `--task auto`, a Slurm array and MPI tell it
    #[arg(long, value_name = "N", requires = "task")]
    of: Option<u64>,
}

/// What can be asked about a pipeline, or done to it.
#[derive(Debug, Subcommand)]
enum PrepareVerb {
    Status(tasks::Status),
    Merge(tasks::Merge),
    Trace(trace::Trace),
}

/// The settings of a pipeline as flags.
#[derive(Debug, Args)]
struct Settings {
    /// Directory of an existing tokenizer to use, instead of training one
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kind", "model", "vocab_size"])]
    tokenizer: Option<PathBuf>,
    #[command(flatten)]
    vocabulary: VocabularyArgs,
    /// Field of records, or column of tables, that holds the text [default: text]
    #[arg(long, value_name = "NAME")]
    field: Option<String>,
    /// Fraction of the text held out for validation [default: 0.1]
    #[arg(long, value_name = "0..1")]
    held_out: Option<f64>,
    /// How to choose what is held out [default: auto]
    #[arg(long, value_enum)]
    split_by: Option<By>,
    /// Convert line endings (`\r\n`, `\r`) to `\n`
    #[arg(long)]
    unix_line_endings: bool,
    /// Keep web pages as they are, with their tags, instead of making text of them
    #[arg(long)]
    keep_markup: bool,
    /// Keep exact duplicates of documents, instead of removing them
    #[arg(long)]
    keep_duplicates: bool,
    /// Remove lines of at least eight words that stood in an earlier document, or earlier in the same one
    #[arg(long)]
    remove_repeated_paragraphs: bool,
    /// Skip unreadable records, and unreadable files in an input directory, instead of failing
    #[arg(long)]
    skip_errors: bool,
    /// Random seed of the choice of held-out documents [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    /// Characters if there is one document, else documents
    Auto,
    /// Whole documents: exactly the fraction
    Documents,
    /// Whole documents by the hash of their text: where one goes does not depend on the others
    Hash,
    /// The last characters of each document
    Characters,
}

impl Settings {
    /// The settings that the flags make.
    fn config(self, input: Vec<PathBuf>, output: PathBuf) -> anyhow::Result<PrepareConfig> {
        let tokenizer = match self.tokenizer {
            Some(path) => TokenizerChoice::Load { path },
            None => match self.vocabulary.vocabulary()? {
                Vocabulary::Bpe(options) => TokenizerChoice::Bpe(options),
                Vocabulary::Characters(special) => TokenizerChoice::Characters(special),
                Vocabulary::WordPiece(_) | Vocabulary::Unigram(_) => {
                    let message = "prepare trains --kind bpe and char; train others with `andiron tokenizer train`, and give them with --tokenizer";
                    return Err(Usage(message.to_owned()).into());
                }
            },
        };
        let by = match self.split_by.unwrap_or(By::Auto) {
            By::Auto => SplitBy::Auto,
            By::Documents => SplitBy::Documents,
            By::Hash => SplitBy::Hash,
            By::Characters => SplitBy::Characters,
        };
        let fraction = self.held_out.unwrap_or(Split::default().fraction);
        let exact = if self.keep_duplicates { Duplicates::Keep } else { Duplicates::Remove };
        let is_page = |expanded: Expanded| expanded.files.iter().any(|path| source::has_pages(path));
        let mut filters = Vec::new();
        // What cannot be read is named when it is read.
        if !self.keep_markup && source::expand(&input, OnError::Skip).is_ok_and(is_page) {
            note!("web pages become text; --keep-markup keeps their tags");
            filters.push(FilterSettings::HtmlToText(HtmlToText::default()));
        }
        filters.extend(self.unix_line_endings.then_some(FilterSettings::UnixLineEndings {}));
        let mut config = PrepareConfig {
            seed: self.seed.unwrap_or(0),
            on_error: if self.skip_errors { OnError::Skip } else { OnError::Fail },
            filters,
            dedup: DedupConfig {
                exact,
                paragraphs: self.remove_repeated_paragraphs.then(ParagraphConfig::default),
                ..DedupConfig::default()
            },
            split: Split { fraction, by },
            ..PrepareConfig::new(input, output, tokenizer)
        };
        if let Some(field) = &self.field {
            config.sources[0].read = SourceOptions::of_field(field);
        }
        Ok(config)
    }

    /// The first setting that was given as a flag.
    fn first(&self) -> Option<&'static str> {
        let given = [
            ("--tokenizer", self.tokenizer.is_some()),
            ("--kind, --for or --vocab-size", self.vocabulary.is_given()),
            ("--field", self.field.is_some()),
            ("--held-out", self.held_out.is_some()),
            ("--split-by", self.split_by.is_some()),
            ("--unix-line-endings", self.unix_line_endings),
            ("--keep-markup", self.keep_markup),
            ("--keep-duplicates", self.keep_duplicates),
            ("--remove-repeated-paragraphs", self.remove_repeated_paragraphs),
            ("--skip-errors", self.skip_errors),
            ("--seed", self.seed.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(flag, _)| flag)
    }
}

impl Prepare {
    /// The settings, from the flags or from the file that is the only input.
    fn config(
        input: Vec<PathBuf>,
        output: Option<PathBuf>,
        settings: Settings,
    ) -> anyhow::Result<PrepareConfig> {
        let is_toml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
        match (input.as_slice(), output) {
            ([file], output) if is_toml(file) => {
                if let Some(flag) = settings.first() {
                    let file = file.display();
                    return Err(
                        Usage(format!("{flag} does not go with {file}, which holds the settings")).into()
                    );
                }
                let config = PrepareConfig::load(file).map_err(|error| match error {
                    PrepareConfigError::Value { .. } | PrepareConfigError::Filter { .. } => {
                        anyhow::Error::new(error).context(file.display().to_string())
                    }
                    error => error.into(),
                })?;
                let output = output.or(config.output.clone());
                let Some(output) = output else {
                    let file = file.display();
                    return Err(Usage(format!("{file} has no `output`; add it, or give --output")).into());
                };
                Ok(PrepareConfig { output: Some(output), ..config })
            }
            (_, Some(output)) => settings.config(input, output),
            (_, None) => Err(Usage("give the output directory, --output".to_owned()).into()),
        }
    }

    /// Prepares and reports.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        match self.verb {
            Some(PrepareVerb::Status(status)) => return status.run(common),
            Some(PrepareVerb::Merge(merge)) => return merge.run(common),
            Some(PrepareVerb::Trace(trace)) => return trace.run(common),
            None => {}
        }
        let config = Self::config(self.input, self.output, self.settings)?;
        if let Some(task) = self.task {
            let task = task.task(self.of, |name| std::env::var(name).ok())?;
            return tasks::run_task(&config, task, common);
        }
        let existing = if self.replace { Existing::Replace } else { Existing::Refuse };
        let output = config.output.clone().unwrap_or_default();
        let report = run(&config, existing, common).map_err(|error| match error.downcast_ref() {
            Some(PrepareError::Exists { .. }) => {
                error.context(format!("{} is taken; --replace makes it anew", output.display()))
            }
            Some(PrepareError::Source(SourceError::Record(RecordError { fault, .. })))
                if !matches!(fault, RecordFault::MissingText { .. }) =>
            {
                error.context("a file cannot be read; --skip-errors, or on_error = \"skip\" in a TOML file, leaves out what cannot")
            }
            _ => advising_field(error),
        })?;
        tell(&report, &output, common)
    }
}

/// Shows what came out.
fn tell(report: &PrepareReport, output: &Path, common: &Common) -> anyhow::Result<Ending> {
    if common.json {
        let mut object = serde_json::to_value(report)?;
        object["reused"] = json!(report.reused);
        let passed_over = |(path, why): &(PathBuf, String)| json!({ "path": path, "reason": why });
        object["passed_over"] = report.passed_over.iter().map(passed_over).collect();
        out!("{object}")?;
    } else {
        print(report)?;
        out!("in {}", output.display())?;
        if let Some(params) = params(report) {
            let options = format!("--params {params} --data {} --output DIR", quoted(output));
            out!("Train on it: {}", Program::of(common)?.line("pretrain", &options))?;
        }
    }
    Ok(Ending::Done)
}

/// Numbers of parameters that are proposed, as they are written.
const PROPOSED: [&str; 10] = ["500K", "1M", "2M", "5M", "10M", "20M", "50M", "100M", "200M", "500M"];

/// The size of a model that the data are enough for: 20 tokens for each parameter, in at most four passes, as `pretrain` trains it;
/// at least the smallest that the vocabulary allows. `None` if none of those that are proposed is.
fn params(report: &PrepareReport) -> Option<&'static str> {
    let enough = report.train.stats.tokens / 5;
    let vocabulary = report.vocab_size;
    let fitting = PROPOSED.iter().filter_map(|&written| {
        let count: ParameterCount = written.parse().ok()?;
        SizedDecoder::new(count, vocabulary).is_ok().then_some((written, count.0))
    });
    let fitting: Vec<_> = fitting.collect();
    let last = fitting.iter().rev().find(|(_, count)| *count <= enough);
    last.or(fitting.first()).map(|&(written, _)| written)
}

/// Prepares with all threads, showing progress.
pub fn run(config: &PrepareConfig, existing: Existing, common: &Common) -> anyhow::Result<PrepareReport> {
    shown(existing, common, |options, show| prepare(config, options, show)).map_err(|error| {
        // These speak of the text as a whole; say which text it was.
        let nameless = matches!(
            error,
            PrepareError::NoText { .. } | PrepareError::EmptyPart { .. } | PrepareError::Train(_)
        );
        let error = anyhow::Error::new(error);
        if !nameless {
            return error;
        }
        let paths = config.sources.iter().flat_map(|source| &source.paths);
        let names: Vec<String> = paths.map(|path| path.display().to_string()).collect();
        error.context(names.join(", "))
    })
}

/// Does a part of the work with all threads, showing progress.
fn shown<T>(
    existing: Existing,
    common: &Common,
    work: impl FnOnce(&PrepareOptions, &mut (dyn FnMut(PrepareProgress) + Send)) -> Result<T, PrepareError>,
) -> Result<T, PrepareError> {
    let threads = NonZeroUsize::new(common.threads()).unwrap_or(NonZeroUsize::MIN);
    let options = PrepareOptions { existing, threads };
    let mut shown: Option<(Stage, Progress)> = None;
    let mut show = |at: PrepareProgress| {
        if shown.as_ref().is_none_or(|(stage, _)| *stage != at.stage) {
            let title = match at.stage {
                Stage::Hash => "checking",
                Stage::Clean => "reading",
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
    let done = work(&options, &mut show);
    if let Some((_, progress)) = &shown {
        progress.finish();
    }
    done
}

/// The share of new paragraphs that may be left out without a warning.
const MOST_FALSE: f64 = 0.01;

/// At most so many paths that were left out for one reason are named; more are counted.
const NAMED: usize = 3;

/// Names what was found in input folders and not read.
pub fn tell_passed_over(passed_over: &[(PathBuf, String)]) {
    let mut reasons: Vec<(&str, Vec<&Path>)> = Vec::new();
    for (path, why) in passed_over {
        match reasons.iter_mut().find(|(known, _)| known == why) {
            Some((_, paths)) => paths.push(path),
            None => reasons.push((why, vec![path])),
        }
    }
    for (why, paths) in reasons {
        if paths.len() > NAMED {
            let (n, first) = (paths.len(), paths[0].display());
            note!("warning: {n} files were left out, such as {first}: {why}");
            continue;
        }
        for path in paths {
            note!("warning: {} was left out: {why}", path.display());
        }
    }
}

/// Prints what became of the documents.
fn print(report: &PrepareReport) -> anyhow::Result<()> {
    let counts = &report.documents;
    out!("documents  {} read, {} kept", counts.read, counts.kept)?;
    for step in &report.steps {
        for (reason, count) in &step.removed {
            let by = if *reason == step.step { String::new() } else { format!(" ({})", step.step) };
            out!("           {count} left out: {reason}{by}")?;
        }
    }
    if let Some(paragraphs) = &report.paragraphs {
        let ParagraphReport { counts, false_positive_rate } = paragraphs;
        out!("paragraphs {} of {} left out as repeated", counts.removed, counts.paragraphs)?;
        if *false_positive_rate > MOST_FALSE {
            let rate = 100.0 * false_positive_rate;
            note!(
                "warning: {rate:.1} % of new paragraphs were left out at the end; raise dedup.paragraphs.expected_paragraphs"
            );
        }
    }
    tell_passed_over(&report.passed_over);
    out!("vocabulary {}", report.vocab_size)?;
    out!("train      {} tokens", report.train.stats.tokens)?;
    if report.sources.len() > 1 {
        for source in &report.sources {
            let SourceReport { name, wanted, share, tokens, taken, epochs } = source;
            let wanted =
                wanted.map(|wanted| format!(" of {:.1} % wanted", 100.0 * wanted)).unwrap_or_default();
            let share = 100.0 * share;
            out!("           {taken} of {name}: {share:.1} %{wanted}, {epochs:.3} times its {tokens}")?;
        }
    }
    if let Some(valid) = &report.valid {
        out!("valid      {} tokens", valid.stats.tokens)?;
    }
    if report.reused {
        out!("(all of it was there already)")?;
    }
    Ok(())
}
