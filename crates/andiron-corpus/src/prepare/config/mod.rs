//! What is prepared, and how: the settings, as a TOML file holds them.

mod load;

use std::path::PathBuf;

use andiron_data::source::{OnError, SourceOptions};
use andiron_data::tokenizer::{BpeOptions, SpecialTokens};
use serde::{Deserialize, Serialize};

use crate::clean::FilterSettings;
use crate::dedup::{MinHashConfig, ParagraphConfig};

pub use load::PrepareConfigError;

/// The settings of a pipeline: everything its output depends on, and where that goes.
///
/// # Example
/// ```
/// use andiron_corpus::prepare::PrepareConfig;
/// let config = PrepareConfig::parse(r#"
///     output = "data/shop"
///
///     [[source]]
///     name = "reviews"
///     paths = ["reviews.jsonl.gz"]
///
///     [[filter]]
///     kind = "unix-line-endings"
///
///     [tokenizer]
///     kind = "bpe"
///     vocab_size = 8192
/// "#)?;
/// assert_eq!(config.sources[0].name, "reviews");
/// // All settings, defaults included.
/// assert!(config.to_toml().contains("tokens_per_shard"));
/// # Ok::<(), andiron_corpus::prepare::PrepareConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareConfig {
    /// The output directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// Decides which documents are held out.
    #[serde(default)]
    pub seed: u64,
    /// Whether an unreadable record is an error or skipped.
    #[serde(default)]
    pub on_error: OnError,
    /// The texts, in the order in which they are read.
    #[serde(rename = "source")]
    pub sources: Vec<SourceConfig>,
    /// What each document passes, in this order.
    #[serde(rename = "filter", default)]
    pub filters: Vec<FilterSettings>,
    /// Which documents are removed because others are like them.
    #[serde(default)]
    pub dedup: DedupConfig,
    /// The tokenizer to load or train.
    pub tokenizer: TokenizerChoice,
    /// The validation split.
    #[serde(default)]
    pub split: Split,
    /// How sources with weights are mixed.
    #[serde(default)]
    pub mixture: MixtureConfig,
    /// The datasets.
    #[serde(default)]
    pub shards: ShardsConfig,
}

impl PrepareConfig {
    /// Defaults for language-model training from one source: no filters, exact duplicates removed, a tenth held out.
    pub fn new(inputs: Vec<PathBuf>, output: PathBuf, tokenizer: TokenizerChoice) -> Self {
        Self {
            output: Some(output),
            seed: 0,
            on_error: OnError::Fail,
            sources: vec![SourceConfig { paths: inputs, ..SourceConfig::default() }],
            filters: Vec::new(),
            dedup: DedupConfig::default(),
            tokenizer,
            split: Split::default(),
            mixture: MixtureConfig::default(),
            shards: ShardsConfig::default(),
        }
    }
}

/// Some texts that are read in one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// What it is called in reports.
    #[serde(default = "text")]
    pub name: String,
    /// Files and directories; the files of a directory are read in the order of their names.
    pub paths: Vec<PathBuf>,
    /// Its share of the training tokens, relative to the weights of the others. Either all sources have one, or none: then each is
    /// taken once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// How each kind of file is read.
    #[serde(default)]
    pub read: SourceOptions,
}

fn text() -> String {
    "text".to_owned()
}

impl Default for SourceConfig {
    /// Nothing to read, under the name `text`.
    fn default() -> Self {
        Self { name: text(), paths: Vec::new(), weight: None, read: SourceOptions::default() }
    }
}

/// Which documents are removed because others are like them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DedupConfig {
    /// Documents whose text equals that of an earlier one, byte for byte.
    pub exact: Duplicates,
    /// Documents that are nearly the same as an earlier one, as MinHash tells; without these settings they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minhash: Option<MinHashConfig>,
    /// Paragraphs that stood in an earlier document that stays, or earlier in the same one; without these settings they are kept.
    /// They are removed after duplicates and near-duplicates, in the order of the inputs. A document of which only white space is
    /// left goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paragraphs: Option<ParagraphConfig>,
}

impl Default for DedupConfig {
    /// Exact duplicates are removed, near-duplicates and repeated paragraphs kept.
    fn default() -> Self {
        Self { exact: Duplicates::Remove, minhash: None, paragraphs: None }
    }
}

/// What is done with documents that are like an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duplicates {
    /// They are kept.
    Keep,
    /// They are removed.
    Remove,
}

/// How the training data are mixed from sources with weights.
///
/// A source is taken as often as its share of all tokens asks for: whole documents, some of them once more than others, which is
/// decided by the hash of their texts. A source that would be taken more often than the cap has a smaller share, and the others
/// stay as they are. What came out is in the report ([`SourceReport`](super::SourceReport)).
///
/// Source of the cap: Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", <https://arxiv.org/abs/2305.16264>: four
/// epochs are nearly as good as new text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MixtureConfig {
    /// How often a document is taken at most.
    pub max_repeat: f64,
    /// Tokens of the training data. Without it, so many that each source is taken at least once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
}

impl Default for MixtureConfig {
    /// At most four times.
    fn default() -> Self {
        Self { max_repeat: 4.0, tokens: None }
    }
}

/// The tokenizer to load or train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum TokenizerChoice {
    /// Load an existing one.
    #[serde(rename = "load")]
    Load {
        /// A directory or a `tokenizer.json`.
        path: PathBuf,
    },
    /// Train byte-level BPE on the training split.
    #[serde(rename = "bpe")]
    Bpe(BpeOptions),
    /// A vocabulary of the characters of the whole text, including the validation split, which could not be encoded
    /// otherwise.
    #[serde(rename = "char")]
    Characters(SpecialTokens),
}

/// The validation split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Split {
    /// The fraction held out, in `0..1`; with 0 there is no `valid` dataset.
    pub fraction: f64,
    /// The unit of the split.
    pub by: SplitBy,
}

impl Default for Split {
    /// A tenth: of the characters if there is one document, else of the documents.
    fn default() -> Self {
        Self { fraction: 0.1, by: SplitBy::Auto }
    }
}

/// The unit of a [`Split`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitBy {
    /// Characters if there is one document, else documents.
    Auto,
    /// Whole documents, chosen by the seed: exactly the fraction, rounded, and at least one.
    Documents,
    /// Whole documents, each by the hash of its text and the seed: about the fraction, and a document's place does not depend on
    /// the others, so that it stays where it is when more text is added.
    Hash,
    /// The last characters of each document, as nanoGPT does.
    Characters,
}

/// How the datasets are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShardsConfig {
    /// The separator between documents.
    pub separator: Separator,
    /// A shard is closed when it has this many tokens. Documents are never cut.
    pub tokens_per_shard: u64,
}

impl Default for ShardsConfig {
    /// The end of each document is marked; shards of 2^28 tokens, which are half a gibibyte of `u16`.
    fn default() -> Self {
        Self { separator: Separator::EndOfText, tokens_per_shard: 1 << 28 }
    }
}

/// The separator between documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Separator {
    /// The tokenizer's end-of-sequence token after each document, if it has one.
    EndOfText,
    /// Nothing.
    None,
}
