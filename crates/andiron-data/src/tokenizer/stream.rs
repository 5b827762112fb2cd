//! Streaming decoding: text while ids arrive one at a time.

use super::clean_up::CleanUp;
use super::validate::Decoding;
use super::{Special, Tokenizer, TokenizerError, bytes};

/// Decodes ids while they arrive and never returns part of a character.
///
/// The concatenated results of [`push`](Self::push) and [`finish`](Self::finish) equal [`Tokenizer::decode`] of all ids. The
/// cost of an id does not grow with the length of the text. If several ids spell one character, its bytes are held back until
/// it is complete. Tokenizers with byte fallback (Llama 2) decode a run of byte tokens only at its end, so the whole run is
/// held back.
///
/// Decoders that look at the end of the text (to strip spaces there) are an exception: they may give other text.
///
/// # Example
/// ```
/// use andiron_data::tokenizer::{BpeOptions, Special, StreamDecoder, train_bpe};
/// let tokenizer = train_bpe(["text"], &BpeOptions::new(257))?;
/// let ids = tokenizer.encode("né")?;
/// assert_eq!(ids.len(), 3);
/// let mut stream = StreamDecoder::new(&tokenizer, Special::Skip);
/// let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect::<Result<_, _>>()?;
/// assert_eq!(pieces, ["n", "", "é"]);
/// assert_eq!(stream.finish()?, "");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    special: Special,
    state: State,
    clean_up: Option<CleanUp>,
}

/// Number of ids at the end of a prompt that are decoded together with its continuation, so that the tokenizer does not
/// treat the continuation as the beginning of a text.
const CONTEXT_IDS: usize = 8;

enum State {
    /// Tokens are decoded independently to bytes; these are the bytes of the incomplete character.
    Bytes(Vec<u8>),
    /// Tokens are decoded together with those before them. `ids[..shown]` was returned already and is the context of the
    /// rest.
    Window { ids: Vec<u32>, shown: usize },
}

impl StreamDecoder {
    /// Starts a text.
    pub fn new(tokenizer: &Tokenizer, special: Special) -> Self {
        let state = match tokenizer.inner.decoding() {
            Decoding::ByteLevel | Decoding::Concatenate => State::Bytes(Vec::new()),
            Decoding::ByteFallback | Decoding::Other => State::Window { ids: Vec::new(), shown: 0 },
        };
        let clean_up = tokenizer.cleans_up().then(CleanUp::default);
        Self { tokenizer: tokenizer.clone(), special, state, clean_up }
    }

    /// Starts the continuation of `prompt`: returns only the text that the following ids add to the prompt's.
    ///
    /// SentencePiece and WordPiece decode the first token of a text differently from later ones, so a continuation that is
    /// decoded by itself loses its first space. If the prompt ends within a character, the whole character is returned with
    /// the id that completes it.
    ///
    /// # Errors
    /// If the library fails.
    pub fn after(tokenizer: &Tokenizer, special: Special, prompt: &[u32]) -> Result<Self, TokenizerError> {
        let mut stream = Self::new(tokenizer, special);
        let mut context: Vec<u32> =
            prompt.iter().rev().copied().filter(|&id| stream.shows(id)).take(CONTEXT_IDS).collect();
        context.reverse();
        if matches!(stream.state, State::Window { .. }) {
            let shown = context.len() - stream.unfinished(&context);
            stream.state = State::Window { ids: context, shown };
            return Ok(stream);
        }
        for id in context {
            stream.push_raw(id)?;
        }
        Ok(stream)
    }

    /// Whether `id` is part of the text.
    fn shows(&self, id: u32) -> bool {
        let inner = &self.tokenizer.inner;
        let Some(token) = inner.decoded_token(id) else { return false };
        self.special == Special::Keep || !inner.literal.get_added_vocabulary().is_special_token(&token)
    }

    /// Number of byte tokens at the end of `ids` that are the beginning of a character.
    fn unfinished(&self, ids: &[u32]) -> usize {
        let inner = &self.tokenizer.inner;
        if inner.decoding() != Decoding::ByteFallback {
            return 0;
        }
        let byte = |&id: &u32| inner.decoded_token(id).and_then(|token| bytes::fallback(&token));
        let mut run: Vec<u8> = ids.iter().rev().map_while(byte).collect();
        run.reverse();
        take_whole_characters(&mut run);
        run.len()
    }

    /// Takes the next id; returns the text that is complete now, which may be empty.
    ///
    /// # Errors
    /// If the library fails.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        let raw = self.push_raw(id)?;
        Ok(match &mut self.clean_up {
            Some(clean_up) => clean_up.push(&raw),
            None => raw,
        })
    }

    fn push_raw(&mut self, id: u32) -> Result<String, TokenizerError> {
        let inner = &self.tokenizer.inner;
        let Some(token) = inner.decoded_token(id).filter(|_| self.shows(id)) else {
            return Ok(String::new());
        };
        match &mut self.state {
            State::Bytes(pending) => {
                pending.extend(inner.bytes_of(&token));
                Ok(take_whole_characters(pending))
            }
            State::Window { ids, .. } => {
                ids.push(id);
                if inner.decoding() == Decoding::ByteFallback && bytes::fallback(&token).is_some() {
                    return Ok(String::new());
                }
                self.advance(At::Middle)
            }
        }
    }

    /// Ends the text; returns what was held back. Bytes that are not a character become U+FFFD.
    ///
    /// # Errors
    /// If the library fails.
    pub fn finish(mut self) -> Result<String, TokenizerError> {
        let raw = match &mut self.state {
            State::Bytes(pending) => String::from_utf8_lossy(pending).into_owned(),
            State::Window { .. } => self.advance(At::End)?,
        };
        Ok(match self.clean_up.take() {
            Some(clean_up) => clean_up.finish(&raw),
            None => raw,
        })
    }

    fn advance(&mut self, at: At) -> Result<String, TokenizerError> {
        let State::Window { ids, shown } = &mut self.state else { return Ok(String::new()) };
        let before = self.tokenizer.decode_raw(&ids[..*shown], self.special)?;
        let all = self.tokenizer.decode_raw(ids, self.special)?;
        // U+FFFD at the end may be a character that is not whole yet, and a text that no longer begins as it did may do so
        // again. After some tokens neither will happen: waiting longer would let the window grow without bound.
        let patient = at == At::Middle && ids.len() - *shown < MAX_WAIT;
        let new = match all.strip_prefix(before.as_str()) {
            Some(_) if patient && all.ends_with('\u{fffd}') => "",
            Some(new) => new,
            None if patient => "",
            None => &all[common_prefix(&before, &all)..],
        };
        if !new.is_empty() {
            // What was just added becomes the context of what comes.
            ids.drain(..*shown);
            *shown = ids.len();
        }
        Ok(new.to_owned())
    }
}

/// Length in bytes of the common prefix of both texts.
fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(character, _)| character.len_utf8()).sum()
}

const MAX_WAIT: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Middle,
    End,
}

/// Removes from `pending` all but an incomplete character at its end. Invalid bytes become U+FFFD, exactly as with
/// `String::from_utf8_lossy` of the whole text.
fn take_whole_characters(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut at = 0;
    loop {
        match std::str::from_utf8(&pending[at..]) {
            Ok(rest) => {
                text.push_str(rest);
                at = pending.len();
                break;
            }
            Err(error) => {
                let valid = at + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&pending[at..valid]));
                at = valid;
                match error.error_len() {
                    Some(bad) => {
                        text.push('\u{fffd}');
                        at += bad;
                    }
                    None => break,
                }
            }
        }
    }
    pending.drain(..at);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_in_any_portions_give_the_lossy_text(portions: Vec<Vec<u8>>) {
            let mut pending = Vec::new();
            let mut text = String::new();
            for portion in &portions {
                pending.extend(portion);
                text.push_str(&take_whole_characters(&mut pending));
                prop_assert!(pending.len() <= 3);
            }
            text.push_str(&String::from_utf8_lossy(&pending));
            let whole = portions.concat();
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }
    }
}
