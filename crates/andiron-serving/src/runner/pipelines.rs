//! The pipelines as one-shot models.

use andiron_models::RunPrecision;
use andiron_models::encoder::{EmbedPipeline, EmbedStage, EncoderHead, Pooling};
use andiron_pipelines::{
    Classification, ClassifierPipeline, ClassifyTexts, EncoderPipeline, InputError, LabelledText, MaskedText,
    Pipeline, Question, RewriteOptions, Seq2SeqPipeline, TextInput,
};

use super::task::{Output, Task, TaskError, TextEntities, TextEntity, TextLabels};
use super::{ModelShape, OneShotModel};
use crate::engine::ModelSizes;
use crate::registry::Capability;

type Results = Vec<Result<Output, TaskError>>;

impl OneShotModel for EncoderPipeline {
    fn can(&self) -> Vec<Capability> {
        let embeds = [Capability::Embed, Capability::Rerank];
        let labels = self.bundle.config.labels().len();
        let mut can = match self.bundle.config.head() {
            EncoderHead::None => return embeds.to_vec(),
            EncoderHead::MaskedLm => vec![Capability::FillMask],
            EncoderHead::Classify { .. } if labels == 1 => vec![Capability::Rerank, Capability::Classify],
            EncoderHead::Classify { .. } => vec![Capability::Classify],
            EncoderHead::TokenClassify => vec![Capability::TokenClassify],
            EncoderHead::Span => vec![Capability::Answer],
        };
        // A head beside the files of an embedding pipeline.
        if self.bundle.embedding.is_some() && !can.contains(&Capability::Rerank) {
            can.extend(embeds);
        }
        can
    }

    fn sizes(&self) -> ModelSizes {
        let (config, can) = (&self.bundle.config, self.can());
        let context_len = match can.first() {
            Some(Capability::Embed | Capability::Rerank) => self.embed_limit(),
            _ => config.max_positions(),
        };
        ModelSizes { vocab_size: config.vocab_size(), context_len }
    }

    fn shape(&self) -> ModelShape {
        let usual = EmbedPipeline::default();
        let pipeline = self.bundle.embedding.as_ref().unwrap_or(&usual);
        ModelShape {
            labels: self.bundle.config.labels().to_vec(),
            width: pipeline.width(self.bundle.config.d_model()),
            normalizes: pipeline.normalize || pipeline.stages.last() == Some(&EmbedStage::Normalize),
            pooling: match pipeline.pooling {
                Pooling::Cls => "cls",
                Pooling::Mean => "mean",
                Pooling::Last => "lasttoken",
                Pooling::Max => "max",
            },
            dtype: dtype(self.bundle.precision()),
        }
    }

    fn run(&self, tasks: &[&Task], _waits: &dyn Fn(usize) -> bool) -> Results {
        match tasks.first() {
            Some(Task::Embed(_)) => {
                let inputs: Vec<&TextInput> = all(tasks, |task| match task {
                    Task::Embed(input) => Some(input),
                    _ => None,
                });
                let found = self.embed(&inputs).into_iter();
                found.map(|embedding| Ok(Output::Embedding(embedding?))).collect()
            }
            Some(Task::Classify(_)) => classify(self, tasks),
            Some(Task::TokenClassify(_)) => {
                let inputs: Vec<&TextInput> = all(tasks, |task| match task {
                    Task::TokenClassify(input) => Some(input),
                    _ => None,
                });
                self.label(&inputs).into_iter().map(entities).collect()
            }
            Some(&&Task::Answer(_, max_tokens)) => {
                let questions: Vec<&Question> = all(tasks, |task| match task {
                    Task::Answer(question, _) => Some(question),
                    _ => None,
                });
                let found = self.answer(&questions, max_tokens).into_iter();
                found.map(|answer| Ok(Output::Answer(answer?))).collect()
            }
            Some(&&Task::FillMask(_, top)) => {
                let texts: Vec<&MaskedText> = all(tasks, |task| match task {
                    Task::FillMask(text, _) => Some(text),
                    _ => None,
                });
                self.fill(&texts, top).into_iter().map(|masks| Ok(Output::Masks(masks?))).collect()
            }
            // The documents of a request are a batch.
            Some(Task::Rerank(_)) => each(tasks, |task| match task {
                Task::Rerank(request) => Ok(Output::Ranking(self.rerank(request)?)),
                _ => Err(TaskError::Unable),
            }),
            _ => each(tasks, |_| Err(TaskError::Unable)),
        }
    }
}

impl OneShotModel for ClassifierPipeline {
    fn can(&self) -> Vec<Capability> {
        vec![Capability::Classify]
    }

    fn sizes(&self) -> ModelSizes {
        let sizes = self.bundle.config.sizes();
        ModelSizes { vocab_size: sizes.vocab_size, context_len: sizes.max_positions }
    }

    fn shape(&self) -> ModelShape {
        let labels = self.bundle.config.labels().to_vec();
        ModelShape { labels, dtype: dtype(self.bundle.precision()), ..ModelShape::default() }
    }

    fn run(&self, tasks: &[&Task], _waits: &dyn Fn(usize) -> bool) -> Results {
        match tasks.first() {
            Some(Task::Classify(_)) => classify(self, tasks),
            _ => each(tasks, |_| Err(TaskError::Unable)),
        }
    }
}

/// Beam search of an encoder-decoder, one source after another.
impl OneShotModel for Seq2SeqPipeline {
    fn can(&self) -> Vec<Capability> {
        let both = vec![Capability::Translate, Capability::Summarize];
        match self.bundle.config.model_type() {
            "marian" => vec![Capability::Translate],
            _ => both,
        }
    }

    fn sizes(&self) -> ModelSizes {
        let config = &self.bundle.config;
        ModelSizes { vocab_size: config.vocab_size(), context_len: config.max_positions() }
    }

    fn shape(&self) -> ModelShape {
        ModelShape { dtype: dtype(self.bundle.precision()), ..ModelShape::default() }
    }

    fn run(&self, tasks: &[&Task], waits: &dyn Fn(usize) -> bool) -> Results {
        let search = |(index, task): (usize, &&Task)| match task {
            Task::Search(source, options) => {
                let RewriteOptions { beams, prefix, .. } = options;
                Ok(Output::Targets(self.alternatives(source, prefix, beams, || waits(index))?))
            }
            _ => Err(TaskError::Unable),
        };
        tasks.iter().enumerate().map(search).collect()
    }
}

/// The element type of weights, as PyTorch names it.
fn dtype(precision: RunPrecision) -> &'static str {
    match precision {
        RunPrecision::F32 | RunPrecision::Mixed => "float32",
        RunPrecision::Bf16 => "bfloat16",
        RunPrecision::Int8 => "int8",
        RunPrecision::Int4 => "int4",
    }
}

fn classify<B: ClassifyTexts>(model: &Pipeline<B>, tasks: &[&Task]) -> Results {
    let inputs: Vec<&TextInput> = all(tasks, |task| match task {
        Task::Classify(input) => Some(input),
        _ => None,
    });
    let labels = |found: Result<Classification<'_>, InputError>| {
        let Classification { labels, tokens, truncated } = found?;
        let labels = labels.into_iter().map(|found| (found.label.to_owned(), found.score)).collect();
        Ok(Output::Labels(TextLabels { labels, tokens, truncated }))
    };
    model.classify(&inputs).into_iter().map(labels).collect()
}

fn entities(found: Result<LabelledText<'_>, InputError>) -> Result<Output, TaskError> {
    let LabelledText { entities, tokens, truncated } = found?;
    let entities = entities.into_iter().map(|entity| TextEntity {
        label: entity.label.to_owned(),
        span: entity.span,
        text: entity.text,
        score: entity.score,
    });
    Ok(Output::Entities(TextEntities { entities: entities.collect(), tokens, truncated }))
}

/// What `of` finds in each task, all of which are of one kind.
fn all<'a, T>(tasks: &[&'a Task], of: impl Fn(&'a Task) -> Option<&'a T>) -> Vec<&'a T> {
    tasks.iter().filter_map(|task| of(task)).collect()
}

fn each(tasks: &[&Task], run: impl Fn(&Task) -> Result<Output, TaskError>) -> Results {
    tasks.iter().map(|task| run(task)).collect()
}
