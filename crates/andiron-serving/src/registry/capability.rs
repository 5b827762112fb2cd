//! What a model can do.

use std::fmt;

/// Something that a model can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capability {
    /// Continue a text.
    Generate,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Generate];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
        }
    }

    /// The routes that do it.
    pub fn routes(self) -> &'static [&'static str] {
        match self {
            Self::Generate => {
                &["/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/decisions"]
            }
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A model was asked for something that it cannot do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model `{model}` cannot {wanted}; it can {}", listed(can))]
pub struct Incapable {
    /// The model's name.
    pub model: String,
    /// What it was asked for.
    pub wanted: Capability,
    /// What it can do.
    pub can: Vec<Capability>,
}

fn listed(can: &[Capability]) -> String {
    let one = |capability: &Capability| format!("{capability} ({})", capability.routes().join(", "));
    match can {
        [] => "do nothing here".to_owned(),
        can => can.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::endpoints;

    #[test]
    fn every_capability_names_routes_that_there_are() {
        let paths: Vec<&str> = endpoints().into_iter().map(|endpoint| endpoint.path).collect();
        for capability in Capability::ALL {
            assert!(!capability.routes().is_empty(), "{capability}");
            assert!(capability.routes().iter().all(|route| paths.contains(route)), "{capability}");
        }
    }
}
