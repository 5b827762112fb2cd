//! What a model can do.

use std::fmt;

/// Something that a model can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capability {
    /// Continue a text.
    Generate,
    /// Answer messages, by a chat template.
    Chat,
    /// Embed texts.
    Embed,
    /// Rank documents by relevance to a query.
    Rerank,
    /// Label texts.
    Classify,
    /// Label the tokens of texts.
    TokenClassify,
    /// Answer questions from a context.
    Answer,
    /// Predict masked tokens.
    FillMask,
    /// Translate texts.
    Translate,
    /// Summarize texts.
    Summarize,
    /// Show which token attends to which.
    Attention,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Generate,
        Self::Chat,
        Self::Embed,
        Self::Rerank,
        Self::Classify,
        Self::TokenClassify,
        Self::Answer,
        Self::FillMask,
        Self::Translate,
        Self::Summarize,
        Self::Attention,
    ];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Chat => "chat",
            Self::Embed => "embed",
            Self::Rerank => "rerank",
            Self::Classify => "classify",
            Self::TokenClassify => "token-classify",
            Self::Answer => "answer",
            Self::FillMask => "fill-mask",
            Self::Translate => "translate",
            Self::Summarize => "summarize",
            Self::Attention => "attention",
        }
    }

    /// The routes that do it.
    pub fn routes(self) -> &'static [&'static str] {
        match self {
            Self::Generate => &["/v1/completions", "/v1/decisions"],
            Self::Chat => &["/v1/chat/completions", "/v1/responses", "/v1/messages"],
            Self::Embed => &["/v1/embeddings", "/embed"],
            Self::Rerank => &["/v1/rerank", "/rerank"],
            Self::Classify => &["/classify", "/predict", "/v1/decisions"],
            Self::TokenClassify => &["/token-classify"],
            Self::Answer => &["/answer"],
            Self::FillMask => &["/fill-mask"],
            Self::Translate => &["/translate"],
            Self::Summarize => &["/summarize"],
            Self::Attention => &["/attention"],
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
