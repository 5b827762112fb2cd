//! What the description of the API says about each route.

use super::{
    apply_template, chat, completions, decisions, detokenize, load, messages, responses, tasks, tokenize,
};
use crate::http::openapi::{About, Answer, Body};

/// The entry of a path.
pub(super) fn about(path: &str) -> Option<About> {
    // Those of Anthropic, Text Embeddings Inference and LibreTranslate.
    let foreign = path.starts_with("/v1/messages")
        || matches!(path, "/embed" | "/predict" | "/rerank" | "/info" | "/translate");
    let get = |tag, summary, answer| About { tag, summary, body: None, answer, foreign_errors: foreign };
    let post = |tag, summary, example, parse, answer| About {
        tag,
        summary,
        body: Some(Body { example, parse }),
        answer,
        foreign_errors: foreign,
    };
    const OPERATION: &str = "operation";
    const MODELS: &str = "models";
    const GENERATION: &str = "generation";
    const TOKENS: &str = "tokens";
    const TASKS: &str = "tasks";
    Some(match path {
        "/" => get(OPERATION, "The web page.", Answer::Text("text/html")),
        "/docs" => get(OPERATION, "This description as a page.", Answer::Text("text/html")),
        "/openapi.json" => get(OPERATION, "This description.", Answer::Object(&["openapi", "info", "paths"])),
        "/health" => {
            get(OPERATION, "Whether the process and its engines are alive.", Answer::Object(&["status"]))
        }
        "/ready" => get(OPERATION, "Whether a request would be accepted now.", Answer::Object(&["status"])),
        "/metrics" => get(OPERATION, "Counters and histograms for Prometheus.", Answer::Text("text/plain")),
        "/v1/models" => get(MODELS, "The models.", Answer::Object(&["object", "data"])),
        "/v1/models/{*id}" => {
            get(MODELS, "One model.", Answer::Object(&["id", "object", "created", "owned_by"]))
        }
        "/models" => get(
            MODELS,
            "The models that are loaded or can be, with their status.",
            Answer::Object(&["object", "data"]),
        ),
        "/models/load" => {
            post(MODELS, "Load a model.", r#"{"model": "a"}"#, load::describe, Answer::Object(&["success"]))
        }
        "/models/unload" => {
            post(MODELS, "Unload a model.", r#"{"model": "a"}"#, load::describe, Answer::Object(&["success"]))
        }
        "/v1/embeddings" => post(
            TASKS,
            "Embed texts.",
            r#"{"input": ["a", "b"]}"#,
            tasks::embeddings::describe,
            Answer::Object(&["object", "data", "model", "usage"]),
        ),
        "/v1/rerank" | "/v2/rerank" => post(
            TASKS,
            "Rank documents by relevance to a query.",
            r#"{"query": "a", "documents": ["a b", "c"]}"#,
            tasks::rerank::describe,
            Answer::Object(&["id", "model", "results", "usage"]),
        ),
        "/rerank" => post(
            TASKS,
            "Rank `documents`, or `texts` as Text Embeddings Inference has it.",
            r#"{"query": "a", "documents": ["a b", "c"]}"#,
            tasks::rerank::describe,
            Answer::Either,
        ),
        "/embed" => post(
            TASKS,
            "Embed texts, as Text Embeddings Inference has it.",
            r#"{"inputs": ["a", "b"]}"#,
            tasks::tei::describe_embed,
            Answer::Array,
        ),
        "/predict" => post(
            TASKS,
            "Label texts, as Text Embeddings Inference has it.",
            r#"{"inputs": "a"}"#,
            tasks::tei::describe_predict,
            Answer::Array,
        ),
        "/info" => get(
            TASKS,
            "The first model that embeds, ranks or labels, as Text Embeddings Inference has it.",
            Answer::Object(&["model_id", "model_type"]),
        ),
        "/classify" => post(
            TASKS,
            "Label texts.",
            r#"{"input": "a"}"#,
            tasks::classify::describe,
            Answer::Object(&["model", "results"]),
        ),
        "/token-classify" => post(
            TASKS,
            "Label the entities of texts.",
            r#"{"input": "a"}"#,
            tasks::token_classify::describe,
            Answer::Object(&["model", "results"]),
        ),
        "/answer" => post(
            TASKS,
            "Find the answer to a question in a context.",
            r#"{"question": "a", "context": "a b"}"#,
            tasks::answer::describe,
            Answer::Object(&["model", "answer", "start", "end", "score"]),
        ),
        "/fill-mask" => post(
            TASKS,
            "Predict masked tokens.",
            r#"{"input": "a"}"#,
            tasks::fill_mask::describe,
            Answer::Object(&["model", "results"]),
        ),
        "/summarize" => post(
            TASKS,
            "Summarize texts.",
            r#"{"input": "a"}"#,
            tasks::summarize::describe,
            Answer::Object(&["model", "results"]),
        ),
        "/attention" => post(
            TASKS,
            "Show which token of a text attends to which, in the heads of a layer.",
            r#"{"input": "a"}"#,
            tasks::attention::describe,
            Answer::Object(&["model", "n_layers", "tokens", "target_tokens", "attention"]),
        ),
        "/translate" => post(
            TASKS,
            "Translate texts, as LibreTranslate.",
            r#"{"q": "a", "source": "auto", "target": "en"}"#,
            tasks::translate::describe,
            Answer::Object(&["translatedText"]),
        ),
        "/languages" => get(TASKS, "The languages that are translated, as LibreTranslate.", Answer::Array),
        "/v1/completions" => post(
            GENERATION,
            "Continue a text.",
            r#"{"prompt": "a", "max_tokens": 2}"#,
            completions::describe,
            Answer::Stream(&["id", "object", "created", "model", "choices", "usage"]),
        ),
        "/v1/chat/completions" => post(
            GENERATION,
            "Answer a conversation.",
            r#"{"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}"#,
            chat::describe,
            Answer::Stream(&["id", "object", "created", "model", "choices", "usage"]),
        ),
        "/v1/responses" => post(
            GENERATION,
            "Answer a conversation, as OpenAI's responses; nothing is stored.",
            r#"{"input": "a", "max_output_tokens": 2}"#,
            responses::describe,
            Answer::Stream(&["id", "object", "created_at", "model", "output", "status", "usage"]),
        ),
        "/v1/responses/input_tokens" => post(
            TOKENS,
            "The length of the prompt that a request for a response would have.",
            r#"{"input": "a"}"#,
            responses::describe,
            Answer::Object(&["object", "input_tokens"]),
        ),
        "/v1/messages" => post(
            GENERATION,
            "Answer a conversation, as Anthropic's messages.",
            r#"{"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}"#,
            messages::describe,
            Answer::Stream(&["id", "type", "role", "content", "model", "stop_reason", "usage"]),
        ),
        "/v1/messages/count_tokens" => post(
            TOKENS,
            "The length of the prompt that a message would have.",
            r#"{"messages": [{"role": "user", "content": "a"}]}"#,
            messages::describe,
            Answer::Object(&["input_tokens"]),
        ),
        "/v1/decisions" => post(
            GENERATION,
            "Answer typed questions about an input with probabilities.",
            r#"{"input": "a", "questions": [{"type": "predicate", "instructions": "a"}]}"#,
            decisions::describe,
            Answer::Object(&["answers"]),
        ),
        "/apply-template" => post(
            TOKENS,
            "The prompt that a conversation becomes.",
            r#"{"messages": [{"role": "user", "content": "a"}]}"#,
            apply_template::describe,
            Answer::Object(&["prompt"]),
        ),
        "/detokenize" => post(
            TOKENS,
            "The text of token ids.",
            r#"{"tokens": [1]}"#,
            detokenize::describe,
            Answer::Object(&["prompt", "content"]),
        ),
        "/tokenize" => post(
            TOKENS,
            "The token ids of a text.",
            r#"{"prompt": "a"}"#,
            tokenize::describe,
            Answer::Object(&["count", "max_model_len", "tokens"]),
        ),
        "/tokenizer_info" => {
            get(TOKENS, "The configuration of the tokenizer.", Answer::Object(&["eos_token"]))
        }
        _ => return None,
    })
}
