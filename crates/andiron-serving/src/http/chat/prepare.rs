//! From a conversation to a prompt, and to how its answer is read.

use std::sync::Arc;

use andiron_data::reply::{
    ForcedCall, HeldTools, ReplyFormat, ReplyParser, ToolFormat, any_strict, described,
};
use andiron_data::tokenizer::{ChatInputs, Message};
use andiron_models::generate::{Grammar, TextOrCalls};
use serde_json::Value;

use super::request::{ChatRequest, ConversationRequest, ToolChoice};
use crate::http::generation::{Prompt, RequestedGrammar, Work};
use crate::http::text::{Rendered, tail};
use crate::http::{ApiError, App};
use crate::registry::Served;

/// A request whose prompt is made.
pub(in crate::http) struct Prepared {
    pub(in crate::http) work: Work,
    pub(in crate::http) reading: ReplyReading,
}

/// How the answers to a prompt are read.
#[derive(Clone, Debug)]
pub(in crate::http) struct ReplyReading {
    format: ReplyFormat,
    tools: Vec<Value>,
    /// The end of the prompt, which may have opened the reasoning.
    prompt_end: String,
    /// What the prompt says already of the call that is forced.
    opening: &'static str,
    /// Whether there may be more than one call.
    pub(in crate::http) parallel: bool,
}

impl ReplyReading {
    /// A parser for one answer.
    pub(in crate::http) fn parser(&self) -> ReplyParser {
        let mut parser = ReplyParser::new(self.format, &self.tools).after(&self.prompt_end);
        // The beginning of a call is no content yet.
        drop(parser.push(self.opening));
        parser
    }

    /// Whether ids of calls have nine letters and digits, which templates of Mistral's ask for.
    pub(in crate::http) fn has_short_ids(&self) -> bool {
        self.format.tools == Some(ToolFormat::Mistral)
    }
}

/// Renders a conversation on a blocking thread. One with too many bytes for the model's context is refused first.
pub(in crate::http) async fn render(
    app: &App,
    served: &Arc<Served>,
    conversation: ConversationRequest,
) -> Result<Rendered, ApiError> {
    let (messages, inputs) = shaped(served, conversation.messages, conversation.inputs);
    app.render_chat(served, messages, inputs).await
}

/// Makes the prompt of `request`.
pub(in crate::http) async fn prepare(
    app: &App,
    served: &Arc<Served>,
    request: ChatRequest,
) -> Result<Prepared, ApiError> {
    let ChatRequest { messages, inputs, tool_choice, parallel_tool_calls, mut options } = request;
    let tools = inputs.tools.clone().unwrap_or_default();
    let format = reply_format(served, &inputs);
    let named = match &tool_choice {
        ToolChoice::Named(name) => Some(name.as_str()),
        _ => None,
    };
    let mut opening = "";
    let call = |held| {
        ForcedCall::new(format.tools, &tools, named, parallel_tool_calls, held)
            .map_err(|error| ApiError::invalid("tool_choice", error))
    };
    // Whether the answer may be any text.
    let mut is_free = options.grammar.is_none();
    if !tools.is_empty() {
        match (&tool_choice, &mut options.grammar) {
            (ToolChoice::Required | ToolChoice::Named(_), grammar) => {
                let forced = call(HeldTools::All)?;
                (opening, is_free) = (forced.opening, false);
                let schema = Grammar::JsonSchema(forced.schema);
                *grammar = Some(RequestedGrammar { param: "tools", grammar: schema });
            }
            (_, Some(RequestedGrammar { grammar, .. })) => {
                if let Grammar::JsonSchema(text) = grammar {
                    let held = text_or_calls(call(HeldTools::Strict)?, parallel_tool_calls);
                    let held = TextOrCalls { text: Some(text.take()), ..held };
                    *grammar = Grammar::TextOrCalls(Box::new(held));
                }
            }
            (_, grammar @ None) if any_strict(&tools) => {
                let held = text_or_calls(call(HeldTools::Strict)?, parallel_tool_calls);
                let control = format.markers().into_iter().map(str::to_owned).collect();
                let held = Grammar::TextOrCalls(Box::new(TextOrCalls { control, ..held }));
                *grammar = Some(RequestedGrammar { param: "tools", grammar: held });
            }
            _ => {}
        }
    }
    // Bounded before the template runs.
    let constraint = app.constrain_if(served, options.grammar.take()).await?;
    let (messages, inputs) = shaped(served, messages, inputs);
    let mut rendered = app.render_chat(served, messages, inputs).await?;
    let mut format = format;
    let tokenizer = served.text.tokenizer().ok_or_else(|| ApiError::no_tokenizer("messages"))?;
    let mut prompt_end = tail(&rendered.text, PROMPT_END).to_owned();
    let mut extend = |text: &str| {
        let more =
            tokenizer.encode_markup(text).map_err(|error| ApiError::of_text("messages", error.into()))?;
        rendered.ids.extend(more);
        Ok::<_, ApiError>(())
    };
    if constraint.is_some() && !is_free {
        // What is held to a grammar is the answer and not a thought.
        if format.reasoning && prompt_end.trim_end().ends_with("<think>") {
            extend("\n</think>\n\n")?;
            prompt_end.clear();
        }
        format.reasoning = false;
        extend(opening)?;
    }
    let markers = format.markers();
    let work = Work {
        prompts: vec![Prompt { ids: rendered.ids, text: None }],
        options,
        constraint,
        echo: false,
        markers,
    };
    let reading = ReplyReading { format, tools, prompt_end, opening, parallel: parallel_tool_calls };
    Ok(Prepared { work, reading })
}

/// Calls as `call` describes them, beside a text.
fn text_or_calls(call: ForcedCall, several: bool) -> TextOrCalls {
    let marker = call.opening.trim_end();
    TextOrCalls {
        marker: marker.to_owned(),
        gap: call.opening[marker.len()..].to_owned(),
        call: call.schema,
        closing: call.closing.filter(|_| several).map(str::to_owned),
        ..TextOrCalls::default()
    }
}

/// Bytes of the end of a prompt that tell whether the reasoning is open.
const PROMPT_END: usize = 64;

/// The notation of the model's answers.
fn reply_format(served: &Served, inputs: &ChatInputs) -> ReplyFormat {
    let with_tools = inputs.tools.is_some();
    let template = served.text.tokenizer().and_then(|tokenizer| tokenizer.chat_template_for(with_tools).ok());
    let format = ReplyFormat::of_template(template.unwrap_or_default());
    let tools = match (served.info.tool_format, template) {
        (Some(format), _) => Some(format),
        // Those are told in the notation of Hermes.
        (None, Some(template)) if !described::knows_tools(template) => Some(ToolFormat::Hermes),
        (None, _) => format.tools.or(Some(ToolFormat::Hermes)),
    };
    ReplyFormat { tools: tools.filter(|_| with_tools), ..format }
}

/// Tools in words, for templates that know none.
fn shaped(served: &Served, messages: Vec<Message>, inputs: ChatInputs) -> (Vec<Message>, ChatInputs) {
    let tokenizer = served.text.tokenizer();
    let template = tokenizer.and_then(|tokenizer| tokenizer.chat_template_for(inputs.tools.is_some()).ok());
    match template {
        Some(template) => described::for_template(template, messages, inputs),
        None => (messages, inputs),
    }
}
