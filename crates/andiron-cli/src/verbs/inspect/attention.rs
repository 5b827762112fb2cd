//! `andiron inspect --attention`: which token attends to which.

use andiron_models::attention::{AttentionKind, AttentionLayers, LayerAttention};
use andiron_pipelines::{AttentionRequest, ShownToken, TextAttention};
use clap::Args;
use serde_json::{Value, json};

use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::lines::out;
use crate::model::{self, AdapterChoice, RunChoice};

/// Maximum tokens of a text. Attention takes `layers · heads · tokens²` numbers.
const MAX_TOKENS: usize = 256;

/// Tokens shown for each token.
const SHOWN: usize = 4;

/// A text whose attention is shown.
#[derive(Clone, Debug, Args)]
pub struct AttentionChoice {
    /// Show which token of this text attends to which, in place of the summary. Loads the weights. At most 256 tokens
    #[arg(long, value_name = "TEXT")]
    attention: Option<String>,
    /// Target of an encoder-decoder [default: what the model generates greedily]
    #[arg(long, value_name = "TEXT", requires = "attention")]
    target: Option<String>,
    /// Layer to show, from 0 [default: the last; with --json all]
    #[arg(long, value_name = "N", requires = "attention")]
    layer: Option<usize>,
    /// Head to show, from 0 [default: the mean of all; with --json all]
    #[arg(long, value_name = "N", requires = "attention")]
    head: Option<usize>,
}

impl AttentionChoice {
    /// Shows the attention, if a text was given.
    pub fn show(
        &self,
        model: &std::path::Path,
        adapter: &AdapterChoice,
        strict: bool,
        common: &Common,
    ) -> anyhow::Result<Option<Ending>> {
        let Some(text) = &self.attention else { return Ok(None) };
        let files = andiron_models::ModelFiles::open(model)?;
        let run = RunChoice { strict, ..RunChoice::default() };
        let pipeline = model::open_files(files, adapter, run, common)?;
        let layers = match self.layer {
            Some(layer) => AttentionLayers::One(layer),
            None if common.json => AttentionLayers::All,
            None => AttentionLayers::Last,
        };
        let request = AttentionRequest {
            text: text.clone(),
            target: self.target.clone(),
            layers,
            max_tokens: MAX_TOKENS,
        };
        let found = pipeline.attention(&request)?;
        self.check_head(&found)?;
        match common.json {
            true => out!("{}", self.json(&found))?,
            false => self.print(&found)?,
        }
        Ok(Some(Ending::Done))
    }

    fn check_head(&self, found: &TextAttention) -> Result<(), Usage> {
        let n_heads = found.attention.layers.iter().map(|layer| layer.n_heads).min().unwrap_or(0);
        match self.head {
            Some(head) if head >= n_heads => {
                Err(Usage(format!("there is no head {head}: the model has the heads 0 to {}", n_heads - 1)))
            }
            _ => Ok(()),
        }
    }

    fn json(&self, found: &TextAttention) -> Value {
        let layer = |layer: &LayerAttention| {
            let heads = self.head.map_or(0..layer.n_heads, |head| head..head + 1);
            let of_head = |head| (0..layer.n_queries).map(|query| layer.row(head, query)).collect::<Vec<_>>();
            json!({
                "kind": kind(layer.kind),
                "layer": layer.layer,
                "first_head": heads.start,
                "probabilities": heads.map(of_head).collect::<Vec<_>>(),
            })
        };
        json!({
            "n_layers": found.attention.n_layers,
            "tokens": found.tokens.iter().map(token).collect::<Vec<_>>(),
            "target_tokens": found.target_tokens.as_ref().map(|tokens| tokens.iter().map(token).collect::<Vec<_>>()),
            "attention": found.attention.layers.iter().map(layer).collect::<Vec<_>>(),
        })
    }

    fn print(&self, found: &TextAttention) -> anyhow::Result<()> {
        let head = self.head.map_or("mean of all heads".to_owned(), |head| format!("head {head}"));
        for layer in &found.attention.layers {
            let (queries, keys, what) = match (layer.kind, &found.target_tokens) {
                (AttentionKind::Target, Some(target)) => (target, target, "target to target"),
                (AttentionKind::Cross, Some(target)) => (target, &found.tokens, "target to source"),
                (AttentionKind::Source, _) => (&found.tokens, &found.tokens, "source to source"),
                _ => (&found.tokens, &found.tokens, "text to text"),
            };
            out!(
                "layer {} (0 to {}), {head}, {what}",
                layer.layer,
                found.attention.n_layers.saturating_sub(1)
            )?;
            let width = queries.iter().map(|token| plain(token).chars().count()).max().unwrap_or(0);
            for (query, token) in queries.iter().enumerate() {
                let mut seen: Vec<(usize, f32)> =
                    self.probabilities(layer, query).into_iter().enumerate().collect();
                seen.sort_by(|a, b| b.1.total_cmp(&a.1));
                let shown = seen.iter().take(SHOWN).filter(|(_, p)| *p >= 0.005);
                let shown: Vec<String> =
                    shown.map(|&(key, p)| format!("{} {p:.2}", plain(&keys[key]))).collect();
                out!("  {:width$}  {}", plain(token), shown.join("  "))?;
            }
            out!("")?;
        }
        Ok(())
    }

    /// Probabilities of a query in the chosen head, or their mean over all heads.
    fn probabilities(&self, layer: &LayerAttention, query: usize) -> Vec<f32> {
        let heads = self.head.map_or(0..layer.n_heads, |head| head..head + 1);
        let share = 1.0 / heads.len() as f32;
        let mut mean = vec![0.0; layer.n_keys];
        for head in heads {
            for (sum, p) in mean.iter_mut().zip(layer.row(head, query)) {
                *sum += p * share;
            }
        }
        mean
    }
}

/// A token's text on one line, without the space before a word.
fn plain(token: &ShownToken) -> String {
    let text = token.text.trim();
    match text.is_empty() {
        true => format!("{:?}", token.text),
        false => text.escape_debug().to_string(),
    }
}

fn token(token: &ShownToken) -> Value {
    json!({ "id": token.id, "text": token.text, "special": token.special })
}

fn kind(kind: AttentionKind) -> &'static str {
    match kind {
        AttentionKind::Text => "text",
        AttentionKind::Source => "source",
        AttentionKind::Target => "target",
        AttentionKind::Cross => "cross",
    }
}
