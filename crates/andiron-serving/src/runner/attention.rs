//! The attention of texts.

use andiron_pipelines::Pipeline;

use super::task::{Output, Task, TaskError};
use super::{ModelShape, OneShotModel};
use crate::engine::ModelSizes;
use crate::registry::Capability;

/// Shows the attention of texts in a model of any family, on a thread of its own. It shares the weights with what answers the
/// model's other requests.
#[derive(Clone, Debug)]
pub struct AttentionView {
    pipeline: Pipeline,
}

impl AttentionView {
    /// A view of this model.
    pub fn new(pipeline: Pipeline) -> Self {
        Self { pipeline }
    }
}

impl OneShotModel for AttentionView {
    fn can(&self) -> Vec<Capability> {
        vec![Capability::Attention]
    }

    fn sizes(&self) -> ModelSizes {
        let sizes = self.pipeline.bundle.sizes();
        ModelSizes { vocab_size: sizes.vocab_size, context_len: sizes.max_positions }
    }

    fn shape(&self) -> ModelShape {
        ModelShape::default()
    }

    fn run(&self, tasks: &[&Task], _waits: &dyn Fn(usize) -> bool) -> Vec<Result<Output, TaskError>> {
        let show = |task: &&Task| match task {
            Task::Attention(request) => Ok(Output::Attention(self.pipeline.attention(request)?)),
            _ => Err(TaskError::Unable),
        };
        tasks.iter().map(show).collect()
    }
}
