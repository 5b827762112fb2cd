//! Second stage, second half: the documents that stay, on disk, and what was left out.

use std::io::{BufRead as _, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::chain::EXCERPT;
use super::config::Duplicates;
use super::crew::Crew;
use super::duplicates::{self, Duplicate};
use super::filter::{self, Filtered};
use super::paragraphs::{NOTHING_LEFT, PARAGRAPHS, ParagraphReport, Paragraphs, Settled};
use super::parts::{Part, name};
use super::pipeline::{failed_to_read, failed_to_write};
use super::report::StepCounts;
use super::stored::{Stored, StoredLines, id_of, parse};
use super::work::{StageFile, Work, key, open};
use super::{PrepareConfig, PrepareError, tasks};
use crate::dedup::{DecideOptions, Decisions, decide};
use crate::report::NEAR_DUPLICATES;
use andiron_page::text::shortened;

pub(super) const STAGE: &str = "documents";
const REMOVED: &str = "removed.jsonl";
const NEAR: &str = "near-duplicates";
/// What was decided about near-duplicates, while the documents are put in place.
const DECISIONS: &str = "near-duplicates";
pub(super) const EXACT: &str = "exact-duplicates";

/// The cleaned documents of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Documents {
    /// The counts of each step, over all parts.
    pub(super) steps: Vec<StepCounts>,
    /// What became of their paragraphs, if repeated ones are removed.
    pub(super) paragraphs: Option<ParagraphReport>,
    /// The parts, in order.
    pub(super) parts: Vec<DocumentsPart>,
}

/// The cleaned documents of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentsPart {
    /// The index of its source.
    pub(super) source: usize,
    /// What it was filtered from.
    pub(super) key: String,
    /// Bytes of its inputs.
    pub(super) input_bytes: u64,
    /// Documents that are left.
    pub(super) documents: u64,
    /// The file that holds them.
    pub(super) file: StageFile,
}

impl Documents {
    /// Documents that are left.
    pub(super) fn kept(&self) -> u64 {
        self.parts.iter().map(|part| part.documents).sum()
    }
}

/// What the documents are made from: the parts, of which these are the keys, and how duplicates are removed.
pub(super) fn stage_key(config: &PrepareConfig, keys: &[String]) -> String {
    key(&json!({ "parts": keys, "dedup": config.dedup }))
}

/// Removes duplicates, and puts the documents that stay in place.
pub(super) fn settle(
    (config, keys): (&PrepareConfig, &[String]),
    (parts, filtered): (&[Part], &[Filtered]),
    (work, crew): (&Work, &Crew),
) -> Result<Documents, PrepareError> {
    let exact = config.dedup.exact == Duplicates::Remove;
    let passes = if exact { duplicates::find(filtered, (work, crew))? } else { 0 };
    let mut summary = None;
    if config.dedup.minhash.is_some() {
        let signatures: Vec<_> =
            (0..parts.len()).map(|number| work.path(&filter::near_file(number))).collect();
        let decisions = work.path(DECISIONS);
        summary = Some(crew.install(|| decide(&signatures, &decisions, &DecideOptions::default()))?);
    }
    let is_near = summary.is_some();
    work.directory(STAGE)?;
    let mut paragraphs =
        config.dedup.paragraphs.as_ref().map(|settings| Paragraphs::new(settings, crew)).transpose()?;
    let settle = |number: usize, paragraphs: Option<&mut Paragraphs<'_>>| {
        let found = duplicates::of_part(number, passes, work)?;
        let (exact, repeated) = (found.len() as u64, filtered[number].repeated);
        let (file, near, emptied) =
            settle_part(number, (&filtered[number], &found, is_near), paragraphs, work)?;
        let part = DocumentsPart {
            source: parts[number].source,
            key: keys[number].clone(),
            input_bytes: parts[number].bytes,
            documents: filtered[number].documents - exact - near - emptied,
            file,
        };
        Ok((part, [exact + repeated, near, emptied]))
    };
    let settled = match &mut paragraphs {
        None => crew.each(parts.len(), |number| settle(number, None))?,
        // One after the other, as each remembers those before.
        Some(paragraphs) => (0..parts.len())
            .map(|number| settle(number, Some(&mut *paragraphs)))
            .collect::<Result<_, PrepareError>>()?,
    };
    let mut steps: Vec<StepCounts> = Vec::new();
    filtered.iter().for_each(|part| StepCounts::add_all(&mut steps, &part.steps));
    let kept: u64 = settled.iter().map(|(part, _)| part.documents).sum();
    let [exactly, nearly, emptied] =
        settled.iter().fold([0; 3], |sums, (_, counts)| std::array::from_fn(|at| sums[at] + counts[at]));
    if exact {
        steps.push(StepCounts::of(EXACT, "duplicate", (kept + emptied + nearly, exactly)));
    }
    if is_near {
        steps.push(StepCounts::of(NEAR, "near-duplicate", (kept + emptied, nearly)));
    }
    if paragraphs.is_some() {
        steps.push(StepCounts::of(PARAGRAPHS, NOTHING_LEFT, (kept, emptied)));
    }
    let paragraphs = paragraphs.map(|paragraphs| paragraphs.report());
    let parts: Vec<DocumentsPart> = settled.into_iter().map(|(part, _)| part).collect();
    let mut removed = work.create(REMOVED.to_owned())?;
    for number in 0..parts.len() {
        let path = work.path(&format!("{}.removed", name(STAGE, number)));
        let mut lines = open(&path)?;
        loop {
            let bytes = lines.fill_buf().map_err(failed_to_read(&path))?;
            if bytes.is_empty() {
                break;
            }
            removed.write(bytes)?;
            let n = bytes.len();
            lines.consume(n);
        }
        andiron_files::remove_file(&path).map_err(failed_to_write(&path))?;
    }
    let mut files: Vec<StageFile> = parts.iter().map(|part| part.file.clone()).collect();
    files.push(removed.finish()?);
    if let Some(summary) = summary {
        let mut file = work.create(NEAR_DUPLICATES.to_owned())?;
        file.write(format!("{:#}\n", json!(summary)).as_bytes())?;
        files.push(file.finish()?);
    }
    let made = Documents { steps, paragraphs, parts };
    let documents = work.finish(STAGE, &stage_key(config, keys), files, made)?;
    // What it was made from is no longer needed.
    work.clear(filter::STAGE)?;
    // These encoded other documents.
    work.clear(tasks::ENCODED)?;
    work.clear("duplicates")?;
    work.clear(DECISIONS)?;
    Ok(documents)
}

/// Writes the documents of a part that stay, and the list of the others in the order in which they were read. Also says how many of
/// these are near-duplicates, and of how many nothing was left.
fn settle_part(
    number: usize,
    (filtered, found, is_near): (&Filtered, &[Duplicate], bool),
    mut paragraphs: Option<&mut Paragraphs<'_>>,
    work: &Work,
) -> Result<(StageFile, u64, u64), PrepareError> {
    let (from, to) = (name(filter::STAGE, number), name(STAGE, number));
    let mut removed = work.create(format!("{to}.removed"))?;
    let mut left_out = RemovedLines::open(&work.path(&format!("{from}.removed")))?;
    let (source, target) = (work.path(&filtered.file.name), format!("{to}.jsonl"));
    if found.is_empty() && !is_near && paragraphs.is_none() {
        while let Some(line) = left_out.next()? {
            removed.write(line.as_bytes())?;
        }
        removed.finish()?;
        let path = work.path(&target);
        andiron_files::link_or_copy(&source, &path).map_err(failed_to_write(&path))?;
        return Ok((StageFile { name: target, ..filtered.file.clone() }, 0, 0));
    }
    let mut documents = work.create(target)?;
    let mut lines = StoredLines::open(&source)?;
    let mut duplicates = found.iter().peekable();
    let decisions = || Decisions::open(&work.path(DECISIONS), number);
    let mut decisions = if is_near { Some(decisions()?) } else { None };
    let mut nearly = 0;
    let mut record = 0u64;
    let mut put = |settled: Settled<'_>| match (&mut paragraphs, settled) {
        (Some(paragraphs), settled) => paragraphs.push(settled, (&mut documents, &mut removed)),
        (None, Settled::Kept(line)) => documents.write(&line),
        (None, Settled::Gone(line)) => removed.write(line.as_bytes()),
    };
    for index in 0.. {
        // Records that were left out before this one.
        while let Some(line) = left_out.at(record)? {
            put(Settled::Gone(line))?;
            record += 1;
        }
        let Some(line) = lines.next_line()? else { break };
        let clustered = match &mut decisions {
            Some(decisions) => decisions.next_document()?,
            None => None,
        };
        let settled = match (duplicates.next_if(|duplicate| duplicate.number == index), clustered) {
            (Some(duplicate), _) => gone(&json!({
                "id": id_of(line), "filter": EXACT, "reason": "duplicate",
                "duplicate_of": first_id(duplicate, work)?,
            })),
            (None, Some(near)) if near.is_duplicate() => {
                nearly += 1;
                let Stored { id, text } = parse(line, &source)?;
                gone(&json!({
                    "id": id, "filter": NEAR, "reason": "near-duplicate", "duplicate_of": near.duplicate_of,
                    "cluster": near.cluster, "score": near.similarity, "text": shortened(&text, EXCERPT),
                }))
            }
            (None, Some(first)) => {
                // The other documents of its cluster name it, and it names the cluster.
                let mut line = line.strip_suffix(b"}\n").unwrap_or(line).to_vec();
                line.extend(format!(",\"cluster\":{}}}\n", first.cluster).as_bytes());
                Settled::Kept(line.into())
            }
            (None, None) => Settled::Kept(line.into()),
        };
        put(settled)?;
        record += 1;
    }
    let emptied = match paragraphs {
        Some(paragraphs) => paragraphs.finish((&mut documents, &mut removed))?,
        None => 0,
    };
    removed.finish()?;
    Ok((documents.finish()?, nearly, emptied))
}

fn gone(about: &serde_json::Value) -> Settled<'static> {
    Settled::Gone(format!("{about}\n"))
}

/// The id of the first document with a text.
fn first_id(duplicate: &Duplicate, work: &Work) -> Result<Option<String>, PrepareError> {
    let path = work.path(&format!("{}.jsonl", name(filter::STAGE, duplicate.first_part as usize)));
    let mut file = andiron_files::open(&path).map_err(failed_to_read(&path))?;
    // Most ids are short; the longest that a dataset takes has 64 KiB.
    for limit in [512, 1 << 20] {
        let mut beginning = Vec::new();
        file.seek(SeekFrom::Start(duplicate.first_at)).map_err(failed_to_read(&path))?;
        (&mut file).take(limit).read_to_end(&mut beginning).map_err(failed_to_read(&path))?;
        if let Some(id) = id_of(&beginning) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The records of a part that the filters left out, with the places at which they were read.
struct RemovedLines {
    path: std::path::PathBuf,
    file: std::io::BufReader<andiron_files::ReadFile>,
    /// The next one.
    waiting: Option<(u64, String)>,
}

impl RemovedLines {
    fn open(path: &Path) -> Result<Self, PrepareError> {
        let mut lines = Self { path: path.to_owned(), file: open(path)?, waiting: None };
        lines.advance()?;
        Ok(lines)
    }

    fn advance(&mut self) -> Result<(), PrepareError> {
        let mut line = String::new();
        self.file.read_line(&mut line).map_err(failed_to_read(&self.path))?;
        self.waiting = line.split_once('\t').and_then(|(at, line)| Some((at.parse().ok()?, line.to_owned())));
        Ok(())
    }

    /// The line of the record that was read at a place, if it was left out.
    fn at(&mut self, record: u64) -> Result<Option<String>, PrepareError> {
        if self.waiting.as_ref().is_none_or(|(at, _)| *at != record) {
            return Ok(None);
        }
        self.next()
    }

    /// The next line.
    fn next(&mut self) -> Result<Option<String>, PrepareError> {
        let line = self.waiting.take().map(|(_, line)| line);
        if line.is_some() {
            self.advance()?;
        }
        Ok(line)
    }
}

/// Copies the documents and the list of what was left out to the output.
pub(super) fn publish(documents: &Documents, work: &Work, output: &Path) -> Result<(), PrepareError> {
    let directory = output.join(STAGE);
    andiron_files::make_directory(&directory).map_err(failed_to_write(&directory))?;
    for part in &documents.parts {
        let to = output.join(&part.file.name);
        andiron_files::link_or_copy(&work.path(&part.file.name), &to).map_err(failed_to_write(&to))?;
    }
    for name in [REMOVED, NEAR_DUPLICATES] {
        let (from, to) = (work.path(name), output.join(name));
        if andiron_files::is_there(&from).map_err(failed_to_read(&from))? {
            andiron_files::link_or_copy(&from, &to).map_err(failed_to_write(&to))?;
        }
    }
    Ok(())
}
