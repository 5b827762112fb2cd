//! Training objectives: one file each, and a row in the table at the end of this one.
//!
//! An objective turns a model and a batch into a loss. It knows the family that it trains, says where padding is, opens its
//! data, gives the model the head that it needs, and validates. The trainer knows none of this.

mod answer;
mod causal;
mod chat;
mod classify;
mod contrastive;
mod denoise;
mod masked;
mod pairs;
mod pass;
mod preference;
mod rerank;
mod restore;
mod seq2seq;
mod span_corruption;
mod token_classify;
mod tokens;
mod weighted_text;

use std::fmt::Debug;

use andiron_data::batch::HostBatch;
use andiron_models::FamilyConfig;
use burn::tensor::Tensor;

use crate::observe::ConfusionMatrix;
use crate::plan::{Plan, Setup};
use crate::trainer::TrainError;

pub use answer::{Answer, AnswerConfig, AnswerTally};
pub use causal::{Causal, CausalConfig, CausalRows};
pub use chat::{Chat, ChatConfig, ChatRows, Learn};
pub use classify::{Classify, ClassifyConfig, ClassifyTally, TextClassifier};
pub use contrastive::{Contrastive, ContrastiveConfig, ContrastiveTally, ScoredLoss};
pub use denoise::{Denoise, DenoiseConfig};
pub use masked::{Masked, MaskedConfig};
pub use pass::{Pass, WeightedTargets};
pub use preference::{Preference, PreferenceConfig, PreferenceTally};
pub use rerank::{Rerank, RerankConfig, RerankTally};
pub use restore::Restore;
pub use seq2seq::{Scoring, Seq2Seq, Seq2SeqObjectiveConfig, Seq2SeqTally};
pub use span_corruption::{SpanCorruption, SpanCorruptionConfig};
pub use token_classify::{TokenClassify, TokenClassifyConfig, TokenClassifyTally};
pub use tokens::token_metrics;

/// The model that an objective trains.
pub type ModelOf<O> = <<O as Objective>::Family as FamilyConfig>::Model;

/// A training objective.
pub trait Objective: Debug {
    /// The family that it trains.
    type Family: FamilyConfig;

    /// What [`measure`](Self::measure) collects over the validation data, besides the loss.
    type Tally: Default;

    /// What is counted as a target, in the plural.
    const UNIT: &'static str;

    /// The sum of the losses of a batch's targets, each multiplied by its weight and by [`Pass::scale`].
    ///
    /// The caller chooses the scale so that the losses of all micro-batches of a step add up to the mean over the step's
    /// targets, however many each of them has.
    ///
    /// # Shape
    /// `[1]`.
    fn loss(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1>;

    /// What the sum of a batch's losses is divided by to be a mean.
    fn weight(&self, batch: &HostBatch) -> f64 {
        batch.weight()
    }

    /// Whether the loss of a row depends on the other rows of its batch, so that processes that share a step must not divide
    /// one.
    fn compares_rows(&self) -> bool {
        false
    }

    /// The loss of a batch of the validation data; what [`metrics`](Self::metrics) needs is added to `tally`.
    ///
    /// # Shape
    /// `[1]`.
    fn measure(
        &self,
        model: &ModelOf<Self>,
        batch: &HostBatch,
        pass: &Pass<'_>,
        tally: &mut Self::Tally,
    ) -> Tensor<1> {
        let _ = tally;
        self.loss(model, batch, pass)
    }

    /// The metrics of the validation data.
    fn metrics(&self, measured: &Measured, tally: &Self::Tally) -> Metrics;
}

/// Sums over the validation data.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Mean loss of a target.
    pub loss: f64,
    /// Number of targets.
    pub n_targets: u64,
    /// Bytes of text that a target stands for, if the data knows.
    pub bytes_per_target: Option<f64>,
}

/// Metrics by name, and a confusion matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Values by name.
    pub values: Vec<(String, f64)>,
    /// For a classification.
    pub confusion: Option<ConfusionMatrix>,
}

/// An objective that a configuration can ask for.
pub trait FromConfig: Objective + Sized {
    /// Its options: the `[objective]` table.
    type Config;

    /// Opens the data and prepares the model.
    ///
    /// # Errors
    /// If the data cannot be used, or the model does not fit it.
    fn plan(config: &Self::Config, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError>;
}

/// Declares [`ObjectiveConfig`] and how a run finds its objective: by kind, and by the family of its model.
macro_rules! objectives {
    ($($(#[$doc:meta])* $variant:ident, $kind:literal, $config:ty { $($family:ident => $objective:ty),+ };)+) => {
        /// The objective of a run and its options.
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "kind")]
        pub enum ObjectiveConfig {
            $($(#[$doc])* #[serde(rename = $kind)] $variant($config),)+
        }

        impl ObjectiveConfig {
            /// The kinds that are implemented.
            pub const KINDS: &[&str] = &[$($kind),+];

            /// Its name.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $kind,)+ }
            }

            /// The kinds for models of a family.
            pub fn kinds_for(family: andiron_models::Family) -> Vec<&'static str> {
                let all = [$(($kind, &[$(andiron_models::Family::$family),+] as &[andiron_models::Family])),+];
                all.into_iter().filter(|(_, families)| families.contains(&family)).map(|(kind, _)| kind).collect()
            }
        }

        /// Plans the run of `setup` by its objective and hands the plan to `user`.
        pub(crate) fn with_plan<U: crate::plan::PlanUser>(
            setup: &Setup<'_>,
            user: U,
        ) -> Result<U::Output, TrainError> {
            let family = setup.base.family();
            match (setup.objective()?, family) {
                $($((ObjectiveConfig::$variant(config), andiron_models::Family::$family) => {
                    user.with(<$objective as FromConfig>::plan(&config, setup)?)
                })+)+
                (config, family) => Err(TrainError::Family {
                    kind: config.kind(),
                    model: setup.base.name(),
                    family,
                    fitting: ObjectiveConfig::kinds_for(family).join(", "),
                }),
            }
        }
    };
}

objectives! {
    /// Next-token prediction.
    Causal, "causal", CausalConfig { Decoder => Causal };
    /// Supervised fine-tuning on conversations, instructions and completions.
    Chat, "chat", ChatConfig { Decoder => Chat };
    /// Direct preference optimization on pairs of answers.
    Preference, "preference", PreferenceConfig { Decoder => Preference };
    /// Prediction of masked tokens.
    Masked, "masked", MaskedConfig { Encoder => Masked };
    /// Prediction of each target token from the source and the target tokens before it.
    Seq2Seq, "seq2seq", Seq2SeqObjectiveConfig { EncoderDecoder => Seq2Seq };
    /// Prediction of removed spans of a text, as T5 is pretrained.
    SpanCorruption, "span-corruption", SpanCorruptionConfig { EncoderDecoder => SpanCorruption };
    /// Prediction of a text from the same text damaged, as BART is pretrained.
    Denoise, "denoise", DenoiseConfig { EncoderDecoder => Denoise };
    /// Labels of texts: classes, or numbers to regress to.
    Classify, "classify", ClassifyConfig {
        Encoder => Classify<andiron_models::EncoderConfig>,
        Decoder => Classify<andiron_models::ClassifierConfig>
    };
    /// Labels of tokens, such as named entities.
    TokenClassify, "token-classify", TokenClassifyConfig { Encoder => TokenClassify };
    /// Answers to questions, as spans of a text.
    Answer, "answer", AnswerConfig { Encoder => Answer };
    /// Embeddings of texts that belong together or not.
    Contrastive, "contrastive", ContrastiveConfig { Encoder => Contrastive };
    /// Relevance of one text for another, read together.
    Rerank, "rerank", RerankConfig { Encoder => Rerank };
}

#[cfg(test)]
mod tests;
