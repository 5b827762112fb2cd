//! SentencePiece models: the file that `spm_train` writes, and the splitter that it describes.
//!
//! Source: `sentencepiece_model.proto` and `unigram_model.cc` of <https://github.com/google/sentencepiece>.

use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::{NormalizerWrapper, Precompiled, Prepend, Sequence};
use tokenizers::{AddedToken, Tokenizer};

/// Stands for a space within a piece.
pub(super) const SPACE: &str = "▁";
/// Most pieces of a model; the largest in use have a quarter of a million.
const MOST_PIECES: usize = 1 << 22;
/// A spelling that no text is meant to have, of the entry that the library wants for the unknown. A text that has it
/// nonetheless gives a piece of this spelling, which no vocabulary knows.
const UNKNOWN: &str = "\u{10ffff}\u{10fffe}";

/// What a piece is, in the numbers of the file.
mod kind {
    pub const NORMAL: u64 = 1;
    pub const USER_DEFINED: u64 = 4;
    pub const BYTE: u64 = 6;
}

/// A SentencePiece Unigram model.
#[derive(Debug)]
pub(super) struct SentencePiece {
    /// Pieces that a text may be taken apart into, with the logarithms of their probabilities.
    pieces: Vec<(String, f64)>,
    /// Pieces that are found in a text before anything else.
    user_defined: Vec<String>,
    /// Which characters are replaced by which, in the library's compiled form.
    replacements: Vec<u8>,
    begins_with_space: bool,
    collapses_spaces: bool,
}

impl SentencePiece {
    /// Reads the content of a model file; the error says what is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut model = Self {
            pieces: Vec::new(),
            user_defined: Vec::new(),
            replacements: Vec::new(),
            begins_with_space: true,
            collapses_spaces: true,
        };
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(piece)) => model.add_piece(piece)?,
                (2, Field::Bytes(spec)) => check_trainer(spec)?,
                (3, Field::Bytes(spec)) => model.set_normalizer(spec)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err("it has no pieces".to_owned());
        }
        Ok(model)
    }

    fn add_piece(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (mut piece, mut score, mut what) = (String::new(), 0.0, kind::NORMAL);
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(text)) => {
                    piece =
                        String::from_utf8(text.to_vec()).map_err(|_| "a piece is not UTF-8".to_owned())?;
                }
                (2, Field::Fixed32(bits)) => score = f32::from_bits(bits),
                (3, Field::Varint(number)) => what = number,
                _ => {}
            }
        }
        if self.pieces.len() + self.user_defined.len() == MOST_PIECES {
            return Err(format!("it has more than {MOST_PIECES} pieces"));
        }
        match what {
            kind::NORMAL | kind::USER_DEFINED if piece.is_empty() => Err("it has an empty piece".to_owned()),
            kind::NORMAL if !score.is_finite() => Err(format!("piece {piece:?} has no finite score")),
            kind::NORMAL => {
                self.pieces.push((piece, f64::from(score)));
                Ok(())
            }
            kind::USER_DEFINED => {
                self.user_defined.push(piece);
                Ok(())
            }
            kind::BYTE => Err("it spells the unknown in bytes, which is not supported here".to_owned()),
            // Control tokens, the unknown and pieces out of use are never found in a text.
            _ => Ok(()),
        }
    }

    fn set_normalizer(&mut self, bytes: &[u8]) -> Result<(), String> {
        for field in Fields(bytes) {
            match field? {
                (2, Field::Bytes(map)) => self.replacements = map.to_vec(),
                (3, Field::Varint(flag)) => self.begins_with_space = flag != 0,
                (4, Field::Varint(flag)) => self.collapses_spaces = flag != 0,
                (5, Field::Varint(0)) => {
                    return Err("it does not escape white space, which is not supported".to_owned());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What takes a text apart into pieces. Their ids mean nothing; a run of characters of which the model has no
    /// piece is one piece of that spelling. `control` are found only where control tokens are meant.
    pub(super) fn splitter(&self, control: &[String]) -> tokenizers::Result<Tokenizer> {
        let lowest = self.pieces.iter().map(|&(_, score)| score).fold(f64::INFINITY, f64::min);
        let mut vocabulary = vec![(UNKNOWN.to_owned(), lowest)];
        vocabulary.extend(self.pieces.iter().cloned());
        let mut splitter = Tokenizer::new(Unigram::from(vocabulary, Some(0), false)?);
        let replace = |pattern, content| Replace::new(pattern, content).map(NormalizerWrapper::from);
        let regex = |pattern: &str| ReplacePattern::Regex(pattern.to_owned());
        let mut steps: Vec<NormalizerWrapper> = Vec::new();
        if !self.replacements.is_empty() {
            steps.push(Precompiled::from(&self.replacements)?.into());
        }
        if self.collapses_spaces {
            steps.push(replace(regex("^ +| +$"), "")?);
            steps.push(replace(regex(" {2,}"), " ")?);
        }
        if self.begins_with_space {
            steps.push(Prepend::new(SPACE.to_owned()).into());
        }
        steps.push(replace(ReplacePattern::String(" ".to_owned()), SPACE)?);
        splitter.with_normalizer(Some(Sequence::new(steps)))?;
        let user_defined =
            self.user_defined.iter().map(|piece| AddedToken::from(piece, false).normalized(false));
        splitter.add_tokens(user_defined)?;
        splitter.add_special_tokens(control.iter().map(|token| AddedToken::from(token, true)))?;
        Ok(splitter)
    }
}

fn check_trainer(bytes: &[u8]) -> Result<(), String> {
    for field in Fields(bytes) {
        match field? {
            (3, Field::Varint(kind)) if kind != 1 => {
                return Err(format!("it is no Unigram model (its model_type is {kind}, not 1)"));
            }
            (24, Field::Varint(flag)) if flag != 0 => {
                return Err("it has spaces at the ends of words, which is not supported".to_owned());
            }
            _ => {}
        }
    }
    Ok(())
}

/// The value of a field of a protocol buffer.
enum Field<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(&'a [u8]),
}

/// The numbers and values of the fields in a protocol buffer.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| "it is cut off, or no SentencePiece model".to_owned()))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Fixed64
            }
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(usize::try_from(length).ok()?)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }
}
