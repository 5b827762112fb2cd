//! `andiron tokenizer`: train one, look into one.

use std::path::PathBuf;

use andiron_data::source::{self, Documents, OnError, SourceOptions};
use andiron_data::tokenizer::{BpeOptions, SpecialTokens, Tokenizer, train_bpe, train_chars};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::exit::Ending;
use crate::flags::Common;

/// Train or look into a tokenizer
#[derive(Debug, Subcommand)]
pub enum TokenizerVerb {
    /// Make a vocabulary from text
    Train(Train),
    /// How well a tokenizer compresses a text, and whether it gives it back exactly
    Eval(Eval),
    /// Show how a text is split
    Inspect(Inspect),
}

/// The kind of vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Byte-level byte-pair encoding, as GPT-2's
    Bpe,
    /// One token for each character of the text
    Char,
}

/// Make a vocabulary from text
#[derive(Debug, Args)]
pub struct Train {
    /// Text and JSONL files, or directories of them
    #[arg(required = true)]
    input: Vec<PathBuf>,
    /// Directory to write tokenizer.json and its companions to
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Kind of vocabulary
    #[arg(long, value_enum, default_value = "bpe")]
    kind: Kind,
    /// Tokens in a BPE vocabulary
    #[arg(long, default_value_t = 8192, value_name = "N")]
    vocab_size: usize,
}

/// How well a tokenizer compresses a text
#[derive(Debug, Args)]
pub struct Eval {
    /// Directory with a tokenizer.json
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    /// Text and JSONL files, or directories of them
    #[arg(required = true)]
    input: Vec<PathBuf>,
}

/// Show how a text is split
#[derive(Debug, Args)]
pub struct Inspect {
    /// Directory with a tokenizer.json
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    /// The text
    text: String,
}

impl TokenizerVerb {
    /// Does it.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        match self {
            Self::Train(verb) => verb.run(common),
            Self::Eval(verb) => verb.run(common),
            Self::Inspect(verb) => verb.run(common),
        }
    }
}

/// The texts of all documents in `paths`.
fn texts(paths: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    for path in source::expand(paths)? {
        for document in Documents::new(source::open(&path, &SourceOptions::default())?, OnError::Fail) {
            texts.push(document?.text);
        }
    }
    Ok(texts)
}

impl Train {
    fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let texts = texts(&self.input)?;
        let tokenizer = match self.kind {
            Kind::Bpe => train_bpe(texts, &BpeOptions::new(self.vocab_size))?,
            Kind::Char => train_chars(texts, &SpecialTokens::default())?,
        };
        tokenizer.save(&self.output)?;
        if common.json {
            println!("{}", json!({ "vocab_size": tokenizer.vocab_size(), "tokenizer": self.output }));
        } else {
            println!("{} tokens, saved in {}", tokenizer.vocab_size(), self.output.display());
        }
        Ok(Ending::Done)
    }
}

impl Eval {
    fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let tokenizer = Tokenizer::load(&self.tokenizer)?;
        let (mut bytes, mut tokens, mut exact, mut documents) = (0, 0, 0, 0);
        for text in texts(&self.input)? {
            let ids = tokenizer.encode(&text)?;
            bytes += text.len();
            tokens += ids.len();
            documents += 1;
            exact += usize::from(tokenizer.decode(&ids, andiron_data::tokenizer::Special::Keep)? == text);
        }
        let ratio = bytes as f64 / tokens.max(1) as f64;
        if common.json {
            let vocab_size = tokenizer.vocab_size();
            println!(
                "{}",
                json!({ "documents": documents, "exact": exact, "bytes": bytes, "tokens": tokens,
                        "bytes_per_token": ratio, "vocab_size": vocab_size })
            );
        } else {
            println!("{bytes} bytes in {tokens} tokens: {ratio:.3} bytes a token");
            println!("{exact} of {documents} documents come back exactly");
        }
        Ok(Ending::Done)
    }
}

impl Inspect {
    fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let tokenizer = Tokenizer::load(&self.tokenizer)?;
        let ids = tokenizer.encode(&self.text)?;
        let tokens: Vec<String> =
            ids.iter().map(|&id| tokenizer.id_to_token(id).unwrap_or_default()).collect();
        if common.json {
            println!("{}", json!({ "ids": ids, "tokens": tokens }));
        } else {
            for (id, token) in ids.iter().zip(&tokens) {
                println!("{id:>7}  {token:?}");
            }
        }
        Ok(Ending::Done)
    }
}
