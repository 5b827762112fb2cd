//! Errors of a run.

use std::path::PathBuf;

use andiron_data::loader::LoaderError;
use andiron_data::rows::{Origin, RowsError};
use andiron_data::shard::DatasetError;
use andiron_data::tokenizer::TokenizerError;
use andiron_models::weights::LoadError;
use andiron_models::weights::gguf::GgufError;
use andiron_models::{AdapterError, Family};

use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;
use crate::files::FileError;
use crate::optimizer::{GroupError, OptimizerError};
use crate::state::StateError;

/// Why a run cannot begin or continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A parameter group does not fit the model.
    #[error(transparent)]
    Groups(#[from] GroupError),
    /// The data cannot be opened.
    #[error("the data cannot be used")]
    Data {
        /// The cause; names the file.
        source: Box<DatasetError>,
    },
    /// The vocabulary of the data is larger than the model's.
    #[error(
        "{} has a vocabulary of {data} tokens, the model one of {model}: set model.vocab_size to at least {data}",
        path.display()
    )]
    Vocabulary {
        /// The dataset.
        path: PathBuf,
        /// Its vocabulary.
        data: usize,
        /// The model's.
        model: usize,
    },
    /// There is nothing to measure.
    #[error("there is no validation data: set data.valid")]
    NoValidation,
    /// The data of a run are rows, which are no documents.
    #[error("{} holds rows; the documents behind a step are known where the data are shards of `prepare`", path.display())]
    NoDocuments {
        /// The data.
        path: PathBuf,
    },
    /// The run has fewer steps.
    #[error("step {step} is none of the run, which has {steps}")]
    NoStep {
        /// The step.
        step: u64,
        /// Steps of the run.
        steps: u64,
    },
    /// The model has not been trained for the objective.
    #[error("{model} has no head for this objective: train it first, with `andiron finetune`")]
    NoHead {
        /// The model.
        model: String,
    },
    /// The training data cannot be cut into sequences.
    #[error("{} cannot be trained on", path.display())]
    Loader {
        /// The dataset.
        path: PathBuf,
        /// The cause.
        source: LoaderError,
    },
    /// The threads that make batches cannot be started.
    #[error("the threads that make batches cannot be started; set data.workers = 0")]
    Workers {
        /// The cause.
        source: std::io::Error,
    },
    /// The validation data cannot be cut into sequences.
    #[error("{} cannot be used for validation", path.display())]
    Evaluate {
        /// The dataset.
        path: PathBuf,
        /// The cause.
        source: LoaderError,
    },
    /// The model to begin with cannot be opened.
    #[error("cannot begin with the model in {}", path.display())]
    Init {
        /// Its directory.
        path: PathBuf,
        /// The cause; names the file.
        source: Box<LoadError>,
    },
    /// The adapter cannot be added to the model.
    #[error("the adapter table does not fit the model")]
    Adapter {
        /// The cause; names the key.
        source: Box<AdapterError>,
    },
    /// The adapter to measure cannot be opened, or is not one of the model.
    #[error("cannot use the adapter {}", path.display())]
    AdapterFiles {
        /// Its directory.
        path: PathBuf,
        /// The cause.
        source: Box<AdapterError>,
    },
    /// The objective trains models of other families.
    #[error("the objective {kind} does not train {model}, which is of the family {family}: choose {fitting}")]
    Family {
        /// The objective.
        kind: &'static str,
        /// The model.
        model: String,
        /// Its family.
        family: Family,
        /// The objectives for that family.
        fitting: String,
    },
    /// The model to begin with has not the parts that the objective trains.
    #[error("{model} is a {class}: this objective trains {wanted}")]
    Unfit {
        /// The model.
        model: String,
        /// Hugging Face's class of it.
        class: &'static str,
        /// What is needed.
        wanted: &'static str,
    },
    /// A directory stands where rows are read.
    #[error("{} is a directory; the training data is a file of rows, and so must the validation data be", path.display())]
    NotRows {
        /// The directory.
        path: PathBuf,
    },
    /// A file stands where the objective reads shards.
    #[error("{} is a file; this objective reads token streams: `prepare` makes them of it", path.display())]
    NotShards {
        /// The file.
        path: PathBuf,
    },
    /// A directory has no datasets in it.
    #[error("{} has no directory `train`: give the directory that `prepare` wrote", path.display())]
    NotPrepared {
        /// The directory.
        path: PathBuf,
    },
    /// The rows cannot be read.
    #[error(transparent)]
    Rows {
        /// The cause; names file and line.
        source: Box<RowsError>,
    },
    /// The data have no rows.
    #[error("{} has no rows to learn from", path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// The first row has no fields that fit the objective.
    #[error("{}: the first row has {found}, but this objective reads {wanted}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The fields of the row.
        found: String,
        /// What is needed.
        wanted: &'static str,
    },
    /// The tokenizer cannot be used.
    #[error("the tokenizer in {} cannot be used", path.display())]
    Tokenizer {
        /// Its directory.
        path: PathBuf,
        /// The cause.
        source: Box<TokenizerError>,
    },
    /// The tokenizer in a GGUF file cannot be used.
    #[error("the tokenizer in {} cannot be used", path.display())]
    GgufTokenizer {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<GgufError>,
    },
    /// The run was asked to stop before its first step, while rows were encoded.
    #[error("stopped before the first step, while the rows were read")]
    Stopped,
    /// A row cannot be tokenized.
    #[error("{origin}: the row cannot be tokenized")]
    Tokenize {
        /// Where the row is.
        origin: Box<Origin>,
        /// The cause.
        source: Box<TokenizerError>,
    },
    /// Documents are to be rearranged, and the tokens for it are missing.
    #[error(
        "the tokenizer in {} lacks {tokens}, which mark the parts of a document to fill in the middle of: use a tokenizer \
         that has them, or set objective.fim_rate = 0",
        path.display()
    )]
    MiddleTokens {
        /// Its directory.
        path: PathBuf,
        /// Those that are missing.
        tokens: String,
    },
    /// Rows are conversations, and there is no template to write them with.
    #[error(
        "the tokenizer in {} has no chat template, which messages are written with: begin with a model made for chat, put a \
         chat_template.jinja there, or give rows of texts, such as \"prompt\" and \"completion\"",
        path.display()
    )]
    NoChatTemplate {
        /// Its directory.
        path: PathBuf,
    },
    /// The tokenizer has tokens that the model does not know.
    #[error(
        "{origin}: the tokenizer gives the id {id}, the model has {vocab_size}: they do not belong together"
    )]
    TokenId {
        /// Where the row is.
        origin: Box<Origin>,
        /// The id.
        id: u32,
        /// The vocabulary size of the model.
        vocab_size: usize,
    },
    /// Another process is using the run's directory.
    #[error("{} is in use by another process: wait for it, or choose another run.output", path.display())]
    Busy {
        /// The run's directory.
        path: PathBuf,
    },
    /// A checkpoint was made with another configuration.
    #[error(
        "{} was made with {field} = {before}, the configuration now says {now}: set it back, or choose another \
         run.output",
        path.display()
    )]
    Mismatch {
        /// The checkpoint.
        path: PathBuf,
        /// The first field that differs.
        field: String,
        /// Its value in the checkpoint, as JSON.
        before: String,
        /// Its value now, as JSON.
        now: String,
    },
    /// An intact checkpoint cannot be loaded.
    #[error(
        "checkpoint {} cannot be loaded; nothing was changed: mend the cause, or move it away to go on from an older \
         one",
        path.display()
    )]
    Load {
        /// The checkpoint.
        path: PathBuf,
        /// The cause; names the file.
        source: Box<StateError>,
    },
    /// Checkpoints cannot be listed or used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file of the run cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process of the run failed, which says why.
    #[error("process {rank} of the run failed")]
    Elsewhere {
        /// Its rank.
        rank: usize,
    },
    /// A step has fewer rows than there are processes.
    #[error(
        "a step has {rows} rows, which {size} processes cannot share: start fewer, or raise data.rows or run.accumulate"
    )]
    FewRows {
        /// Rows of a step.
        rows: u64,
        /// Number of processes.
        size: usize,
    },
    /// A step has fewer batches than there are processes, and the objective compares the rows of a batch.
    #[error(
        "this objective compares the rows of a batch with each other, so that {size} processes need a batch each, and a step \
         has {batches}: start fewer, or set run.accumulate to a multiple of {size}"
    )]
    FewBatches {
        /// Batches of a step.
        batches: u64,
        /// Number of processes.
        size: usize,
    },
    /// A checkpoint that the first process has loaded is not there for another one.
    #[error(
        "process {rank} has no intact checkpoint of step {step} in {}: all processes need the same files, as on a shared file system",
        path.display()
    )]
    NotShared {
        /// The process.
        rank: usize,
        /// The step.
        step: u64,
        /// The run.
        path: PathBuf,
    },
    /// The loss stays non-finite after the maximum number of rollbacks.
    #[error(
        "training diverged at step {step} after {rollbacks} rollbacks: lower optimizer.lr, lengthen \
         optimizer.warmup_steps or look at the data"
    )]
    Diverged {
        /// The last attempted step.
        step: u64,
        /// Number of rollbacks.
        rollbacks: u32,
    },
    /// The final model cannot be written.
    #[error("the final model cannot be written; the last checkpoint holds it")]
    Export {
        /// The cause.
        source: SaveError,
    },
}

/// Why a checkpoint or a model was not saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The directory cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model cannot be written.
    #[error("the model cannot be written")]
    Model {
        /// The cause; names the file.
        source: Box<andiron_models::weights::SaveError>,
    },
    /// The adapter cannot be written.
    #[error("the adapter cannot be written")]
    Adapter {
        /// The cause; names the file.
        source: Box<AdapterError>,
    },
    /// The optimizer's state cannot be written.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
    /// A weight is infinite or NaN, so the state would be useless.
    #[error("a weight is not finite")]
    NotFinite,
}

impl From<AdapterError> for SaveError {
    fn from(source: AdapterError) -> Self {
        Self::Adapter { source: Box::new(source) }
    }
}
