//! Files of tasks and of groups of tasks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::config::{TaskConfig, read_object};
use super::error::TaskError;
use super::python;

/// Most YAML files in the folders that are searched.
const MOST_FILES: usize = 20_000;
/// Deepest nesting of folders and of groups.
const DEEPEST: usize = 16;

/// Tasks, and groups of them.
#[derive(Clone, Debug, Default)]
pub struct TaskSet {
    /// The tasks, each once.
    pub tasks: Vec<TaskConfig>,
    /// The groups.
    pub groups: Vec<Group>,
}

/// A group of tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its name in tables.
    pub alias: Option<String>,
    /// Its tasks and groups.
    pub children: Vec<String>,
    /// Its version.
    pub version: String,
    pub(crate) metrics: Vec<GroupMetric>,
}

/// A metric of a group: the mean of its tasks'.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupMetric {
    pub(crate) metric: String,
    pub(crate) filters: Option<Vec<String>>,
    pub(crate) weighted: bool,
}

impl TaskSet {
    /// Reads files, and all files of folders that are tasks or groups. The tasks of a group are looked for in its folder.
    ///
    /// # Errors
    /// If a file cannot be read or used, a task is there twice, or a group names one that is not there.
    pub fn open(paths: &[PathBuf]) -> Result<Self, TaskError> {
        let mut set = Self::default();
        for path in paths {
            if path.is_dir() {
                let index = Index::of(path)?;
                // Groups first, which bring their tasks.
                for file in index.groups.values() {
                    set.add_group(file, &index, 0)?;
                }
                for file in index.tasks.values() {
                    let config = TaskConfig::open(file)?;
                    if set.tasks.iter().all(|known| known.task != config.task) {
                        set.tasks.push(config);
                    }
                }
                if set.tasks.is_empty() {
                    let problem = "there is no YAML file with the key `task`".to_owned();
                    return Err(TaskError::Files { path: path.clone(), problem });
                }
                continue;
            }
            let keys = read_object(path)?;
            if keys.contains_key("group") {
                let index =
                    Index::of(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
                set.add_group(path, &index, 0)?;
            } else {
                set.add_task(TaskConfig::of(path, keys)?)?;
            }
        }
        Ok(set)
    }

    fn add_task(&mut self, config: TaskConfig) -> Result<(), TaskError> {
        if let Some(known) = self.tasks.iter().find(|known| known.task == config.task) {
            if *known == config {
                return Ok(());
            }
            let problem = format!("the task {} is in {} as well", config.task, known.path.display());
            return Err(TaskError::Files { path: config.path, problem });
        }
        self.tasks.push(config);
        Ok(())
    }

    fn add_group(&mut self, path: &Path, index: &Index, depth: usize) -> Result<(), TaskError> {
        let keys = read_object(path)?;
        let wrong = |key: &str, problem: String| TaskError::Key {
            path: path.to_owned(),
            key: key.to_owned(),
            problem,
        };
        if depth > DEEPEST {
            return Err(wrong("task", "leads through too many groups".to_owned()));
        }
        let known = ["group", "group_alias", "task", "tag", "aggregate_metric_list", "metadata"];
        let text = |key: &str| keys.get(key).and_then(Value::as_str).map(str::to_owned);
        let name = text("group").ok_or_else(|| wrong("group", "is no text".to_owned()))?;
        if self.groups.iter().any(|group| group.name == name) {
            return Ok(());
        }
        // What is no key of groups holds for each of its tasks.
        let mut common = Map::new();
        for (key, value) in keys.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            common.insert(key.clone(), value.clone());
        }
        let Some(Value::Array(members)) = keys.get("task") else {
            return Err(wrong("task", "is no list of the names of tasks".to_owned()));
        };
        let mut children = Vec::new();
        for member in members {
            let (child, own) = match member {
                Value::String(child) => (child.clone(), Map::new()),
                Value::Object(fields) => match fields.get("task") {
                    Some(Value::String(child)) => (child.clone(), fields.clone()),
                    _ => {
                        return Err(wrong(
                            "task",
                            format!("has {member}: name a task, or give `task: NAME` with keys"),
                        ));
                    }
                },
                other => return Err(wrong("task", format!("has {other}, which is no name"))),
            };
            if let Some(file) = index.groups.get(&child) {
                self.add_group(file, index, depth + 1)?;
                children.push(child);
                continue;
            }
            let named = match (index.tasks.get(&child), index.tags.get(&child)) {
                (Some(file), _) => vec![(child.clone(), file.clone())],
                (None, Some(tagged)) => tagged.clone(),
                (None, None) => {
                    return Err(wrong(
                        "task",
                        format!("names {child:?}, which is in no file beside this one"),
                    ));
                }
            };
            for (task, file) in named {
                let mut keys = read_object(&file)?;
                keys.extend(common.clone());
                keys.extend(
                    own.iter().filter(|(key, _)| *key != "task").map(|(k, v)| (k.clone(), v.clone())),
                );
                self.add_task(TaskConfig::of(&file, keys)?)?;
                children.push(task);
            }
        }
        let metrics = match keys.get("aggregate_metric_list") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => {
                let read =
                    |item| GroupMetric::read(item).map_err(|problem| wrong("aggregate_metric_list", problem));
                items.iter().map(read).collect::<Result<_, _>>()?
            }
            Some(one) => {
                vec![GroupMetric::read(one).map_err(|problem| wrong("aggregate_metric_list", problem))?]
            }
        };
        let version = keys.get("metadata").and_then(|metadata| metadata.get("version"));
        let version = version.map_or_else(|| "N/A".to_owned(), python::text);
        self.groups.push(Group { name, alias: text("group_alias"), children, version, metrics });
        Ok(())
    }
}

impl GroupMetric {
    fn read(item: &Value) -> Result<Self, String> {
        let Value::Object(fields) = item else { return Err("has an item that is no object".to_owned()) };
        let known = ["metric", "filter_list", "aggregation", "weight_by_size"];
        if let Some(key) = fields.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("has the unknown key {key}"));
        }
        if fields.get("aggregation").is_some_and(|value| value.as_str() != Some("mean")) {
            return Err("has an aggregation other than mean, which is the only one".to_owned());
        }
        let metric =
            fields.get("metric").and_then(Value::as_str).ok_or("has an item without a metric")?.to_owned();
        let filters = match fields.get("filter_list") {
            None | Some(Value::Null) => None,
            Some(Value::Array(items)) => Some(items.iter().map(python::text).collect()),
            Some(one) => Some(vec![python::text(one)]),
        };
        let weighted = fields.get("weight_by_size").is_none_or(|value| *value != Value::Bool(false));
        Ok(Self { metric, filters, weighted })
    }
}

/// The tasks and groups in a folder, by name.
#[derive(Default)]
struct Index {
    tasks: BTreeMap<String, PathBuf>,
    groups: BTreeMap<String, PathBuf>,
    tags: BTreeMap<String, Vec<(String, PathBuf)>>,
}

impl Index {
    fn of(folder: &Path) -> Result<Self, TaskError> {
        let mut files = Vec::new();
        list(folder, 0, &mut files)?;
        files.sort();
        let mut index = Self::default();
        for file in files {
            // What cannot be read is no task that could be named; a task that cannot be used says so when it is.
            let Ok(keys) = read_object(&file) else {
                if let Some(name) = named_in(&file) {
                    index.tasks.entry(name).or_insert(file);
                }
                continue;
            };
            let text = |key: &str| keys.get(key).and_then(Value::as_str).map(str::to_owned);
            if let Some(group) = text("group") {
                index.groups.entry(group).or_insert(file);
            } else if let Some(task) = text("task") {
                let tags: Vec<String> = match keys.get("tag") {
                    Some(Value::String(tag)) => vec![tag.clone()],
                    Some(Value::Array(tags)) => tags.iter().map(python::text).collect(),
                    _ => Vec::new(),
                };
                for tag in tags {
                    index.tags.entry(tag).or_default().push((task.clone(), file.clone()));
                }
                index.tasks.entry(task).or_insert(file);
            }
        }
        index.tags.values_mut().for_each(|tagged| tagged.sort());
        Ok(index)
    }
}

/// The name of the task in a file that is no YAML we can use, so that its fault is told and not that it is missing.
fn named_in(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("task:"))?;
    Some(line.trim().trim_matches(['"', '\'']).to_owned()).filter(|name| !name.is_empty())
}

/// The YAML files in a folder and those below it.
fn list(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), TaskError> {
    let read = |source| TaskError::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !is_hidden && depth < DEEPEST {
            list(&path, depth + 1, files)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
        if files.len() > MOST_FILES {
            let problem = format!("there are more than {MOST_FILES} YAML files: name the tasks' own files");
            return Err(TaskError::Files { path: folder.to_owned(), problem });
        }
    }
    Ok(())
}
