//! Full-attention and sliding-window layers.

use serde::{Deserialize, Serialize};

use crate::hf_config::{ConfigError, entries};

/// Attention type of a layer: an entry of `layer_types`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerType {
    /// Full attention.
    #[serde(rename = "full_attention")]
    Full,
    /// Sliding-window attention.
    #[serde(rename = "sliding_attention")]
    Sliding,
}

/// Sliding-window settings of a configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows<'a> {
    /// `num_hidden_layers`.
    pub(super) n_layers: usize,
    /// `sliding_window` in tokens; `None` if unused.
    pub(super) window: Option<usize>,
    /// `layer_types`.
    pub(super) types: Option<&'a [LayerType]>,
    /// Number of full-attention layers at the start, if `types` is absent.
    pub(super) n_full: usize,
}

impl Windows<'_> {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if let Some(window) = self.window {
            entries("sliding_window", window)?;
        }
        match self.types {
            Some(types) if types.len() != self.n_layers => {
                Err(ConfigError::LayerTypes { types: types.len(), layers: self.n_layers })
            }
            Some(types) if self.window.is_none() && types.contains(&LayerType::Sliding) => {
                Err(ConfigError::NoWindow)
            }
            _ => Ok(()),
        }
    }

    /// Sliding window of each layer, in tokens, the query's own included; `None` is full attention.
    pub(crate) fn by_layer(&self) -> Vec<Option<usize>> {
        let slides = |layer: usize| match self.types {
            Some(types) => types[layer] == LayerType::Sliding,
            None => layer >= self.n_full,
        };
        (0..self.n_layers).map(|layer| self.window.filter(|_| slides(layer))).collect()
    }
}
