//! Tensor names and element layouts in GGUF and in Hugging Face's files.
//!
//! Source: the tables of the `gguf` Python package, and `convert_hf_to_gguf.py` of llama.cpp for its changes to
//! elements.

/// Architectures with known names; GGUF's name equals `model_type`.
pub(super) const ARCHITECTURES: &[&str] = &["bert", "gpt2", "llama", "qwen2", "qwen3"];

/// Tensor names of an architecture: GGUF's and Hugging Face's, both without `.weight` or `.bias`.
struct Table {
    /// Tensors outside the blocks.
    outer: &'static [(&'static str, &'static str)],
    /// Prefix of block names in Hugging Face's files; in GGUF it is `blk.`.
    block: &'static str,
    /// Tensors in each block.
    inner: &'static [(&'static str, &'static str)],
}

const GPT2: Table = Table {
    outer: &[
        ("token_embd", "transformer.wte"),
        ("position_embd", "transformer.wpe"),
        ("output_norm", "transformer.ln_f"),
        ("output", "lm_head"),
    ],
    block: "transformer.h.",
    inner: &[
        ("attn_norm", "ln_1"),
        ("attn_qkv", "attn.c_attn"),
        ("attn_output", "attn.c_proj"),
        ("ffn_norm", "ln_2"),
        ("ffn_up", "mlp.c_fc"),
        ("ffn_down", "mlp.c_proj"),
    ],
};

const LLAMA: Table = Table {
    outer: &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")],
    block: "model.layers.",
    inner: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ],
};

const BERT: Table = Table {
    outer: &[
        ("token_embd", "embeddings.word_embeddings"),
        ("position_embd", "embeddings.position_embeddings"),
        ("token_types", "embeddings.token_type_embeddings"),
        ("token_embd_norm", "embeddings.LayerNorm"),
    ],
    block: "encoder.layer.",
    inner: &[
        ("attn_q", "attention.self.query"),
        ("attn_k", "attention.self.key"),
        ("attn_v", "attention.self.value"),
        ("attn_output", "attention.output.dense"),
        ("attn_output_norm", "attention.output.LayerNorm"),
        ("ffn_up", "intermediate.dense"),
        ("ffn_down", "output.dense"),
        ("layer_output_norm", "output.LayerNorm"),
    ],
};

fn table(model_type: &str) -> Option<&'static Table> {
    match model_type {
        "gpt2" => Some(&GPT2),
        "llama" | "qwen2" | "qwen3" => Some(&LLAMA),
        "bert" => Some(&BERT),
        _ => None,
    }
}

/// Hugging Face's name of the tensor that GGUF calls `gguf_name`, in models of type `model_type`.
pub(super) fn hf_name(model_type: &str, gguf_name: &str) -> Option<String> {
    let table = table(model_type)?;
    let (stem, kind) = split(gguf_name)?;
    if let Some(place) = stem.strip_prefix("blk.") {
        let (number, inner) = place.split_once('.')?;
        let number: usize = number.parse().ok()?;
        let (_, theirs) = table.inner.iter().find(|(ours, _)| *ours == inner)?;
        return Some(format!("{}{number}.{theirs}.{kind}", table.block));
    }
    let (_, theirs) = table.outer.iter().find(|(ours, _)| *ours == stem)?;
    Some(format!("{theirs}.{kind}"))
}

/// GGUF's name of the tensor that Hugging Face calls `hf_name`, in models of type `model_type`.
pub(super) fn gguf_name(model_type: &str, hf_name: &str) -> Option<String> {
    let table = table(model_type)?;
    let (stem, kind) = split(hf_name)?;
    if let Some(place) = stem.strip_prefix(table.block) {
        let (number, inner) = place.split_once('.')?;
        let number: usize = number.parse().ok()?;
        let (ours, _) = table.inner.iter().find(|(_, theirs)| *theirs == inner)?;
        return Some(format!("blk.{number}.{ours}.{kind}"));
    }
    let (ours, _) = table.outer.iter().find(|(_, theirs)| *theirs == stem)?;
    Some(format!("{ours}.{kind}"))
}

fn split(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.').filter(|(_, kind)| ["weight", "bias"].contains(kind))
}

/// Layout of a GGUF tensor relative to Hugging Face's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Identical.
    Same,
    /// `[out, in]` where Hugging Face has `[in, out]`.
    Transposed,
    /// The rows of each head alternate between the two halves that RoPE pairs.
    Interleaved {
        /// Number of heads.
        n_heads: usize,
    },
}

impl Layout {
    /// The layout of the tensor that GGUF calls `gguf_name`; `n_heads`: query heads and key/value heads.
    pub(super) fn of(model_type: &str, gguf_name: &str, n_heads: [usize; 2]) -> Self {
        let Some((stem, kind)) = split(gguf_name) else { return Self::Same };
        match (model_type, stem.rsplit('.').next().unwrap_or_default(), kind) {
            ("gpt2", "attn_qkv" | "attn_output" | "ffn_up" | "ffn_down", "weight") => Self::Transposed,
            ("llama", "attn_q", _) => Self::Interleaved { n_heads: n_heads[0] },
            ("llama", "attn_k", _) => Self::Interleaved { n_heads: n_heads[1] },
            _ => Self::Same,
        }
    }

    /// Whether a tensor of this shape can have this layout.
    pub(super) fn fits(self, shape: &[usize]) -> bool {
        match self {
            Self::Same => true,
            Self::Transposed => shape.len() == 2,
            Self::Interleaved { n_heads } => {
                let pairs = n_heads.checked_mul(2).filter(|&pairs| pairs > 0);
                pairs.is_some_and(|pairs| shape.first().is_some_and(|rows| rows.is_multiple_of(pairs)))
            }
        }
    }

    /// The shape after conversion.
    pub(super) fn shape(self, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        if self == Self::Transposed {
            shape.reverse();
        }
        shape
    }

    /// Hugging Face's elements from GGUF's of shape `shape`, which [fits](Self::fits).
    pub(super) fn to_hf(self, values: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        match self {
            Self::Same => values,
            Self::Transposed => transposed(&values, shape),
            // In the file, the pair is the inner axis: `[head, pair, half]` becomes `[head, half, pair]`.
            Self::Interleaved { n_heads } => swapped(&values, n_heads, [shape[0] / n_heads / 2, 2]),
        }
    }

    /// The bytes of a matrix's rows, `[out, in]`, in Hugging Face's order.
    pub(super) fn rows_to_hf(self, rows: Vec<u8>, shape: &[usize]) -> Vec<u8> {
        match self {
            // The order of axes is the parameter's own layout.
            Self::Same | Self::Transposed => rows,
            Self::Interleaved { n_heads } => swapped(&rows, n_heads, [shape[0] / n_heads / 2, 2]),
        }
    }

    /// GGUF's elements from Hugging Face's of shape `shape`, which [fits](Self::fits).
    pub(super) fn to_gguf(self, values: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        match self {
            Self::Same => values,
            Self::Transposed => transposed(&values, shape),
            Self::Interleaved { n_heads } => swapped(&values, n_heads, [2, shape[0] / n_heads / 2]),
        }
    }
}

fn transposed(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let (rows, columns) = (shape[0], shape[1]);
    let mut out = Vec::with_capacity(values.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| values[row * columns + column]));
    }
    out
}

/// Rows `[heads, a, b]` as rows `[heads, b, a]`.
fn swapped<T: Copy>(values: &[T], n_heads: usize, [a, b]: [usize; 2]) -> Vec<T> {
    let row_len = values.len() / (n_heads * a * b);
    let mut out = Vec::with_capacity(values.len());
    for head in 0..n_heads {
        for inner in 0..b {
            for outer in 0..a {
                let row = (head * a + outer) * b + inner;
                out.extend_from_slice(&values[row * row_len..(row + 1) * row_len]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{ARCHITECTURES, Layout, gguf_name, hf_name, table};

    #[test]
    fn names_go_there_and_back() {
        for model_type in ARCHITECTURES {
            let table = table(model_type).expect("listed");
            let inner = table.inner.iter().map(|(ours, _)| format!("blk.12.{ours}.weight"));
            for name in table.outer.iter().map(|(ours, _)| format!("{ours}.bias")).chain(inner) {
                let theirs = hf_name(model_type, &name).expect("listed");
                assert_eq!(gguf_name(model_type, &theirs), Some(name));
            }
        }
        assert_eq!(
            hf_name("llama", "blk.3.attn_q.weight").as_deref(),
            Some("model.layers.3.self_attn.q_proj.weight")
        );
        for strange in ["rope_freqs.weight", "blk.x.attn_q.weight", "blk.3", "output", "blk.1.attn_q.scale"] {
            assert_eq!(hf_name("llama", strange), None, "{strange}");
        }
        assert_eq!(hf_name("mamba", "output.weight"), None);
    }

    #[test]
    fn rotary_halves_are_taken_apart() {
        let layout = Layout::of("llama", "blk.0.attn_q.bias", [2, 1]);
        let interleaved = vec![0., 2., 1., 3., 10., 12., 11., 13.];
        let halves = vec![0., 1., 2., 3., 10., 11., 12., 13.];
        assert_eq!(layout.to_hf(interleaved.clone(), &[8]), halves);
        assert_eq!(layout.to_gguf(halves, &[8]), interleaved);
        let rows = layout.to_gguf((0..24).map(|n| n as f32).collect(), &[12, 2]);
        assert_eq!(rows[..12], [0., 1., 6., 7., 2., 3., 8., 9., 4., 5., 10., 11.]);
        assert!(layout.fits(&[12, 2]) && !layout.fits(&[6]) && !layout.fits(&[]));
        assert_eq!(Layout::of("qwen2", "blk.0.attn_q.weight", [2, 1]), Layout::Same);
    }
}
