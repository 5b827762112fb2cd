//! How deep in its stack of blocks a parameter is, for learning rates that decay from layer to layer.

use super::ParamInfo;

/// The place of a parameter in its stack of blocks. An encoder-decoder has two stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Before the blocks: embeddings, and what is applied to them.
    Input {
        /// Blocks of the stack; of the deepest one if the parameter belongs to several stacks.
        blocks: usize,
    },
    /// In a block.
    Block {
        /// Index of the block, from 0.
        index: usize,
        /// Blocks of the stack.
        blocks: usize,
    },
    /// After the blocks: final norm, pooler, head.
    Output,
}

impl Depth {
    /// Number of layers between the parameter and the output of its stack: 0 for what is after the blocks, 1 for the last block,
    /// one more than there are blocks for embeddings.
    pub fn layers_above(self) -> usize {
        match self {
            Self::Input { blocks } => blocks + 1,
            Self::Block { index, blocks } => blocks - index,
            Self::Output => 0,
        }
    }
}

/// A stack of blocks.
struct Stack<'a> {
    /// Path of its list of blocks.
    path: &'a str,
    blocks: usize,
    /// The place of its first parameter in the order of the module.
    start: usize,
}

impl Stack<'_> {
    /// Whether `name` is a parameter of the module that holds the list of blocks.
    fn is_beside(&self, name: &str) -> bool {
        let module = self.path.rsplit_once('.').map_or("", |(module, _)| module);
        name.strip_prefix(module).is_some_and(|rest| module.is_empty() || rest.starts_with('.'))
    }
}

/// The depth of each parameter, given *all* parameters of a model in the order of the module.
pub fn depths(parameters: &[ParamInfo]) -> Vec<Depth> {
    let mut stacks: Vec<Stack<'_>> = Vec::new();
    for (start, parameter) in parameters.iter().enumerate() {
        let Some((path, index)) = block_of(parameter) else { continue };
        match stacks.iter_mut().find(|stack| stack.path == path) {
            Some(stack) => stack.blocks = stack.blocks.max(index + 1),
            None => stacks.push(Stack { path, blocks: index + 1, start }),
        }
    }
    let deepest = stacks.iter().map(|stack| stack.blocks).max().unwrap_or(0);
    let depth = |(at, parameter): (usize, &ParamInfo)| {
        if let Some((path, index)) = block_of(parameter) {
            let blocks =
                stacks.iter().find(|stack| stack.path == path).map_or(index + 1, |stack| stack.blocks);
            return Depth::Block { index, blocks };
        }
        match stacks.iter().position(|stack| stack.start > at) {
            None => Depth::Output,
            Some(next) if stacks[next].is_beside(&parameter.name) => {
                Depth::Input { blocks: stacks[next].blocks }
            }
            Some(0) => Depth::Input { blocks: deepest },
            // Between two stacks, and not of the second: the end of the first.
            Some(_) => Depth::Output,
        }
    };
    parameters.iter().enumerate().map(depth).collect()
}

/// The path of the list that holds the block of a parameter, and the index of the block.
fn block_of(parameter: &ParamInfo) -> Option<(&str, usize)> {
    if !parameter.in_block {
        return None;
    }
    let mut start = 0;
    for segment in parameter.name.split('.') {
        if let Ok(index) = segment.parse() {
            return Some((parameter.name[..start].trim_end_matches('.'), index));
        }
        start += segment.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use andiron_core::ParamRole;

    use super::*;

    #[track_caller]
    fn check(parameters: &[(&str, usize)]) {
        let info = |(name, _): &(&str, usize)| ParamInfo {
            name: (*name).to_owned(),
            shape: vec![2],
            role: ParamRole::Bias,
            weight: None,
            in_block: name.contains("layer"),
        };
        let infos: Vec<_> = parameters.iter().map(info).collect();
        for (depth, (name, above)) in depths(&infos).into_iter().zip(parameters) {
            assert_eq!(depth.layers_above(), *above, "{name}");
        }
    }

    #[test]
    fn depth_is_counted_from_the_output() {
        check(&[("wte.weight", 3), ("layer.0.a.1.weight", 2), ("layer.1.a.0.weight", 1), ("ln_f.weight", 0)]);
        check(&[("model.wte", 2), ("model.layers.0.weight.lora_a", 1), ("score", 0)]);
        // A model without blocks is a head.
        check(&[("one.weight", 0), ("two.weight", 0)]);
        check(&[]);
    }

    #[test]
    fn each_stack_of_an_encoder_decoder_is_counted_by_itself() {
        check(&[
            ("shared", 4),
            ("encoder.positions", 3),
            ("encoder.layer.0.fc", 2),
            ("encoder.layer.1.fc", 1),
            ("encoder.norm", 0),
            ("decoder.positions", 4),
            ("decoder.layer.0.fc", 3),
            ("decoder.layer.1.fc", 2),
            ("decoder.layer.2.fc", 1),
            ("decoder.norm", 0),
            ("head", 0),
        ]);
    }
}
