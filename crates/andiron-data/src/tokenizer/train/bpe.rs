//! Byte-level byte-pair encoding, as in GPT-2.

use serde::{Deserialize, Serialize};
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, PostProcessorWrapper};

use super::pairs::{Bounds, Trained, merge_pairs};
use super::words::{Cuts, WordCounts};
use super::{SpecialTokens, TrainError, check_special};
use crate::tokenizer::byte_bpe::gpt2_words;
use crate::tokenizer::bytes::{byte_to_char, char_to_byte};
use crate::tokenizer::files::Files;
use crate::tokenizer::{Tokenizer, guard};

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
    #[serde(default = "end_of_text")]
    pub special_tokens: SpecialTokens,
    /// The control tokens around a text.
    #[serde(default)]
    pub framing: Framing,
}

/// The control tokens that a tokenizer puts around a text, or around two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// None, as in GPT-2.
    #[default]
    None,
    /// `<s> A </s>` and `<s> A </s></s> B </s>`, as in RoBERTa and BART: the tokens with the roles `cls` and `sep`.
    Roberta,
    /// `A </s>` and `A </s> B </s>`, as in T5: the token with the role `eos`.
    T5,
}

impl Framing {
    /// What puts the tokens there. `special` get the first ids.
    pub(super) fn processor(
        self,
        special: &SpecialTokens,
    ) -> Result<Option<PostProcessorWrapper>, TrainError> {
        let all = special.all();
        let of_role = |role: &'static str, token: &Option<String>| {
            let token = token.clone().ok_or(TrainError::MissingRole { role })?;
            let id = all.iter().position(|known| *known == token).unwrap_or_default();
            Ok::<_, TrainError>((token, id as u32))
        };
        Ok(match self {
            Self::None => None,
            Self::Roberta => {
                let (sep, cls) = (of_role("sep", &special.sep)?, of_role("cls", &special.cls)?);
                let processing = RobertaProcessing::new(sep, cls).trim_offsets(true).add_prefix_space(false);
                Some(processing.into())
            }
            Self::T5 => {
                let (end, id) = of_role("eos", &special.eos)?;
                let build = || {
                    TemplateProcessing::builder()
                        .try_single(vec!["$A", &end])?
                        .try_pair(vec!["$A", &end, "$B", &end])?
                        .special_tokens(vec![(end.clone(), id)])
                        .build()
                        .map_err(|error| error.to_string())
                };
                Some(build().expect("a template of its own token").into())
            }
        })
    }
}

fn two() -> u64 {
    2
}

fn end_of_text() -> SpecialTokens {
    SpecialTokens::end_of_text("<|endoftext|>")
}

impl BpeOptions {
    /// A vocabulary of this size, a minimum frequency of 2, and `<|endoftext|>` as the only control token.
    pub fn new(vocab_size: usize) -> Self {
        Self { vocab_size, min_frequency: two(), special_tokens: end_of_text(), framing: Framing::None }
    }

    /// The same with the control tokens of StarCoder for filling in the middle.
    pub fn fill_in_the_middle(vocab_size: usize) -> Self {
        Self { special_tokens: SpecialTokens::fill_in_the_middle(), ..Self::new(vocab_size) }
    }

    /// The same with the control tokens of RoBERTa and BART, and their ids: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, `<mask>` 4.
    pub fn roberta(vocab_size: usize) -> Self {
        let special_tokens = SpecialTokens::roberta();
        Self { special_tokens, framing: Framing::Roberta, ..Self::new(vocab_size) }
    }

    /// The same with the control tokens of T5: `<pad>` 0, `</s>` 1, `<unk>` 2, and 100 sentinels up to 102.
    pub fn t5(vocab_size: usize) -> Self {
        Self { special_tokens: SpecialTokens::t5(), framing: Framing::T5, ..Self::new(vocab_size) }
    }
}

/// Trains byte-level BPE: GPT-2's pattern splits the texts into words, then the most frequent pair of adjacent tokens is
/// merged repeatedly. All 256 bytes are tokens, so every text can be encoded, and decoding gives exactly the text back. The
/// same texts give the same bytes in `tokenizer.json`, which are those of the `tokenizers` library.
///
/// At most four million different words are counted; if there are more, rare ones are forgotten. So memory is bounded.
///
/// Source: Sennrich, Haddow, Birch 2016, "Neural Machine Translation of Rare Words with Subword Units",
/// <https://arxiv.org/abs/1508.07909>; over bytes as in Radford et al. 2019.
///
/// # Errors
/// If the size is too small, a control token is empty, the framing needs one that is not there, there is no text, or the library fails.
pub fn train_bpe<I, S>(texts: I, options: &BpeOptions) -> Result<Tokenizer, TrainError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<str>,
{
    let special = &options.special_tokens;
    check_special(special, |token| {
        let mut chars = token.chars();
        chars.next().is_some_and(|c| chars.next().is_none() && char_to_byte(c).is_some())
    })?;
    let processor = options.framing.processor(special)?;
    // As in RoBERTa: a mask stands for a word with the space before it.
    let added = |token: &str| AddedToken::from(token, true).lstrip(special.mask.as_deref() == Some(token));
    let all = special.all();
    let least = 256 + all.len();
    if options.vocab_size < least {
        return Err(TrainError::VocabularyTooSmall { asked: options.vocab_size, least });
    }
    let counts = WordCounts::of(texts, Cuts::Text, |piece: &str, each: &mut dyn FnMut(&str)| {
        gpt2_words(piece, each);
        Ok(())
    })?;
    if !counts.any_text() {
        return Err(TrainError::NoText);
    }
    // The bytes in the order of their characters.
    let mut alphabet: Vec<(char, u8)> = (0..=255).map(|byte| (byte_to_char(byte), byte)).collect();
    alphabet.sort_unstable();
    let mut id_of = [0; 256];
    for (&(_, byte), id) in alphabet.iter().zip(all.len() as u32..) {
        id_of[usize::from(byte)] = id;
    }
    let symbols = |word: &str| word.bytes().map(|byte| id_of[usize::from(byte)]).collect();
    let words = counts.sorted().iter().map(|(word, count)| (symbols(word), *count)).collect();
    let mut tokens: Vec<String> = all.iter().map(|&token| token.to_owned()).collect();
    tokens.extend(alphabet.iter().map(|(character, _)| character.to_string()));
    let bounds = Bounds { vocab_size: options.vocab_size, min_frequency: options.min_frequency };
    let Trained { tokens, merges } = merge_pairs(words, tokens, "", bounds);
    let json = guard("train", || {
        let spelled = |id: u32| tokens[id as usize].clone();
        let merges = merges.iter().map(|&(a, b)| (spelled(a), spelled(b))).collect();
        let vocabulary: Vocab = tokens.iter().cloned().zip(0..).collect();
        let model = BPE::builder().vocab_and_merges(vocabulary, merges).build()?;
        let mut tokenizer = tokenizers::Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, false, true)));
        tokenizer.with_decoder(Some(ByteLevelDecoder::new(false, false, true)));
        tokenizer.with_post_processor(processor);
        tokenizer.add_special_tokens(all.iter().map(|&token| added(token)))?;
        tokenizer.to_string(true)
    })?;
    Ok(Tokenizer::from_files(Files::made(json.into_bytes(), special.clone()))?)
}
