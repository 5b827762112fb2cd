//! `andiron tokenizer`: train, evaluate or inspect a tokenizer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use andiron_corpus::prepare::PrepareError;
use andiron_data::Document;
use andiron_data::source::{
    self, OnError, RecordError, RecordFault, Source, SourceError, SourceOptions, file_name,
};
use andiron_data::tokenizer::{
    BpeOptions, Compression, SpecialTokens, Tokenizer, UnigramOptions, WordPieceOptions, train_bpe,
    train_chars, train_unigram, train_word_piece,
};
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

/// The default vocabulary size.
const DEFAULT_SIZE: usize = 8192;
/// The text that is measured at a time, in bytes.
const BATCH_BYTES: usize = 4 << 20;

/// The type of tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Byte-level byte-pair encoding, as in GPT-2
    Bpe,
    /// One token per character of the training text
    Char,
    /// WordPiece, as in BERT: texts lose their case and accents
    Wordpiece,
    /// A Unigram language model over pieces, as in T5
    Unigram,
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
    /// Vocabulary size, in tokens; a character vocabulary is as large as the text makes it [default: 8192]
    #[arg(long, value_name = "N")]
    vocab_size: Option<usize>,
}

/// How to train a tokenizer.
pub enum Vocabulary {
    /// Byte-level byte-pair encoding.
    Bpe(BpeOptions),
    /// Characters.
    Characters(SpecialTokens),
    /// WordPiece.
    WordPiece(WordPieceOptions),
    /// Unigram.
    Unigram(UnigramOptions),
}

impl VocabularyArgs {
    /// Whether any of the flags was given.
    pub fn is_given(self) -> bool {
        self.kind.is_some() || self.model.is_some() || self.vocab_size.is_some()
    }

    /// How to train it.
    ///
    /// # Errors
    /// If an option is given that a character vocabulary does not have, or the model has another kind of tokenizer.
    pub fn vocabulary(self) -> anyhow::Result<Vocabulary> {
        let usage = |message: &str| Err(Usage(message.to_owned()).into());
        let size = self.vocab_size.unwrap_or(DEFAULT_SIZE);
        match (self.kind.unwrap_or(Kind::Bpe), self.model.unwrap_or_default(), self.vocab_size) {
            (Kind::Wordpiece, For::Encoder | For::Decoder, _) => {
                Ok(Vocabulary::WordPiece(WordPieceOptions::new(size)))
            }
            (Kind::Wordpiece, ..) => {
                usage("--kind wordpiece is for encoders, with the control tokens of BERT: leave out --for")
            }
            (Kind::Unigram, For::T5 | For::Decoder, _) => Ok(Vocabulary::Unigram(UnigramOptions::new(size))),
            (Kind::Unigram, ..) => usage("--kind unigram has the control tokens of T5: leave out --for"),
            (Kind::Bpe, model, _) => Ok(Vocabulary::Bpe(match model {
                For::Decoder => BpeOptions::new(size),
                For::Fim => BpeOptions::fill_in_the_middle(size),
                For::Encoder | For::EncoderDecoder => BpeOptions::roberta(size),
                For::T5 => BpeOptions::t5(size),
            })),
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
    /// Files of text or of rows, folders, or patterns such as 'data/**/*.jsonl.gz'
    #[arg(required = true)]
    input: Vec<PathBuf>,
    /// Output directory for tokenizer.json and its companions; other files in it are kept
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// File with a chat template in Jinja, which is saved with the tokenizer
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    #[command(flatten)]
    vocabulary: VocabularyArgs,
    #[command(flatten)]
    fields: FieldArgs,
}
/// Which fields of rows hold text.
#[derive(Clone, Debug, Args)]
struct FieldArgs {
    /// Field of JSONL records, or column of a table, that holds the text; repeat the option for several
    #[arg(long = "field", value_name = "NAME", default_value = "text")]
    fields: Vec<String>,
}

/// Measure how well tokenizers fit a text: bytes per token, unknown tokens, and texts that decoding restores exactly
#[derive(Debug, Args)]
pub struct Eval {
    /// Directory of the tokenizer: tokenizer.json, or Marian's source.spm, target.spm and vocab.json
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    /// Another tokenizer to compare it with; repeat the option for several
    #[arg(long, value_name = "DIR")]
    against: Vec<PathBuf>,
    /// Measure parts of the text too: 'file', or a field of the rows such as 'lang'
    #[arg(long, value_name = "FIELD")]
    by: Option<String>,
    /// Files of text or of rows, folders, or patterns such as 'data/**/*.jsonl.gz'
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

/// The documents of several files, each file read once for each field that holds text.
struct Texts {
    waiting: std::vec::IntoIter<(PathBuf, SourceOptions)>,
    current: Option<(PathBuf, Box<dyn Source>)>,
}

impl FieldArgs {
    /// The documents in `paths`, with their files.
    fn texts(&self, paths: &[PathBuf]) -> anyhow::Result<Texts> {
        let source::Expanded { files, passed_over, .. } = source::expand(paths, OnError::Fail)?;
        let passed_over: Vec<_> =
            passed_over.into_iter().map(|one| (one.path, one.why.to_string())).collect();
        tell_passed_over(&passed_over);
        let mut waiting = Vec::new();
        for path in files {
            // What is one text is read once, whatever the fields.
            let fields = if source::has_fields(&path) { self.fields.as_slice() } else { &self.fields[..1] };
            waiting.extend(fields.iter().map(|field| (path.clone(), SourceOptions::of_field(field))));
        }
        Ok(Texts { waiting: waiting.into_iter(), current: None })
    }
}

impl Texts {
    fn read(&mut self) -> Result<Option<(PathBuf, Document)>, SourceError> {
        loop {
            if let Some((path, source)) = &mut self.current {
                match source.next() {
                    Some(document) => return Ok(Some((path.clone(), document?))),
                    None => self.current = None,
                }
            }
            let Some((path, options)) = self.waiting.next() else { return Ok(None) };
            let source = source::open(&path, &options)?;
            self.current = Some((path, source));
        }
    }
}

impl Iterator for Texts {
    type Item = anyhow::Result<(PathBuf, Document)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().map_err(|error| advising_field(error.into())).transpose()
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
        let template = self.chat_template.as_deref().map(read_template).transpose()?;
        let mut failure = None;
        let texts = self.fields.texts(&self.input)?.map_while(|read| match read {
            Ok((_, document)) => Some(document.text),
            Err(error) => {
                failure = Some(error);
                None
            }
        });
        let trained = match options {
            Vocabulary::Bpe(options) => train_bpe(texts, &options),
            Vocabulary::Characters(special) => train_chars(texts, &special),
            Vocabulary::WordPiece(options) => train_word_piece(texts, &options),
            Vocabulary::Unigram(options) => train_unigram(texts, &options),
        };
        // A read error comes first: it may be the cause of too little text.
        if let Some(error) = failure {
            return Err(error);
        }
        let names = || {
            let names: Vec<String> = self.input.iter().map(|path| path.display().to_string()).collect();
            format!("cannot make a tokenizer from {}", names.join(", "))
        };
        let mut tokenizer = trained.with_context(names)?;
        if let (Some(template), Some(path)) = (template, &self.chat_template) {
            let tried = tokenizer.with_chat_template(template);
            tokenizer = tried.with_context(|| format!("cannot use {}", path.display()))?;
        }
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

/// The content of a file with a chat template.
fn read_template(path: &Path) -> anyhow::Result<String> {
    const LIMIT: u64 = 1 << 20;
    let bytes = andiron_files::read_bounded(path, LIMIT);
    let bytes = bytes.with_context(|| format!("cannot read {}", path.display()))?;
    String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", path.display()))
}

/// What was measured: for each part of the text, each tokenizer's.
type Measured = BTreeMap<String, Vec<Compression>>;

impl Eval {
    fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let paths: Vec<&PathBuf> = std::iter::once(&self.tokenizer).chain(&self.against).collect();
        let load = |path: &&PathBuf| Ok(Tokenizer::load(path)?);
        let tokenizers = paths.iter().map(load).collect::<anyhow::Result<Vec<Tokenizer>>>()?;
        let measured = self.measure(&tokenizers)?;
        let total = measured.values().fold(vec![Compression::default(); tokenizers.len()], |sum, part| {
            sum.into_iter().zip(part).map(|(sum, part)| sum.plus(*part)).collect()
        });
        if common.json {
            let mut shown = shown(&tokenizers[0], &total[0]);
            if !self.against.is_empty() {
                shown["against"] = self.beside(&tokenizers, &total);
            }
            if self.by.is_some() {
                let parts = measured.iter().map(|(name, part)| {
                    let mut shown = self::shown(&tokenizers[0], &part[0]);
                    if !self.against.is_empty() {
                        shown["against"] = self.beside(&tokenizers, part);
                    }
                    (name.clone(), shown)
                });
                shown["by"] = parts.collect::<serde_json::Map<_, _>>().into();
            }
            out!("{shown}")?;
            return Ok(Ending::Done);
        }
        let [found, ..] = total.as_slice() else { return Ok(Ending::Done) };
        let Compression { bytes, tokens, texts, exact, refused, .. } = found;
        out!("{bytes} bytes in {tokens} tokens: {:.3} bytes a token", found.bytes_per_token())?;
        out!("{exact} of {texts} documents come back exactly")?;
        if *refused > 0 {
            out!("{refused} documents have characters that the vocabulary lacks")?;
        }
        if self.by.is_some() || !self.against.is_empty() {
            self.table(&paths, measured, total)?;
        }
        Ok(Ending::Done)
    }

    /// Measures batch by batch, so that memory does not grow with the text.
    fn measure(&self, tokenizers: &[Tokenizer]) -> anyhow::Result<Measured> {
        let mut measured = Measured::new();
        let mut batches: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut bytes = 0;
        let mut add = |batches: &mut BTreeMap<String, Vec<String>>| -> anyhow::Result<()> {
            for (part, texts) in std::mem::take(batches) {
                let sums =
                    measured.entry(part).or_insert_with(|| vec![Compression::default(); tokenizers.len()]);
                for (sum, tokenizer) in sums.iter_mut().zip(tokenizers) {
                    *sum = sum.plus(Compression::of(tokenizer, &texts)?);
                }
            }
            Ok(())
        };
        for read in self.fields.texts(&self.input)? {
            let (path, document) = read?;
            bytes += document.text.len();
            batches.entry(self.part(&path, &document)).or_default().push(document.text);
            if bytes >= BATCH_BYTES {
                add(&mut batches)?;
                bytes = 0;
            }
        }
        add(&mut batches)?;
        Ok(measured)
    }

    /// The part of the text that a document belongs to.
    fn part(&self, path: &Path, document: &Document) -> String {
        match self.by.as_deref() {
            None => String::new(),
            Some("file") => file_name(path),
            Some(field) => match document.metadata.get(field) {
                Some(serde_json::Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
                None => "-".to_owned(),
            },
        }
    }

    /// The measurements of the other tokenizers, by their directories.
    fn beside(&self, tokenizers: &[Tokenizer], found: &[Compression]) -> serde_json::Value {
        let others = self.against.iter().zip(&tokenizers[1..]).zip(&found[1..]);
        let shown =
            others.map(|((path, tokenizer), found)| (path.display().to_string(), shown(tokenizer, found)));
        shown.collect::<serde_json::Map<_, _>>().into()
    }

    fn table(
        &self,
        paths: &[&PathBuf],
        mut measured: Measured,
        total: Vec<Compression>,
    ) -> anyhow::Result<()> {
        if self.by.is_none() {
            measured.clear();
        }
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let width = names.iter().map(String::len).max().unwrap_or_default().max("tokenizer".len());
        let rows = measured.into_iter().chain([("all".to_owned(), total)]);
        let rows: Vec<(String, Vec<Compression>)> = rows.collect();
        let first = rows.iter().map(|(part, _)| part.chars().count()).max().unwrap_or_default().max(4);
        out!(
            "\n{:first$}  {:width$}  {:>9}  {:>11}  {:>11}  {:>7}  {:>7}",
            "part",
            "tokenizer",
            "documents",
            "tokens",
            "bytes/token",
            "exact",
            "unknown"
        )?;
        for (part, found) in rows {
            for (name, found) in names.iter().zip(found) {
                out!(
                    "{part:first$}  {name:width$}  {:>9}  {:>11}  {:>11.3}  {:>6.1}%  {:>6.2}%",
                    found.texts,
                    found.tokens,
                    found.bytes_per_token(),
                    100.0 * found.exact_share(),
                    100.0 * found.unknown_share(),
                )?;
            }
        }
        Ok(())
    }
}

/// A measurement as JSON.
fn shown(tokenizer: &Tokenizer, found: &Compression) -> serde_json::Value {
    json!({ "documents": found.texts, "exact": found.exact, "bytes": found.bytes, "characters": found.characters,
            "tokens": found.tokens, "bytes_per_token": found.bytes_per_token(), "unknown": found.unknown,
            "refused": found.refused, "vocab_size": tokenizer.vocab_size() })
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
