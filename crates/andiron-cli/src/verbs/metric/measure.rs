//! What the metrics have in common: read rows, score them, draw them again, compare two files.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use andiron_eval::metric::bootstrap::{Bootstrap, Comparison, interval, sample_deviation, standard_error};
use andiron_kernels::random::Seed;
use anyhow::Context as _;
use clap::Args;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::report::{self, Estimate, Subject};
use super::row::Row;
use crate::exit::Ending;
use crate::flags::Common;
use crate::json_lines::{JsonLines, MAX_LINE};
use crate::verbs::predict::output;

/// Options of every metric.
#[derive(Debug, Args)]
pub struct Files {
    /// JSONL file of predictions; `-` is standard input
    #[arg(long, value_name = "FILE")]
    rows: PathBuf,
    /// Compare with the predictions of another system for the same rows: both values, their difference, and how often chance
    /// alone makes a difference as large (paired bootstrap, as in sacreBLEU)
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Write the scores of each row by itself to this JSONL file; `-` is standard output, after which nothing else is printed
    #[arg(long, value_name = "FILE", conflicts_with = "compare")]
    each: Option<PathBuf>,
    /// Samples of the bootstrap, for intervals, p-values and those standard errors that have no formula; 0 leaves them out
    #[arg(long, value_name = "N", default_value_t = 1000)]
    resamples: u32,
    /// Seed of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// A metric of rows.
pub trait Measure: Sync {
    /// What is kept of a row.
    type Row: Send;
    /// All rows, ready to be scored.
    type Rows: Sync;

    /// Fields that two systems' rows must have in common.
    const GOLD: &'static [&'static str];

    /// The metric's name.
    fn name(&self) -> &'static str;

    /// Reads a row.
    ///
    /// # Errors
    /// If a field is missing or is not what it should be; the message names it.
    fn row(&self, row: Row) -> Result<Self::Row, String>;

    /// Takes all rows, of which there is at least one.
    fn gather(&self, rows: Vec<Self::Row>) -> Self::Rows;

    /// Names of the scores, the metric's own first.
    fn scores(&self, rows: &Self::Rows) -> Vec<&'static str>;

    /// The scores over some rows, each given as often as it counts.
    fn over(&self, rows: &Self::Rows, chosen: &[u32]) -> Vec<f64>;

    /// Whether scores are means over rows, whose standard errors have a formula.
    fn is_mean(&self) -> bool {
        false
    }

    /// What else there is to say.
    fn details(&self, _rows: &Self::Rows) -> Map<String, Value> {
        Map::new()
    }
}

/// The rows of one file.
struct System<R> {
    rows: R,
    count: usize,
    /// A hash of each row's expected values.
    gold: Vec<u64>,
}

impl Files {
    /// Computes `metric` and prints it.
    ///
    /// # Errors
    /// If a file cannot be read, or a row is not what the metric reads.
    pub fn measure<M: Measure>(&self, metric: &M, common: &Common) -> anyhow::Result<Ending> {
        let bootstrap = Bootstrap { samples: self.resamples as usize, seed: Seed::new(self.seed) };
        let system = read(metric, &self.rows)?;
        if let Some(path) = &self.each {
            write_each(metric, &system, path)?;
            if path == Path::new("-") {
                return Ok(Ending::Done);
            }
        }
        let subject = Subject {
            metric: metric.name(),
            rows: system.count,
            scores: metric.scores(&system.rows),
            resamples: bootstrap.samples,
        };
        let Some(other) = &self.compare else {
            let estimates = estimates(metric, &system, bootstrap);
            report::print(&subject, &estimates, metric.details(&system.rows), common)?;
            return Ok(Ending::Done);
        };
        let second = read(metric, other)?;
        let both = || format!("{} and {} cannot be compared", self.rows.display(), other.display());
        ensure_same(&system, &second).with_context(both)?;
        if metric.scores(&second.rows) != subject.scores {
            return Err(anyhow::anyhow!("they count different things").context(both()));
        }
        report::print_comparison(&subject, &compare(metric, &system, &second, bootstrap), common)?;
        Ok(Ending::Done)
    }
}

/// Lines that are read together, and parsed on all threads.
const CHUNK_LINES: usize = 4096;
const CHUNK_BYTES: usize = 16 << 20;

fn read<M: Measure>(metric: &M, path: &Path) -> anyhow::Result<System<M::Rows>> {
    let mut lines = JsonLines::open(path)?;
    let (mut rows, mut gold) = (Vec::new(), Vec::new());
    let mut line = Vec::new();
    let mut at_end = false;
    while !at_end {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while chunk.len() < CHUNK_LINES && bytes < CHUNK_BYTES {
            let Some(read) = lines.next(&mut line)? else {
                at_end = true;
                break;
            };
            let place = || format!("{}:{}", path.display(), read.number);
            anyhow::ensure!(!read.too_long, "{}: a row has at most {MAX_LINE} bytes", place());
            bytes += line.len();
            chunk.push((read.number, line.clone()));
        }
        let parsed: Vec<_> =
            chunk.into_par_iter().map(|(number, line)| (number, parse(metric, &line))).collect();
        for (number, parsed) in parsed {
            let (hash, row) =
                parsed.map_err(|error| anyhow::anyhow!("{}:{number}: {error}", path.display()))?;
            gold.push(hash);
            rows.push(row);
        }
    }
    let count = rows.len();
    anyhow::ensure!(count > 0, "{} has no rows", path.display());
    anyhow::ensure!(
        u32::try_from(count).is_ok(),
        "{} has {count} rows, more than a metric takes",
        path.display()
    );
    Ok(System { rows: metric.gather(rows), count, gold })
}

fn parse<M: Measure>(metric: &M, line: &[u8]) -> Result<(u64, M::Row), String> {
    let row = Row::parse(line)?;
    let gold = row.hash(M::GOLD);
    Ok((gold, metric.row(row)?))
}

fn ensure_same<R>(first: &System<R>, second: &System<R>) -> anyhow::Result<()> {
    anyhow::ensure!(first.count == second.count, "they have {} and {} rows", first.count, second.count);
    if let Some(row) = first.gold.iter().zip(&second.gold).position(|(a, b)| a != b) {
        anyhow::bail!("row {} expects something else in each", row + 1);
    }
    Ok(())
}

/// The numbers of all rows.
fn all(count: usize) -> Vec<u32> {
    (0..count as u32).collect()
}

fn of_each<M: Measure>(metric: &M, system: &System<M::Rows>) -> Vec<Vec<f64>> {
    (0..system.count as u32).into_par_iter().map(|row| metric.over(&system.rows, &[row])).collect()
}

fn write_each<M: Measure>(metric: &M, system: &System<M::Rows>, path: &Path) -> anyhow::Result<()> {
    let names = metric.scores(&system.rows);
    let mut writer = output::open(path)?;
    let write = || format!("cannot write {}", path.display());
    for scores in of_each(metric, system) {
        let scores: Map<String, Value> =
            names.iter().zip(scores).map(|(name, score)| ((*name).to_owned(), json!(score))).collect();
        writeln!(writer, "{}", Value::Object(scores)).with_context(write)?;
    }
    writer.finish().with_context(write)
}

/// Column `index` of rows.
fn column(rows: &[Vec<f64>], index: usize) -> Vec<f64> {
    rows.iter().map(|row| row[index]).filter(|value| !value.is_nan()).collect()
}

fn estimates<M: Measure>(metric: &M, system: &System<M::Rows>, bootstrap: Bootstrap) -> Vec<Estimate> {
    let values = metric.over(&system.rows, &all(system.count));
    let samples = match system.count {
        // There is one sample only.
        1 => Vec::new(),
        count => bootstrap.resample(count, |chosen| metric.over(&system.rows, chosen)),
    };
    let each = metric.is_mean().then(|| of_each(metric, system));
    let estimate = |(index, value)| {
        let mut samples = column(&samples, index);
        let standard_error = match &each {
            Some(each) => standard_error(&column(each, index)),
            None => sample_deviation(&samples),
        };
        Estimate { value, standard_error, interval: interval(&mut samples) }
    };
    values.into_iter().enumerate().map(estimate).collect()
}

fn compare<M: Measure>(
    metric: &M,
    first: &System<M::Rows>,
    second: &System<M::Rows>,
    bootstrap: Bootstrap,
) -> Vec<Comparison> {
    let both = |chosen: &[u32]| (metric.over(&first.rows, chosen), metric.over(&second.rows, chosen));
    let (a, b) = both(&all(first.count));
    let samples = bootstrap.resample(first.count, both);
    let comparison = |(index, (a, b))| {
        let differences =
            samples.iter().map(|(first, second): &(Vec<f64>, Vec<f64>)| second[index] - first[index]);
        Comparison::of_samples(a, b, differences.collect())
    };
    a.into_iter().zip(b).enumerate().map(comparison).collect()
}

/// The mean of each column over chosen rows.
pub fn means<const N: usize>(rows: &[[f64; N]], chosen: &[u32]) -> Vec<f64> {
    let mut sums = [0.0; N];
    for &row in chosen {
        for (sum, score) in sums.iter_mut().zip(rows[row as usize]) {
            *sum += score;
        }
    }
    sums.map(|sum| sum / chosen.len() as f64).to_vec()
}

/// The fields of `value`, an object.
pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => unreachable!("{other} is not an object"),
    }
}
