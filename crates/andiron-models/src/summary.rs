//! What a model is made of, counted without drawing or loading a weight.

use std::collections::BTreeSet;

/// Names of what is looked up or added, never multiplied with.
const LOOKED_UP: &[&str] = &[
    "encoder.embed_tokens.weight",
    "final_logits_bias",
    "wpe.weight",
    "position_embeddings.weight",
    "token_type_embeddings.weight",
    "embed_positions.weight",
    "relative_attention_bias.weight",
];

/// Names of the table of tokens, which a model with tied weights also uses as its output head.
const TOKENS: &[&str] = &[
    "wte.weight",
    "embed_tokens.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "shared.weight",
];

/// Names of an output head over the vocabulary that is a tensor of its own.
const HEADS: &[&str] = &["lm_head.weight", "embed_out.weight"];

/// Tensors whose names differ in one number only, such as the layers of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The common beginning of the names.
    pub name: String,
    /// How many numbers there are; 1 for a tensor that stands alone.
    pub repeats: usize,
    /// Tensors in all repeats together.
    pub tensors: usize,
    /// Elements in all repeats together.
    pub parameters: u64,
}

/// What a model is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its parts, in the order of the module.
    pub parts: Vec<Part>,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Elements that take part in a matrix product for every token, a tied head's included.
    pub product_parameters: u64,
}

impl Summary {
    /// Counts tensors given by name and shape; `predicts` says whether the model has an output head over its vocabulary.
    pub fn new(tensors: &[(String, Vec<usize>)], predicts: bool) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        let mut numbers: Vec<BTreeSet<String>> = Vec::new();
        for (name, shape) in tensors {
            let (stack, number) = split_at_number(name);
            let at = parts.iter().position(|part| part.name == stack).unwrap_or_else(|| {
                parts.push(Part { name: stack.to_owned(), repeats: 0, tensors: 0, parameters: 0 });
                numbers.push(BTreeSet::new());
                parts.len() - 1
            });
            numbers[at].insert(number.to_owned());
            parts[at].repeats = numbers[at].len();
            parts[at].tensors += 1;
            parts[at].parameters += elements(shape);
        }
        let own_head = tensors.iter().any(|(name, _)| ends_with_any(name, HEADS));
        let head = predicts && !own_head;
        let multiplied =
            |name: &str| !ends_with_any(name, LOOKED_UP) && (head || !ends_with_any(name, TOKENS));
        let products = tensors.iter().filter(|(name, shape)| shape.len() == 2 && multiplied(name));
        Self {
            parameters: parts.iter().map(|part| part.parameters).sum(),
            product_parameters: products.map(|(_, shape)| elements(shape)).sum(),
            parts,
        }
    }

    /// Floating-point operations of the matrix products with weights for one token, forward: a multiplication and an
    /// addition for each element. Attention adds to this in proportion to the length of the text.
    pub fn flops_per_token(&self) -> u64 {
        2 * self.product_parameters
    }
}

/// A name up to and with its first number, and that number; the whole name if there is none.
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

fn ends_with_any(name: &str, endings: &[&str]) -> bool {
    endings.iter().any(|ending| name.ends_with(ending))
}

fn elements(shape: &[usize]) -> u64 {
    shape.iter().map(|&size| size as u64).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, shape: &[usize]) -> (String, Vec<usize>) {
        (name.to_owned(), shape.to_vec())
    }

    fn tiny() -> Vec<(String, Vec<usize>)> {
        vec![
            tensor("transformer.wte.weight", &[10, 4]),
            tensor("transformer.wpe.weight", &[8, 4]),
            tensor("transformer.h.0.attn.weight", &[4, 4]),
            tensor("transformer.h.0.ln.weight", &[4]),
            tensor("transformer.h.1.attn.weight", &[4, 4]),
            tensor("transformer.h.1.ln.weight", &[4]),
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
        assert_eq!(Summary::new(&tiny(), true).product_parameters, 40 + 32);
        assert_eq!(Summary::new(&tiny(), false).product_parameters, 32);
        let mut untied = tiny();
        untied.push(tensor("lm_head.weight", &[10, 4]));
        assert_eq!(Summary::new(&untied, true).product_parameters, 40 + 32);
        assert_eq!(Summary::new(&untied, true).flops_per_token(), 144);
    }

    #[test]
    fn of_two_tables_the_targets_is_multiplied_with() {
        let tensors = [
            tensor("model.encoder.embed_tokens.weight", &[10, 4]),
            tensor("model.decoder.embed_tokens.weight", &[7, 4]),
            tensor("final_logits_bias", &[1, 7]),
        ];
        assert_eq!(Summary::new(&tensors, true).product_parameters, 28);
    }
}
