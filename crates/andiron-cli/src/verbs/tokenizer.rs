//! `andiron tokenizer`: train, evaluate or inspect a tokenizer.

use std::path::PathBuf;

use andiron_corpus::prepare::PrepareError;
use andiron_data::source::{self, Documents, OnError, RecordError, RecordFault, SourceError, SourceOptions};
use andiron_data::tokenizer::{BpeOptions, SpecialTokens, Tokenizer, train_bpe, train_chars};
use andiron_files::PartialDirectory;
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::prepare::tell_passed_over;
use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::lines::out;
use crate::model::PromptChoice;

/// Train, evaluate or inspect a tokenizer
#[derive(Debug, Subcommand)]
pub enum TokenizerVerb {
    Train(Train),
    Eval(Eval),
    Inspect(Inspect),
}

/// The default vocabulary size of a BPE tokenizer.
const DEFAULT_SIZE: usize = 8192;

/// The type of tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Byte-level byte-pair encoding, as in GPT-2
    Bpe,
    /// One token per character of the training text
    Char,
}

/// The model that a tokenizer is for, which decides its control tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum For {
    /// A decoder: `<|endoftext|>` after a document, as in GPT-2
    #[default]
    Decoder,
    /// A decoder that fills in the middle: also `<fim_prefix>`, `<fim_middle>` and `<fim_suffix>`, as in StarCoder
    Fim,
    /// An encoder: `<s>` and `</s>` around a text, `<pad>` and `<mask>`, with the ids of RoBERTa
    Encoder,
    /// An encoder-decoder: the same, with the ids of BART
    EncoderDecoder,
    /// T5: `</s>` after a text, `<pad>` and 100 sentinels
    T5,
}

/// The tokenizer to train.
#[derive(Clone, Copy, Debug, Args)]
pub struct VocabularyArgs {
    /// Type of tokenizer [default: bpe]
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// The model it is for, which decides the control tokens [default: decoder]
    #[arg(long = "for", value_name = "MODEL", value_enum)]
    model: Option<For>,
    /// Vocabulary size of a BPE tokenizer, in tokens [default: 8192]
    #[arg(long, value_name = "N")]
    vocab_size: Option<usize>,
}

/// How to train a tokenizer.
pub enum Vocabulary {
    /// Byte-level byte-pair encoding.
    Bpe(BpeOptions),
    /// Characters.
    Characters(SpecialTokens),
}

impl VocabularyArgs {
    /// Whether any of the flags was given.
    pub fn is_given(self) -> bool {
        self.kind.is_some() || self.model.is_some() || self.vocab_size.is_some()
    }

    /// How to train it.
    ///
    /// # Errors
    /// If an option is given that a character vocabulary does not have.
    pub fn vocabulary(self) -> anyhow::Result<Vocabulary> {
        let usage = |message: &str| Err(Usage(message.to_owned()).into());
        match (self.kind.unwrap_or(Kind::Bpe), self.model.unwrap_or_default(), self.vocab_size) {
            (Kind::Bpe, model, size) => {
                let size = size.unwrap_or(DEFAULT_SIZE);
                Ok(Vocabulary::Bpe(match model {
                    For::Decoder => BpeOptions::new(size),
                    For::Fim => BpeOptions::fill_in_the_middle(size),
                    For::Encoder | For::EncoderDecoder => BpeOptions::roberta(size),
                    For::T5 => BpeOptions::t5(size),
                }))
            }
            (Kind::Char, _, Some(_)) => usage(
                "--vocab-size goes with --kind bpe: a character vocabulary is as large as the text makes it",
            ),
            (Kind::Char, For::Decoder, None) => Ok(Vocabulary::Characters(SpecialTokens::default())),
            (Kind::Char, _, None) => {
                usage("--for goes with --kind bpe: a character vocabulary has no control tokens")
            }
        }
    }
}

/// Train a tokenizer on text
#[derive(Debug, Args)]
pub struct Train {
    /// Text and JSONL files, or directories of them
    #[arg(required = true)]
    input: Vec<PathBuf>,
    /// Output directory for tokenizer.json and its companions; other files in it are kept
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    vocabulary: VocabularyArgs,
    #[command(flatten)]
    fields: FieldArgs,
}

/// Which fields of JSONL records hold text.
#[derive(Clone, Debug, Args)]
struct FieldArgs {
    /// Field of JSONL records that holds the text; repeat the option for several
    #[arg(long = "field", value_name = "NAME", default_value = "text")]
    fields: Vec<String>,
}

/// Measure a tokenizer's compression of a text, and whether decoding restores the text exactly
#[derive(Debug, Args)]
pub struct Eval {
    /// Directory of the tokenizer: tokenizer.json, or Marian's source.spm, target.spm and vocab.json
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    /// Text and JSONL files, or directories of them
    #[arg(required = true)]
    input: Vec<PathBuf>,
    #[command(flatten)]
    fields: FieldArgs,
}

/// Show the tokens of a text
#[derive(Debug, Args)]
pub struct Inspect {
    /// Directory of the tokenizer: tokenizer.json, vocab.txt, vocab.json and merges.txt, or Marian's source.spm, target.spm
    /// and vocab.json
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    #[command(flatten)]
    prompts: PromptChoice,
    /// The text to tokenize; special tokens that the tokenizer adds around a text are not shown
    text: String,
}

impl TokenizerVerb {
    /// Runs the verb.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        match self {
            Self::Train(verb) => verb.run(common),
            Self::Eval(verb) => verb.run(common),
            Self::Inspect(verb) => verb.run(common),
        }
    }
}

impl FieldArgs {
    /// The texts of all documents in `paths`.
    fn texts(&self, paths: &[PathBuf]) -> anyhow::Result<Vec<String>> {
        let mut texts = Vec::new();
        let source::Expanded { files, passed_over } = source::expand(paths, OnError::Fail)?;
        let passed_over: Vec<_> =
            passed_over.into_iter().map(|one| (one.path, one.why.to_string())).collect();
        tell_passed_over(&passed_over);
        for path in files {
            let has_fields = source::has_fields(&path);
            // A plain text is read once, whatever the fields.
            let fields = if has_fields { self.fields.as_slice() } else { &self.fields[..1] };
            for field in fields {
                let options = SourceOptions::of_field(field);
                for document in Documents::new(source::open(&path, &options)?, OnError::Fail) {
                    texts.push(document.map_err(|error| advising_field(error.into()))?.text);
                }
            }
        }
        Ok(texts)
    }
}

/// The same error, naming the option if a row has not the field that should hold its text.
pub fn advising_field(error: anyhow::Error) -> anyhow::Error {
    let of_source = match error.downcast_ref() {
        Some(PrepareError::Source(source)) => Some(source),
        _ => error.downcast_ref(),
    };
    match of_source {
        Some(SourceError::Record(RecordError { fault: RecordFault::MissingText { .. }, .. })) => {
            error.context("the text is not where it is looked for, and --field NAME says where it is")
        }
        _ => error,
    }
}

impl Train {
    fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let options = self.vocabulary.vocabulary()?;
        let texts = self.fields.texts(&self.input)?;
        let trained = match options {
            Vocabulary::Bpe(options) => train_bpe(texts, &options),
            Vocabulary::Characters(special) => train_chars(texts, &special),
        };
        let names = || {
            let names: Vec<String> = self.input.iter().map(|path| path.display().to_string()).collect();
            format!("cannot make a tokenizer from {}", names.join(", "))
        };
        let tokenizer = trained.with_context(names)?;
        let write = || format!("cannot write {}", self.output.display());
        let building = PartialDirectory::begin(&self.output).with_context(write)?;
        tokenizer.save(building.path())?;
        building.publish_into().with_context(write)?;
        if common.json {
            out!("{}", json!({ "vocab_size": tokenizer.vocab_size(), "tokenizer": self.output }))?;
        } else {
            out!("{} tokens, saved in {}", tokenizer.vocab_size(), self.output.display())?;
        }
        Ok(Ending::Done)
    }
}

impl Eval {
    fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let tokenizer = Tokenizer::load(&self.tokenizer)?;
        let (mut bytes, mut tokens, mut exact, mut documents) = (0, 0, 0, 0);
        for text in self.fields.texts(&self.input)? {
            let ids = tokenizer.encode(&text)?;
            bytes += text.len();
            tokens += ids.len();
            documents += 1;
            exact += usize::from(tokenizer.decode(&ids, andiron_data::tokenizer::Special::Keep)? == text);
        }
        let ratio = bytes as f64 / tokens.max(1) as f64;
        if common.json {
            let vocab_size = tokenizer.vocab_size();
            out!(
                "{}",
                json!({ "documents": documents, "exact": exact, "bytes": bytes, "tokens": tokens,
                        "bytes_per_token": ratio, "vocab_size": vocab_size })
            )?;
        } else {
            out!("{bytes} bytes in {tokens} tokens: {ratio:.3} bytes a token")?;
            out!("{exact} of {documents} documents come back exactly")?;
        }
        Ok(Ending::Done)
    }
}

impl Inspect {
    fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let tokenizer = Tokenizer::load(&self.tokenizer)?.with_control_tokens(self.prompts.control_tokens());
        let ids = tokenizer.encode_bare_prompt(&self.text)?;
        let tokens: Vec<String> =
            ids.iter().map(|&id| tokenizer.id_to_token(id).unwrap_or_default()).collect();
        if common.json {
            out!("{}", json!({ "ids": ids, "tokens": tokens }))?;
        } else {
            for (id, token) in ids.iter().zip(&tokens) {
                out!("{id:>7}  {token:?}")?;
            }
        }
        Ok(Ending::Done)
    }
}
