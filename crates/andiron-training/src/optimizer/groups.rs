//! Which parameters decay, and which are Muon's.

/// Whether a parameter decays, told by its Hugging Face name and its number of axes.
///
/// Matrices decay; what has one axis (biases, the gains and offsets of norms) does not. Embedding tables, tables
/// that are looked up by id, decay only if `decay_embeddings` says so: a row that does not occur in a batch would
/// shrink for nothing. They are recognised by a segment of their name that is `wte` or `wpe` or contains `embed`.
/// A tied output head is the embedding table and follows the same rule.
///
/// nanoGPT's rule, all tensors of at least two axes, is `decay_embeddings = true`.
///
/// # Example
/// ```
/// use andiron_training::optimizer::decays;
/// assert!(decays("transformer.h.0.attn.c_attn.weight", 2, false));
/// assert!(!decays("transformer.h.0.attn.c_attn.bias", 1, false));
/// assert!(!decays("transformer.wte.weight", 2, false));
/// assert!(decays("transformer.wte.weight", 2, true));
/// ```
pub fn decays(name: &str, axes: usize, decay_embeddings: bool) -> bool {
    axes >= 2 && (decay_embeddings || !is_embedding(name))
}

/// Whether Muon moves a parameter, told by its Hugging Face name and its number of axes: the matrices of the layers, which
/// map hidden states to hidden states.
///
/// A layer is recognised by its number, a segment of the name. Tables in a layer, of embeddings or of biases by distance
/// as T5 has them, are none; embeddings and heads stand outside of layers.
///
/// # Example
/// ```
/// use andiron_training::optimizer::is_hidden_matrix;
/// assert!(is_hidden_matrix("model.layers.0.mlp.up_proj.weight", 2));
/// assert!(!is_hidden_matrix("model.layers.0.input_layernorm.weight", 1));
/// assert!(!is_hidden_matrix("model.embed_tokens.weight", 2));
/// assert!(!is_hidden_matrix("lm_head.weight", 2));
/// ```
pub fn is_hidden_matrix(name: &str, axes: usize) -> bool {
    let number = |segment: &str| segment.parse::<u32>().is_ok();
    let table = is_embedding(name) || name.contains("relative_attention_bias");
    axes == 2 && !table && name.split('.').any(number)
}

fn is_embedding(name: &str) -> bool {
    name.split('.').any(|segment| matches!(segment, "wte" | "wpe") || segment.contains("embed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_matrices_that_are_no_tables_decay() {
        for (name, axes, expected) in [
            ("transformer.h.0.mlp.c_fc.weight", 2, true),
            ("transformer.h.0.mlp.c_fc.bias", 1, false),
            ("transformer.h.0.ln_1.weight", 1, false),
            ("transformer.wte.weight", 2, false),
            ("transformer.wpe.weight", 2, false),
            ("model.embed_tokens.weight", 2, false),
            ("bert.embeddings.position_embeddings.weight", 2, false),
            ("lm_head.weight", 2, true),
        ] {
            assert_eq!(decays(name, axes, false), expected, "{name}");
            assert_eq!(decays(name, axes, true), axes == 2, "{name}");
        }
    }

    #[test]
    fn only_the_matrices_of_layers_are_hidden() {
        for (name, axes, expected) in [
            ("transformer.h.0.attn.c_attn.weight", 2, true),
            ("transformer.h.11.mlp.c_proj.weight", 2, true),
            ("gpt_neox.layers.3.attention.query_key_value.weight", 2, true),
            ("bert.encoder.layer.0.attention.self.query.weight", 2, true),
            ("encoder.block.0.layer.0.SelfAttention.q.weight", 2, true),
            ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", 2, false),
            ("transformer.h.0.attn.c_attn.bias", 1, false),
            ("transformer.wte.weight", 2, false),
            ("transformer.wpe.weight", 2, false),
            ("gpt_neox.embed_in.weight", 2, false),
            ("embed_out.weight", 2, false),
            ("shared.weight", 2, false),
            ("lm_head.weight", 2, false),
            ("cls.predictions.transform.dense.weight", 2, false),
            ("score.weight", 2, false),
        ] {
            assert_eq!(is_hidden_matrix(name, axes), expected, "{name}");
        }
    }
}
