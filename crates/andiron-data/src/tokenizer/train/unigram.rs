//! Unigram language models over pieces, as in T5.

use serde::{Deserialize, Serialize};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::{NFKC, Nmt, Sequence};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{AddedToken, NormalizerWrapper, OffsetReferential, OffsetType};
use tokenizers::{NormalizedString, Normalizer as _, PreTokenizedString, PreTokenizer as _};

use super::words::{Cuts, WordCounts};
use super::{Framing, SpecialTokens, TrainError, check_special};
use crate::tokenizer::files::Files;
use crate::tokenizer::{Tokenizer, guard};

/// By this much the score of each letter that was lost is above that of the one before.
const LOST_LETTER: f64 = 0.0001;

/// Options of [`train_unigram`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnigramOptions {
    /// Maximum vocabulary size, including control tokens and letters. A short text may give fewer tokens.
    pub vocab_size: usize,
    /// Control tokens; they get the first ids. The role `unk` is needed.
    #[serde(default = "SpecialTokens::t5")]
    pub special_tokens: SpecialTokens,
    /// The control tokens around a text.
    #[serde(default = "UnigramOptions::default_framing")]
    pub framing: Framing,
}

impl UnigramOptions {
    /// The control tokens of T5, and `</s>` after a text.
    pub fn new(vocab_size: usize) -> Self {
        Self { vocab_size, special_tokens: SpecialTokens::t5(), framing: Self::default_framing() }
    }

    fn default_framing() -> Framing {
        Framing::T5
    }
}

/// Trains a Unigram model by the `tokenizers` library: all frequent substrings, of which expectation maximization drops those
/// that the likelihood of the text needs least. Texts are brought to normal form KC, and words begin with `▁`, as in
/// `SentencePieceUnigramTokenizer`.
///
/// The same texts give the same bytes in `tokenizer.json`. The library by itself numbers the pieces in another order in each
/// run, and scores letters that it lost anew in that order.
///
/// Source: Kudo 2018, "Subword Regularization", <https://arxiv.org/abs/1804.10959>, section 3.2.
///
/// # Errors
/// If there is no text, the size is smaller than the number of letters and control tokens, a control token is missing or empty,
/// or the library fails.
pub fn train_unigram<I, S>(texts: I, options: &UnigramOptions) -> Result<Tokenizer, TrainError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<str>,
{
    let special = &options.special_tokens;
    check_special(special, |token| token.chars().count() == 1)?;
    let unknown = special.unk.clone().ok_or(TrainError::MissingRole { role: "unk" })?;
    let processor = options.framing.processor(special)?;
    let normalizer = guard("train", || {
        let spaces = Replace::new(ReplacePattern::Regex(" {2,}".into()), " ")?;
        Ok(Sequence::new(vec![Nmt.into(), NFKC.into(), NormalizerWrapper::from(spaces)]))
    })?;
    let pre_tokenizer = Metaspace::new('▁', PrependScheme::Always, true);
    let counts = WordCounts::of(texts, Cuts::BetweenWords, |piece: &str, each: &mut dyn FnMut(&str)| {
        Ok(guard("train", || {
            let mut normalized = NormalizedString::from(piece);
            normalizer.normalize(&mut normalized)?;
            let mut words = PreTokenizedString::from(normalized);
            pre_tokenizer.pre_tokenize(&mut words)?;
            let splits = words.get_splits(OffsetReferential::Normalized, OffsetType::None);
            splits.into_iter().filter(|(word, ..)| !word.is_empty()).for_each(|(word, ..)| each(word));
            Ok(())
        })?)
    })?;
    if !counts.any_text() {
        return Err(TrainError::NoText);
    }
    let words: Vec<(String, u32)> = counts
        .sorted()
        .into_iter()
        .map(|(word, count)| (word.into(), u32::try_from(count).unwrap_or(u32::MAX)))
        .collect();
    let all = special.all();
    let letters: std::collections::BTreeSet<char> = words.iter().flat_map(|(word, _)| word.chars()).collect();
    let least = letters.len() + all.len();
    let vocab_size = u32::try_from(options.vocab_size).unwrap_or(u32::MAX);
    if options.vocab_size < least {
        return Err(TrainError::VocabularyTooSmall { asked: options.vocab_size, least });
    }
    let added: Vec<AddedToken> = all.iter().map(|&token| AddedToken::from(token, true)).collect();
    let json = guard("train", || {
        let trainer = UnigramTrainer::builder()
            .vocab_size(vocab_size)
            .special_tokens(added.clone())
            .unk_token(Some(unknown))
            .show_progress(false)
            .build()?;
        let mut model = Unigram::default();
        // With one thread, sums of floats are added up in one order.
        rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()?
            .install(|| trainer.do_train(words, &mut model).map(drop))?;
        let mut tokenizer = tokenizers::Tokenizer::new(in_fixed_order(&model, all.len())?);
        tokenizer.with_normalizer(Some(normalizer))?;
        tokenizer.with_pre_tokenizer(Some(pre_tokenizer.clone()));
        tokenizer.with_decoder(Some(pre_tokenizer));
        tokenizer.with_post_processor(processor);
        tokenizer.add_special_tokens(added)?;
        tokenizer.to_string(true)
    })?;
    Ok(Tokenizer::from_files(Files::made(json.into_bytes(), special.clone()))?)
}

/// The same model with its pieces in the order of their scores, and of equal ones in that of their text.
fn in_fixed_order(model: &Unigram, n_special: usize) -> tokenizers::Result<Unigram> {
    let mut pieces: Vec<(String, f64)> = model.iter().cloned().collect();
    let learned = &mut pieces[n_special..];
    score_lost_letters(learned);
    learned.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));
    let tokenizer: serde_json::Value = serde_json::to_value(model)?;
    let unknown = tokenizer.get("unk_id").and_then(serde_json::Value::as_u64).map(|id| id as usize);
    Unigram::from(pieces, unknown, false)
}

/// Letters that were no piece any more have scores with a fixed distance, which the library gives them in no fixed order.
/// Here they get them in the order of their code points.
fn score_lost_letters(pieces: &mut [(String, f64)]) {
    let is_letter = |text: &str| text.chars().nth(1).is_none();
    let mut letters: Vec<usize> = (0..pieces.len()).filter(|&at| is_letter(&pieces[at].0)).collect();
    letters.sort_by(|&a, &b| pieces[a].1.total_cmp(&pieces[b].1));
    for start in 0..letters.len() {
        let base = pieces[letters[start]].1;
        let (mut distance, mut lost) = (0.0, vec![letters[start]]);
        loop {
            distance += LOST_LETTER;
            match letters[start + 1..].iter().find(|&&at| pieces[at].1 == base + distance) {
                Some(&at) => lost.push(at),
                None => break,
            }
        }
        if lost.len() > 1 {
            let mut texts: Vec<String> = lost.iter().map(|&at| pieces[at].0.clone()).collect();
            texts.sort();
            for (at, text) in lost.into_iter().zip(texts) {
                pieces[at].0 = text;
            }
            return;
        }
    }
}
