//! Layers that see the whole past beside layers that see a window of it.

use serde::{Deserialize, Serialize};

use crate::hf_config::{ConfigError, entries};

/// What a layer sees: an entry of `layer_types`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerType {
    /// The whole past.
    #[serde(rename = "full_attention")]
    Full,
    /// A window that ends at the token itself.
    #[serde(rename = "sliding_attention")]
    Sliding,
}

/// What a configuration says about windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows<'a> {
    /// `num_hidden_layers`.
    pub(super) n_layers: usize,
    /// `sliding_window`, in tokens, or none if it is not to be used.
    pub(super) window: Option<usize>,
    /// `layer_types`.
    pub(super) types: Option<&'a [LayerType]>,
    /// How many layers see everything if `types` does not say.
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

    /// How many positions back each layer sees.
    pub(crate) fn reaches(&self) -> Vec<Option<usize>> {
        let slides = |layer: usize| match self.types {
            Some(types) => types[layer] == LayerType::Sliding,
            None => layer >= self.n_full,
        };
        let reach = |layer| self.window.filter(|_| slides(layer)).map(|window| window - 1);
        (0..self.n_layers).map(reach).collect()
    }
}
