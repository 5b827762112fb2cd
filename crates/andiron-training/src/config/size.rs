//! A decoder from a number of parameters.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use andiron_data::shard::Dataset;
use andiron_data::tokenizer::Tokenizer;
use andiron_models::DecoderConfig;
use andiron_models::bundle::Ids;
use andiron_models::decoder::qwen3::Qwen3Config;
use andiron_models::hf_config::Activation;
use toml::{Table, Value};

use super::{ConfigError, ModelConfig, TrainConfig, check, load};
use crate::trainer::TrainError;

/// A number of parameters, such as `300K`, `10M` or `1.5B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterCount(pub u64);

impl FromStr for ParameterCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let given = text;
        let wrong = || format!("{given:?} is no number of parameters: write 300K, 10M or 1.5B, at least 10K");
        let text = text.trim().to_ascii_uppercase();
        let units = [('K', 1e3), ('M', 1e6), ('B', 1e9)];
        let with_unit = units.into_iter().find_map(|(letter, unit)| Some((text.strip_suffix(letter)?, unit)));
        let (number, unit) = with_unit.unwrap_or((text.as_str(), 1.0));
        let count = number.parse::<f64>().map_err(|_| wrong())? * unit;
        if (1e4..=1e12).contains(&count) { Ok(Self(count.round() as u64)) } else { Err(wrong()) }
    }
}

impl fmt::Display for ParameterCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0 as f64;
        match self.0 {
            0..1_000_000 => write!(f, "{}K", rounded(count / 1e3)),
            1_000_000..1_000_000_000 => write!(f, "{}M", rounded(count / 1e6)),
            _ => write!(f, "{}B", rounded(count / 1e9)),
        }
    }
}

/// Three digits, without zeros at the end.
fn rounded(number: f64) -> f64 {
    let scale = 10_f64.powi(2 - number.log10().floor().min(2.0) as i32);
    (number * scale).round() / scale
}

/// Ratios of width to depth that are considered.
const RATIOS: std::ops::RangeInclusive<f64> = 16.0..=128.0;

/// How far the number of parameters may be from the wanted one.
const TOLERANCE: f64 = 0.02;

/// Widest model up to which heads are narrow, and models are deep for their width.
const NARROW: usize = 256;

/// The sizes of a decoder of about a number of parameters.
///
/// The architecture is that of Qwen 3, whose normed queries and keys make training stable, with the head tied to the embeddings and
/// as many key heads as query heads.
///
/// | size | rule |
/// |---|---|
/// | head width | 64, or 32 in models up to 256 wide, whose width it divides |
/// | width and depth | of all with a ratio from 16 to 128 that come within 2 % of the number of parameters: the ratio nearest to 64, or to 32 up to a width of 256, with embeddings of at most half of the parameters if that can be |
/// | feed-forward width | near 8/3 of the width, from 2 to 4 times, in multiples of half the head width: what makes the number of parameters come out |
/// | context | 256 tokens below 3M parameters, 512 below 100M, 1024 below 1B, then 2048 |
///
/// Published models of that kind have ratios of 64 (GPT-2 and Pythia 160M), 43 (GPT-2 medium, Pythia 410M), 85 (Pythia 1.4B,
/// SmolLM2 1.7B) and, when built to be deep, 20 to 30 (SmolLM2 135M and 360M).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizedDecoder {
    /// Vocabulary size.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub width: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of heads.
    pub heads: usize,
    /// Inner width of the feed-forward layers.
    pub feed_forward: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
}

impl SizedDecoder {
    /// The sizes for a number of parameters and a vocabulary.
    ///
    /// # Errors
    /// If no model with this vocabulary comes near that number.
    pub fn new(count: ParameterCount, vocab_size: usize) -> Result<Self, ConfigError> {
        let wanted = count.0 as f64;
        let context = match count.0 {
            0..3_000_000 => 256,
            3_000_000..100_000_000 => 512,
            100_000_000..1_000_000_000 => 1024,
            _ => 2048,
        };
        let (mut best, mut best_cost) = (None, f64::INFINITY);
        let widths = (1..=NARROW / 32).map(|heads| (32 * heads, heads));
        for (width, heads) in widths.chain((NARROW / 64 + 1..=256).map(|heads| (64 * heads, heads))) {
            let depths =
                (width as f64 / RATIOS.end()).ceil() as usize..=(width as f64 / RATIOS.start()) as usize;
            for layers in depths.filter(|&layers| layers >= 2) {
                let sizes = Self { vocab_size, width, layers, heads, feed_forward: 0, context };
                let sizes = sizes.filled_to(wanted);
                let cost = sizes.cost(wanted);
                if cost < best_cost {
                    (best, best_cost) = (Some(sizes), cost);
                }
            }
        }
        let found = best.expect("there are widths and depths");
        let wanted = format!(
            "near {}, the nearest that a model with a vocabulary of {vocab_size} tokens has",
            ParameterCount(found.parameters())
        );
        check(found.error(count.0 as f64) <= 0.05, "params", count, &wanted)?;
        Ok(found)
    }

    /// The same with the feed-forward width that brings the number of parameters nearest to `wanted`.
    fn filled_to(self, wanted: f64) -> Self {
        let unit = self.width / self.heads / 2;
        let exact = (wanted - self.parameters() as f64) / (3 * self.width * self.layers * unit) as f64;
        let [least, most] = [2, 4].map(|times| times * self.width / unit);
        let units = (exact.round().max(0.0) as usize).clamp(least, most);
        Self { feed_forward: units * unit, ..self }
    }

    /// How far from the rule it is.
    fn cost(&self, wanted: f64) -> f64 {
        let usual = if self.width <= NARROW { 32.0 } else { 64.0_f64 };
        let ratio = (self.width as f64 / self.layers as f64 / usual).ln().abs();
        let feed_forward = (self.feed_forward as f64 / self.width as f64 / (8.0 / 3.0)).ln().abs();
        let embeddings = (self.embedding_share() - 0.5).max(0.0);
        // Outside the tolerance nothing else counts.
        let error = (self.error(wanted) - TOLERANCE).max(0.0);
        ratio + feed_forward + 4.0 * embeddings + 1e3 * error
    }

    fn error(&self, wanted: f64) -> f64 {
        (self.parameters() as f64 / wanted - 1.0).abs()
    }

    /// The exact number of parameters.
    pub fn parameters(&self) -> u64 {
        let [width, heads, feed_forward, layers] =
            [self.width, self.heads, self.feed_forward, self.layers].map(|size| size as u64);
        let norms = 2 * width + 2 * (width / heads);
        let layer = 4 * width * width + 3 * width * feed_forward + norms;
        self.embeddings() + layers * layer + width
    }

    /// Parameters of the embeddings.
    pub fn embeddings(&self) -> u64 {
        self.vocab_size as u64 * self.width as u64
    }

    /// The share of the embeddings in all parameters.
    pub fn embedding_share(&self) -> f64 {
        self.embeddings() as f64 / self.parameters() as f64
    }

    /// The configuration, for texts that end with the token `end`.
    pub fn config(&self, end: Option<u32>) -> ModelConfig {
        let config = Qwen3Config {
            vocab_size: self.vocab_size,
            hidden_size: self.width,
            intermediate_size: self.feed_forward,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            num_key_value_heads: Some(self.heads),
            head_dim: self.width / self.heads,
            hidden_act: Activation::Silu,
            max_position_embeddings: self.context,
            initializer_range: 0.02,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            attention_bias: false,
            attention_dropout: 0.0,
            use_sliding_window: false,
            sliding_window: Some(4096),
            max_window_layers: self.layers,
            layer_types: None,
            tie_word_embeddings: true,
            bos_token_id: None,
            eos_token_id: end.map_or_else(Ids::default, Ids::One),
        };
        DecoderConfig::Qwen3(config).into()
    }
}

impl fmt::Display for SizedDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vocab_size, width, layers, heads, feed_forward, context } = self;
        write!(
            f,
            "Qwen 3 of {} parameters: {layers} layers, width {width}, {heads} heads of {}, feed-forward width {feed_forward}, \
             context {context}; {:.0} % of the parameters are the embeddings of {vocab_size} tokens",
            self.parameters(),
            width / heads,
            100.0 * self.embedding_share()
        )
    }
}

impl TrainConfig {
    /// Reads the TOML file at `path` as [`load`](Self::load), with a new decoder of about `count` parameters in the place of its
    /// model table; also the decoder's sizes. The vocabulary is that of the model table, or of the data.
    ///
    /// # Errors
    /// As for [`load`](Self::load), or if the vocabulary is not known, or no model with it is of that size.
    pub fn load_sized(
        path: &Path,
        overrides: &[String],
        count: ParameterCount,
    ) -> Result<(Self, SizedDecoder), TrainError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let tree = load::tree(&text, overrides)?;
        if let Some(from) = tree.get("init").and_then(|init| init.get("from")) {
            check(
                false,
                "init.from",
                from,
                "absent with a number of parameters, which is that of a new model",
            )?;
        }
        let (vocab_size, end) = vocabulary(&tree)?;
        let mut sizes = SizedDecoder::new(count, vocab_size)?;
        let given = tree.get("data").and_then(|data| data.get("context")).and_then(Value::as_integer);
        if let Some(given) = given.and_then(|given| usize::try_from(given).ok()) {
            sizes.context = sizes.context.max(given);
        }
        let model = Value::try_from(sizes.config(end)).expect("a configuration is plain data");
        let mut all = vec![format!("model={model}")];
        if given.is_none() {
            all.push(format!("data.context={}", sizes.context));
        }
        all.extend(overrides.iter().cloned());
        Ok((Self::load(path, &all)?, sizes))
    }
}

/// The vocabulary size that a configuration names, and the token that ends a text.
fn vocabulary(tree: &Table) -> Result<(usize, Option<u32>), TrainError> {
    let string = |table: &str, key: &str| tree.get(table)?.get(key)?.as_str().map(Path::new);
    let tokenizer =
        match string("data", "tokenizer") {
            Some(path) => Some(Tokenizer::load(path).map_err(|source| TrainError::Tokenizer {
                path: path.to_owned(),
                source: Box::new(source),
            })?),
            None => None,
        };
    let end = tokenizer.as_ref().and_then(Tokenizer::eos_id);
    let of_model = tree.get("model").and_then(|model| model.get("vocab_size")).and_then(Value::as_integer);
    if let Some(size) = of_model.and_then(|size| usize::try_from(size).ok()) {
        return Ok((size, end));
    }
    if let Some(path) = string("data", "train").filter(|path| path.is_dir()) {
        let dataset = Dataset::open(path).map_err(|source| TrainError::Data { source: Box::new(source) })?;
        return Ok((dataset.vocab_size(), end));
    }
    let why = "the size of a model depends on its vocabulary: name the tokenizer, or set model.vocab_size";
    let tokenizer = tokenizer.ok_or(ConfigError::Missing { field: "data.tokenizer", why })?;
    Ok((tokenizer.vocab_size(), end))
}

#[cfg(test)]
mod tests {
    use andiron_models::AnyConfig;

    use super::*;
    use crate::testing::device;

    #[test]
    fn counts_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<ParameterCount>().map(|count| count.0);
        assert_eq!(read("300K"), Ok(300_000));
        assert_eq!(read("10m"), Ok(10_000_000));
        assert_eq!(read(" 1.5B"), Ok(1_500_000_000));
        assert_eq!(read("123456"), Ok(123_456));
        for wrong in ["", "M", "-1M", "9K", "nan", "10 million", "2T", "é"] {
            assert!(read(wrong).unwrap_err().contains("300K"), "{wrong}");
        }
        let shown = |count: u64| ParameterCount(count).to_string();
        assert_eq!([shown(300_000), shown(10_240_000), shown(1_500_000_000)], ["300K", "10.2M", "1.5B"]);
    }

    #[track_caller]
    fn sized(count: &str, vocab_size: usize) -> SizedDecoder {
        SizedDecoder::new(count.parse().unwrap(), vocab_size).unwrap()
    }

    #[test]
    fn the_count_is_that_of_the_model_and_near_the_wanted_one() {
        let device = device();
        for (count, vocab_size) in [("100K", 65), ("300K", 256), ("1M", 512), ("10M", 8192), ("30M", 16_384)]
        {
            let sizes = sized(count, vocab_size);
            let config = sizes.config(Some(3));
            config.validate().unwrap();
            let counted: u64 = AnyConfig::from(config)
                .parameters(&device)
                .iter()
                .map(|parameter| parameter.elements())
                .sum();
            assert_eq!(counted, sizes.parameters(), "{sizes}");
            let wanted = count.parse::<ParameterCount>().unwrap().0 as f64;
            assert!((sizes.parameters() as f64 / wanted - 1.0).abs() <= 0.03, "{count}: {sizes}");
        }
    }

    #[test]
    fn shapes_are_those_of_published_models() {
        // Of 300 sizes and vocabularies, all keep to the rule.
        for vocab_size in [65, 1024, 8192, 32_000, 50_257] {
            for step in 0..60 {
                let count = ParameterCount((3e7 * 1.12_f64.powi(step)) as u64);
                let sizes = SizedDecoder::new(count, vocab_size).unwrap();
                let ratio = sizes.width as f64 / sizes.layers as f64;
                assert!(RATIOS.contains(&ratio), "{sizes}");
                assert_eq!(sizes.width, sizes.heads * if sizes.width > NARROW { 64 } else { 32 }, "{sizes}");
                let feed_forward = sizes.feed_forward as f64 / sizes.width as f64;
                assert!((2.0..=4.0).contains(&feed_forward), "{sizes}");
                assert!((sizes.parameters() as f64 / count.0 as f64 - 1.0).abs() <= 0.03, "{count}: {sizes}");
            }
        }
        let large = sized("1.5B", 32_000);
        let ratio = large.width as f64 / large.layers as f64;
        assert!((48.0..=86.0).contains(&ratio) && large.context == 2048, "{large}");
        assert!(large.embedding_share() < 0.1, "{large}");
    }

    #[test]
    fn a_vocabulary_that_is_too_large_for_the_model_is_named() {
        let error = SizedDecoder::new(ParameterCount(300_000), 50_257).unwrap_err().to_string();
        assert!(error.starts_with("params is 300K") && error.contains("50257 tokens"), "{error}");
    }

    #[test]
    fn a_configuration_gets_a_model_of_that_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.toml");
        std::fs::write(&path, crate::testing::CONFIG).unwrap();
        let set = |set: &str| vec![set.to_owned()];
        let (config, sizes) = TrainConfig::load_sized(&path, &[], ParameterCount(100_000)).unwrap();
        assert_eq!((sizes.vocab_size, config.data.context), (13, Some(8)));
        assert_eq!(config.model, Some(sizes.config(None)));
        // Overrides come last, and those of the data come first as well.
        let (config, sizes) =
            TrainConfig::load_sized(&path, &set("data.context=300"), ParameterCount(100_000)).unwrap();
        assert_eq!((sizes.context, config.data.context), (300, Some(300)));
        let theta = set("model.rope_theta=500.0");
        let (config, _) = TrainConfig::load_sized(&path, &theta, ParameterCount(100_000)).unwrap();
        assert!(config.to_toml().contains("rope_theta = 500.0"), "{}", config.to_toml());
        let init = set("init.from=base");
        let error = TrainConfig::load_sized(&path, &init, ParameterCount(100_000)).unwrap_err();
        assert!(error.to_string().contains("init.from"), "{error}");
    }
}
