//! Which parameters decay.

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
}
