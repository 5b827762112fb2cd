//! A task as its YAML file has it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::error::TaskError;
use super::filter::Filters;
use super::measure::MetricConfig;
use super::{python, yaml};

/// The largest YAML file, in bytes.
const FILE_LIMIT: u64 = 4 << 20;

/// What a model is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputType {
    /// The log-likelihood of one continuation.
    Loglikelihood,
    /// The log-likelihood of each of several choices.
    MultipleChoice,
    /// The log-likelihood of a whole text.
    LoglikelihoodRolling,
    /// A text.
    GenerateUntil,
}

impl OutputType {
    const ALL: [(&'static str, Self); 4] = [
        ("loglikelihood", Self::Loglikelihood),
        ("multiple_choice", Self::MultipleChoice),
        ("loglikelihood_rolling", Self::LoglikelihoodRolling),
        ("generate_until", Self::GenerateUntil),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// Where few-shot examples come from.
#[derive(Clone, Debug, PartialEq)]
pub struct FewshotConfig {
    /// Whether they are the first rows; otherwise they are drawn.
    pub first: bool,
    /// The split.
    pub split: Option<String>,
    /// Rows that stand in the file.
    pub samples: Option<Vec<Map<String, Value>>>,
    /// The question of an example.
    pub doc_to_text: Value,
    /// Its answer.
    pub doc_to_target: Value,
    /// Its choices.
    pub doc_to_choice: Option<Value>,
    /// What the answer begins with.
    pub gen_prefix: Option<String>,
    /// Behind an example.
    pub fewshot_delimiter: String,
    /// Between question and answer.
    pub target_delimiter: String,
}

/// How texts are generated.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationConfig {
    /// Texts that end it.
    pub until: Vec<String>,
    /// Most tokens.
    pub max_gen_toks: usize,
    /// Temperature; 0 is greedy.
    pub temperature: f32,
    /// Top-p, top-k, min-p and the repetition penalty, if given.
    pub top_p: Option<f32>,
    /// See `top_p`.
    pub top_k: Option<usize>,
    /// See `top_p`.
    pub min_p: Option<f32>,
    /// See `top_p`.
    pub repetition_penalty: Option<f32>,
}

/// A task as its YAML file has it, with the defaults of lm-evaluation-harness 0.4.13.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskConfig {
    /// The file.
    pub path: PathBuf,
    /// Its keys and values, with those of included files.
    pub keys: Map<String, Value>,
    /// Name.
    pub task: String,
    /// The name in tables.
    pub alias: Option<String>,
    /// The format of the data: `json`, `csv` or `text`.
    pub dataset_path: String,
    /// Files by split.
    pub data_files: Vec<(String, Vec<PathBuf>)>,
    /// The key of a JSON document under which its rows stand.
    pub field: Option<String>,
    /// The splits.
    pub training_split: Option<String>,
    /// See `training_split`.
    pub validation_split: Option<String>,
    /// See `training_split`.
    pub test_split: Option<String>,
    /// What the model is asked for.
    pub output_type: OutputType,
    /// The prompt.
    pub doc_to_text: Value,
    /// The right answer.
    pub doc_to_target: Value,
    /// The choices.
    pub doc_to_choice: Option<Value>,
    /// In front of the prompt.
    pub description: String,
    /// Between prompt and answer.
    pub target_delimiter: String,
    /// What the answer begins with.
    pub gen_prefix: Option<String>,
    /// Few-shot examples.
    pub fewshot: FewshotConfig,
    /// Their number, if the task says one.
    pub num_fewshot: Option<usize>,
    /// How texts are generated.
    pub generation: GenerationConfig,
    /// How often each request is made.
    pub repeats: usize,
    /// What is done with responses.
    pub filters: Vec<Filters>,
    /// What is measured.
    pub metrics: Vec<MetricConfig>,
    /// Version, as `metadata` has it.
    pub version: Value,
}

/// Keys that are read.
const KNOWN: [&str; 27] = [
    "task",
    "task_alias",
    "tag",
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "training_split",
    "validation_split",
    "test_split",
    "fewshot_split",
    "doc_to_text",
    "doc_to_target",
    "doc_to_choice",
    "description",
    "target_delimiter",
    "fewshot_delimiter",
    "fewshot_config",
    "num_fewshot",
    "metric_list",
    "output_type",
    "generation_kwargs",
    "repeats",
    "filter_list",
    "gen_prefix",
    "metadata",
    "unsafe_code",
    "should_decontaminate",
];

/// Keys that change nothing: lm-evaluation-harness 0.4.13 reads them and does nothing with them.
const WITHOUT_EFFECT: [&str; 2] = ["doc_to_decontamination_query", "group"];

/// Keys whose values are Python, or which need something that there is not.
const REFUSED: [(&str, &str); 8] = [
    ("process_docs", "is a Python function: write its rows to a JSON Lines file"),
    ("process_results", "is a Python function: use metric_list"),
    ("custom_dataset", "is a Python function: write its rows to a JSON Lines file"),
    ("class", "is a Python class: write the task as YAML"),
    ("doc_to_image", "needs a model that sees images"),
    ("doc_to_audio", "needs a model that hears"),
    ("use_prompt", "needs promptsource: write the prompt in doc_to_text"),
    ("task_list", "is not supported: write a file for each task"),
];

/// The object in a YAML file, with those that it includes.
///
/// # Errors
/// If a file cannot be read, is no YAML object or includes itself.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>, TaskError> {
    read_included(path, &mut Vec::new())
}

fn read_included(path: &Path, seen: &mut Vec<PathBuf>) -> Result<Map<String, Value>, TaskError> {
    let read = |source| TaskError::Read { path: path.to_owned(), source };
    let real = fs::canonicalize(path).map_err(read)?;
    let files = |problem: &str| TaskError::Files { path: path.to_owned(), problem: problem.to_owned() };
    if seen.contains(&real) {
        return Err(files("it includes itself"));
    }
    seen.push(real);
    if fs::metadata(path).map_err(read)?.len() > FILE_LIMIT {
        return Err(files(&format!("it has more than {FILE_LIMIT} bytes")));
    }
    let text = fs::read_to_string(path).map_err(read)?;
    let parsed = yaml::parse(&text).map_err(|source| TaskError::Yaml { path: path.to_owned(), source })?;
    let Value::Object(mut object) = parsed else {
        return Err(files("it is no YAML object with keys such as `task`"));
    };
    let included = match object.shift_remove("include") {
        None => return Ok(object),
        Some(Value::String(file)) => vec![file],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(_) => return Err(files("include is neither a path nor a list of paths")),
    };
    let mut merged = Map::new();
    for file in included {
        let file = path.parent().unwrap_or(Path::new("")).join(file);
        let mut more = read_included(&file, seen)?;
        more.shift_remove("task_list");
        merged.extend(more);
    }
    merged.extend(object);
    Ok(merged)
}

/// Reads the keys of a file.
struct Keys<'a> {
    path: &'a Path,
    keys: &'a Map<String, Value>,
    /// The keys around these.
    within: &'static str,
}

impl Keys<'_> {
    fn wrong(&self, key: &str, problem: impl Into<String>) -> TaskError {
        let key = format!("{}{key}", self.within);
        TaskError::Key { path: self.path.to_owned(), key, problem: problem.into() }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<String>, TaskError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.wrong(key, format!("is {other}, not a text"))),
        }
    }

    fn count(&self, key: &str) -> Result<Option<usize>, TaskError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64().and_then(|value| usize::try_from(value).ok()) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(key, format!("is {value}, not a whole number of at least 0"))),
            },
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>, TaskError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.trim().parse::<f64>().is_ok() => Ok(text.trim().parse().ok()),
            Some(value) => match value.as_f64() {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(key, format!("is {value}, not a number"))),
            },
        }
    }

    fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, TaskError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(fields)),
            Some(other) => Err(self.wrong(key, format!("is {other}, not an object"))),
        }
    }

    fn list(&self, key: &str) -> Result<Option<&Vec<Value>>, TaskError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(self.wrong(key, format!("is {other}, not a list"))),
        }
    }

    fn unknown(&self, known: &[&str]) -> Result<(), TaskError> {
        match self.keys.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(self.wrong(key, format!("is not known; known are {}", known.join(", ")))),
            None => Ok(()),
        }
    }
}

impl TaskConfig {
    /// Reads the file of one task.
    ///
    /// # Errors
    /// If it cannot be read, or has a key that cannot be honoured.
    pub fn open(path: &Path) -> Result<Self, TaskError> {
        Self::of(path, read_object(path)?)
    }

    /// From the keys of a file.
    pub(crate) fn of(path: &Path, keys: Map<String, Value>) -> Result<Self, TaskError> {
        let of = Keys { path, keys: &keys, within: "" };
        for (key, problem) in REFUSED {
            if of.get(key).is_some() {
                return Err(of.wrong(key, problem));
            }
        }
        if of.get("unsafe_code").is_some_and(|value| *value != Value::Bool(false)) {
            return Err(of.wrong("unsafe_code", "is set: Andiron does not run what models write"));
        }
        of.unknown(&[KNOWN.as_slice(), &WITHOUT_EFFECT, &REFUSED.map(|(key, _)| key)].concat())?;
        let task = of.text("task")?.ok_or_else(|| of.wrong("task", "is missing: name the task"))?;
        let output_type = of.text("output_type")?.unwrap_or_else(|| "generate_until".to_owned());
        let known = OutputType::ALL.into_iter().find(|(name, _)| *name == output_type);
        let Some((_, output_type)) = known else {
            let names = OutputType::ALL.map(|(name, _)| name).join(", ");
            return Err(of.wrong("output_type", format!("is {output_type:?}; there are {names}")));
        };
        let field = |key: &str| of.get(key).cloned();
        let doc_to_text = match (field("doc_to_text"), output_type) {
            (Some(value), _) => value,
            (None, OutputType::LoglikelihoodRolling) => "".into(),
            (None, _) => return Err(of.wrong("doc_to_text", "is missing: give a Jinja template or a field")),
        };
        let doc_to_target = field("doc_to_target")
            .ok_or_else(|| of.wrong("doc_to_target", "is missing: give a Jinja template or a field"))?;
        let doc_to_choice = field("doc_to_choice");
        if output_type == OutputType::MultipleChoice && doc_to_choice.is_none() {
            return Err(of.wrong("doc_to_choice", "is missing: give the choices of a row"));
        }
        let target_delimiter = of.text("target_delimiter")?.unwrap_or_else(|| " ".to_owned());
        let fewshot_delimiter = of.text("fewshot_delimiter")?.unwrap_or_else(|| "\n\n".to_owned());
        let gen_prefix = of.text("gen_prefix")?;
        let fewshot = FewshotConfig {
            first: false,
            split: of.text("fewshot_split")?,
            samples: None,
            doc_to_text: doc_to_text.clone(),
            doc_to_target: doc_to_target.clone(),
            doc_to_choice: doc_to_choice.clone(),
            gen_prefix: gen_prefix.clone(),
            fewshot_delimiter: fewshot_delimiter.clone(),
            target_delimiter: target_delimiter.clone(),
        };
        let metrics = MetricConfig::read(path, of.list("metric_list")?, output_type)?;
        let metadata = of.object("metadata")?;
        let version = metadata.and_then(|metadata| metadata.get("version")).cloned();
        let dataset_path = of.text("dataset_path")?;
        let dataset_path =
            dataset_path.ok_or_else(|| of.wrong("dataset_path", "is missing: give json, csv or text"))?;
        let (data_files, data_field) = data_files(&of, &dataset_path)?;
        Ok(Self {
            path: path.to_owned(),
            task,
            alias: of.text("task_alias")?,
            dataset_path,
            data_files,
            field: data_field,
            training_split: of.text("training_split")?,
            validation_split: of.text("validation_split")?,
            test_split: of.text("test_split")?,
            output_type,
            doc_to_text,
            doc_to_target,
            doc_to_choice,
            description: of.text("description")?.unwrap_or_default(),
            target_delimiter,
            gen_prefix,
            fewshot: fewshot_config(&of, fewshot)?,
            num_fewshot: of.count("num_fewshot")?,
            generation: generation(&of, &fewshot_delimiter)?,
            repeats: of.count("repeats")?.unwrap_or(1).max(1),
            filters: Filters::read(path, of.list("filter_list")?)?,
            metrics,
            version: version.unwrap_or_else(|| "Yaml".into()),
            keys,
        })
    }

    /// The name in tables.
    pub fn shown_name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.task)
    }

    /// The configuration as lm-evaluation-harness writes it into its results.
    pub(crate) fn json(&self, num_fewshot: usize) -> Value {
        let mut out = Map::new();
        let copy = |out: &mut Map<String, Value>, keys: &[&str]| {
            for &key in keys {
                if let Some(value) = self.keys.get(key).filter(|value| !value.is_null()) {
                    out.insert(key.to_owned(), value.clone());
                }
            }
        };
        copy(
            &mut out,
            &["task", "task_alias", "dataset_path", "dataset_name", "dataset_kwargs", "training_split"],
        );
        copy(&mut out, &["validation_split", "test_split", "fewshot_split", "doc_to_text", "doc_to_target"]);
        out.insert("unsafe_code".to_owned(), false.into());
        copy(&mut out, &["doc_to_choice"]);
        out.insert("description".to_owned(), self.description.clone().into());
        out.insert("target_delimiter".to_owned(), self.target_delimiter.clone().into());
        let delimiter = self.keys.get("fewshot_delimiter").filter(|value| !value.is_null());
        out.insert("fewshot_delimiter".to_owned(), delimiter.cloned().unwrap_or_else(|| "\n\n".into()));
        let fewshot = &self.fewshot;
        let fewshot = json!({
            "sampler": if fewshot.first { "first_n" } else { "default" }, "split": fewshot.split, "process_docs": null,
            "fewshot_indices": null, "samples": fewshot.samples, "doc_to_text": fewshot.doc_to_text,
            "doc_to_choice": fewshot.doc_to_choice, "doc_to_target": fewshot.doc_to_target,
            "gen_prefix": fewshot.gen_prefix, "fewshot_delimiter": fewshot.fewshot_delimiter,
            "target_delimiter": fewshot.target_delimiter,
        });
        out.insert("fewshot_config".to_owned(), fewshot);
        out.insert("num_fewshot".to_owned(), num_fewshot.into());
        copy(&mut out, &["metric_list"]);
        out.insert("output_type".to_owned(), self.output_type.name().into());
        if self.output_type == OutputType::GenerateUntil {
            let given = self.keys.get("generation_kwargs").and_then(Value::as_object).cloned();
            let mut kwargs = given.unwrap_or_else(|| {
                let mut kwargs = Map::new();
                kwargs.insert("temperature".to_owned(), 0.0.into());
                kwargs.insert("do_sample".to_owned(), false.into());
                kwargs.insert("max_gen_toks".to_owned(), self.generation.max_gen_toks.into());
                kwargs
            });
            if let Some(temperature) = kwargs.get_mut("temperature")
                && let Some(number) = temperature.as_f64()
            {
                *temperature = number.into();
            }
            kwargs.entry("until").or_insert_with(|| json!(self.generation.until));
            out.insert("generation_kwargs".to_owned(), Value::Object(kwargs));
        }
        out.insert("repeats".to_owned(), self.repeats.into());
        copy(&mut out, &["filter_list"]);
        let decontaminates = self.keys.get("should_decontaminate").cloned().unwrap_or(Value::Bool(false));
        out.insert("should_decontaminate".to_owned(), decontaminates);
        copy(&mut out, &["doc_to_decontamination_query", "gen_prefix", "metadata"]);
        Value::Object(out)
    }
}

type DataFiles = Vec<(String, Vec<PathBuf>)>;

fn data_files(of: &Keys<'_>, dataset_path: &str) -> Result<(DataFiles, Option<String>), TaskError> {
    if !["json", "csv", "text"].contains(&dataset_path) {
        let problem = format!(
            "is {dataset_path:?}: Andiron reads local files only. Write the dataset to JSON Lines files, and give \
             `dataset_path: json` and `dataset_kwargs: {{data_files: {{test: FILE.jsonl}}}}`"
        );
        return Err(of.wrong("dataset_path", problem));
    }
    let empty = Map::new();
    let kwargs = of.object("dataset_kwargs")?.unwrap_or(&empty);
    let kwargs = Keys { path: of.path, keys: kwargs, within: "dataset_kwargs." };
    kwargs.unknown(&["data_files", "data_dir", "field", "trust_remote_code"])?;
    let folder = kwargs.text("data_dir")?.map(PathBuf::from).unwrap_or_default();
    let place = |file: &str| {
        // As lm-evaluation-harness has it, from where the program runs; else from where the task's file is.
        let near = folder.join(file);
        match of.path.parent() {
            Some(parent) if !near.exists() && parent.join(&near).exists() => parent.join(&near),
            _ => near,
        }
    };
    let paths = |value: &Value| -> Result<Vec<PathBuf>, TaskError> {
        let files = match value {
            Value::String(file) => vec![file.as_str()],
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if files.is_empty() {
            return Err(kwargs.wrong("data_files", "has a split without files"));
        }
        if let Some(file) = files.iter().find(|file| file.contains("://") || file.contains('*')) {
            let problem = format!("has {file:?}, which is no local file: name each file");
            return Err(kwargs.wrong("data_files", problem));
        }
        Ok(files.into_iter().map(place).collect())
    };
    let files = match kwargs.get("data_files") {
        Some(Value::Object(splits)) => splits
            .iter()
            .map(|(split, files)| Ok((split.clone(), paths(files)?)))
            .collect::<Result<_, TaskError>>()?,
        Some(files) => vec![("train".to_owned(), paths(files)?)],
        None => return Err(kwargs.wrong("data_files", "is missing: name the local files of each split")),
    };
    Ok((files, kwargs.text("field")?))
}

fn fewshot_config(of: &Keys<'_>, base: FewshotConfig) -> Result<FewshotConfig, TaskError> {
    let Some(keys) = of.object("fewshot_config")? else { return Ok(base) };
    let keys = Keys { path: of.path, keys, within: "fewshot_config." };
    if keys.get("process_docs").is_some() {
        return Err(keys.wrong("process_docs", "is a Python function: write its rows to a JSON Lines file"));
    }
    keys.unknown(&[
        "sampler",
        "split",
        "process_docs",
        "fewshot_indices",
        "samples",
        "doc_to_text",
        "doc_to_choice",
        "doc_to_target",
        "gen_prefix",
        "fewshot_delimiter",
        "target_delimiter",
    ])?;
    let first = match keys.text("sampler")?.as_deref() {
        None | Some("default") => false,
        Some("first_n") => true,
        Some(other) => {
            return Err(keys.wrong("sampler", format!("is {other:?}; there are default and first_n")));
        }
    };
    let samples = match keys.list("samples")? {
        None => None,
        Some(items) => {
            let rows = items.iter().map(|item| match item {
                Value::Object(fields) => Ok(fields.clone()),
                other => Err(keys.wrong("samples", format!("has {other}, which is no row"))),
            });
            Some(rows.collect::<Result<_, _>>()?)
        }
    };
    let field = |key: &str, base: Value| keys.get(key).cloned().unwrap_or(base);
    Ok(FewshotConfig {
        first,
        split: keys.text("split")?.or(base.split),
        samples,
        doc_to_text: field("doc_to_text", base.doc_to_text),
        doc_to_target: field("doc_to_target", base.doc_to_target),
        doc_to_choice: keys.get("doc_to_choice").cloned().or(base.doc_to_choice),
        gen_prefix: keys.text("gen_prefix")?.or(base.gen_prefix),
        fewshot_delimiter: keys.text("fewshot_delimiter")?.unwrap_or(base.fewshot_delimiter),
        target_delimiter: keys.text("target_delimiter")?.unwrap_or(base.target_delimiter),
    })
}

fn generation(of: &Keys<'_>, fewshot_delimiter: &str) -> Result<GenerationConfig, TaskError> {
    let empty = Map::new();
    let keys = of.object("generation_kwargs")?.unwrap_or(&empty);
    let keys = Keys { path: of.path, keys, within: "generation_kwargs." };
    let lengths = ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"];
    let known = ["until", "do_sample", "temperature", "top_p", "top_k", "min_p", "repetition_penalty"];
    keys.unknown(&[known.as_slice(), &lengths].concat())?;
    let until = match keys.get("until") {
        None if keys.keys.contains_key("until") => Vec::new(),
        None => vec![fewshot_delimiter.to_owned()],
        Some(Value::Array(items)) => items.iter().map(python::text).collect(),
        Some(one) => vec![python::text(one)],
    };
    let mut max_gen_toks = None;
    for key in lengths {
        max_gen_toks = max_gen_toks.or(keys.count(key)?);
    }
    let temperature = keys.number("temperature")?.unwrap_or(0.0);
    let temperature = match keys.get("do_sample") {
        None => temperature,
        Some(Value::Bool(false)) => 0.0,
        Some(Value::Bool(true)) if temperature > 0.0 => temperature,
        Some(Value::Bool(true)) => {
            return Err(keys.wrong("do_sample", "is true without a temperature above 0: give temperature"));
        }
        Some(other) => return Err(keys.wrong("do_sample", format!("is {other}, not true or false"))),
    };
    let small = |key: &str| keys.number(key).map(|value| value.map(|value| value as f32));
    Ok(GenerationConfig {
        until,
        max_gen_toks: max_gen_toks.unwrap_or(256),
        temperature: temperature as f32,
        top_p: small("top_p")?,
        top_k: keys.count("top_k")?,
        min_p: small("min_p")?,
        repetition_penalty: small("repetition_penalty")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<TaskConfig, TaskError> {
        let Value::Object(keys) = yaml::parse(text).unwrap() else { panic!("an object") };
        TaskConfig::of(Path::new("t.yaml"), keys)
    }

    const LEAST: &str = "task: t\ndataset_path: json\ndataset_kwargs: {data_files: a.jsonl}\ndoc_to_text: q\ndoc_to_target: a\n";

    #[test]
    fn defaults_are_those_of_the_harness() {
        let task = config(LEAST).unwrap();
        assert_eq!((task.output_type, task.num_fewshot, task.repeats), (OutputType::GenerateUntil, None, 1));
        assert_eq!(
            (task.generation.until.as_slice(), task.generation.max_gen_toks),
            (["\n\n".to_owned()].as_slice(), 256)
        );
        assert_eq!(task.data_files, [("train".to_owned(), vec![PathBuf::from("a.jsonl")])]);
        assert_eq!((task.version.as_str(), task.target_delimiter.as_str()), (Some("Yaml"), " "));
        let task = config(&format!(
            "{LEAST}generation_kwargs: {{max_new_tokens: 4, do_sample: false, temperature: 1.0}}"
        ))
        .unwrap();
        assert_eq!((task.generation.max_gen_toks, task.generation.temperature), (4, 0.0));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (more, said) in [
            ("process_docs: f", "process_docs is a Python function"),
            ("process_result: f", "process_result is not known"),
            ("unsafe_code: true", "unsafe_code is set"),
            ("output_type: multiple_choices", "there are loglikelihood, multiple_choice"),
            ("output_type: multiple_choice", "doc_to_choice is missing"),
            ("repeats: -1", "repeats is -1"),
            ("generation_kwargs: {num_beams: 2}", "generation_kwargs.num_beams is not known"),
            ("generation_kwargs: {do_sample: true}", "give temperature"),
            ("fewshot_config: {sampler: balanced}", "default and first_n"),
            ("dataset_kwargs: {data_files: 'a*.jsonl'}", "name each file"),
            ("dataset_kwargs: {streaming: true}", "dataset_kwargs.streaming is not known"),
            ("dataset_path: EleutherAI/x", "local files only"),
            ("metric_list: [{metric: rouge}]", "rouge"),
            ("filter_list: [{name: x, filter: [{function: custom}]}]", "custom"),
        ] {
            let key = more.split(':').next().unwrap();
            let base: String =
                LEAST.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect();
            let error = config(&format!("{base}{more}")).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("t.yaml"), "{more}: {error}");
        }
    }
}
