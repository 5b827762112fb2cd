//! Errors of tokenizers.

use std::path::PathBuf;

/// Why a tokenizer could not be read, used or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A directory has no tokenizer in a supported format.
    #[error(
        "{} has no tokenizer.json; {} there, which cannot be read in its place: save the tokenizer with `transformers`, which writes tokenizer.json",
        path.display(),
        are(found)
    )]
    NoTokenizer {
        /// The directory.
        path: PathBuf,
        /// The tokenizer files that it has.
        found: Vec<String>,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not JSON of the expected form.
    #[error("{file} is not what it should be")]
    Json {
        /// Which of the tokenizer's files.
        file: &'static str,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// `tokenizer.json` is well-formed but would not work.
    #[error("tokenizer.json cannot be used: {0}")]
    Invalid(#[from] TokenizerFault),
    /// One of the files that a tokenizer is made of, other than `tokenizer.json`, would not work.
    #[error("{file} cannot be used: {message}")]
    VocabularyFile {
        /// Which file.
        file: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The `tokenizers` library rejected the file or the text, or panicked.
    #[error("the tokenizer failed to {operation}: {message}")]
    Failed {
        /// The operation.
        operation: &'static str,
        /// The library's message.
        message: String,
    },
    /// The text has a character that a character vocabulary does not hold.
    #[error(
        "character {character:?} at byte {offset} is not in the vocabulary; this tokenizer knows only the characters of the text it was made from"
    )]
    UnknownCharacter {
        /// The character.
        character: char,
        /// Its position, in bytes.
        offset: usize,
    },
    /// There is no chat template.
    #[error(
        "the tokenizer has no chat template, which a conversation needs: use a model made for chat, or give a prompt"
    )]
    NoChatTemplate,
    /// There are several chat templates, and none is the default.
    #[error("the tokenizer has several chat templates ({}) and none of the name \"default\"", names.join(", "))]
    NoDefaultTemplate {
        /// Their names.
        names: Vec<String>,
    },
    /// The chat template failed.
    #[error("the model's chat template cannot be used: {message}")]
    ChatTemplate {
        /// The message of the template engine or of the template itself.
        message: String,
    },
    /// The text gives an id that the model does not have.
    #[error(
        "the text has the token {token:?} with the id {id}, which the model does not have: the tokenizer has {tokenizer} ids, the model {model}"
    )]
    BeyondModel {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Ids of the tokenizer.
        tokenizer: usize,
        /// Ids of the model.
        model: usize,
    },
    /// Two texts do not fit together.
    #[error(
        "the first text has {tokens} tokens, which leaves no room for the second within the {limit} that the model reads"
    )]
    NoRoom {
        /// Tokens of the first text.
        tokens: usize,
        /// Tokens that the model reads.
        limit: usize,
    },
    /// The text cannot be encoded without a control id.
    #[error("the text contains {token:?}, which this tokenizer can only express as a control token")]
    ControlToken {
        /// The token.
        token: String,
    },
}

fn are(files: &[String]) -> String {
    format!("{} {}", files.join(", "), if files.len() == 1 { "is" } else { "are" })
}

impl TokenizerError {
    /// Whether the text is the cause, so that another text could succeed.
    pub fn is_about_text(&self) -> bool {
        matches!(
            self,
            Self::UnknownCharacter { .. }
                | Self::BeyondModel { .. }
                | Self::NoRoom { .. }
                | Self::ControlToken { .. }
        )
    }
}

/// What can be wrong with the content of a `tokenizer.json`.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum TokenizerFault {
    /// The vocabulary is empty.
    #[error("its vocabulary is empty")]
    EmptyVocabulary,
    /// The empty string is a token.
    #[error("it has an empty token")]
    EmptyToken,
    /// An id does not fit.
    #[error("token {token:?} has the id {id}; ids are below 2147483648")]
    IdTooLarge {
        /// The token.
        token: String,
        /// Its id.
        id: u64,
    },
    /// Ids are so sparse that a model would need an absurdly large embedding table.
    #[error("its largest id is {max_id}, with only {tokens} tokens")]
    SparseIds {
        /// The largest id.
        max_id: u64,
        /// How many tokens there are.
        tokens: usize,
    },
    /// A token occurs twice in the vocabulary.
    #[error("token {token:?} occurs twice in its vocabulary")]
    DuplicateToken {
        /// The token.
        token: String,
    },
    /// An id means two tokens.
    #[error("tokens {first:?} and {second:?} have the same id {id}")]
    DuplicateId {
        /// The id.
        id: u64,
        /// One token.
        first: String,
        /// The other.
        second: String,
    },
    /// A merge is not a pair.
    #[error("merge {rank} is not a pair of tokens")]
    MergeForm {
        /// Its place in the list, from 0.
        rank: usize,
    },
    /// A part or the result of a merge is not a token.
    #[error("merge {rank} needs {token:?}, which is not in the vocabulary")]
    MergeToken {
        /// Its place in the list, from 0.
        rank: usize,
        /// The missing part or result.
        token: String,
    },
    /// The second part of a merge lacks the prefix that marks continuations.
    #[error(
        "merge {rank} continues with {token:?}, which does not begin with the continuing_subword_prefix {prefix:?} followed by something"
    )]
    MergePrefix {
        /// Its place in the list, from 0.
        rank: usize,
        /// The second part.
        token: String,
        /// The prefix.
        prefix: String,
    },
    /// A pair is merged twice.
    #[error("merge {rank} repeats an earlier one")]
    DuplicateMerge {
        /// Its place in the list, from 0.
        rank: usize,
    },
    /// BPE dropout is on, so encoding would be random.
    #[error("it has dropout, so the same text would get different ids")]
    Dropout,
    /// The unknown token is not in the vocabulary.
    #[error("its unk_token {token:?} is not in the vocabulary")]
    UnknownToken {
        /// The token.
        token: String,
    },
    /// A byte-level vocabulary cannot encode every text.
    #[error("it works on bytes but has no token for {missing} of them, first {first:#04x}")]
    MissingBytes {
        /// How many bytes that occur in written text have no token.
        missing: usize,
        /// The first of them.
        first: u8,
    },
    /// An added token would get another id than the file says.
    #[error("added token {token:?} says it has the id {id}, but would get {found:?}")]
    AddedToken {
        /// The token.
        token: String,
        /// The id in the file.
        id: u64,
        /// The id it would get.
        found: Option<u32>,
    },
    /// A number that makes encoding slow without bound.
    #[error("max_input_chars_per_word is {value}; at most {limit} is accepted")]
    WordTooLong {
        /// The number.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// A regular expression is too long.
    #[error("a regular expression has {bytes} bytes; at most {limit} are accepted")]
    PatternTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Replacements can make a text too long.
    #[error("its replacements can make a text {times} times as long; at most {limit} times is accepted")]
    Growth {
        /// How many times as long.
        times: u64,
        /// The limit.
        limit: u64,
    },
}

/// The library's message for a text that a Unigram model without an unknown token cannot encode.
pub(super) const NO_UNKNOWN: &str = "`unk_id` is missing";

/// The error for the first character of `text` that cannot be encoded; `fails` tells whether a text cannot be encoded.
pub(super) fn unknown_character(text: &str, fails: impl Fn(&str) -> bool) -> Option<TokenizerError> {
    let characters: Vec<(usize, char)> = text.char_indices().collect();
    let fits = |&(at, character): &(usize, char)| !fails(&text[..at + character.len_utf8()]);
    let (offset, character) = *characters.get(characters.partition_point(fits))?;
    Some(TokenizerError::UnknownCharacter { character, offset })
}
