//! The notation of a family of models.

use std::fmt;
use std::str::FromStr;

/// How a model writes calls of tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as Hermes, Qwen 2.5 and Qwen 3.
    Hermes,
    /// `{"name": …, "parameters": {…}}` as the whole answer, several separated by `;`, as Llama 3.
    Llama,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}]`, or `[TOOL_CALLS]name[ARGS]{…}`, as Mistral.
    Mistral,
    /// `<tool_call><function=…><parameter=…>…</parameter></function></tool_call>`, as Qwen3-Coder and Qwen 3.5.
    QwenXml,
    /// `<tool_call>name<arg_key>…</arg_key><arg_value>…</arg_value></tool_call>`, as GLM 4.5.
    Glm,
}

/// No [`ToolFormat`] has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tool format {0:?}: expected {names}", names = ToolFormat::NAMES.map(|(name, _)| name).join(", "))]
pub struct UnknownToolFormat(String);

impl ToolFormat {
    /// All formats by name.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("hermes", Self::Hermes),
        ("llama", Self::Llama),
        ("mistral", Self::Mistral),
        ("qwen-xml", Self::QwenXml),
        ("glm", Self::Glm),
    ];

    /// The format that a chat template shows to the model; `None` if it knows no tools.
    pub fn of_template(template: &str) -> Option<Self> {
        let has = |needle: &str| template.contains(needle);
        match () {
            () if !has("tool") => None,
            () if has("<tool_call>") && has("<function=") => Some(Self::QwenXml),
            () if has("<tool_call>") && has("<arg_key>") => Some(Self::Glm),
            () if has("<tool_call>") => Some(Self::Hermes),
            () if has("[TOOL_CALLS]") => Some(Self::Mistral),
            () if has("<|python_tag|>") || (has("\"parameters\"") && has("tools")) => Some(Self::Llama),
            () => None,
        }
    }

    /// What begins a call, if it is more than an opening brace. It may be a control token.
    pub fn opening(self) -> Option<&'static str> {
        match self {
            Self::Hermes | Self::QwenXml | Self::Glm => Some("<tool_call>"),
            Self::Mistral => Some("[TOOL_CALLS]"),
            Self::Llama => None,
        }
    }
}

impl fmt::Display for ToolFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, format)| format == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for ToolFormat {
    type Err = UnknownToolFormat;

    fn from_str(name: &str) -> Result<Self, UnknownToolFormat> {
        let found = Self::NAMES.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, format)| format).ok_or_else(|| UnknownToolFormat(name.to_owned()))
    }
}

/// What may stand in an answer besides its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyFormat {
    /// Calls of tools.
    pub tools: Option<ToolFormat>,
    /// Reasoning between `<think>` and `</think>`.
    pub reasoning: bool,
}

impl ReplyFormat {
    /// The format that a chat template shows to the model.
    pub fn of_template(template: &str) -> Self {
        Self { tools: ToolFormat::of_template(template), reasoning: template.contains("</think>") }
    }

    /// Control tokens that decoding must keep in the text, because they tell its parts apart.
    pub fn markers(&self) -> Vec<&'static str> {
        let mut markers = Vec::new();
        match self.tools {
            None => {}
            Some(ToolFormat::Hermes) => markers.extend(["<tool_call>", "</tool_call>"]),
            Some(ToolFormat::Mistral) => markers.extend(["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"]),
            Some(ToolFormat::Llama) => markers.extend(["<|python_tag|>"]),
            Some(ToolFormat::QwenXml | ToolFormat::Glm) => markers.extend([
                "<tool_call>",
                "</tool_call>",
                "<arg_key>",
                "</arg_key>",
                "<arg_value>",
                "</arg_value>",
            ]),
        }
        if self.reasoning {
            markers.extend(["<think>", "</think>"]);
        }
        markers
    }
}
