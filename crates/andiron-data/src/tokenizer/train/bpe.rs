//! Byte-level byte-pair encoding, as in GPT-2.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizerWrapper};

use super::{SpecialTokens, TrainError, check_special};
use crate::tokenizer::files::Files;
use crate::tokenizer::{PIECE_BYTES, Tokenizer, guard, pieces_at_lines};

/// Options of [`train_bpe`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BpeOptions {
    /// Maximum vocabulary size, including control tokens; at least 256 plus the control tokens. A short text may give fewer
    /// tokens.
    pub vocab_size: usize,
    /// A pair that occurs less often than this is not merged.
    #[serde(default = "two")]
    pub min_frequency: u64,
    /// Control tokens; they get the first ids.
    #[serde(default)]
    pub special_tokens: SpecialTokens,
}

fn two() -> u64 {
    2
}

impl BpeOptions {
    /// A vocabulary of this size, a minimum frequency of 2, and `<|endoftext|>` as the only control token.
    pub fn new(vocab_size: usize) -> Self {
        Self { vocab_size, min_frequency: two(), special_tokens: SpecialTokens::end_of_text("<|endoftext|>") }
    }
}

/// Trains byte-level BPE: GPT-2's pattern splits the texts into words, then the most frequent pair of adjacent tokens is
/// merged repeatedly. All 256 bytes are tokens, so every text can be encoded, and decoding gives exactly the text back. The
/// same texts give the same bytes in `tokenizer.json`.
///
/// Source: Sennrich, Haddow, Birch 2016, "Neural Machine Translation of Rare Words with Subword Units",
/// <https://arxiv.org/abs/1508.07909>; over bytes as in Radford et al. 2019.
///
/// # Errors
/// If the size is too small, a control token is empty, there is no text, or the library fails.
pub fn train_bpe<I, S>(texts: I, options: &BpeOptions) -> Result<Tokenizer, TrainError>
where
    I: IntoIterator<Item = S>,
    I::IntoIter: Send,
    S: AsRef<str> + Send,
{
    let special = &options.special_tokens;
    check_special(special, |token| {
        let mut chars = token.chars();
        chars.next().is_some_and(|c| chars.next().is_none() && ByteLevel::alphabet().contains(&c))
    })?;
    let least = 256 + special.all().len();
    if options.vocab_size < least {
        return Err(TrainError::VocabularyTooSmall { asked: options.vocab_size, least });
    }
    let mut any_text = false;
    // In pieces, because the library copies a long text several times.
    let pieces = texts.into_iter().flat_map(|text| {
        any_text |= !text.as_ref().is_empty();
        pieces_at_lines(text.as_ref(), PIECE_BYTES).map(str::to_owned).collect::<Vec<_>>()
    });
    let json = guard("train", || {
        let mut trainer: TrainerWrapper = BpeTrainer::builder()
            .vocab_size(options.vocab_size)
            .min_frequency(options.min_frequency)
            .special_tokens(special.all().into_iter().map(|token| AddedToken::from(token, true)).collect())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect::<HashSet<char>>())
            .show_progress(false)
            .build()
            .into();
        let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
        tokenizer.with_normalizer(None::<NormalizerWrapper>)?;
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, false, true)));
        tokenizer.with_decoder(Some(ByteLevelDecoder::new(false, false, true)));
        tokenizer.train(&mut trainer, pieces)?;
        tokenizer.to_string(true)
    })?;
    if !any_text {
        return Err(TrainError::NoText);
    }
    Ok(Tokenizer::from_files(Files::made(json.into_bytes(), special.clone()))?)
}
