//! Third stage: the tokenizer, trained if none is given.

use serde_json::json;

use super::documents::Documents;
use super::progress::{Share, Tracker};
use super::split::Plan;
use super::stored::StoredLines;
use super::work::{StageFile, Work, file_of, key};
use super::{PrepareConfig, PrepareError, Stage, TokenizerChoice, VERSION};
use andiron_data::tokenizer::{Tokenizer, train_bpe, train_chars};

pub(super) const STAGE: &str = "tokenizer";

/// What the tokenizer is made from.
pub(super) fn stage_key(config: &PrepareConfig, documents: &Documents) -> String {
    let files: Vec<&StageFile> = documents.parts.iter().map(|part| &part.file).collect();
    key(&json!({
        "version": VERSION, "documents": files, "tokenizer": config.tokenizer, "split": config.split,
        "seed": config.seed,
    }))
}

/// The tokenizer that is in the directory of work, if it was made from these documents.
pub(super) fn made(config: &PrepareConfig, documents: &Documents, work: &Work) -> Option<Tokenizer> {
    let fingerprint = work.done::<String>(STAGE, &stage_key(config, documents))?;
    Tokenizer::load(&work.path(STAGE)).ok().filter(|tokenizer| tokenizer.fingerprint() == fingerprint)
}

/// The tokenizer, in the directory of work too.
pub(super) fn make_tokenizer(
    config: &PrepareConfig,
    (documents, plan): (&Documents, &Plan),
    loaded: Option<Tokenizer>,
    (work, tracker): (&Work, &Tracker<'_>),
) -> Result<Tokenizer, PrepareError> {
    let path = work.path(STAGE);
    let key = stage_key(config, documents);
    let made = match loaded {
        Some(tokenizer) => tokenizer,
        None => {
            if let Some(tokenizer) = made(config, documents, work) {
                return Ok(tokenizer);
            }
            train(config, documents, plan, (work, tracker))?
        }
    };
    andiron_files::remove_directory(&path).map_err(super::pipeline::failed_to_write(&path))?;
    made.save(&path)?;
    let mut files = Vec::new();
    for name in andiron_files::list(&path).map_err(super::pipeline::failed_to_read(&path))? {
        files.push(file_of(&path.join(&name), format!("{STAGE}/{name}"))?);
    }
    work.finish(STAGE, &key, files, made.fingerprint().to_owned())?;
    Ok(made)
}

fn train(
    config: &PrepareConfig,
    documents: &Documents,
    plan: &Plan,
    (work, tracker): (&Work, &Tracker<'_>),
) -> Result<Tokenizer, PrepareError> {
    tracker.begin(Stage::Train);
    let mut texts = Texts { documents, work, tracker, part: 0, index: 0, current: None };
    let whole = matches!(config.tokenizer, TokenizerChoice::Characters(_));
    let mut failure = None;
    let texts = std::iter::from_fn(|| {
        loop {
            let (index, text) = match texts.next() {
                Ok(next) => next?,
                Err(error) => {
                    failure = Some(error);
                    return None;
                }
            };
            if whole {
                return Some(text);
            }
            let kept = plan.parts(index, &text).train.len();
            // The training part is the beginning of a text, or all of it, or nothing.
            if kept > 0 {
                let mut text = text;
                text.truncate(kept);
                return Some(text);
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

/// The texts of all documents, with the number of each.
struct Texts<'a, 't> {
    documents: &'a Documents,
    work: &'a Work,
    tracker: &'a Tracker<'t>,
    part: usize,
    index: u64,
    current: Option<(StoredLines, Share<'a, 't>)>,
}

impl Texts<'_, '_> {
    fn next(&mut self) -> Result<Option<(u64, String)>, PrepareError> {
        loop {
            if let Some((lines, share)) = &mut self.current {
                if let Some(document) = lines.next_document()? {
                    share.add(1, 0);
                    self.index += 1;
                    return Ok(Some((self.index - 1, document.text)));
                }
                if let Some((_, share)) = self.current.take() {
                    share.finish();
                }
                self.part += 1;
            }
            let Some(part) = self.documents.parts.get(self.part) else { return Ok(None) };
            let lines = StoredLines::open(&self.work.path(&part.file.name))?;
            self.current = Some((lines, Share::new(self.tracker, part.input_bytes, part.documents)));
        }
    }
}
