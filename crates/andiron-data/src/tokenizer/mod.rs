//! Text to token ids and back, for Hugging Face's `tokenizer.json`, vocabulary files, and Marian's SentencePiece models.
//!
//! A [`Tokenizer`] wraps the `tokenizers` library and makes it safe for untrusted files and texts. A file is bounded in
//! size, validated before the library reads it, and loaded under a guard that turns a panic into an error. A text never
//! gives a control token unless the caller asks for it.
//!
//! | to encode | use | control tokens in the text | tokens added around it |
//! |---|---|---|---|
//! | what a user wrote, or training text | [`Tokenizer::encode`] | are ordinary text | none |
//! | the input of an encoder | [`Tokenizer::frame`] | are ordinary text | `[CLS]` … `[SEP]` and the like |
//! | the same with masked positions | [`Tokenizer::frame_masked`] | the mask token is parsed, others are refused | the same |
//! | the output of a chat template | [`Tokenizer::encode_markup`] | become control tokens | none |
//! | a conversation to learn from | [`Tokenizer::encode_conversation`] | of the template only | those of the template |
//! | a raw prompt of the operator | [`Tokenizer::encode_prompt`] | as configured | those of the post-processor |

mod answers;
mod byte_bpe;
mod bytes;
mod characters;
mod charsmap;
pub(crate) mod chat;
mod class;
mod clean_up;
mod completions;
mod compression;
mod encoded;
mod error;
mod files;
mod frame;
mod layout;
mod marian;
mod pieces;
mod sentence_piece;
mod settings;
mod special;
mod spelling;
mod stop;
mod stream;
mod tables;
mod train;
mod validate;
mod vocab_files;
mod words;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Encoding, Model as _};

use error::{NO_UNKNOWN, unknown_character};
use layout::Layout;
use marian::MarianFiles;
use pieces::pieces_at_lines;
use sentence_piece::Splitter;
use validate::{Decoding, Facts};

pub use chat::{
    ChatEnd, ChatInputs, Content, Conversation, Message, MessageError, RESERVED, RenderedChat, ToolCall,
};
pub use completions::Completion;
pub use compression::Compression;
pub use error::{TokenizerError, TokenizerFault};
pub use frame::{Framed, Place};
pub use settings::Side;
pub use special::SpecialTokens;
pub use spelling::Spellings;
pub use stop::{StopError, StopMatcher, StopOutput};
pub use stream::StreamDecoder;
pub use train::{
    BpeOptions, Framing, TrainError, UnigramOptions, WordPieceOptions, train_bpe, train_chars, train_unigram,
    train_word_piece,
};
pub use words::{FramedWords, LabelledTokens};

/// What decoding does with control tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// They are written out.
    Keep,
    /// They are left out.
    Skip,
}

/// How control tokens spelled in a text are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ControlTokens {
    /// As control tokens, like `transformers` does: an operator's prompt.
    #[default]
    Parsed,
    /// As ordinary text: a user's message, or training text.
    AsText,
}

/// A tokenizer. Cloning it is cheap: clones share the vocabulary.
///
/// # Example
/// ```
/// use andiron_data::tokenizer::{Special, SpecialTokens, train_chars};
/// let tokenizer = train_chars(["hello"], &SpecialTokens::default())?;
/// let ids = tokenizer.encode("hole")?;
/// assert_eq!(ids, [1, 3, 2, 0]);
/// assert_eq!(tokenizer.decode(&ids, Special::Keep)?, "hole");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    /// Vocabulary size of the model, if it is known.
    model_ids: Option<usize>,
    /// How control tokens in prompts are read.
    control: ControlTokens,
}

struct Inner {
    /// Treats control tokens in a text as ordinary text.
    literal: tokenizers::Tokenizer,
    /// Segments texts if `literal` has only a vocabulary, as for Marian.
    splitter: Option<Splitter>,
    /// Parses control tokens; created on first use.
    markup: OnceLock<tokenizers::Tokenizer>,
    facts: Facts,
    /// Control ids that a text must not give. The unknown token is not one of them: unknown text gives it.
    reserved: HashMap<u32, String>,
    /// The id of the unknown token.
    unknown: Option<u32>,
    special: SpecialTokens,
    files: files::Files,
    fingerprint: String,
}

/// Long texts are encoded in pieces of about this many bytes if that does not change the ids.
const PIECE_BYTES: usize = 64 << 10;

impl Tokenizer {
    /// Reads a tokenizer from a directory that holds `tokenizer.json`, or from such a file; or from a directory that
    /// holds Marian's `source.spm`, `target.spm` and `vocab.json`, BERT's `vocab.txt`, or `vocab.json` and `merges.txt`.
    ///
    /// `tokenizer_config.json`, `special_tokens_map.json` and `chat_template.jinja` are read too if they exist. `truncation`
    /// and `padding` in the file are not applied, because they depend on the use.
    ///
    /// # Errors
    /// If a file cannot be read, is longer than 128 MiB, or is not a valid tokenizer (see [`TokenizerFault`]).
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        Self::from_files(files::Files::read(path)?)
    }

    /// Whether a directory holds the files of a tokenizer. A broken link counts: loading it reports what is wrong.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(files::TOKENIZER).is_symlink() || Layout::of(dir).is_ok_and(|layout| layout.is_some())
    }

    /// If [`is_in`](Self::is_in) finds no tokenizer: the tokenizer files in unsupported formats, such as `tokenizer.model`.
    pub fn unread_files(dir: &Path) -> Vec<String> {
        if Self::is_in(dir) { Vec::new() } else { files::other_files(dir) }
    }

    /// Creates a tokenizer from the content of a `tokenizer.json` alone.
    ///
    /// # Errors
    /// If the content is not a valid tokenizer.
    pub fn from_json(json: &[u8]) -> Result<Self, TokenizerError> {
        Self::from_files(files::Files::of_json(json.to_vec()))
    }

    /// Creates a tokenizer from the contents of a `tokenizer.json` and a `tokenizer_config.json`.
    ///
    /// # Errors
    /// If the content is not a valid tokenizer.
    pub fn from_contents(json: &[u8], config: Map<String, Value>) -> Result<Self, TokenizerError> {
        Self::from_files(files::Files::of_json(json.to_vec()).with_config(config))
    }

    /// The tokenizer of target texts. Marian segments them with a SentencePiece model of their own; other tokenizers use the
    /// same one for both.
    ///
    /// # Errors
    /// If `target.spm` is not a valid SentencePiece model.
    pub fn for_targets(&self) -> Result<Self, TokenizerError> {
        match self.inner.files.for_targets() {
            Some(files) => Ok(Self { inner: Self::from_files(files)?.inner, ..self.clone() }),
            None => Ok(self.clone()),
        }
    }

    /// The same tokenizer for a model whose vocabulary has `vocab_size` entries. A tokenizer may have ids that its model
    /// does not have, such as placeholders for images. A text that gives one is an error ([`TokenizerError::BeyondModel`]),
    /// and such a token has no role (`eos_id` and the like).
    #[must_use]
    pub fn for_model(mut self, vocab_size: usize) -> Self {
        self.model_ids = Some(vocab_size);
        self
    }

    fn from_files(mut files: files::Files) -> Result<Self, TokenizerError> {
        if let Some(config) = files.given_config() {
            class::refuse_unfollowed(config)?;
        }
        if let Some(json) =
            class::applied(&files.tokenizer, files.given_config(), files.model_type.as_deref())
        {
            files.tokenizer = json;
        }
        let mut facts = validate::validate(&files.tokenizer)?;
        let special = files.special_tokens();
        let splitter = files.marian.as_ref().map(MarianFiles::splitter).transpose()?;
        let mut literal = guard("load", || {
            let mut loaded = tokenizers::Tokenizer::from_bytes(&files.tokenizer)?;
            loaded.with_truncation(None)?;
            loaded.with_padding(None);
            Ok(loaded)
        })?;
        let mut reserved = HashMap::new();
        for added in &facts.added {
            let found = literal.token_to_id(&added.content);
            if found.map(u64::from) != Some(added.id) {
                let token = added.content.clone();
                return Err(TokenizerFault::AddedToken { token, id: added.id, found }.into());
            }
            if let Some(id) =
                found.filter(|_| added.special && Some(&added.content) != facts.unknown.as_ref())
            {
                reserved.insert(id, added.content.clone());
            }
        }
        // Tokens with a role are control tokens too. They may also be ordinary tokens (some models pad with "!"), so texts
        // may give them.
        for token in special.all() {
            let Some(id) = literal.token_to_id(token) else { continue };
            if !facts.added.iter().any(|added| added.content == token) {
                guard("load", || literal.add_special_tokens([AddedToken::from(token, true)]).map(drop))?;
                facts.added.push(validate::AddedEntry {
                    id: id.into(),
                    content: token.to_owned(),
                    special: true,
                });
            }
        }
        literal.set_encode_special_tokens(true);
        // Only the library tells where in a text a control token is that its model gives.
        facts.byte_bpe = facts.byte_bpe.filter(|encoder| !encoder.gives_any(reserved.keys().copied()));
        let unknown = facts.unknown.as_ref().and_then(|token| literal.token_to_id(token));
        let fingerprint = files.fingerprint();
        let markup = OnceLock::new();
        let inner =
            Inner { literal, splitter, markup, facts, reserved, unknown, special, files, fingerprint };
        Ok(Self { inner: Arc::new(inner), model_ids: None, control: ControlTokens::default() })
    }

    /// Writes a directory that `transformers` can load: `tokenizer.json` (or Marian's files), `tokenizer_config.json`, and,
    /// if they are not empty, `special_tokens_map.json` and `chat_template.jinja`. Files that were read are written back
    /// byte for byte, except for a `tokenizer.json` that the settings of the tokenizer's class change.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), TokenizerError> {
        self.inner.files.write(dir, &self.inner.special)
    }

    /// The files that [`Tokenizer::save`] writes, by name, without further chat templates.
    pub fn contents(&self) -> Vec<(&'static str, Vec<u8>)> {
        self.inner.files.contents(&self.inner.special)
    }

    /// The ids of a text. Control tokens in it are ordinary text: no text gives a control id.
    ///
    /// # Errors
    /// If the text has a character that a character vocabulary does not hold
    /// ([`TokenizerError::UnknownCharacter`]), or the library fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let inner = &*self.inner;
        if let Some(characters) = &inner.facts.characters {
            return self.known(characters.encode(text)?);
        }
        let mut ids = Vec::with_capacity(text.len() / 3);
        if let Some(encoder) = inner.facts.byte_bpe.as_ref().filter(|encoder| encoder.reads(text)) {
            encoder.encode(text, &mut ids);
        } else if inner.facts.cuts_at_lines {
            for piece in pieces_at_lines(text, PIECE_BYTES) {
                inner.encode_literal(piece, &mut ids)?;
            }
        } else {
            inner.encode_literal(text, &mut ids)?;
        }
        self.known(ids)
    }

    /// `ids`, if all are in the model's vocabulary.
    fn known(&self, ids: Vec<u32>) -> Result<Vec<u32>, TokenizerError> {
        let Some(vocab_size) = self.model_ids.filter(|&n| n < self.vocab_size()) else { return Ok(ids) };
        match ids.iter().find(|&&id| id as usize >= vocab_size) {
            Some(&id) => {
                let token = self.id_to_token(id).unwrap_or_default();
                Err(TokenizerError::BeyondModel {
                    token,
                    id,
                    tokenizer: self.vocab_size(),
                    model: vocab_size,
                })
            }
            None => Ok(ids),
        }
    }

    /// The ids of [`frame`](Self::frame) for one text, without truncation.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn encode_framed(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.frame(text, None, usize::MAX)?.ids)
    }

    /// The same tokenizer, with control tokens in prompts read according to `control`.
    #[must_use]
    pub fn with_control_tokens(mut self, control: ControlTokens) -> Self {
        self.control = control;
        self
    }

    /// How control tokens in prompts are read: as configured, or as text if `tokenizer_config.json` has
    /// `split_special_tokens`.
    fn control_in_prompts(&self) -> ControlTokens {
        if self.splits_special_tokens() { ControlTokens::AsText } else { self.control }
    }

    /// The ids of a raw prompt, with the special tokens that the post-processor adds. Control tokens in the prompt are read
    /// as set by [`with_control_tokens`](Self::with_control_tokens).
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.frame_prompt(text, usize::MAX)?.ids)
    }

    /// [`encode_prompt`](Self::encode_prompt) without the special tokens of the post-processor.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn encode_bare_prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match self.control_in_prompts() {
            ControlTokens::Parsed => self.encode_markup(text),
            ControlTokens::AsText => self.encode(text),
        }
    }

    /// The ids of a text whose control tokens are parsed: a chat template's output, never a user's text.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn encode_markup(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let inner = &*self.inner;
        let result = inner
            .run(ControlTokens::Parsed, text, Offsets::Unused)
            .map(|encoding| encoding.get_ids().to_vec());
        self.known(result.map_err(|error| inner.say_character(text, error))?)
    }

    /// The text of some ids. Ids without a token are skipped, as in `transformers`.
    ///
    /// # Errors
    /// If the library fails.
    pub fn decode(&self, ids: &[u32], special: Special) -> Result<String, TokenizerError> {
        let text = self.decode_raw(ids, special)?;
        Ok(if self.cleans_up() { clean_up::clean_up(&text) } else { text })
    }

    /// The decoder's output before the clean-up.
    fn decode_raw(&self, ids: &[u32], special: Special) -> Result<String, TokenizerError> {
        guard("decode", || self.inner.literal.decode(ids, special == Special::Skip))
    }

    /// One more than the largest id: the number of rows that an embedding table needs.
    pub fn vocab_size(&self) -> usize {
        self.inner.facts.n_ids as usize
    }

    /// The id of a token, in the vocabulary's spelling (byte-level vocabularies spell a space `Ġ`).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.literal.token_to_id(token)
    }

    /// A token, in the vocabulary's spelling.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.literal.id_to_token(id)
    }

    /// The control tokens and their roles, from `tokenizer_config.json` and `special_tokens_map.json`.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.inner.special
    }

    /// Whether an id is a control token.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.reserved.contains_key(&id) || self.inner.is_special_token(id)
    }

    /// The end-of-sequence id, if the tokenizer's files name one.
    pub fn eos_id(&self) -> Option<u32> {
        self.role(&self.inner.special.eos)
    }

    /// The padding id, if the tokenizer's files name one.
    pub fn pad_id(&self) -> Option<u32> {
        self.role(&self.inner.special.pad)
    }

    /// The mask id, if the tokenizer's files name one.
    pub fn mask_id(&self) -> Option<u32> {
        self.role(&self.inner.special.mask)
    }

    fn role(&self, token: &Option<String>) -> Option<u32> {
        let is_known = |id: &u32| self.model_ids.is_none_or(|n| (*id as usize) < n);
        self.token_to_id(token.as_deref()?).filter(is_known)
    }

    /// The chat template, if there is one: `chat_template.jinja`, else the field in `tokenizer_config.json`.
    pub fn chat_template(&self) -> Option<&str> {
        self.inner.files.chat_template()
    }

    /// The keys of `tokenizer_config.json` that no class of `transformers` reads; they have no effect.
    pub fn unread_settings(&self) -> Vec<String> {
        self.inner.files.given_config().map(class::unread).unwrap_or_default()
    }

    /// The content of `tokenizer_config.json`, as read or as [`save`](Self::save) would write it.
    pub fn config(&self) -> Map<String, Value> {
        self.inner.files.config(&self.inner.special)
    }

    /// The BLAKE3 hash in hexadecimal that identifies the tokenizer in datasets: of `tokenizer.json` with the settings of its
    /// class applied, or of the equivalent of other files.
    pub fn fingerprint(&self) -> &str {
        &self.inner.fingerprint
    }

    /// The content of `tokenizer.json`. For Marian, it has the vocabulary only and cannot segment texts.
    pub fn json(&self) -> &[u8] {
        &self.inner.files.tokenizer
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

/// Whether the offsets of tokens are needed; computing them takes time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offsets {
    Wanted,
    Unused,
}

impl Inner {
    /// The tokens of a text.
    fn run(&self, control: ControlTokens, text: &str, offsets: Offsets) -> Result<Encoding, TokenizerError> {
        if let Some(splitter) = &self.splitter {
            return self.encode_by_spelling(splitter, text, control);
        }
        let tokenizer = match control {
            ControlTokens::AsText => &self.literal,
            ControlTokens::Parsed => self.markup(),
        };
        let encode = |text: &str| {
            guard("encode", || match offsets {
                Offsets::Wanted => tokenizer.encode(text, false),
                Offsets::Unused => tokenizer.encode_fast(text, false),
            })
        };
        encode(text).map_err(|error| match &error {
            TokenizerError::Failed { message, .. } if message.contains(NO_UNKNOWN) => {
                unknown_character(text, |text| encode(text).is_err()).unwrap_or(error)
            }
            _ => error,
        })
    }

    /// The spellings of control tokens, without the unknown token.
    fn control_tokens(&self) -> impl Iterator<Item = &str> {
        let is_control = |added: &&validate::AddedEntry| {
            added.special && Some(&added.content) != self.facts.unknown.as_ref()
        };
        self.facts.added.iter().filter(is_control).map(|added| added.content.as_str())
    }

    /// For a character vocabulary, replaces the library's error by one that names the character of `text` that it lacks.
    fn say_character(&self, text: &str, error: TokenizerError) -> TokenizerError {
        let Some(characters) = &self.facts.characters else { return error };
        let plain = self.reserved.values().fold(text.to_owned(), |t, token| t.replace(token, ""));
        characters.encode(&plain).err().unwrap_or(error)
    }

    fn encode_literal(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let encoding = self.run(ControlTokens::AsText, text, Offsets::Unused)?;
        if encoding.get_ids().iter().any(|id| self.reserved.contains_key(id)) {
            return self.encode_around_reserved(text, ids);
        }
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    fn markup(&self) -> &tokenizers::Tokenizer {
        self.markup.get_or_init(|| {
            let mut markup = self.literal.clone();
            markup.set_encode_special_tokens(false);
            markup
        })
    }

    fn encode_around_reserved(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let encoding = self.run(ControlTokens::AsText, text, Offsets::Wanted)?;
        for piece in self.pieces_around_reserved(text, &encoding)? {
            ids.extend_from_slice(self.encode_piece(&text[piece])?.get_ids());
        }
        Ok(())
    }

    /// Some models have control tokens in their own vocabulary and match them in any text. Splitting the text after the
    /// first character of each match prevents that.
    fn pieces_around_reserved(
        &self,
        text: &str,
        encoding: &Encoding,
    ) -> Result<Vec<Range<usize>>, TokenizerError> {
        let mut cuts = vec![0];
        for (id, &(start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            let Some(token) = self.reserved.get(id) else { continue };
            let refuse = || TokenizerError::ControlToken { token: token.clone() };
            let first = text.get(start..end).and_then(|t| t.chars().next()).ok_or_else(refuse)?;
            let cut = start + first.len_utf8();
            if cut >= end {
                return Err(refuse());
            }
            cuts.push(cut);
        }
        cuts.push(text.len());
        Ok(cuts.windows(2).map(|pair| pair[0]..pair[1]).collect())
    }

    fn encode_piece(&self, piece: &str) -> Result<Encoding, TokenizerError> {
        let encoding = self.run(ControlTokens::AsText, piece, Offsets::Wanted)?;
        match encoding.get_ids().iter().find_map(|id| self.reserved.get(id)) {
            Some(token) => Err(TokenizerError::ControlToken { token: token.clone() }),
            None => Ok(encoding),
        }
    }

    /// The token of an id, as the decoder sees it.
    fn decoded_token(&self, id: u32) -> Option<String> {
        let added = self.literal.get_added_vocabulary();
        added.simple_id_to_token(id).or_else(|| self.literal.get_model().id_to_token(id))
    }

    fn is_special_token(&self, id: u32) -> bool {
        self.decoded_token(id).is_some_and(|t| self.literal.get_added_vocabulary().is_special_token(&t))
    }

    /// The bytes of a token that is decoded independently of its neighbours.
    fn bytes_of(&self, token: &str) -> Vec<u8> {
        match self.decoding() {
            Decoding::ByteLevel => bytes::spelled(token),
            _ => token.as_bytes().to_vec(),
        }
    }

    fn decoding(&self) -> Decoding {
        self.facts.decoding
    }
}

/// Runs the library, turning its errors and its panics into ours.
fn guard<T>(
    operation: &'static str,
    run: impl FnOnce() -> tokenizers::Result<T>,
) -> Result<T, TokenizerError> {
    crate::guard::guard(run).map_err(|message| TokenizerError::Failed { operation, message })
}

#[cfg(test)]
mod tests;
