//! Two results of the same tasks, compared row by row.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use andiron_kernels::random::Seed;
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::TaskError;
use super::measure::{MetricConfig, Prepared, RowValue};
use crate::metric::bootstrap::{Bootstrap, Comparison};

/// The longest line of a file of samples, in bytes.
const LINE_LIMIT: u64 = 64 << 20;
/// The largest file of results, in bytes.
const RESULTS_LIMIT: u64 = 256 << 20;

/// A metric of a task under two models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// The task.
    pub task: String,
    /// The metric.
    pub metric: String,
    /// The chain of filters.
    pub filter: String,
    /// Rows that both answer.
    pub rows: usize,
    /// The first model's value over these rows.
    pub first: f64,
    /// The second's.
    pub second: f64,
    /// The second less the first.
    pub difference: f64,
    /// Bounds of the difference in 95 % of the bootstrap's samples.
    pub interval: Option<[f64; 2]>,
    /// How often chance alone would make a difference as large, in either direction.
    pub p_value: Option<f64>,
    /// The test that it is of: `mcnemar` or `bootstrap`.
    pub test: &'static str,
}

/// The samples of a result: by task, metric and filter the value of each row, and by task the hash of each row.
#[derive(Debug, Default)]
struct Samples {
    values: BTreeMap<(String, String, String), BTreeMap<u64, RowValue>>,
    hashes: BTreeMap<(String, u64), String>,
    configs: Map<String, Value>,
}

/// Compares two results with samples: each is a folder that `andiron evaluate --output` or lm-evaluation-harness wrote, or a file
/// `results_….json` in it. Of several results in a folder the newest is taken.
///
/// Metrics that are 0 or 1 for each row are tested by McNemar's exact test over the rows in which the models differ; all
/// others by the paired bootstrap, which draws rows again for both.
///
/// Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages",
/// <https://doi.org/10.1007/BF02295996>; Koehn 2004, <https://aclanthology.org/W04-3250>.
///
/// # Errors
/// If a file cannot be read, there are no samples, or both have no task in common.
pub fn compare(first: &Path, second: &Path, samples: usize, seed: Seed) -> Result<Vec<Compared>, TaskError> {
    let (a, b) = (Samples::read(first)?, Samples::read(second)?);
    let bootstrap = Bootstrap { samples, seed };
    let mut all = Vec::new();
    for (key, of_a) in &a.values {
        let Some(of_b) = b.values.get(key) else { continue };
        let (task, metric, filter) = key;
        let mut pairs = Vec::new();
        for (row, value) in of_a {
            let Some(other) = of_b.get(row) else { continue };
            let place = (task.clone(), *row);
            if a.hashes.get(&place) != b.hashes.get(&place) {
                let problem = format!("row {row} is another one in {}", first.display());
                return Err(TaskError::Task {
                    task: task.clone(),
                    problem: format!("{problem} than in {}", second.display()),
                });
            }
            pairs.push((value.clone(), other.clone()));
        }
        let Some(config) = a.metric(task, metric).filter(|_| !pairs.is_empty()) else { continue };
        let (left, right): (Vec<RowValue>, Vec<RowValue>) = pairs.into_iter().unzip();
        let prepare = |values: &[RowValue]| {
            Prepared::new(&config, values).map_err(|problem| TaskError::Task { task: task.clone(), problem })
        };
        let (left_all, right_all) = (prepare(&left)?, prepare(&right)?);
        let found = bootstrap.compare(left.len(), |rows| left_all.value(rows), |rows| right_all.value(rows));
        let mcnemar = mcnemar(&left, &right);
        let Comparison { first, second, difference, p_value, interval } = found;
        all.push(Compared {
            task: task.clone(),
            metric: metric.clone(),
            filter: filter.clone(),
            rows: left.len(),
            first,
            second,
            difference,
            interval,
            p_value: mcnemar.or(p_value),
            test: if mcnemar.is_some() { "mcnemar" } else { "bootstrap" },
        });
    }
    if all.is_empty() {
        let problem = format!("it has no task and metric in common with {}", second.display());
        return Err(TaskError::Files { path: first.to_owned(), problem });
    }
    Ok(all)
}

impl Samples {
    fn read(path: &Path) -> Result<Self, TaskError> {
        let files = |problem: &str| TaskError::Files { path: path.to_owned(), problem: problem.to_owned() };
        let results = match path.is_file() {
            true => path.to_owned(),
            false => newest(path, 0)?
                .ok_or_else(|| files("there is no results_….json: give a folder of --output"))?,
        };
        let read = |path: &Path| {
            let path = path.to_owned();
            move |source| TaskError::Read { path, source }
        };
        if fs::metadata(&results).map_err(read(&results))?.len() > RESULTS_LIMIT {
            return Err(files("its results are too long"));
        }
        let text = fs::read_to_string(&results).map_err(read(&results))?;
        let json: Value = serde_json::from_str(&text).map_err(|_| files("its results are no JSON"))?;
        let mut samples = Self::default();
        if let Some(Value::Object(configs)) = json.get("configs") {
            samples.configs = configs.clone();
        }
        let name = results.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let date =
            name.strip_prefix("results_").and_then(|rest| rest.strip_suffix(".json")).unwrap_or_default();
        let folder = results.parent().unwrap_or(Path::new(""));
        for task in samples.configs.keys().cloned().collect::<Vec<_>>() {
            let file = folder.join(format!("samples_{task}_{date}.jsonl"));
            if file.is_file() {
                samples.add(&task, &file)?;
            }
        }
        match samples.values.is_empty() {
            true => Err(files("it has no samples: evaluate with --log-samples")),
            false => Ok(samples),
        }
    }

    fn add(&mut self, task: &str, file: &Path) -> Result<(), TaskError> {
        let read = |source| TaskError::Read { path: file.to_owned(), source };
        let mut reader = BufReader::new(fs::File::open(file).map_err(read)?);
        let (mut text, mut line) = (Vec::new(), 0);
        loop {
            text.clear();
            line += 1;
            let bad = |problem: &str| {
                let problem = format!("line {line}: {problem}");
                TaskError::Files { path: file.to_owned(), problem }
            };
            match reader.by_ref().take(LINE_LIMIT + 1).read_until(b'\n', &mut text).map_err(read)? {
                0 => break,
                n if n as u64 > LINE_LIMIT => return Err(bad("it is too long")),
                _ => {}
            }
            let sample: Value = serde_json::from_slice(&text).map_err(|_| bad("it is no JSON"))?;
            let row = sample["doc_id"].as_u64().ok_or_else(|| bad("it has no doc_id"))?;
            let filter = sample["filter"].as_str().unwrap_or("none").to_owned();
            let hash = sample["doc_hash"].as_str().unwrap_or_default().to_owned();
            self.hashes.insert((task.to_owned(), row), hash);
            for metric in sample["metrics"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if let Some(value) = RowValue::of_json(&sample[metric]) {
                    let key = (task.to_owned(), metric.to_owned(), filter.clone());
                    self.values.entry(key).or_default().insert(row, value);
                }
            }
        }
        Ok(())
    }

    /// A metric of a task as its configuration has it.
    fn metric(&self, task: &str, metric: &str) -> Option<MetricConfig> {
        let config = self.configs.get(task)?;
        MetricConfig::of_results(config, metric)
    }
}

/// The newest results in a folder and those in it.
fn newest(folder: &Path, depth: usize) -> Result<Option<PathBuf>, TaskError> {
    let read = |source| TaskError::Read { path: folder.to_owned(), source };
    let mut best: Option<PathBuf> = None;
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let found = match path.is_dir() {
            true if depth < 2 => newest(&path, depth + 1)?,
            false if name.starts_with("results_") && name.ends_with(".json") => Some(path),
            _ => None,
        };
        let date = |path: &PathBuf| path.file_name().map(|name| name.to_owned());
        if let Some(found) = found
            && best.as_ref().is_none_or(|best| date(&found) > date(best))
        {
            best = Some(found);
        }
    }
    Ok(best)
}

/// The p-value of McNemar's exact test, two-sided; `None` if a value is neither 0 nor 1.
fn mcnemar(first: &[RowValue], second: &[RowValue]) -> Option<f64> {
    let is_right = |value: &RowValue| match value {
        RowValue::Number(value) if *value == 0.0 || *value == 1.0 => Some(*value == 1.0),
        _ => None,
    };
    let (mut gained, mut lost) = (0u64, 0u64);
    for (a, b) in first.iter().zip(second) {
        match (is_right(a)?, is_right(b)?) {
            (false, true) => gained += 1,
            (true, false) => lost += 1,
            _ => {}
        }
    }
    let n = gained + lost;
    // Twice the chance of at most as many in the smaller direction.
    let mut log_choose = 0.0;
    let mut sum = 0.0;
    for k in 0..=gained.min(lost) {
        sum += (log_choose - n as f64 * std::f64::consts::LN_2).exp();
        log_choose += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    Some((2.0 * sum).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(values: &[f64]) -> Vec<RowValue> {
        values.iter().map(|&value| RowValue::Number(value)).collect()
    }

    /// `scipy.stats.binomtest(min, n).pvalue` of SciPy 1.17.
    #[test]
    fn the_exact_test_is_that_of_scipy() {
        for (gained, lost, expected) in
            [(0, 0, 1.0), (3, 3, 1.0), (1, 8, 0.039_062_5), (0, 5, 0.0625), (40, 70, 0.005447429511444476)]
        {
            let mut first = vec![0.0; gained];
            first.extend(vec![1.0; lost]);
            let second: Vec<f64> = first.iter().map(|value| 1.0 - value).collect();
            let found = mcnemar(&numbers(&first), &numbers(&second)).unwrap();
            assert!((found - expected).abs() < 1e-9, "{gained} {lost}: {found}");
        }
        assert_eq!(mcnemar(&numbers(&[0.5]), &numbers(&[1.0])), None);
    }
}
