//! The results of tasks, in the layout of lm-evaluation-harness 0.4.13.

use std::collections::BTreeMap;

use andiron_pipelines::DecoderPipeline;
use serde_json::{Map, Value, json};

use super::error::TaskError;
use super::group::{Group, GroupMetric};
use super::measure::{Prepared, RowValue};
use super::prompt::Task;
use super::python::{self, json as python_json, sha256};
use super::run::{self, Sample};

/// How results are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportOptions {
    /// Samples of the bootstrap; 0 leaves standard errors out.
    pub bootstrap: usize,
    /// Seed of texts that are sampled.
    pub seed: u64,
}

impl Default for ReportOptions {
    /// The numbers of lm-evaluation-harness.
    fn default() -> Self {
        Self { bootstrap: 100_000, seed: 1234 }
    }
}

/// A metric of a task, over its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskMetric {
    /// Its name.
    pub name: &'static str,
    /// The chain of filters.
    pub filter: String,
    /// Its value.
    pub value: f64,
    /// Its standard error, if it has one.
    pub standard_error: Option<f64>,
}

/// The results of a task.
#[derive(Debug)]
pub struct TaskReport {
    /// The task.
    pub task: Task,
    /// Its metrics.
    pub metrics: Vec<TaskMetric>,
    samples: Vec<Sample>,
}

impl TaskReport {
    /// Runs a task.
    ///
    /// # Errors
    /// If a text cannot be tokenized, scored or generated, or a response does not suit a metric.
    pub fn run(task: Task, model: &DecoderPipeline, options: ReportOptions) -> Result<Self, TaskError> {
        let samples = run::run(&task, model, options.seed)?;
        let mut metrics = Vec::new();
        for filter in &task.config.filters {
            for metric in &task.config.metrics {
                let of_filter = samples.iter().filter(|sample| sample.filter == filter.name);
                let values = of_filter.filter_map(|sample| {
                    sample
                        .values
                        .iter()
                        .find(|(name, _)| *name == metric.name)
                        .map(|(_, value)| value.clone())
                });
                let values: Vec<RowValue> = values.collect();
                let failed = |problem| TaskError::Task { task: task.config.task.clone(), problem };
                let prepared = Prepared::new(metric, &values).map_err(failed)?;
                metrics.push(TaskMetric {
                    name: metric.name,
                    filter: filter.name.clone(),
                    value: prepared.whole(),
                    standard_error: prepared.standard_error(options.bootstrap),
                });
            }
        }
        Ok(Self { task, metrics, samples })
    }

    /// One object for each row and chain of filters.
    pub fn samples(&self) -> impl Iterator<Item = Value> + '_ {
        self.samples.iter().map(|sample| self.sample(sample))
    }

    fn sample(&self, sample: &Sample) -> Value {
        let doc = Value::Object(self.task.docs[sample.row].clone());
        let target = python::text(&self.task.prompts[sample.row].target);
        let mut arguments = Map::new();
        for (request, of_request) in sample.arguments.iter().enumerate() {
            let named = of_request.iter().enumerate().map(|(at, value)| (format!("arg_{at}"), value.clone()));
            arguments.insert(format!("gen_args_{request}"), Value::Object(named.collect()));
        }
        let prompt = sample.arguments.first().and_then(|first| first.first()).and_then(Value::as_str);
        let metrics: Vec<&str> = sample.values.iter().map(|(name, _)| *name).collect();
        let responses: Vec<Value> =
            sample.responses.iter().map(|all| all.iter().map(as_texts).collect()).collect();
        let mut out = json!({
            "doc_id": sample.row,
            "doc": doc,
            "target": target,
            "arguments": arguments,
            "resps": responses,
            "filtered_resps": sample.filtered.iter().map(as_texts).collect::<Vec<_>>(),
            "filter": sample.filter,
            "metrics": metrics,
            "doc_hash": sha256(&python_json(&doc)),
            "prompt_hash": sha256(prompt.unwrap_or_default()),
            "target_hash": sha256(&target),
        });
        for (name, value) in &sample.values {
            out[*name] = value.json();
        }
        out
    }

    /// The hash of all samples' hashes.
    fn hash(&self) -> String {
        let mut hashes = String::new();
        for sample in self.samples() {
            for key in ["doc_hash", "prompt_hash", "target_hash"] {
                hashes.push_str(sample[key].as_str().unwrap_or_default());
            }
        }
        sha256(&hashes)
    }

    fn results(&self) -> Map<String, Value> {
        let config = &self.task.config;
        let mut out = Map::new();
        out.insert("name".to_owned(), config.task.clone().into());
        out.insert("alias".to_owned(), config.shown_name().into());
        out.insert("sample_len".to_owned(), self.task.len().into());
        for metric in &self.metrics {
            insert_metric(&mut out, (metric.name, &metric.filter), metric.value, metric.standard_error);
        }
        out
    }
}

/// A response as the harness writes it: numbers and truth values as text.
fn as_texts(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(as_texts).collect(),
        other => python::text(other).into(),
    }
}

fn insert_metric(out: &mut Map<String, Value>, (name, filter): (&str, &str), value: f64, error: Option<f64>) {
    out.insert(format!("{name},{filter}"), json!(value));
    let error = error.map_or_else(|| "N/A".into(), |error| json!(error));
    out.insert(format!("{name}_stderr,{filter}"), error);
}

/// The results of several tasks and their groups.
#[derive(Debug)]
pub struct Report {
    /// The tasks.
    pub tasks: Vec<TaskReport>,
    groups: Vec<(Group, Map<String, Value>)>,
}

impl Report {
    /// Joins the results of tasks to those of groups.
    pub fn new(tasks: Vec<TaskReport>, groups: Vec<Group>) -> Self {
        let all = groups.clone();
        let with_results = groups.into_iter().map(|group| {
            let results = group_results(&group, &tasks, &all);
            (group, results)
        });
        let groups = with_results.collect();
        Self { tasks, groups }
    }

    /// The results as lm-evaluation-harness writes them, with `hashes` of all samples if they are written too.
    pub fn json(&self, hashes: bool) -> Map<String, Value> {
        let by_name = |value: &dyn Fn(&TaskReport) -> Value| -> Map<String, Value> {
            let sorted: BTreeMap<_, _> =
                self.tasks.iter().map(|task| (task.task.config.task.clone(), value(task))).collect();
            sorted.into_iter().collect()
        };
        let mut results = Map::new();
        for task in &self.tasks {
            results.insert(task.task.config.task.clone(), Value::Object(task.results()));
        }
        let (mut of_groups, mut subtasks) = (Map::new(), Map::new());
        let mut versions = by_name(&|task| task.task.config.version.clone());
        let mut shots = by_name(&|task| task.task.num_fewshot.into());
        let better = |task: &TaskReport| -> Value {
            let metrics = task.task.config.metrics.iter();
            metrics
                .map(|metric| (metric.name.to_owned(), metric.higher_is_better.into()))
                .collect::<Map<_, _>>()
                .into()
        };
        let mut higher = by_name(&better);
        for (group, values) in &self.groups {
            results.insert(group.name.clone(), Value::Object(values.clone()));
            if !group.metrics.is_empty() {
                of_groups.insert(group.name.clone(), Value::Object(values.clone()));
            }
            subtasks.insert(group.name.clone(), group.children.clone().into());
            versions.insert(group.name.clone(), group.version.clone().into());
            let of_children: Vec<&Value> =
                group.children.iter().filter_map(|child| shots.get(child)).collect();
            let shared = match of_children.as_slice() {
                [first, rest @ ..] if rest.iter().all(|other| other == first) => Some((*first).clone()),
                _ => None,
            };
            if let Some(shared) = shared {
                shots.insert(group.name.clone(), shared);
            }
            let mut joined = Map::new();
            for (name, value) in
                group.children.iter().filter_map(|child| higher.get(child)?.as_object()).flatten()
            {
                let known = joined.entry(name.clone()).or_insert_with(|| value.clone());
                if *known != *value {
                    *known = Value::Null;
                }
            }
            if !joined.is_empty() {
                higher.insert(group.name.clone(), Value::Object(joined));
            }
        }
        let samples = by_name(&|task| json!({"original": task.task.n_rows, "effective": task.task.len()}));
        let sorted = |mut map: Map<String, Value>| {
            map.sort_keys();
            Value::Object(map)
        };
        let mut out = Map::new();
        out.insert("results".to_owned(), Value::Object(results));
        if !of_groups.is_empty() {
            out.insert("groups".to_owned(), Value::Object(of_groups));
        }
        out.insert("group_subtasks".to_owned(), Value::Object(subtasks));
        out.insert(
            "configs".to_owned(),
            Value::Object(by_name(&|task| task.task.config.json(task.task.num_fewshot))),
        );
        out.insert("versions".to_owned(), sorted(versions));
        out.insert("n-shot".to_owned(), sorted(shots));
        out.insert("higher_is_better".to_owned(), sorted(higher));
        out.insert("n-samples".to_owned(), Value::Object(samples));
        if hashes {
            out.insert("task_hashes".to_owned(), Value::Object(by_name(&|task| task.hash().into())));
        }
        out
    }

    /// The table that lm-evaluation-harness prints, and one of groups if there are some with metrics.
    pub fn table(&self) -> String {
        let json = self.json(false);
        let mut out = table(&json, "results");
        if json.contains_key("groups") {
            out.push('\n');
            out.push_str(&table(&json, "groups"));
        }
        out
    }
}

/// The results of a group: means over the tasks in it, and in the groups in it.
fn group_results(group: &Group, tasks: &[TaskReport], groups: &[Group]) -> Map<String, Value> {
    let mut names = Vec::new();
    leaves(group, groups, &mut names);
    let inside: Vec<&TaskReport> =
        names.iter().filter_map(|name| tasks.iter().find(|task| task.task.config.task == *name)).collect();
    let mut out = Map::new();
    out.insert("alias".to_owned(), group.alias.clone().unwrap_or_else(|| group.name.clone()).into());
    out.insert("name".to_owned(), group.name.clone().into());
    if group.metrics.is_empty() {
        return out;
    }
    out.insert("sample_len".to_owned(), inside.iter().map(|task| task.task.len()).sum::<usize>().into());
    let mut counts = Map::new();
    for GroupMetric { metric, filters, weighted } in &group.metrics {
        let filters = filters.clone().unwrap_or_else(|| {
            let all = inside.iter().flat_map(|task| &task.metrics).filter(|found| found.name == metric);
            let mut names: Vec<String> = all.map(|found| found.filter.clone()).collect();
            names.sort();
            names.dedup();
            names
        });
        for filter in filters {
            let of_tasks = inside.iter().filter_map(|task| {
                let found =
                    task.metrics.iter().find(|found| found.name == metric && found.filter == filter)?;
                Some((found.value, found.standard_error, task.task.len() as f64))
            });
            let of_tasks: Vec<(f64, Option<f64>, f64)> = of_tasks.collect();
            if of_tasks.is_empty() {
                continue;
            }
            let weight = |size: f64| if *weighted { size } else { 1.0 };
            let total: f64 = of_tasks.iter().map(|(.., size)| weight(*size)).sum();
            let value = of_tasks.iter().map(|(value, _, size)| value * weight(*size)).sum::<f64>() / total;
            let errors: Option<Vec<(f64, f64)>> =
                of_tasks.iter().map(|(_, error, size)| error.map(|error| (error, *size))).collect();
            let error = errors.map(|errors| match weighted {
                true => pooled(&errors),
                false => {
                    errors.iter().map(|(error, _)| error * error).sum::<f64>().sqrt() / errors.len() as f64
                }
            });
            insert_metric(&mut out, (metric, &filter), value, error);
            let size: f64 = of_tasks.iter().map(|(.., size)| size).sum();
            counts.insert(format!("{metric},{filter}"), (size as u64).into());
        }
    }
    if !counts.is_empty() {
        out.insert("sample_count".to_owned(), Value::Object(counts));
    }
    out
}

/// The tasks of a group and of the groups in it.
fn leaves<'a>(group: &'a Group, groups: &'a [Group], names: &mut Vec<&'a str>) {
    for child in &group.children {
        match groups.iter().find(|other| other.name == *child && other.name != group.name) {
            Some(inner) => leaves(inner, groups, names),
            None => names.push(child),
        }
    }
}

/// The standard error of the mean over several tasks' rows, from that of each and their numbers.
///
/// Source: `pooled_sample_stderr` of lm-evaluation-harness 0.4.13.
fn pooled(errors: &[(f64, f64)]) -> f64 {
    let rows: f64 = errors.iter().map(|(_, size)| size).sum();
    let squares: f64 = errors.iter().map(|(error, size)| (size - 1.0) * error * error * size).sum();
    (squares / (rows - errors.len() as f64) / rows).sqrt()
}

/// A table in Markdown.
fn table(json: &Map<String, Value>, column: &str) -> String {
    let first = if column == "groups" { "Groups" } else { "Tasks" };
    let mut rows =
        vec![[first, "Version", "Filter", "n-shot", "Metric", "", "Value", "", "Stderr"].map(str::to_owned)];
    let of = |part: &str, name: &str| json.get(part).and_then(|part| part.get(name)).cloned();
    let results = json.get(column).and_then(Value::as_object);
    for (name, depth) in in_order(json, results) {
        let Some(Value::Object(values)) = of(column, &name) else { continue };
        let version =
            of("versions", &name).map_or_else(|| "N/A".to_owned(), |version| python::text(&version));
        let shots = of("n-shot", &name).map_or_else(String::new, |shots| python::text(&shots));
        let alias = values.get("alias").map_or_else(|| name.clone(), python::text);
        let alias = if depth > 0 { format!("{}- {alias}", " ".repeat(depth)) } else { alias };
        let mut shown = [alias, version];
        let mut keys: Vec<&String> =
            values.keys().filter(|key| key.contains(',') && !key.contains("_stderr,")).collect();
        keys.sort();
        for key in keys {
            let (metric, filter) = key.split_once(',').unwrap_or((key, ""));
            let better = of("higher_is_better", &name).and_then(|of_task| of_task.get(metric)?.as_bool());
            let arrow = better.map_or("", |higher| if higher { "↑" } else { "↓" });
            let number = |value: Option<&Value>| match value.and_then(Value::as_f64) {
                Some(value) => format!("{value:.4}"),
                None => "N/A".to_owned(),
            };
            let error = number(values.get(&format!("{metric}_stderr,{filter}")));
            let [alias, version] = std::mem::take(&mut shown);
            let value = number(values.get(key));
            let row = [
                alias,
                version,
                filter.to_owned(),
                shots.clone(),
                metric.to_owned(),
                arrow.to_owned(),
                value,
            ];
            let [a, b, c, d, e, f, g] = row;
            rows.push([a, b, c, d, e, f, g, "±".to_owned(), error]);
        }
    }
    markdown(&rows)
}

/// Tasks as the table shows them: groups, the tasks of each below it, then other tasks; all in alphabetical order.
fn in_order(json: &Map<String, Value>, results: Option<&Map<String, Value>>) -> Vec<(String, usize)> {
    let empty = Map::new();
    let results = results.unwrap_or(&empty);
    let groups = json.get("group_subtasks").and_then(Value::as_object).unwrap_or(&empty);
    let children = |name: &str| -> Vec<String> {
        let all = groups.get(name).and_then(Value::as_array);
        let mut names: Vec<String> =
            all.into_iter().flatten().filter_map(|c| c.as_str().map(str::to_owned)).collect();
        names.sort();
        names
    };
    let is_child = |name: &String| {
        groups.values().any(|all| all.as_array().is_some_and(|all| all.iter().any(|c| c == name)))
    };
    let mut roots: Vec<&String> = groups.keys().filter(|name| !is_child(name)).collect();
    roots.sort();
    let mut open: Vec<(String, usize)> = roots.into_iter().rev().map(|name| (name.clone(), 0)).collect();
    let mut order: Vec<(String, usize)> = Vec::new();
    while let Some((name, depth)) = open.pop() {
        open.extend(children(&name).into_iter().rev().map(|child| (child, depth + 1)));
        if order.iter().all(|(known, _)| *known != name) {
            order.push((name, depth));
        }
    }
    let mut others: Vec<&String> =
        results.keys().filter(|name| order.iter().all(|(known, _)| known != *name)).collect();
    others.sort();
    order.extend(others.into_iter().map(|name| (name.clone(), 0)));
    order.retain(|(name, _)| results.contains_key(name));
    order
}

fn markdown(rows: &[[String; 9]]) -> String {
    const TO_THE_RIGHT: [usize; 4] = [1, 3, 6, 8];
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..9).map(width).collect();
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.chars().count());
            out.push('|');
            match TO_THE_RIGHT.contains(&column) && number > 0 {
                true => out.extend([padding.as_str(), cell.as_str()]),
                false => out.extend([cell.as_str(), padding.as_str()]),
            }
        }
        out.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let (dashes, colon) =
                    if TO_THE_RIGHT.contains(&column) { (width - 1, ":") } else { (*width, "") };
                out.push('|');
                out.push_str(&"-".repeat(dashes));
                out.push_str(colon);
            }
            out.push_str("|\n");
        }
    }
    out
}
