//! SentencePiece models: reading of the model file, normalization and segmentation.
//!
//! Source: `sentencepiece_model.proto` and `unigram_model.cc` of <https://github.com/google/sentencepiece>.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use tokenizers::Model as _;
use tokenizers::models::unigram::Unigram;

use super::charsmap::Charsmap;

/// The character for a space within a piece.
pub(super) const SPACE: &str = "▁";
/// Maximum number of pieces of a model; the largest in use have a quarter of a million.
const MOST_PIECES: usize = 1 << 22;
/// Spelling of the entry for the unknown token, which the library requires. A text that contains it gives a piece with this
/// spelling, which no vocabulary has.
const UNKNOWN: &str = "\u{10ffff}\u{10fffe}";

/// Kinds of pieces, as numbered in the file.
mod kind {
    pub const NORMAL: u64 = 1;
    pub const USER_DEFINED: u64 = 4;
    pub const BYTE: u64 = 6;
}

/// A SentencePiece Unigram model.
#[derive(Debug)]
pub(super) struct SentencePiece {
    /// Pieces for segmentation, with their log-probabilities.
    pieces: Vec<(String, f64)>,
    /// User-defined pieces: they are matched before all others and are not normalized.
    user_defined: Vec<String>,
    replacements: Charsmap,
    begins_with_space: bool,
    collapses_spaces: bool,
}

impl SentencePiece {
    /// Reads the content of a model file; the error describes what is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut model = Self {
            pieces: Vec::new(),
            user_defined: Vec::new(),
            replacements: Charsmap::default(),
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
            // Control tokens, the unknown token and unused pieces are never matched in a text.
            _ => Ok(()),
        }
    }

    fn set_normalizer(&mut self, bytes: &[u8]) -> Result<(), String> {
        for field in Fields(bytes) {
            match field? {
                (2, Field::Bytes(map)) => self.replacements = Charsmap::read(map)?,
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

    /// The segmentation of texts by this model.
    pub(super) fn splitter(self) -> tokenizers::Result<Splitter> {
        let scores = || self.pieces.iter().map(|&(_, score)| score);
        let (lowest, highest) =
            (scores().fold(f64::INFINITY, f64::min), scores().fold(f64::NEG_INFINITY, f64::max));
        let mut vocabulary = vec![(UNKNOWN.to_owned(), lowest)];
        vocabulary.extend(self.pieces.iter().cloned());
        let preferred = |piece: &String| (piece.clone(), piece.len() as f64 * highest - 0.1);
        vocabulary.extend(self.user_defined.iter().map(preferred));
        let mut unigram = Unigram::from(vocabulary, Some(0), false)?;
        // The penalty of the unknown token is computed from normal pieces only.
        unigram.min_score = lowest;
        let mut user_defined: HashMap<char, Vec<String>> = HashMap::new();
        for piece in self.user_defined {
            if let Some(first) = piece.chars().next() {
                user_defined.entry(first).or_default().push(piece);
            }
        }
        user_defined.values_mut().for_each(|pieces| pieces.sort_by_key(|piece| Reverse(piece.len())));
        Ok(Splitter {
            unigram,
            user_defined,
            replacements: self.replacements,
            begins_with_space: self.begins_with_space,
            collapses_spaces: self.collapses_spaces,
        })
    }
}

/// Segments texts into the pieces of a model.
pub(super) struct Splitter {
    unigram: Unigram,
    /// By their first character, the longest first.
    user_defined: HashMap<char, Vec<String>>,
    replacements: Charsmap,
    begins_with_space: bool,
    collapses_spaces: bool,
}

/// A normalized text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Normalized {
    pub(super) text: String,
    /// For each of its bytes, the bytes of the original that it comes from.
    origins: Vec<(usize, usize)>,
}

impl Normalized {
    fn push(&mut self, text: &str, origin: (usize, usize)) {
        self.text.push_str(text);
        self.origins.resize(self.text.len(), origin);
    }

    fn pop(&mut self, suffix: &str) -> bool {
        let shorter = self.text.strip_suffix(suffix).map(str::len);
        if let Some(length) = shorter {
            self.text.truncate(length);
            self.origins.truncate(length);
        }
        shorter.is_some()
    }
}

impl Splitter {
    /// The pieces of a text with their byte ranges. A run of characters without a piece becomes a piece with that spelling.
    pub(super) fn pieces(&self, text: &str) -> tokenizers::Result<Vec<(String, Range<usize>)>> {
        let normalized = self.normalize(text);
        let tokens = self.unigram.tokenize(&normalized.text)?;
        let place = |(start, end): (usize, usize)| normalized.origins[start].0..normalized.origins[end - 1].1;
        Ok(tokens.into_iter().map(|token| (token.value, place(token.offsets))).collect())
    }

    /// The text as SentencePiece normalizes it. The longest match at each position is replaced and spaces become `▁`. If the
    /// model's settings say so, runs of spaces are collapsed, spaces at the ends are removed, and one is put before the text.
    pub(super) fn normalize(&self, text: &str) -> Normalized {
        let mut normalized = Normalized::default();
        let mut at = 0;
        if self.collapses_spaces {
            while let Some((length, " ")) = self.next(&text[at..]) {
                at += length;
            }
        }
        if at == text.len() {
            return normalized;
        }
        if self.begins_with_space {
            normalized.push(SPACE, (at, at));
        }
        let mut after_space = self.collapses_spaces;
        while let Some((length, replacement)) = self.next(&text[at..]) {
            let shown = if after_space { replacement.trim_start_matches(' ') } else { replacement };
            let origin = (at, at + length);
            for (index, part) in shown.split(' ').enumerate() {
                if index > 0 {
                    normalized.push(SPACE, origin);
                }
                normalized.push(part, origin);
            }
            if !shown.is_empty() {
                after_space = shown.ends_with(' ');
            }
            after_space &= self.collapses_spaces;
            at += length;
        }
        while self.collapses_spaces && normalized.pop(SPACE) {}
        normalized
    }

    /// The next normalization step: the number of bytes consumed from `text` and their replacement; `None` at its end.
    fn next<'a>(&'a self, text: &'a str) -> Option<(usize, &'a str)> {
        let first = text.chars().next()?;
        let whole = |piece: &&String| text.starts_with(piece.as_str());
        if let Some(piece) = self.user_defined.get(&first).and_then(|pieces| pieces.iter().find(whole)) {
            return Some((piece.len(), &text[..piece.len()]));
        }
        let length = first.len_utf8();
        Some(self.replacements.longest_match(text).unwrap_or((length, &text[..length])))
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
