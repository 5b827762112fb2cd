//! `adapter_config.json` as `peft` 0.21 reads and writes it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::config::{LoraConfig, Names, Targets};
use super::names::AdapterNames;
use crate::hf_config::{ConfigError, probability, width};
use crate::key_rules::{ConfigFile, Inert, Rule, UnknownKeys};
use crate::{json_file, named_fields};

/// Name of the file.
pub(super) const CONFIG: &str = "adapter_config.json";
const WHAT: &str = "adapter config";
const FORMAT: &str = "peft_type";
const INIT: &str = "init_lora_weights";

/// Initializations that leave the base model as it is.
const PLAIN_INITS: Inert = Inert::Texts(&["gaussian", "eva", "orthogonal"]);

/// Keys that are not fields, and their inert values.
const KEYS: &[Rule] = &[
    ("alora_invocation_tokens", Inert::Null),
    ("arrow_config", Inert::Null),
    ("auto_mapping", Inert::Always),
    ("bias", Inert::Texts(&["none"])),
    // Settings of an initialization, which is refused if it changes the base model.
    ("corda_config", Inert::Always),
    ("ensure_weight_tying", Inert::Off),
    ("eva_config", Inert::Always),
    // It follows from the layer.
    ("fan_in_fan_out", Inert::Always),
    ("inference_mode", Inert::Always),
    ("kasa_config", Inert::Null),
    ("layer_replication", Inert::Off),
    ("loftq_config", Inert::Always),
    ("lora_bias", Inert::Off),
    ("lora_ga_config", Inert::Always),
    ("megatron_config", Inert::Null),
    ("megatron_core", Inert::Always),
    ("monteclora_config", Inert::Null),
    ("peft_version", Inert::Always),
    ("qalora_group_size", Inert::Always),
    ("revision", Inert::Always),
    ("runtime_config", Inert::Always),
    ("target_parameters", Inert::Off),
    ("task_type", Inert::Always),
    ("trainable_token_indices", Inert::Off),
    ("use_bdlora", Inert::Off),
    ("use_qalora", Inert::Off),
    ("velora_config", Inert::Null),
];

/// The keys that are honoured, under `peft`'s names; absent ones have its defaults.
#[derive(Deserialize)]
struct PeftFields {
    #[serde(default = "eight")]
    r: usize,
    #[serde(default = "eight_floats")]
    lora_alpha: f32,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    lora_dropout: f64,
    target_modules: Targets,
    #[serde(default)]
    exclude_modules: Option<Names>,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    rank_pattern: Option<BTreeMap<String, usize>>,
    #[serde(default)]
    alpha_pattern: Option<BTreeMap<String, f32>>,
    #[serde(default, deserialize_with = "one_or_several")]
    layers_to_transform: Vec<usize>,
    #[serde(default)]
    layers_pattern: Option<Names>,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
}

const FIELDS: [&str; 13] = [
    "r",
    "lora_alpha",
    "use_rslora",
    "use_dora",
    "lora_dropout",
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layers_pattern",
    "base_model_name_or_path",
];

fn eight() -> usize {
    8
}

fn eight_floats() -> f32 {
    8.0
}

fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Layers {
        One(usize),
        Several(Vec<usize>),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Layers::One(layer)) => vec![layer],
        Some(Layers::Several(layers)) => layers,
    })
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<ConfigFile<LoraConfig>, ConfigError> {
    let fields: Map<String, Value> = json_file::read_json(path, WHAT)?;
    from_fields(fields, path)
}

fn from_fields(mut fields: Map<String, Value>, path: &Path) -> Result<ConfigFile<LoraConfig>, ConfigError> {
    let in_file = |reason| ConfigError::InFile { path: path.to_owned(), reason: Box::new(reason) };
    let refused = |key: &str, value: Value, supported| {
        let (key, value) = (key.to_owned(), Box::new(value));
        in_file(ConfigError::NotSupported { key, value, supported })
    };
    let format = fields.shift_remove(FORMAT).unwrap_or_default();
    if format != "LORA" {
        return Err(refused(FORMAT, format, Inert::Texts(&["LORA"])));
    }
    if let Some(init) = fields.shift_remove(INIT)
        && !init.is_boolean()
        && !PLAIN_INITS.holds(&init)
    {
        return Err(refused(INIT, init, PLAIN_INITS));
    }
    let mut unknown_keys = UnknownKeys::default();
    for (key, value) in std::mem::take(&mut fields) {
        match KEYS.iter().find(|(known, _)| *known == key) {
            _ if FIELDS.contains(&key.as_str()) => drop(fields.insert(key, value)),
            Some((_, inert)) if inert.holds(&value) => {}
            Some((_, supported)) => return Err(refused(&key, value, *supported)),
            None => unknown_keys.extend([format!("{key} ({CONFIG})")]),
        }
    }
    let json = |source| ConfigError::Json { path: path.to_owned(), what: WHAT, source };
    let fields: PeftFields = named_fields::from_fields(fields).map_err(json)?;
    let config = LoraConfig {
        rank: fields.r,
        alpha: fields.lora_alpha,
        rslora: fields.use_rslora,
        dora: fields.use_dora,
        dropout: fields.lora_dropout,
        targets: fields.target_modules,
        exclude: match fields.exclude_modules {
            None => None,
            Some(Names::One(pattern)) => Some(Targets::Pattern(pattern)),
            Some(Names::Several(names)) => Some(Targets::Names(names)),
        },
        modules_to_save: fields.modules_to_save.unwrap_or_default(),
        rank_pattern: fields.rank_pattern.unwrap_or_default(),
        alpha_pattern: fields.alpha_pattern.unwrap_or_default(),
        layers: fields.layers_to_transform,
        layers_pattern: match fields.layers_pattern {
            None => Vec::new(),
            Some(Names::One(name)) if name.is_empty() => Vec::new(),
            Some(Names::One(name)) => vec![name],
            Some(Names::Several(names)) => names,
        },
        base_model: fields.base_model_name_or_path,
    };
    check(&config).map_err(in_file)?;
    Ok(ConfigFile { config, unknown_keys })
}

fn check(config: &LoraConfig) -> Result<(), ConfigError> {
    width("r", config.rank)?;
    config.rank_pattern.values().try_for_each(|&rank| width("rank_pattern", rank))?;
    probability("lora_dropout", config.dropout)
}

/// The object to write; `targets` are the modules with an adapter, in full.
pub(super) fn to_value(
    config: &LoraConfig,
    names: &AdapterNames,
    targets: Vec<String>,
    fan_in_fan_out: bool,
) -> Value {
    let LoraConfig { exclude, .. } = config;
    let list = |names: &[String]| (!names.is_empty()).then(|| json!(names));
    let targets = match &config.targets {
        Targets::AllLinear => json!(targets),
        other => json!(other),
    };
    let layers = match config.layers.is_empty() {
        true => Value::Null,
        false => json!(config.layers),
    };
    let alphas: Map<String, Value> =
        config.alpha_pattern.iter().map(|(pattern, &alpha)| (pattern.clone(), number(alpha))).collect();
    json!({
        "alora_invocation_tokens": null,
        "alpha_pattern": alphas,
        "arrow_config": null,
        "auto_mapping": names.auto_mapping(config),
        "base_model_name_or_path": config.base_model,
        "bias": "none",
        "corda_config": null,
        "ensure_weight_tying": false,
        "eva_config": null,
        "exclude_modules": exclude,
        "fan_in_fan_out": fan_in_fan_out,
        "inference_mode": true,
        "init_lora_weights": true,
        "kasa_config": null,
        "layer_replication": null,
        "layers_pattern": list(&config.layers_pattern),
        "layers_to_transform": layers,
        "loftq_config": {},
        "lora_alpha": number(config.alpha),
        "lora_bias": false,
        "lora_dropout": config.dropout,
        "lora_ga_config": null,
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": list(&config.modules_to_save),
        "monteclora_config": null,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "qalora_group_size": 16,
        "r": config.rank,
        "rank_pattern": config.rank_pattern,
        "revision": null,
        "target_modules": targets,
        "target_parameters": null,
        "task_type": names.task(config),
        "trainable_token_indices": null,
        "use_bdlora": null,
        "use_dora": config.dora,
        "use_qalora": false,
        "use_rslora": config.rslora,
        "velora_config": null,
    })
}

/// A whole number without a fraction, as `peft` has most.
fn number(value: f32) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e9 { json!(value as i64) } else { json!(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: Value) -> Result<ConfigFile<LoraConfig>, String> {
        let Value::Object(fields) = fields else { panic!("an object") };
        from_fields(fields, Path::new("x/adapter_config.json")).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_are_honoured_refused_by_name_or_listed() {
        let plain = json!({ "peft_type": "LORA", "r": 4, "lora_alpha": 16, "target_modules": ["q"] });
        let found = read(plain.clone()).unwrap();
        let wanted = LoraConfig { targets: Targets::Names(vec!["q".to_owned()]), ..LoraConfig::new(4, 16.0) };
        assert_eq!(found.config, wanted);
        assert!(found.unknown_keys.is_empty());
        let with = |key: &str, value: Value| {
            let mut fields = plain.clone();
            fields[key] = value;
            read(fields)
        };
        for (key, value) in [
            ("peft_type", json!("IA3")),
            ("bias", json!("all")),
            ("init_lora_weights", json!("pissa_niter_16")),
            ("trainable_token_indices", json!([1, 2])),
            ("target_parameters", json!(["x"])),
            ("layer_replication", json!([[0, 2]])),
            ("use_qalora", json!(true)),
            ("lora_bias", json!(true)),
            ("ensure_weight_tying", json!(true)),
            ("r", json!(0)),
            ("r", json!(1u64 << 40)),
            ("lora_dropout", json!(1.5)),
            ("target_modules", json!(null)),
        ] {
            let error = with(key, value).unwrap_err();
            let known = error.contains(key) && error.starts_with("x/adapter_config.json");
            assert!(known || error.contains("is not a valid adapter config"), "{error}");
        }
        for (key, value) in [
            ("init_lora_weights", json!("gaussian")),
            ("init_lora_weights", json!(false)),
            ("loftq_config", json!({})),
            ("qalora_group_size", json!(16)),
            ("layers_to_transform", json!(3)),
            ("exclude_modules", json!("x.*")),
        ] {
            assert!(with(key, value.clone()).unwrap().unknown_keys.is_empty(), "{key}");
        }
        let found = with("surprise", json!(1)).unwrap();
        assert_eq!(found.unknown_keys.names(), ["surprise (adapter_config.json)"]);
        assert_eq!(with("layers_to_transform", json!(3)).unwrap().config.layers, [3]);
        assert_eq!(with("target_modules", json!("all-linear")).unwrap().config.targets, Targets::AllLinear);
    }
}
