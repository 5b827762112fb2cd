//! Third stage: the tokenizer, trained if none is given.

use super::inputs::Inputs;
use super::progress::Tracker;
use super::read::{Outcome, Reader};
use super::split::Plan;
use super::{PrepareConfig, PrepareError, Stage, TokenizerChoice};
use andiron_data::tokenizer::{Tokenizer, train_bpe, train_chars};

pub(super) fn make_tokenizer(
    config: &PrepareConfig,
    inputs: &Inputs,
    plan: &Plan,
    tracker: &mut Tracker<'_>,
) -> Result<Tokenizer, PrepareError> {
    tracker.begin(Stage::Train);
    let mut reader = Reader::new(config, inputs)?;
    let mut failure = None;
    let whole = matches!(config.tokenizer, TokenizerChoice::Characters(_));
    let texts = std::iter::from_fn(|| {
        loop {
            let index = reader.n_kept();
            let read = match reader.next()? {
                Ok(read) => read,
                Err(error) => {
                    failure = Some(error);
                    return None;
                }
            };
            tracker.at(reader.bytes_done(), reader.n_read());
            match read {
                Outcome::Kept(document) if whole => return Some(document.text),
                Outcome::Kept(document) => {
                    let train = plan.parts(index, &document.text).train.to_owned();
                    if !train.is_empty() {
                        return Some(train);
                    }
                }
                Outcome::Dropped(_) => {}
            }
        }
    });
    let made = match &config.tokenizer {
        TokenizerChoice::Bpe(bpe) => train_bpe(texts, bpe).map_err(PrepareError::from),
        TokenizerChoice::Characters(special) => train_chars(texts, special).map_err(PrepareError::from),
        TokenizerChoice::Load { path } => Ok(Tokenizer::load(path)?),
    };
    // A read error comes first: it may be the cause of too little text.
    failure.map_or(made, Err)
}
