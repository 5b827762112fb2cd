//! A model's parameters by part, counted without drawing or loading a weight.

use std::collections::BTreeSet;

use andiron_core::ParamRole;

use crate::weights::ParamInfo;

/// Tensors whose names differ only in one index, such as the layers of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Common prefix of the names.
    pub name: String,
    /// Number of indices; 1 for a single tensor.
    pub repeats: usize,
    /// Tensors over all repeats.
    pub tensors: usize,
    /// Elements over all repeats.
    pub parameters: u64,
}

/// A model's parameters by part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The parts, in module order.
    pub parts: Vec<Part>,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Elements of the matrices that every token is multiplied with, a tied head's included.
    pub matmul_parameters: u64,
}

impl Summary {
    /// Counts parameters; `predicts` tells whether the model has an output head over its vocabulary.
    pub fn new(tensors: &[ParamInfo], predicts: bool) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        let mut numbers: Vec<BTreeSet<String>> = Vec::new();
        for tensor in tensors {
            let (stack, number) = split_at_number(&tensor.name);
            let at = parts.iter().position(|part| part.name == stack).unwrap_or_else(|| {
                parts.push(Part { name: stack.to_owned(), repeats: 0, tensors: 0, parameters: 0 });
                numbers.push(BTreeSet::new());
                parts.len() - 1
            });
            numbers[at].insert(number.to_owned());
            parts[at].repeats = numbers[at].len();
            parts[at].tensors += 1;
            parts[at].parameters += tensor.elements();
        }
        let is_head = |role| matches!(role, ParamRole::Head | ParamRole::OutputEmbedding);
        let tied = predicts && !tensors.iter().any(|tensor| is_head(tensor.role));
        let multiplied = |role| match role {
            ParamRole::Matrix | ParamRole::Adapter => true,
            ParamRole::Embedding => tied,
            role => is_head(role),
        };
        let matrices = tensors.iter().filter(|tensor| multiplied(tensor.role));
        Self {
            parameters: parts.iter().map(|part| part.parameters).sum(),
            matmul_parameters: matrices.map(ParamInfo::elements).sum(),
            parts,
        }
    }

    /// Floating-point operations of the forward pass for one token: one multiplication and one addition per matrix
    /// element. Attention adds to this in proportion to the sequence length.
    pub fn flops_per_token(&self) -> u64 {
        2 * self.matmul_parameters
    }
}

/// Splits a name after its first index, and returns that index; the whole name if there is none.
fn split_at_number(name: &str) -> (&str, &str) {
    let mut start = 0;
    for segment in name.split('.') {
        if segment.bytes().all(|byte| byte.is_ascii_digit()) && !segment.is_empty() {
            return (&name[..start.max(1) - 1], segment);
        }
        start += segment.len() + 1;
    }
    (name, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, shape: &[usize], role: ParamRole) -> ParamInfo {
        ParamInfo { name: name.to_owned(), shape: shape.to_vec(), role, weight: None, in_block: false }
    }

    fn tiny() -> Vec<ParamInfo> {
        vec![
            tensor("transformer.wte.weight", &[10, 4], ParamRole::Embedding),
            tensor("transformer.wpe.weight", &[8, 4], ParamRole::Table),
            tensor("transformer.h.0.attn.weight", &[4, 4], ParamRole::Matrix),
            tensor("transformer.h.0.ln.weight", &[4], ParamRole::Norm),
            tensor("transformer.h.1.attn.weight", &[4, 4], ParamRole::Matrix),
            tensor("transformer.h.1.ln.weight", &[4], ParamRole::Norm),
        ]
    }

    #[test]
    fn layers_of_a_stack_are_one_part() {
        let summary = Summary::new(&tiny(), true);
        let part = Part { name: "transformer.h".to_owned(), repeats: 2, tensors: 4, parameters: 40 };
        assert_eq!(summary.parts.len(), 3);
        assert_eq!(summary.parts[2], part);
        assert_eq!(summary.parameters, 40 + 32 + 40);
    }

    #[test]
    fn a_tied_table_is_multiplied_with_and_positions_are_not() {
        assert_eq!(Summary::new(&tiny(), true).matmul_parameters, 40 + 32);
        assert_eq!(Summary::new(&tiny(), false).matmul_parameters, 32);
        let mut untied = tiny();
        untied.push(tensor("lm_head.weight", &[10, 4], ParamRole::Head));
        assert_eq!(Summary::new(&untied, true).matmul_parameters, 40 + 32);
        assert_eq!(Summary::new(&untied, true).flops_per_token(), 144);
    }

    #[test]
    fn of_two_tables_the_targets_is_multiplied_with() {
        let tensors = [
            tensor("model.encoder.embed_tokens.weight", &[10, 4], ParamRole::SourceEmbedding),
            tensor("model.decoder.embed_tokens.weight", &[7, 4], ParamRole::Embedding),
            tensor("final_logits_bias", &[1, 7], ParamRole::Bias),
        ];
        assert_eq!(Summary::new(&tensors, true).matmul_parameters, 28);
    }
}
