//! WordPiece, as in BERT.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, OffsetReferential, OffsetType};
use tokenizers::{NormalizedString, Normalizer as _, PreTokenizedString, PreTokenizer as _};

use super::pairs::{Bounds, merge_pairs};
use super::words::{Cuts, WordCounts};
use super::{SpecialTokens, TrainError, check_special};
use crate::tokenizer::files::Files;
use crate::tokenizer::{Tokenizer, guard};

/// What begins a token that continues a word.
const PREFIX: &str = "##";

/// Options of [`train_word_piece`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordPieceOptions {
    /// Maximum vocabulary size, including control tokens and letters. A short text may give fewer tokens.
    pub vocab_size: usize,
    /// A pair that occurs less often than this is not merged.
    #[serde(default = "WordPieceOptions::default_min_frequency")]
    pub min_frequency: u64,
    /// The most letters; those that occur least are unknown. Of equally frequent ones, those of lower code points are kept.
    #[serde(default = "WordPieceOptions::default_limit_alphabet")]
    pub limit_alphabet: usize,
    /// Whether letters lose their case and accents, as in uncased BERT.
    #[serde(default = "WordPieceOptions::default_lowercase")]
    pub lowercase: bool,
    /// Control tokens; they get the first ids. The roles `unk`, `cls` and `sep` are needed.
    #[serde(default = "SpecialTokens::bert")]
    pub special_tokens: SpecialTokens,
}

impl WordPieceOptions {
    /// The defaults of `BertWordPieceTokenizer` in Python: a minimum frequency of 2, at most 1000 letters, lower case, and
    /// BERT's control tokens.
    pub fn new(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            min_frequency: Self::default_min_frequency(),
            limit_alphabet: Self::default_limit_alphabet(),
            lowercase: Self::default_lowercase(),
            special_tokens: SpecialTokens::bert(),
        }
    }

    fn default_min_frequency() -> u64 {
        2
    }

    fn default_limit_alphabet() -> usize {
        1000
    }

    fn default_lowercase() -> bool {
        true
    }
}

/// Trains WordPiece as the `tokenizers` library does: by merging the most frequent pairs, as BPE does, after texts were
/// normalized and split into words as BERT's are. The same texts give the same bytes in `tokenizer.json`.
///
/// Source: Schuster, Nakajima 2012, "Japanese and Korean Voice Search"; with the frequency of pairs in place of their
/// likelihood, as in the library.
///
/// # Errors
/// If there is no text, a control token is missing, empty or a letter, the size is too small, or the library fails.
///
/// # Example
/// ```
/// use andiron_data::tokenizer::{WordPieceOptions, train_word_piece};
/// let tokenizer = train_word_piece(["low lower lowest", "Low"], &WordPieceOptions::new(60))?;
/// let ids = tokenizer.encode_framed("LOWER")?;
/// let tokens: Vec<_> = ids.iter().filter_map(|&id| tokenizer.id_to_token(id)).collect();
/// assert_eq!(tokens, ["[CLS]", "lowe", "##r", "[SEP]"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn train_word_piece<I, S>(texts: I, options: &WordPieceOptions) -> Result<Tokenizer, TrainError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<str>,
{
    let special = &options.special_tokens;
    let all = special.all();
    let of_role = |role: &'static str, token: &Option<String>| {
        let token = token.clone().ok_or(TrainError::MissingRole { role })?;
        let id = all.iter().position(|known| *known == token).unwrap_or_default();
        Ok::<_, TrainError>((token, id as u32))
    };
    let (unknown, _) = of_role("unk", &special.unk)?;
    let processor = BertProcessing::new(of_role("sep", &special.sep)?, of_role("cls", &special.cls)?);
    let normalizer = BertNormalizer::new(true, true, None, options.lowercase);
    let counts = WordCounts::of(texts, Cuts::Text, |piece: &str, each: &mut dyn FnMut(&str)| {
        Ok(guard("train", || {
            let mut normalized = NormalizedString::from(piece);
            normalizer.normalize(&mut normalized)?;
            let mut words = PreTokenizedString::from(normalized);
            BertPreTokenizer.pre_tokenize(&mut words)?;
            let splits = words.get_splits(OffsetReferential::Normalized, OffsetType::None);
            splits.into_iter().for_each(|(word, ..)| each(word));
            Ok(())
        })?)
    })?;
    if !counts.any_text() {
        return Err(TrainError::NoText);
    }
    let counts = counts.sorted();
    let letters = letters(&counts, options.limit_alphabet);
    check_special(special, |token| {
        let mut chars = token.chars();
        chars.next().is_some_and(|c| chars.next().is_none() && letters.contains(&c))
    })?;
    let mut tokens: Vec<String> = all.iter().map(|&token| token.to_owned()).collect();
    tokens.extend(letters.iter().map(char::to_string));
    let inner: BTreeSet<char> =
        counts.iter().flat_map(|(word, _)| word.chars().skip(1)).filter(|c| letters.contains(c)).collect();
    tokens.extend(inner.iter().map(|c| format!("{PREFIX}{c}")));
    if tokens.len() > options.vocab_size {
        return Err(TrainError::VocabularyTooSmall { asked: options.vocab_size, least: tokens.len() });
    }
    let ids: HashMap<&str, u32> = tokens.iter().map(String::as_str).zip(0..).collect();
    let symbols = |word: &str| {
        let mut buffer = String::new();
        let symbol = |(at, c): (usize, char)| {
            buffer.clear();
            buffer.push_str(if at == 0 { "" } else { PREFIX });
            buffer.push(c);
            ids.get(buffer.as_str()).copied()
        };
        word.chars().enumerate().filter(|(_, c)| letters.contains(c)).filter_map(symbol).collect()
    };
    let words = counts.iter().map(|(word, count)| (symbols(word), *count)).collect();
    drop(ids);
    let bounds = Bounds { vocab_size: options.vocab_size, min_frequency: options.min_frequency };
    let trained = merge_pairs(words, tokens, PREFIX, bounds);
    let json = guard("train", || {
        let vocabulary: Vocab = trained.tokens.into_iter().zip(0..).collect();
        let model = WordPiece::builder()
            .vocab(vocabulary)
            .unk_token(unknown)
            .continuing_subword_prefix(PREFIX.into())
            .build()?;
        let mut tokenizer = tokenizers::Tokenizer::new(model);
        tokenizer.with_normalizer(Some(normalizer))?;
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        tokenizer.with_decoder(Some(WordPieceDecoder::new(PREFIX.into(), true)));
        tokenizer.with_post_processor(Some(processor));
        tokenizer.add_special_tokens(all.iter().map(|&token| AddedToken::from(token, true)))?;
        tokenizer.to_string(true)
    })?;
    Ok(Tokenizer::from_files(Files::made(json.into_bytes(), special.clone()))?)
}

/// The most frequent letters, in the order of their code points.
fn letters(words: &[(Box<str>, u64)], limit: usize) -> BTreeSet<char> {
    let mut counts: HashMap<char, u64> = HashMap::new();
    for (word, count) in words {
        for c in word.chars() {
            *counts.entry(c).or_default() += count;
        }
    }
    let mut letters: Vec<(char, u64)> = counts.into_iter().collect();
    letters.sort_unstable_by_key(|&(c, count)| (std::cmp::Reverse(count), c));
    letters.truncate(limit);
    letters.into_iter().map(|(c, _)| c).collect()
}
