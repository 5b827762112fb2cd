//! Texts that call tools, or do not.

use std::fmt::Write as _;

use serde_json::Value;

/// A text, or calls of tools, in the notation of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextOrCalls {
    /// Schema of a text that calls nothing. Without one, it is any text that does not say the marker, and there may be such a text
    /// before the calls; if there is no marker, one that begins neither with white space nor with a brace.
    pub text: Option<Value>,
    /// Begins a call, as a control token or spelled out. It may be empty.
    pub marker: String,
    /// Stands between the marker and the call.
    pub gap: String,
    /// Schema of a call.
    pub call: Value,
    /// Ends a call before the next one, on a line of its own. Without it, there is one call.
    pub closing: Option<String>,
    /// Other control tokens that a text without a schema may hold.
    pub control: Vec<String>,
}

impl TextOrCalls {
    /// Bytes of its own notation.
    pub(super) fn bytes(&self) -> usize {
        self.schemas().map(|schema| schema.to_string().len()).sum::<usize>() + self.marker.len()
    }

    pub(super) fn schemas(&self) -> impl Iterator<Item = &Value> {
        self.text.iter().chain([&self.call])
    }

    /// In llguidance's Lark-like notation. `id_of` gives the id of a control token, `json` what stands for a schema.
    pub(super) fn to_lark(
        &self,
        id_of: impl Fn(&str) -> Option<u32>,
        json: impl Fn(&Value) -> Value,
    ) -> String {
        // Its strings are those of JSON.
        let literal = |text: &str| Value::from(text).to_string();
        let token = |text: &str| match id_of(text) {
            Some(id) => format!("({} | <[{id}]>)", literal(text)),
            None => literal(text),
        };
        let gap = if self.gap.is_empty() { String::new() } else { literal(&self.gap) };
        let marker = if self.marker.is_empty() { String::new() } else { token(&self.marker) };
        let mut lark = match &self.text {
            Some(schema) => {
                format!("start: SPACE? text | {marker} calls\nSPACE: \" \"\ntext: %json {}\n", json(schema))
            }
            None => self.free_text(&id_of),
        };
        let more = self.closing.as_deref().map_or_else(String::new, |closing| {
            let closing = format!("\"\\n\" {}", token(closing));
            format!(" ({closing} \"\\n\" {marker} {gap} call)* ({closing})?")
        });
        // Infallible.
        let _ = write!(lark, "calls: {gap} call{more}\ncall: %json {}\n", json(&self.call));
        lark
    }

    fn free_text(&self, id_of: &impl Fn(&str) -> Option<u32>) -> String {
        if self.marker.is_empty() {
            return "start: FREE | calls\nFREE: /([^{ \\n\\t](.|\\n)*)?/\n".to_owned();
        }
        let pattern = regex_syntax::escape(&self.marker).replace('/', "\\/");
        let control: Vec<String> = self
            .control
            .iter()
            .filter(|name| **name != self.marker)
            .filter_map(|name| id_of(name))
            .map(|id| format!("<[{id}]>"))
            .collect();
        // Each may stand between two parts of the text.
        let parts = match control.is_empty() {
            true => String::new(),
            false => format!("(FREE ({}))*", control.join(" | ")),
        };
        let by_token =
            id_of(&self.marker).map_or_else(String::new, |id| format!(" | {parts} FREE? <[{id}]> calls"));
        format!(
            "start: {parts} FREE | {parts} tagged calls{by_token}\nFREE: /(.|\\n)*/ & ~/(.|\\n)*{pattern}(.|\\n)*/\n\
             tagged[suffix={}]: /(.|\\n)*/\n",
            Value::from(self.marker.as_str())
        )
    }
}
