//! The configuration of an adapter: which modules get one, of what form.

use std::collections::BTreeMap;

use andiron_core::weight::AdapterConfig;
use fancy_regex::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::AdapterError;

/// Modules that get an adapter.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Targets {
    /// Every linear projection but the output head and the modules trained in full; `all-linear`.
    #[default]
    AllLinear,
    /// Modules with one of these names: a whole path, or the end of one, as `q_proj` of `model.layers.0.self_attn.q_proj`.
    Names(Vec<String>),
    /// Modules whose whole path matches a regular expression.
    Pattern(String),
}

/// What `peft` writes in the place of a pattern for [`Targets::AllLinear`].
const ALL_LINEAR: &str = "all-linear";

impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AllLinear => serializer.serialize_str(ALL_LINEAR),
            Self::Names(names) => names.serialize(serializer),
            Self::Pattern(pattern) => serializer.serialize_str(pattern),
        }
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Names::deserialize(deserializer)? {
            Names::One(text) if text.eq_ignore_ascii_case(ALL_LINEAR) => Self::AllLinear,
            Names::One(pattern) => Self::Pattern(pattern),
            Names::Several(names) => Self::Names(names),
        })
    }
}

/// A regular expression, or names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Names {
    One(String),
    Several(Vec<String>),
}

/// A low-rank adapter: its size and form, and the modules that it changes.
///
/// Module paths are those of Hugging Face's class, as in its `named_modules`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of the factors.
    pub rank: usize,
    /// The adapter's output is scaled by `alpha / rank`.
    pub alpha: f32,
    /// Whether it is scaled by `alpha / √rank` instead (rsLoRA).
    #[serde(default)]
    pub rslora: bool,
    /// Whether the magnitude of each output is trained apart from its direction (DoRA).
    #[serde(default)]
    pub dora: bool,
    /// Dropout probability of the input of the factors, in training.
    #[serde(default)]
    pub dropout: f64,
    /// Modules with an adapter.
    #[serde(default)]
    pub targets: Targets,
    /// Modules without, although [`targets`](Self::targets) names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Targets>,
    /// Modules that are trained in full and saved in the adapter, such as a new head: those whose path ends with one of these
    /// texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules_to_save: Vec<String>,
    /// Other ranks, by a regular expression for the end of the path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other values of [`alpha`](Self::alpha), likewise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f32>,
    /// Blocks to which named targets are limited, from 0; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<usize>,
    /// Names of the lists of blocks that [`layers`](Self::layers) counts, such as `layers` or `h`; the first number in the path
    /// if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers_pattern: Vec<String>,
    /// Name or path of the base model, a note for readers of the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
}

impl LoraConfig {
    /// An adapter of all linear projections.
    pub fn new(rank: usize, alpha: f32) -> Self {
        Self {
            rank,
            alpha,
            rslora: false,
            dora: false,
            dropout: 0.0,
            targets: Targets::AllLinear,
            exclude: None,
            modules_to_save: Vec::new(),
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            layers: Vec::new(),
            layers_pattern: Vec::new(),
            base_model: None,
        }
    }

    /// Checks that an adapter can be trained.
    ///
    /// # Errors
    /// If it has dropout that is not in `0..1` or beside magnitude vectors, or a rank of 0.
    pub fn check_trainable(&self) -> Result<(), AdapterError> {
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(AdapterError::DropoutRange { value: self.dropout });
        }
        if self.dropout > 0.0 && self.dora {
            return Err(AdapterError::Dropout { value: self.dropout });
        }
        match std::iter::once(&self.rank).chain(self.rank_pattern.values()).all(|&rank| rank > 0) {
            true => Ok(()),
            false => Err(AdapterError::NoRank),
        }
    }

    /// Whether the module `path`, or one that it is part of, is trained in full.
    pub(super) fn saves(&self, path: &str) -> bool {
        let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
        let mut modules = ends.map(|end| &path[..end]);
        modules.any(|module| self.modules_to_save.iter().any(|name| module.ends_with(name.as_str())))
    }
}

/// The patterns of a [`LoraConfig`], compiled.
pub(super) struct Matcher<'a> {
    config: &'a LoraConfig,
    targets: Compiled<'a>,
    exclude: Option<Compiled<'a>>,
    ranks: Vec<(Pattern<'a>, usize)>,
    alphas: Vec<(Pattern<'a>, f32)>,
}

enum Compiled<'a> {
    AllLinear,
    Names(&'a [String]),
    Pattern(Pattern<'a>),
}

/// A regular expression and the key that it stands under.
struct Pattern<'a> {
    key: &'static str,
    text: &'a str,
    regex: Regex,
}

impl<'a> Pattern<'a> {
    /// A pattern for a whole path, or with `begins` for the end of one.
    fn new(key: &'static str, text: &'a str, begins: &str) -> Result<Self, AdapterError> {
        let regex = Regex::new(&format!(r"\A{begins}(?:{text})\z"));
        let regex = regex.map_err(|source| AdapterError::pattern(key, text, source))?;
        Ok(Self { key, text, regex })
    }

    fn matches(&self, path: &str) -> Result<bool, AdapterError> {
        self.regex.is_match(path).map_err(|source| AdapterError::pattern(self.key, self.text, source))
    }
}

impl<'a> Compiled<'a> {
    fn new(key: &'static str, targets: &'a Targets) -> Result<Self, AdapterError> {
        Ok(match targets {
            Targets::AllLinear => Self::AllLinear,
            Targets::Names(names) => Self::Names(names),
            Targets::Pattern(text) => Self::Pattern(Pattern::new(key, text, "")?),
        })
    }
}

fn is_named(names: &[String], path: &str) -> bool {
    let ends_with = |name: &String| path.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
    names.iter().any(|name| path == name || ends_with(name))
}

impl<'a> Matcher<'a> {
    pub(super) fn new(config: &'a LoraConfig) -> Result<Self, AdapterError> {
        const ENDS: &str = r"(?:.*\.)?";
        let ranks = config.rank_pattern.iter();
        let alphas = config.alpha_pattern.iter();
        Ok(Self {
            config,
            targets: Compiled::new("target_modules", &config.targets)?,
            exclude: config
                .exclude
                .as_ref()
                .map(|exclude| Compiled::new("exclude_modules", exclude))
                .transpose()?,
            ranks: ranks
                .map(|(text, &rank)| Ok((Pattern::new("rank_pattern", text, ENDS)?, rank)))
                .collect::<Result<_, AdapterError>>()?,
            alphas: alphas
                .map(|(text, &alpha)| Ok((Pattern::new("alpha_pattern", text, ENDS)?, alpha)))
                .collect::<Result<_, AdapterError>>()?,
        })
    }

    /// Whether the module `path` gets an adapter; `is_linear` of a projection that is no output head.
    pub(super) fn is_target(&self, path: &str, is_linear: bool) -> Result<bool, AdapterError> {
        let excluded = match &self.exclude {
            None => false,
            Some(Compiled::AllLinear) => is_linear,
            Some(Compiled::Names(names)) => is_named(names, path),
            Some(Compiled::Pattern(pattern)) => pattern.matches(path)?,
        };
        if excluded || self.is_saved(path) {
            return Ok(false);
        }
        match &self.targets {
            Compiled::AllLinear => Ok(is_linear),
            Compiled::Names(names) => {
                Ok(names.iter().any(|name| name == path) || is_named(names, path) && self.in_layers(path))
            }
            Compiled::Pattern(pattern) => pattern.matches(path),
        }
    }

    /// Whether a whole segment of the path is trained in full.
    fn is_saved(&self, path: &str) -> bool {
        let path = format!(".{path}.");
        self.config.modules_to_save.iter().any(|name| path.contains(&format!(".{name}.")))
    }

    /// Whether the path lies in one of the chosen blocks.
    fn in_layers(&self, path: &str) -> bool {
        let LoraConfig { layers, layers_pattern, .. } = self.config;
        if layers.is_empty() {
            return true;
        }
        let segments: Vec<&str> = path.split('.').collect();
        let index = |list: Option<&String>| {
            // A block is a list's name, its number and something in it; without a name, the list is itself part of something.
            let first = if list.is_some() { 1 } else { 2 };
            (first..segments.len().saturating_sub(1))
                .filter(|&at| list.is_none_or(|list| segments[at - 1] == list))
                .find_map(|at| segments[at].parse::<usize>().ok())
        };
        let index = match layers_pattern.is_empty() {
            true => index(None),
            false => layers_pattern.iter().find_map(|list| index(Some(list))),
        };
        index.is_some_and(|index| layers.contains(&index))
    }

    /// Size and form of the adapter of the module `path`.
    pub(super) fn adapter(&self, path: &str) -> Result<AdapterConfig, AdapterError> {
        let LoraConfig { rank, alpha, rslora, dora, dropout, .. } = *self.config;
        Ok(AdapterConfig {
            rank: first_match(&self.ranks, path)?.unwrap_or(rank),
            alpha: first_match(&self.alphas, path)?.unwrap_or(alpha),
            rslora,
            dora,
            dropout: dropout as f32,
        })
    }
}

fn first_match<T: Copy>(patterns: &[(Pattern<'_>, T)], path: &str) -> Result<Option<T>, AdapterError> {
    for (pattern, value) in patterns {
        if pattern.matches(path)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: &str = "model.layers.11.self_attn.q_proj";

    #[track_caller]
    fn check(config: &LoraConfig, expected: &[(&str, bool)]) {
        let matcher = Matcher::new(config).unwrap();
        for (path, is_target) in expected {
            assert_eq!(matcher.is_target(path, true).unwrap(), *is_target, "{path}");
        }
    }

    fn names(names: &[&str]) -> Targets {
        Targets::Names(names.iter().map(|&name| name.to_owned()).collect())
    }

    // As in `peft` 0.21.2.
    #[test]
    fn a_name_is_a_path_or_the_end_of_one_and_a_pattern_is_for_the_whole() {
        let of = |targets| LoraConfig { targets, ..LoraConfig::new(8, 8.0) };
        check(&of(names(&["q_proj"])), &[(Q, true), ("q_proj", true), ("model.xq_proj", false)]);
        check(&of(names(&["self_attn.q_proj"])), &[(Q, true), ("model.q_proj", false)]);
        check(&of(Targets::Pattern("q_proj".to_owned())), &[(Q, false), ("q_proj", true)]);
        check(
            &of(Targets::Pattern(r".*\.(?!1\b)\d+\..*_proj".to_owned())),
            &[(Q, true), ("model.layers.1.self_attn.q_proj", false)],
        );
        check(&of(Targets::AllLinear), &[(Q, true)]);
    }

    #[test]
    fn excluded_and_saved_modules_get_none() {
        let config = LoraConfig {
            exclude: Some(names(&["k_proj"])),
            modules_to_save: vec!["classifier".to_owned()],
            ..LoraConfig::new(8, 8.0)
        };
        check(
            &config,
            &[
                (Q, true),
                ("model.layers.0.self_attn.k_proj", false),
                ("classifier", false),
                ("classifier.dense", false),
                ("pre_classifier", true),
            ],
        );
        // A module is saved by the end of its name, though, as `peft` has it.
        assert!(config.saves("pre_classifier") && config.saves("classifier.dense") && !config.saves(Q));
    }

    #[test]
    fn blocks_are_counted_by_the_first_number_or_by_the_name_of_their_list() {
        let mut config = LoraConfig {
            targets: names(&["q", "encoder.block.3.layer.0.q"]),
            layers: vec![1],
            ..LoraConfig::new(8, 8.0)
        };
        let [one, two] = ["encoder.block.1.layer.0.q", "encoder.block.2.layer.1.q"];
        check(
            &config,
            &[(one, true), (two, false), ("encoder.q", false), ("encoder.block.3.layer.0.q", true)],
        );
        config.layers_pattern = vec!["layer".to_owned()];
        check(&config, &[(one, false), (two, true)]);
    }

    #[test]
    fn ranks_and_scales_differ_by_pattern() {
        let config = LoraConfig {
            rank_pattern: [("q_proj".to_owned(), 2), (r"layers\.1.*".to_owned(), 4)].into(),
            alpha_pattern: [("^model.*".to_owned(), 16.0)].into(),
            ..LoraConfig::new(8, 8.0)
        };
        let matcher = Matcher::new(&config).unwrap();
        let of = |path: &str| matcher.adapter(path).map(|config| (config.rank, config.alpha)).unwrap();
        // The first in the order of the file, which is that of the alphabet.
        assert_eq!(of(Q), (4, 16.0));
        assert_eq!(of("model.layers.0.self_attn.q_proj"), (2, 16.0));
        assert_eq!(of("encoder.x"), (8, 8.0));
    }

    #[test]
    fn a_pattern_that_is_none_is_named() {
        let config = LoraConfig { targets: Targets::Pattern("(q".to_owned()), ..LoraConfig::new(8, 8.0) };
        let error = Matcher::new(&config).err().unwrap().to_string();
        assert!(error.starts_with("target_modules") && error.contains("\"(q\""), "{error}");
    }
}
