//! Logits processors: bias, penalties and masks on the scores of the next id.

mod dry;
mod exponential_decay;
mod forced_token;
mod min_length;
mod no_repeat_ngram;
mod occurrence_penalty;
mod repetition_penalty;
mod scores;
mod sequence_bias;
mod suppress_tokens;

use std::fmt::Debug;
use std::sync::Arc;

use super::{GenerationConfig, SamplingParams};
use dry::Dry;
use exponential_decay::ExponentialDecayLengthPenalty;
use forced_token::{ForcedBosToken, ForcedEosToken};
use min_length::MinLength;
use no_repeat_ngram::{EncoderNoRepeatNGram, NoRepeatNGram};
use occurrence_penalty::OccurrencePenalty;
use repetition_penalty::{EncoderRepetitionPenalty, RepetitionPenalty};
pub(super) use scores::{Scores, remove_invalid_values};
use sequence_bias::SequenceBias;
use suppress_tokens::{SuppressTokens, SuppressTokensAtBegin};

/// Changes the scores of the next id.
pub(super) trait LogitsProcessor: Debug + Send + Sync {
    /// `scores` are logits or log-probabilities.
    fn process(&self, at: Place<'_>, scores: &mut Scores<'_>);
}

/// A position in a sequence: the one after `ids`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Prompt and generated ids.
    pub(super) ids: &'a [u32],
    pub(super) prompt_len: usize,
}

impl<'a> Place<'a> {
    pub(super) fn generated(self) -> &'a [u32] {
        &self.ids[self.prompt_len..]
    }
}

/// Rules of a sequence besides its [`SamplingParams`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules<'a> {
    /// Generation config of the model.
    pub(super) files: Option<&'a GenerationConfig>,
    /// The source of an encoder-decoder, or a decoder's prompt.
    pub(super) source: &'a [u32],
    pub(super) prompt_len: usize,
    /// Stop ids; empty if they are ignored.
    pub(super) stop_ids: &'a [u32],
    /// Minimum number of ids to generate.
    pub(super) min_new_tokens: usize,
    /// Maximum length of prompt and generated ids together.
    pub(super) longest: usize,
}

/// A chain of logits processors, in the order of Hugging Face's `_get_logits_processor`; may be empty.
///
/// Processors of other programs follow their nearest relative: OpenAI's bias comes first, its penalties and
/// llama.cpp's DRY after the repetition penalty.
#[derive(Clone, Debug, Default)]
pub(super) struct Processors {
    chain: Vec<Arc<dyn LogitsProcessor>>,
    /// Whether NaN and infinite values are replaced.
    pub(super) remove_invalid_values: bool,
}

impl Processors {
    /// The chain for these parameters and rules; processors without effect are left out.
    pub(super) fn new(params: &SamplingParams, rules: Rules<'_>) -> Self {
        let said = GenerationConfig::default();
        let files = rules.files.unwrap_or(&said);
        let ends = rules.stop_ids;
        let mut made =
            Self { chain: Vec::new(), remove_invalid_values: files.remove_invalid_values.unwrap_or(false) };
        made.add(SequenceBias::of_ids(&params.logit_bias));
        made.add(SequenceBias::of_sequences(files.sequence_bias.as_deref().unwrap_or_default()));
        made.add(EncoderRepetitionPenalty::new(files.encoder_repetition_penalty, rules.source));
        made.add(RepetitionPenalty::new(params.repetition_penalty));
        made.add(OccurrencePenalty::new(params.presence_penalty, params.frequency_penalty));
        made.add(Dry::new(params));
        made.add(NoRepeatNGram::new(params.no_repeat_ngram_size));
        made.add(EncoderNoRepeatNGram::new(files.encoder_no_repeat_ngram_size, rules.source));
        made.add(SequenceBias::of_bad_words(files.bad_words_ids.as_deref().unwrap_or_default(), ends));
        let least = match rules.min_new_tokens {
            0 => 0,
            least => rules.prompt_len.saturating_add(least),
        };
        made.add(MinLength::new(least.max(files.least_length(rules.prompt_len)), ends));
        made.add(ForcedBosToken::new(files.forced_bos_token_id));
        made.add(ForcedEosToken::new(files.forced_eos_token_id.as_slice(), rules.longest));
        let decay = files.exponential_decay_length_penalty;
        made.add(ExponentialDecayLengthPenalty::new(decay, ends, rules.prompt_len));
        made.add(SuppressTokens::new(files.suppress_tokens.as_slice()));
        let second = rules.prompt_len == 1 && files.forced_bos_token_id.is_some();
        let begin = rules.prompt_len + usize::from(second);
        made.add(SuppressTokensAtBegin::new(files.begin_suppress_tokens.as_slice(), begin));
        made
    }

    fn add<P: LogitsProcessor + 'static>(&mut self, processor: Option<P>) {
        self.chain.extend(processor.map(|processor| Arc::new(processor) as Arc<dyn LogitsProcessor>));
    }

    /// Applies the chain to the scores at a position.
    pub(super) fn process(&self, at: Place<'_>, scores: &mut Scores<'_>) {
        self.chain.iter().for_each(|processor| processor.process(at, scores));
    }
}

#[cfg(test)]
mod tests;
