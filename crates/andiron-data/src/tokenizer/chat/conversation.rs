//! Whole conversations for training: which tokens are the assistant's.

use std::ops::Range;

use super::quoting::Part;
use super::render::Marks;
use super::{ChatInputs, Message, Rendering, Tokenizer, TokenizerError};
use crate::tokenizer::{ControlTokens, Offsets};

/// A rendered conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// The ids.
    pub ids: Vec<u32>,
    /// The ids of each of the assistant's messages, in their order.
    pub assistant: Vec<Range<usize>>,
}

impl Conversation {
    /// The weight of each id as a target: 1 in the assistant's messages, 0 elsewhere.
    pub fn weights(&self) -> Vec<f32> {
        self.weights_of(&self.assistant)
    }

    /// The same for the assistant's last message alone.
    pub fn last_weights(&self) -> Vec<f32> {
        self.weights_of(self.assistant.last().map_or(&[], std::slice::from_ref))
    }

    fn weights_of(&self, spans: &[Range<usize>]) -> Vec<f32> {
        let mut weights = vec![0.0; self.ids.len()];
        spans.iter().for_each(|span| weights[span.clone()].fill(1.0));
        weights
    }
}

/// The role whose messages are learned.
const ASSISTANT: &str = "assistant";

impl Tokenizer {
    /// A whole conversation as the model's chat template renders it, without a generation prompt. Control tokens spelled in a
    /// message are ordinary text.
    ///
    /// If the template has `{% generation %}`, the assistant's tokens are those that overlap its blocks, as in `transformers`.
    /// Otherwise they are what an assistant's message adds to the conversation before it, after the generation prompt, up to
    /// the last control token: the one that ends the message counts, and a line break after it does not.
    ///
    /// # Errors
    /// As for [`encode_chat`](Self::encode_chat), and [`TokenizerError::ChatTemplate`] if a message is rendered differently
    /// when others follow it, as by templates that drop earlier reasoning.
    pub fn encode_conversation(
        &self,
        messages: &[Message],
        inputs: &ChatInputs,
    ) -> Result<Conversation, TokenizerError> {
        let quoting = self.quoting(messages, inputs)?;
        let shown = |text: &str| quoting.quote(text);
        let marks = Marks { open: quoting.spare[0], close: quoting.spare[1] };
        let marked =
            self.render(messages, inputs, Rendering { marks: Some(marks), ..Rendering::CLOSED }, &shown)?;
        let (text, blocks) = marks.taken_out(&marked);
        let has_blocks = !blocks.is_empty();
        let spans = match has_blocks {
            true => blocks,
            false => self.assistant_spans(messages, inputs, &shown, &text)?,
        };
        let (mut ids, mut places) = (Vec::new(), Vec::new());
        for (start, part) in quoting.parts(&text) {
            match part {
                Part::Written(part) => {
                    let encoding = self.inner.run(ControlTokens::Parsed, part, Offsets::Wanted);
                    let encoding = encoding.map_err(|error| self.inner.say_character(part, error))?;
                    ids.extend_from_slice(encoding.get_ids());
                    places.extend(encoding.get_offsets().iter().map(|&(from, to)| start + from..start + to));
                }
                Part::Quoted(token) => {
                    let of_token = self.encode(&token)?;
                    places.extend(of_token.iter().map(|_| start..start + token.len()));
                    ids.extend(of_token);
                }
            }
        }
        let ids = self.known(ids)?;
        let tokens_of = |span: Range<usize>| {
            let from = places.partition_point(|place| place.end <= span.start);
            from..from.max(places.partition_point(|place| place.start < span.end))
        };
        let mut assistant: Vec<Range<usize>> = spans.into_iter().map(tokens_of).collect();
        if !has_blocks {
            for span in &mut assistant {
                let last = ids[span.clone()].iter().rposition(|&id| self.is_special(id));
                span.end = last.map_or(span.end, |last| span.start + last + 1);
            }
        }
        Ok(Conversation { ids, assistant })
    }

    /// The bytes of the assistant's messages in the rendered conversation.
    fn assistant_spans(
        &self,
        messages: &[Message],
        inputs: &ChatInputs,
        shown: &dyn Fn(&str) -> String,
        text: &str,
    ) -> Result<Vec<Range<usize>>, TokenizerError> {
        let mut spans = Vec::new();
        for at in (0..messages.len()).filter(|&at| messages[at].role == ASSISTANT) {
            let differs = || TokenizerError::ChatTemplate {
                message: format!(
                    "it renders the message {} of a conversation differently when others follow it, so that the \
                     assistant's tokens cannot be found: end the conversation there, or mark them in the template with \
                     {{% generation %}}",
                    at + 1
                ),
            };
            let before = match at {
                0 => String::new(),
                _ => self.render(&messages[..at], inputs, Rendering::CLOSED, shown)?,
            };
            let after = match at + 1 == messages.len() {
                true => text.to_owned(),
                false => self.render(&messages[..=at], inputs, Rendering::CLOSED, shown)?,
            };
            if !text.starts_with(&before) || !text.starts_with(&after) || after.len() < before.len() {
                return Err(differs());
            }
            // A generation prompt may say more than a message begins with, such as an empty thought.
            let asked = match at {
                0 => String::new(),
                _ => self.render(&messages[..at], inputs, Rendering::GENERATION_PROMPT, shown)?,
            };
            let start = common_prefix(&asked, &after).max(before.len());
            spans.push(start..after.len());
        }
        Ok(spans)
    }
}

/// Length of the longest prefix that two texts have in common, in bytes, at a character boundary.
fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}

impl Marks {
    /// The text without marks, and the bytes between them.
    fn taken_out(&self, marked: &str) -> (String, Vec<Range<usize>>) {
        let mut text = String::with_capacity(marked.len());
        let (mut spans, mut start) = (Vec::new(), None);
        for character in marked.chars() {
            if character == self.open {
                start = Some(text.len());
            } else if character == self.close {
                spans.extend(start.take().map(|start| start..text.len()));
            } else {
                text.push(character);
            }
        }
        (text, spans)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{CHATML, with_template};
    use super::*;
    use crate::tokenizer::Special;

    const GENERATION: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}\
        {% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}{{ '\\n' }}\
        {% else %}{{ message.content }}<|im_end|>{{ '\\n' }}{% endif %}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

    fn messages() -> Vec<Message> {
        vec![
            Message::new("user", "a few"),
            Message::new("assistant", "words <|im_end|>"),
            Message::new("user", "more"),
            Message::new("assistant", "to learn"),
        ]
    }

    fn spoken(tokenizer: &Tokenizer, conversation: &Conversation) -> Vec<String> {
        let text =
            |span: &Range<usize>| tokenizer.decode(&conversation.ids[span.clone()], Special::Keep).unwrap();
        conversation.assistant.iter().map(text).collect()
    }

    #[test]
    fn the_assistants_messages_and_their_ends_are_found() {
        for template in [CHATML, GENERATION] {
            let tokenizer = with_template(template);
            let conversation = tokenizer.encode_conversation(&messages(), &ChatInputs::default()).unwrap();
            assert_eq!(
                spoken(&tokenizer, &conversation),
                ["words <|im_end|><|im_end|>", "to learn<|im_end|>"],
                "{template}"
            );
            let text = tokenizer.decode(&conversation.ids, Special::Keep).unwrap();
            assert!(
                text.starts_with("<|im_start|>user\na few<|im_end|>\n<|im_start|>assistant\nwords"),
                "{text}"
            );
            // The content's own spelling of the end token is text: the last id of each message alone is the token.
            let end = tokenizer.eos_id().unwrap();
            let ends: Vec<usize> = conversation.assistant.iter().map(|span| span.end - 1).collect();
            let found: Vec<usize> =
                (0..conversation.ids.len()).filter(|&at| conversation.ids[at] == end).collect();
            assert_eq!(found.len(), 4);
            assert_eq!([found[1], found[3]], ends[..]);
            assert_eq!(conversation.ids.last(), tokenizer.encode("\n").unwrap().last());
            let weights = conversation.weights();
            let n: usize = conversation.assistant.iter().map(Range::len).sum();
            assert_eq!(weights.iter().sum::<f32>() as usize, n);
            let last = conversation.last_weights();
            assert_eq!(last.iter().sum::<f32>() as usize, conversation.assistant[1].len());
        }
    }

    #[test]
    fn calls_of_tools_are_the_assistants_and_their_results_are_not() {
        let template = |begin: &str, end: &str| {
            format!(
                "{{% for tool in tools %}}{{{{ tool | tojson }}}}\n{{% endfor %}}\
                 {{% for m in messages %}}{{{{ '<|im_start|>' + m.role + '\n' }}}}{begin}{{{{ m.content or '' }}}}\
                 {{% for call in m.tool_calls or [] %}}<tool_call>{{{{ call.function | tojson }}}}</tool_call>\
                 {{% endfor %}}<|im_end|>{end}{{{{ '\n' }}}}{{% endfor %}}\
                 {{% if add_generation_prompt %}}{{{{ '<|im_start|>assistant\n' }}}}{{% endif %}}"
            )
        };
        let begin = "{% if m.role == 'assistant' %}{% generation %}";
        let repeated = "{{ m.content or '' }}{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}\
                        </tool_call>{% endfor %}<|im_end|>{% endgeneration %}{% else %}";
        let call = serde_json::json!({"function": {"name": "f", "arguments": "{\"a\": 1}"}});
        let messages = [
            Message::new("user", "go"),
            Message::from_json(&serde_json::json!({"role": "assistant", "tool_calls": [call]})).unwrap(),
            Message::new("tool", "done"),
            Message::new("assistant", "well"),
        ];
        let tools = Some(vec![serde_json::json!({"name": "f"})]);
        let inputs = ChatInputs { tools, ..ChatInputs::default() };
        for template in [template("", ""), template(&format!("{begin}{repeated}"), "{% endif %}")] {
            let tokenizer = with_template(&template);
            let conversation = tokenizer.encode_conversation(&messages, &inputs).unwrap();
            let called = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call><|im_end|>";
            assert_eq!(spoken(&tokenizer, &conversation), [called, "well<|im_end|>"], "{template}");
            let text = tokenizer.decode(&conversation.ids, Special::Keep).unwrap();
            assert!(text.starts_with("{\"name\": \"f\"}\n<|im_start|>user\ngo<|im_end|>"), "{text}");
        }
    }

    #[test]
    fn the_ids_are_those_of_a_chat_before_the_generation_prompt() {
        let tokenizer = with_template(CHATML);
        let ids = tokenizer.encode_conversation(&messages(), &ChatInputs::default()).unwrap().ids;
        assert!(tokenizer.encode_chat(&messages()).unwrap().starts_with(&ids));
    }

    #[test]
    fn a_template_that_changes_earlier_messages_is_refused() {
        let template = "{% for m in messages %}{{ m.role }}: {% if loop.last %}(thought){% endif %}{{ m.content }}\n{% endfor %}";
        let tokenizer = with_template(template);
        let error =
            tokenizer.encode_conversation(&messages(), &ChatInputs::default()).unwrap_err().to_string();
        assert!(error.contains("the message 2 of a conversation differently"), "{error}");
        let last = &messages()[..1];
        let conversation = tokenizer.encode_conversation(last, &ChatInputs::default()).unwrap();
        assert!(conversation.assistant.is_empty());
    }

    #[test]
    fn a_generation_prompt_may_say_more_than_a_message() {
        let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}";
        let tokenizer = with_template(template);
        let conversation = tokenizer.encode_conversation(&messages(), &ChatInputs::default()).unwrap();
        assert_eq!(spoken(&tokenizer, &conversation), ["words <|im_end|><|im_end|>", "to learn<|im_end|>"]);
    }
}
