//! Incremental decoding of generated ids to text.

use andiron_data::tokenizer::{Special, StopError, StopMatcher, StreamDecoder, TokenizerError};

use crate::TextProcessor;

/// Turns the ids of one generation into text.
///
/// It is primed with the prompt, because some tokenizers strip the space before the first token of a text. Incomplete UTF-8
/// characters, and text that may be the start of a stop string, are held back until they are decided. Without a tokenizer the
/// text is empty.
pub struct TextStream {
    decoder: Option<StreamDecoder>,
    /// `None` after the end of the text.
    matcher: Option<StopMatcher>,
    end_ids: Vec<u32>,
    /// Control tokens that are part of the text, and what they are written as.
    shown: Vec<(u32, String)>,
    /// Stop strings within the first `min_tokens` tokens are ignored.
    min_tokens: usize,
    tokens: usize,
    /// The stop string that ended the text.
    stopped: Option<usize>,
}

/// Text added by an id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextPiece {
    /// Text that is final.
    pub text: String,
    /// Characters that were decoded, held back or not.
    pub decoded_chars: usize,
    /// Whether a stop string was met. The text ends before it.
    pub stopped: bool,
}

/// Why ids cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextStreamError {
    /// Stop strings were given, and there is no tokenizer.
    #[error("a stop string needs a tokenizer, which the model directory does not have")]
    StopWithoutTokenizer,
    /// A stop string is invalid.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// The tokenizer fails.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl TextStream {
    /// The text after that of `prompt`, which may be empty, up to one of `stops`; the ids `end_ids` are no part of it.
    ///
    /// # Errors
    /// If a stop string is empty or there is no tokenizer to find it with, or if the tokenizer fails.
    pub fn new(
        processor: &TextProcessor,
        prompt: &[u32],
        end_ids: &[u32],
        stops: &[String],
    ) -> Result<Self, TextStreamError> {
        let tokenizer = processor.tokenizer();
        if !stops.is_empty() && tokenizer.is_none() {
            return Err(TextStreamError::StopWithoutTokenizer);
        }
        let decoder = tokenizer.map(|tokenizer| StreamDecoder::after(tokenizer, Special::Skip, prompt));
        Ok(Self {
            decoder: decoder.transpose()?,
            matcher: Some(StopMatcher::new(stops)?),
            end_ids: end_ids.to_vec(),
            shown: Vec::new(),
            min_tokens: 0,
            tokens: 0,
            stopped: None,
        })
    }

    /// The same, ignoring stop strings within the first `tokens` tokens.
    #[must_use]
    pub fn with_min_tokens(self, tokens: usize) -> Self {
        Self { min_tokens: tokens, ..self }
    }

    /// The same, with the control tokens `markers` written out in the text. Names that are no control tokens need nothing.
    #[must_use]
    pub fn showing(self, processor: &TextProcessor, markers: &[&str]) -> Self {
        let Some(tokenizer) = processor.tokenizer() else { return self };
        let shown = markers.iter().filter_map(|marker| {
            let id = tokenizer.token_to_id(marker).filter(|&id| tokenizer.is_special(id))?;
            Some((id, (*marker).to_owned()))
        });
        Self { shown: shown.collect(), ..self }
    }

    /// Ids taken so far.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Index of the stop string that ended the text, if one has.
    pub fn stopped_by(&self) -> Option<usize> {
        self.stopped
    }

    /// Takes the next id. After a stop string, all text is dropped.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn push(&mut self, id: u32) -> Result<TextPiece, TextStreamError> {
        self.tokens += 1;
        let decoded = match &mut self.decoder {
            Some(decoder) if !self.end_ids.contains(&id) => {
                let mut decoded = decoder.push(id)?;
                if let Some((_, marker)) = self.shown.iter().find(|(shown, _)| *shown == id) {
                    decoded.push_str(marker);
                }
                decoded
            }
            _ => String::new(),
        };
        if self.tokens <= self.min_tokens {
            let decoded_chars = decoded.chars().count();
            return Ok(TextPiece { text: decoded, decoded_chars, stopped: false });
        }
        Ok(self.watch(&decoded))
    }

    /// Ends the text and returns what was held back.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn finish(&mut self) -> Result<TextPiece, TextStreamError> {
        let decoded = match self.decoder.take() {
            Some(decoder) if self.stopped.is_none() => decoder.finish()?,
            _ => String::new(),
        };
        let mut piece = self.watch(&decoded);
        if let Some(matcher) = self.matcher.take()
            && !piece.stopped
        {
            piece.text.push_str(&matcher.finish());
        }
        Ok(piece)
    }

    /// Matches `decoded` against the stop strings.
    fn watch(&mut self, decoded: &str) -> TextPiece {
        let passed = self.matcher.as_mut().map(|matcher| matcher.push(decoded)).unwrap_or_default();
        self.stopped = self.stopped.or(passed.stopped);
        TextPiece {
            text: passed.text,
            decoded_chars: decoded.chars().count(),
            stopped: self.stopped.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use andiron_data::tokenizer::{BpeOptions, SpecialTokens, Tokenizer, train_bpe};

    use super::*;

    fn tokenizer() -> Tokenizer {
        train_bpe(["text"], &BpeOptions::new(257)).unwrap()
    }

    fn processor() -> TextProcessor {
        TextProcessor::new(Some(tokenizer()), vec![])
    }

    /// The texts of `written`, an id for each byte, and whether a stop string came; then what the end adds.
    fn pieces(written: &str, stops: &[&str], min_tokens: usize) -> (Vec<(String, bool)>, String) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        let mut stream = TextStream::new(&processor(), &[], &[], &stops).unwrap().with_min_tokens(min_tokens);
        let ids = tokenizer().encode(written).unwrap();
        let mut shown = Vec::new();
        for id in ids {
            let piece = stream.push(id).unwrap();
            shown.push((piece.text, piece.stopped));
        }
        (shown, stream.finish().unwrap().text)
    }

    #[test]
    fn half_a_character_and_the_beginning_of_a_stop_string_are_held_back() {
        let (shown, rest) = pieces("né!", &["!?"], 0);
        let texts: Vec<&str> = shown.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!((texts, rest.as_str()), (vec!["n", "", "é", ""], "!"));
        let (shown, rest) = pieces("a!?b", &["!?"], 0);
        assert_eq!(shown.iter().map(|(_, stopped)| *stopped).collect::<Vec<_>>(), [false, false, true, true]);
        assert_eq!(
            (shown.iter().map(|(text, _)| text.as_str()).collect::<String>(), rest),
            ("a".into(), String::new())
        );
    }

    #[test]
    fn a_stop_string_among_the_first_tokens_is_text() {
        let (shown, rest) = pieces("a!a!", &["!"], 2);
        let text: String = shown.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!((text, rest, shown[1].1, shown[3].1), ("a!a".into(), String::new(), false, true));
    }

    #[test]
    fn an_end_id_is_no_text_and_counts_as_a_token() {
        let ids = tokenizer().encode("ab").unwrap();
        let mut stream = TextStream::new(&processor(), &[], &ids[1..], &[]).unwrap();
        assert_eq!(
            stream.push(ids[0]).unwrap(),
            TextPiece { text: "a".into(), decoded_chars: 1, stopped: false }
        );
        assert_eq!(stream.push(ids[1]).unwrap(), TextPiece::default());
        assert_eq!(stream.tokens(), 2);
    }

    #[test]
    fn a_control_token_is_written_out_if_wanted() {
        let special =
            SpecialTokens { additional: vec!["[CALL]".into(), "[X]".into()], ..SpecialTokens::default() };
        let options = BpeOptions { special_tokens: special, ..BpeOptions::new(260) };
        let tokenizer = train_bpe(["text"], &options).unwrap();
        let ids = [tokenizer.encode("a").unwrap(), tokenizer.encode_markup("[CALL][X]").unwrap()].concat();
        let processor = TextProcessor::new(Some(tokenizer), vec![]);
        let stream = TextStream::new(&processor, &[], &[], &[]).unwrap();
        let mut stream = stream.showing(&processor, &["[CALL]", "a", "[NONE]"]);
        let text: String = ids.iter().map(|&id| stream.push(id).unwrap().text).collect();
        assert_eq!(text + &stream.finish().unwrap().text, "a[CALL]");
    }

    #[test]
    fn without_a_tokenizer_there_is_no_text_and_no_stop_string() {
        let bare = TextProcessor::default();
        let mut stream = TextStream::new(&bare, &[1], &[], &[]).unwrap();
        assert_eq!(
            (stream.push(3).unwrap().text, stream.finish().unwrap().text),
            (String::new(), String::new())
        );
        let refused = TextStream::new(&bare, &[1], &[], &["x".to_owned()]);
        assert!(matches!(refused, Err(TextStreamError::StopWithoutTokenizer)));
    }
}
