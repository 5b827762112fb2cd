//! Unsupported fields of other servers that would change the response.
//!
//! Sources: OpenAI, "Create completion", <https://platform.openai.com/docs/api-reference/completions>; vLLM, "OpenAI-compatible
//! server: extra parameters", <https://docs.vllm.ai/en/latest/serving/openai_compatible_server>, and `CompletionRequest` in
//! `vllm/entrypoints/openai/completion/protocol.py`; llama.cpp, `tools/server/README.md`, "POST /completion", and
//! `tools/server/server-schema.cpp`. Fields of theirs that are not here are supported, or change nothing about the answer
//! (`cache_prompt`, `id_slot`, `priority`, `user` …), or mean nothing without one that is here (`mirostat_tau` and
//! `xtc_threshold`; `length_penalty` without beam search), or only matter beyond the context, where no text is continued
//! (`n_keep`, `n_discard`).

use crate::http::ApiError;
use crate::http::fields::Fields;

/// Fields that are refused by name, unless they have one of these values (JSON text), which change nothing.
pub(in crate::http) type Refused = [(&'static str, &'static [&'static str])];

/// Those of every route that generates; each has more of its own.
const REFUSED: &Refused = &[
    ("suffix", &["\"\""]),
    // vLLM.
    ("use_beam_search", &["false"]),
    ("guided_grammar", &[]),
    ("structural_tag", &[]),
    ("prompt_logprobs", &[]),
    ("logprob_token_ids", &[]),
    ("prompt_embeds", &["[]"]),
    ("truncate_prompt_tokens", &[]),
    // An empty list allows nothing; vLLM refuses it too.
    ("allowed_token_ids", &[]),
    ("bad_words", &["[]"]),
    ("logits_processors", &["[]"]),
    ("include_stop_str_in_output", &["false"]),
    ("skip_special_tokens", &["true"]),
    ("return_tokens_as_token_ids", &["false"]),
    ("return_token_ids", &["false"]),
    ("guided_whitespace_pattern", &[]),
    ("vllm_xargs", &["{}"]),
    ("repetition_detection", &[]),
    ("thinking_token_budget", &["-1"]),
    // Hugging Face and text-generation-webui.
    ("max_new_tokens", &[]),
    ("num_beams", &["1"]),
    ("do_sample", &["true"]),
    ("num_return_sequences", &["1"]),
    ("guidance_scale", &["1"]),
    ("encoder_repetition_penalty", &["1"]),
    ("epsilon_cutoff", &["0"]),
    ("eta_cutoff", &["0"]),
    ("penalty_alpha", &["0"]),
    ("top_a", &["0"]),
    // llama.cpp.
    ("n_predict", &[]),
    ("n_cmpl", &["1"]),
    ("n_probs", &["0"]),
    ("n_indent", &["0"]),
    ("min_keep", &["0", "1"]),
    ("t_max_predict_ms", &["0", "-1"]),
    ("samplers", &[]),
    ("json_schema", &[]),
    ("grammar", &["\"\""]),
    ("mirostat", &["0"]),
    ("dry_multiplier", &["0"]),
    ("xtc_probability", &["0"]),
    ("dynatemp_range", &["0"]),
    // Off below 0; 0 is a target.
    ("adaptive_target", &["-1"]),
    ("reasoning_budget_tokens", &["-1"]),
    // Control tokens that are part of the text.
    ("preserved_tokens", &["[]"]),
    ("post_sampling_probs", &["false"]),
    ("return_tokens", &["false"]),
    ("response_fields", &["[]"]),
    ("lora", &["[]"]),
    // Of its older versions.
    ("tfs_z", &["1"]),
    ("penalize_nl", &["true"]),
    ("penalty_prompt", &["\"\"", "[]"]),
    ("image_data", &["[]"]),
    // Of its route for code infilling.
    ("input_prefix", &["\"\""]),
    ("input_suffix", &["\"\""]),
];

/// Checks the fields of all routes, and those of one, `refused`.
pub(in crate::http) fn check(fields: &Fields<'_>, refused: &Refused) -> Result<(), ApiError> {
    for (name, harmless) in REFUSED.iter().chain(refused) {
        if fields.raw(name).is_some_and(|raw| !harmless.iter().any(|harmless| same(raw, harmless))) {
            let hint = match *name {
                "messages" => " at this path; send `prompt`",
                "prompt" => " at this path; send `messages`",
                "functions" => "; send `tools`",
                "function_call" => "; send `tool_choice`",
                "enable_thinking" => "; send `chat_template_kwargs`",
                "max_completion_tokens" | "max_new_tokens" | "n_predict" => "; send `max_tokens`",
                "prompt_logprobs" => "; send `echo` with `logprobs`",
                "n_probs" => "; send `logprobs`",
                "num_return_sequences" | "n_cmpl" => "; send `n`",
                "do_sample" => "; send `temperature: 0`",
                "json_schema" => "; send `response_format`",
                "grammar" | "guided_grammar" => "; send `structured_outputs` with `regex` or `json`",
                _ => "",
            };
            return Err(ApiError::unsupported(name, hint));
        }
    }
    Ok(())
}

/// Whether two JSON texts are equal; numbers may be written in several ways.
fn same(raw: &str, harmless: &str) -> bool {
    let numbers = raw.parse::<f64>().ok().zip(harmless.parse::<f64>().ok());
    raw == harmless || numbers.is_some_and(|(raw, harmless)| raw == harmless)
}
