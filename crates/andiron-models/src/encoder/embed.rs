//! From hidden states to one vector for a text, as `modules.json` and its folders say.

use std::fs;
use std::path::Path;

use andiron_core::Rows;
use andiron_core::rows::pick;
use burn::tensor::{Tensor, TensorData};
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::{Map, Value as Json, json};

use crate::bundle::{is_there, read_json, write_json};
use crate::hf_config::ConfigError;
use crate::weights::gguf::{GgufError, GgufFile, Value};
use crate::weights::{FileError, SaveError};

const MODULES: &str = "modules.json";
const TRANSFORMER: &str = "sentence_bert_config.json";
const POOLING: &str = "1_Pooling";
const NORMALIZE: &str = "2_Normalize";

/// Lengths below this are taken as this when vectors are normalised, as PyTorch does.
const MIN_LENGTH: f32 = 1e-12;

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// The first token's.
    Cls,
    /// Their mean.
    #[default]
    Mean,
    /// The last token's.
    Last,
    /// The greatest value of each dimension.
    Max,
}

/// What makes a sentence embedding out of hidden states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmbedPipeline {
    /// How tokens become one vector.
    pub pooling: Pooling,
    /// Whether vectors are scaled to length 1.
    pub normalize: bool,
    /// Longest text, in tokens, if less than the model's.
    pub max_tokens: Option<usize>,
}

impl Pooling {
    const KEYS: [(Self, &'static str, &'static str); 4] = [
        (Self::Cls, "cls", "pooling_mode_cls_token"),
        (Self::Mean, "mean", "pooling_mode_mean_tokens"),
        (Self::Last, "lasttoken", "pooling_mode_lasttoken"),
        (Self::Max, "max", "pooling_mode_max_tokens"),
    ];

    /// One vector for each row of `hidden_btd`; `rows` tells which columns are its own, all if absent.
    ///
    /// # Shape
    /// `[batch, time, d_model]` → `[batch, d_model]`.
    ///
    /// # Panics
    /// If `rows` are not as many as the batch has, or a row has no column of its own.
    pub fn pool(self, hidden_btd: Tensor<3>, rows: Option<&Rows>) -> Tensor<2> {
        let [b, t, d] = hidden_btd.dims();
        let device = hidden_btd.device();
        let everything = Rows::padded_right(vec![t; b]);
        let rows = rows.unwrap_or(&everything);
        assert_eq!(rows.len(), b, "one row of the batch for each of the rows");
        let spans = || rows.spans().iter().map(|span| span.start..span.end.min(t));
        assert!(spans().all(|span| !span.is_empty()), "a text without tokens has no embedding");
        match self {
            Self::Cls => pick(hidden_btd, spans().map(|span| span.start)),
            Self::Last => pick(hidden_btd, spans().map(|span| span.end - 1)),
            Self::Mean => {
                let weights_bt1: Tensor<3> = rows.weights(t, &device).unsqueeze_dim(2);
                let counts: Vec<f32> = spans().map(|span| span.len() as f32).collect();
                let counts_b1 = Tensor::from_data(TensorData::new(counts, [b, 1]), &device);
                (hidden_btd * weights_bt1).sum_dim(1).reshape([b, d]) / counts_b1
            }
            Self::Max => {
                let weights_bt1: Tensor<3> = rows.weights(t, &device).unsqueeze_dim(2);
                let hidden_btd = hidden_btd + (weights_bt1 - 1.0) * 1e30;
                hidden_btd.max_dim(1).reshape([b, d])
            }
        }
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let fields: Map<String, Json> = read_json(path, "pooling config")?;
        let chosen = |named: &str, flag: &str| {
            let by_name = match fields.get("pooling_mode") {
                Some(Json::String(name)) => name == named,
                Some(Json::Array(names)) => names.iter().any(|name| name == named),
                _ => false,
            };
            by_name || fields.get(flag) == Some(&Json::Bool(true))
        };
        let modes = fields
            .iter()
            .filter(|(key, value)| key.starts_with("pooling_mode_") && **value == Json::Bool(true));
        let unknown = modes.filter(|(key, _)| Self::KEYS.iter().all(|(_, _, flag)| flag != key)).count();
        let found: Vec<Self> = Self::KEYS
            .iter()
            .filter(|(_, name, flag)| chosen(name, flag))
            .map(|(pooling, _, _)| *pooling)
            .collect();
        let several = matches!(fields.get("pooling_mode"), Some(Json::Array(names)) if names.len() > 1);
        match found[..] {
            [pooling] if unknown == 0 && !several => Ok(pooling),
            _ => Err(refuse(path, "exactly one of the poolings cls, mean, max and lasttoken is supported")),
        }
    }

    fn write(self, d_model: usize, path: &Path) -> Result<(), SaveError> {
        let mut fields = Map::from_iter([("word_embedding_dimension".to_owned(), d_model.into())]);
        for (pooling, _, flag) in Self::KEYS {
            fields.insert(flag.to_owned(), (pooling == self).into());
        }
        write_json(path, &fields)
    }
}

/// Scales each row to length 1.
pub(super) fn normalize(x_bd: Tensor<2>) -> Tensor<2> {
    let length_b1 = x_bd.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(MIN_LENGTH);
    x_bd / length_b1
}

impl EmbedPipeline {
    /// One vector for each row.
    ///
    /// # Shape
    /// `[batch, time, d_model]` → `[batch, d_model]`.
    ///
    /// # Panics
    /// As [`Pooling::pool`].
    pub fn apply(self, hidden_btd: Tensor<3>, rows: Option<&Rows>) -> Tensor<2> {
        let pooled = self.pooling.pool(hidden_btd, rows);
        if self.normalize { normalize(pooled) } else { pooled }
    }

    /// Reads `modules.json` and what it refers to; `None` if the directory has none.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, ConfigError> {
        #[derive(Deserialize)]
        struct Step {
            path: String,
            #[serde(rename = "type")]
            kind: String,
        }

        let modules = dir.join(MODULES);
        if !is_there(&modules)? {
            return Ok(None);
        }
        let steps: Vec<Step> = read_json(&modules, "list of modules")?;
        let mut pipeline = Self::default();
        for step in &steps {
            match step.kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" if step.path.is_empty() => {}
                "Pooling" => {
                    let plain = Path::new(&step.path);
                    // The folder lies beside the list: a longer path would leave the model directory.
                    if plain.file_name() != Some(plain.as_os_str()) {
                        return Err(refuse(&modules, "the path of a module is not a plain folder name"));
                    }
                    pipeline.pooling = Pooling::read(&dir.join(plain).join("config.json"))?;
                }
                "Normalize" => pipeline.normalize = true,
                kind => {
                    let reason = format!(
                        "module {kind} at {:?} is not supported: Transformer at \"\", Pooling and Normalize are",
                        step.path
                    );
                    return Err(refuse(&modules, &reason));
                }
            }
        }
        let transformer = dir.join(TRANSFORMER);
        if is_there(&transformer)? {
            let fields: Map<String, Json> = read_json(&transformer, "sentence transformer config")?;
            let limit = fields.get("max_seq_length").and_then(Json::as_u64);
            pipeline.max_tokens = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX).max(1));
        }
        Ok(Some(pipeline))
    }

    /// What a GGUF file says: its pooling, if any. llama.cpp scales such vectors to length 1.
    pub(super) fn of_gguf(file: &GgufFile) -> Result<Option<Self>, FileError> {
        let pooling = match file.metadata("bert.pooling_type").map(Value::as_u64) {
            None | Some(Some(0)) => return Ok(None),
            Some(Some(1)) => Pooling::Mean,
            Some(Some(2)) => Pooling::Cls,
            Some(Some(3)) => Pooling::Last,
            Some(other) => {
                return Err(FileError::from(GgufError::NotSupported {
                    path: file.path().to_owned(),
                    what: "bert.pooling_type".to_owned(),
                    reason: format!("{other:?} is none of 1 (mean), 2 (cls) and 3 (last)"),
                }));
            }
        };
        Ok(Some(Self { pooling, normalize: true, max_tokens: None }))
    }

    /// Writes what [`EmbedPipeline::read`] reads.
    pub(super) fn write(self, d_model: usize, dir: &Path) -> Result<(), SaveError> {
        let step = |index: usize, path: &str, kind: &str| {
            json!({
                "idx": index, "name": index.to_string(), "path": path,
                "type": format!("sentence_transformers.models.{kind}"),
            })
        };
        let mut steps = vec![step(0, "", "Transformer"), step(1, POOLING, "Pooling")];
        if self.normalize {
            steps.push(step(2, NORMALIZE, "Normalize"));
        }
        for folder in [Some(POOLING), self.normalize.then_some(NORMALIZE)].into_iter().flatten() {
            let path = dir.join(folder);
            fs::create_dir_all(&path).map_err(|source| SaveError::Io { path, source })?;
        }
        self.pooling.write(d_model, &dir.join(POOLING).join("config.json"))?;
        if let Some(limit) = self.max_tokens {
            write_json(&dir.join(TRANSFORMER), &json!({ "max_seq_length": limit, "do_lower_case": false }))?;
        }
        write_json(&dir.join(MODULES), &steps)
    }
}

fn refuse(path: &Path, reason: &str) -> ConfigError {
    let source = serde_json::Error::custom(reason);
    ConfigError::Json {
        path: path.to_owned(),
        what: "recipe for embeddings that can be followed here",
        source,
    }
}
