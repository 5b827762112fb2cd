use super::*;
use crate::clean::FilterSettings;
use crate::dedup::{MinHashConfig, ParagraphConfig};
use andiron_data::collate::Causal;
use andiron_data::loader::{BatchSource as _, Loader, LoaderOptions, Order};
use andiron_data::seed::Seed;
use andiron_data::shard::Dataset;
use andiron_data::source::OnError;
use andiron_data::tokenizer::{BpeOptions, Special, SpecialTokens, Tokenizer};
use andiron_files::fault::{Fault, with_fault};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// In memory where the system has a folder for that: thousands of files are synchronized, which a disk takes minutes for.
    fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        Self(if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap())
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn out(&self) -> PathBuf {
        self.0.path().join("out")
    }

    fn job(&self, inputs: Vec<PathBuf>) -> Job {
        let characters = TokenizerChoice::Characters(SpecialTokens::default());
        let config = PrepareConfig::new(inputs, self.out(), characters);
        Job { config, options: PrepareOptions::default() }
    }
}

#[derive(Clone)]
struct Job {
    config: PrepareConfig,
    options: PrepareOptions,
}

impl Job {
    fn output(&self) -> PathBuf {
        self.config.output.clone().unwrap()
    }

    fn replacing(&self) -> Self {
        let options = PrepareOptions { existing: Existing::Replace, ..self.options.clone() };
        Self { options, ..self.clone() }
    }
}

fn run(job: &Job) -> Result<PrepareReport, PrepareError> {
    prepare(&job.config, &job.options, &mut |_| {})
}

fn text_of(out: &Path, part: &str) -> Vec<(String, String)> {
    let dataset = Dataset::open(&out.join(part)).unwrap();
    dataset.verify().unwrap();
    let tokenizer = Tokenizer::load(&out.join("tokenizer")).unwrap();
    let texts = dataset.documents().map(|document| {
        let mut ids = vec![0; (document.tokens.end - document.tokens.start) as usize];
        dataset.read(document.tokens.start, &mut ids);
        (document.id.to_owned(), tokenizer.decode(&ids, Special::Keep).unwrap())
    });
    texts.collect()
}

/// All files below a directory with their content.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(content(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
        .into_iter()
        .map(|(path, bytes)| (path.strip_prefix(dir).map(Path::to_owned).unwrap_or(path), bytes))
        .collect()
}

#[test]
fn one_text_is_cut_as_nano_gpt_cuts_it() {
    let place = Place::new();
    let text: String = ('a'..='z').chain('é'..='ø').collect::<String>().repeat(7) + "xyz";
    let report = run(&place.job(vec![place.file("c.txt", &text)])).unwrap();
    let n = text.chars().count();
    let cut = (n as f64 * 0.9) as usize;
    let (train, valid): (String, String) =
        (text.chars().take(cut).collect(), text.chars().skip(cut).collect());
    assert_eq!(text_of(&place.out(), "train"), [(format!("c.txt#chars=0-{cut}"), train)]);
    assert_eq!(text_of(&place.out(), "valid"), [(format!("c.txt#chars={cut}-{n}"), valid)]);
    assert_eq!(report.train.stats.characters as usize, cut);
    assert_eq!(report.vocab_size, 26 + 16);
}

#[test]
fn documents_are_held_out_whole() {
    let place = Place::new();
    let rows: String = (0..50).map(|i| format!("{{\"text\":\"row {i}\",\"id\":{i}}}\n")).collect();
    let bpe = BpeOptions::new(280);
    let mut job = place.job(vec![place.file("r.jsonl", &rows)]);
    job.config.tokenizer = TokenizerChoice::Bpe(bpe);
    let report = run(&job).unwrap();
    let (train, valid) = (text_of(&place.out(), "train"), text_of(&place.out(), "valid"));
    assert_eq!((train.len(), valid.len()), (45, 5));
    let mut ids: Vec<usize> = train.iter().chain(&valid).map(|(id, _)| id.parse().unwrap()).collect();
    ids.sort();
    assert_eq!(ids, (0..50).collect::<Vec<_>>());
    assert!(train.iter().all(|(id, text)| text == &format!("row {id}<|endoftext|>")));
    assert_eq!(report.valid.unwrap().stats.documents, 5);

    job.config.seed = 1;
    job.config.output = Some(place.0.path().join("other"));
    run(&job).unwrap();
    assert_ne!(text_of(&job.output(), "valid"), valid);
}

#[test]
fn counts_add_up_and_removed_documents_are_written_down() {
    let place = Place::new();
    let rows =
        "{\"text\":\"a\"}\n{\"text\":\"a\"}\nbad\n{\"text\":\"\"}\n{\"txt\":\"\"}\n{\"text\":\"b\\r\\nc\"}\n";
    let mut job = place.job(vec![place.file("r.jsonl", rows)]);
    job.config.split.fraction = 0.0;
    let failed = run(&job).unwrap_err();
    assert!(failed.to_string().ends_with("r.jsonl:3: invalid JSON: expected value at column 1"), "{failed}");
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 1, "nothing is left behind");

    job.config.on_error = OnError::Skip;
    job.config.filters = vec![FilterSettings::UnixLineEndings {}];
    let counts = run(&job).unwrap().documents;
    assert_eq!((counts.read, counts.kept, counts.dropped_total()), (6, 2, 4));
    let removed = fs::read_to_string(place.out().join("removed.jsonl")).unwrap();
    let removed: Vec<serde_json::Value> =
        removed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(removed.len(), 4);
    assert_eq!(removed[0]["duplicate_of"], "r.jsonl:1");
    assert_eq!((&removed[1]["line"], &removed[1]["reason"]), (&3.into(), &"invalid-json".into()));
    assert_eq!(removed[1]["detail"], "invalid JSON: expected value at column 1");
    assert_eq!(removed[2]["reason"], "empty");
    assert_eq!(text_of(&place.out(), "train")[1].1, "b\nc");
    assert!(!place.out().join("valid").exists());
}

#[test]
fn doing_it_again_does_nothing_and_something_else_is_refused() {
    let place = Place::new();
    let input = place.file("c.txt", "some text, some more text\n");
    let mut job = place.job(vec![input.clone()]);
    let first = run(&job).unwrap();
    let before = content(&place.out());
    let mut stages = Vec::new();
    let second = prepare(&job.config, &job.options, &mut |progress| stages.push(progress.stage)).unwrap();
    assert!(second.reused && stages.iter().all(|&stage| stage == Stage::Hash));
    assert_eq!(PrepareReport { reused: false, ..second }, first);

    job.config.seed = 5;
    let refused = run(&job).unwrap_err();
    assert!(matches!(refused, PrepareError::Exists { differs: "settings differ", .. }));
    job.config.seed = 0;
    fs::write(&input, "other text, other text\n").unwrap();
    assert!(matches!(run(&job), Err(PrepareError::Exists { differs: "input files differ", .. })));
    assert_eq!(content(&place.out()), before);
    job.options.existing = Existing::Replace;
    assert!(!run(&job).unwrap().reused);
    assert_ne!(content(&place.out()), before);
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 2);

    let ids = place.out().join("train/shard-00000.ids");
    fs::write(&ids, b"x").unwrap();
    job.options.existing = Existing::Refuse;
    assert!(matches!(run(&job), Err(PrepareError::Exists { differs: "it is damaged", .. })));
}

#[test]
fn a_directory_of_someone_else_is_never_replaced() {
    let place = Place::new();
    let mut job = place.job(vec![place.file("c.txt", "some text")]);
    job.options.existing = Existing::Replace;
    fs::create_dir(place.out()).unwrap();
    fs::write(place.out().join("precious"), "x").unwrap();
    assert!(matches!(run(&job), Err(PrepareError::Exists { .. })));
    fs::remove_file(place.out().join("precious")).unwrap();
    run(&job).unwrap();
}

#[test]
fn the_output_does_not_depend_on_threads_or_on_an_interruption() {
    let place = Place::new();
    let rows: String = (0..300).map(|i| format!("{{\"text\":\"row {} and {i}\"}}\n", i % 7)).collect();
    let inputs = vec![place.file("r.jsonl", &rows), place.file("s.txt", &rows)];
    let mut job = place.job(inputs);
    job.config.tokenizer = TokenizerChoice::Bpe(BpeOptions::new(300));
    job.config.shards.tokens_per_shard = 500;
    run(&job).unwrap();
    let expected = content(&place.out());

    job.config.output = Some(place.0.path().join("again"));
    job.options.threads = NonZeroUsize::new(3).unwrap();
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        prepare(&job.config, &job.options, &mut |p| {
            assert!(p.stage != Stage::Encode || p.documents < 100, "stopped by the test")
        })
    }));
    assert!(stopped.is_err() && !job.output().exists());
    run(&job).unwrap();
    assert!(content(&job.output()) == expected);
    assert!(Dataset::open(&job.output().join("train")).unwrap().manifest().shards.len() > 3);
}

/// A job over two sources, of which each is a part, with duplicates within and across them.
fn two_parts(place: &Place) -> Job {
    let rows = |from: usize, to: usize| -> String {
        (from..to).map(|i| format!("{{\"id\":\"{from}-{i}\",\"text\":\"row {}\"}}\n", i % 40)).collect()
    };
    let mut job = place.job(vec![place.file("a.jsonl", &rows(0, 50))]);
    let paths = vec![place.file("b.jsonl", &format!("bad\n{}", rows(30, 80)))];
    job.config.sources.push(SourceConfig { name: "second".into(), paths, ..SourceConfig::default() });
    job.config.on_error = OnError::Skip;
    job
}

#[test]
fn a_duplicate_in_another_part_names_the_first_and_the_list_is_in_order() {
    let place = Place::new();
    let job = two_parts(&place);
    let report = run(&job).unwrap();
    assert_eq!((report.documents.read, report.documents.kept), (101, 40));
    let mut before = None;
    for step in &report.steps {
        let StepCounts { step: name, documents, kept, removed } = step;
        assert_eq!(*documents, kept + removed.values().sum::<u64>(), "{name}");
        assert!(before.is_none_or(|before| before == *documents), "{name}");
        before = Some(*kept);
    }
    let removed = fs::read_to_string(place.out().join("removed.jsonl")).unwrap();
    let removed: Vec<serde_json::Value> =
        removed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let field = |at: usize, name: &str| removed[at][name].as_str().unwrap_or_default().to_owned();
    assert_eq!((field(0, "id"), field(0, "duplicate_of")), ("0-40".into(), "0-0".into()));
    assert_eq!((field(10, "file"), field(10, "reason")), ("b.jsonl".into(), "invalid-json".into()));
    assert_eq!((field(11, "id"), field(11, "duplicate_of")), ("30-30".into(), "0-30".into()));
    assert_eq!(removed.len(), 61);
    let stored = fs::read_to_string(place.out().join("documents/part-00000.jsonl")).unwrap();
    assert!(
        stored.starts_with("{\"id\":\"0-0\",\"source\":\"text\",\"file\":\"a.jsonl\",\"text\":\"row 0\"}\n")
    );
    assert_eq!(stored.lines().count(), 40);
    assert_eq!(fs::read_to_string(place.out().join("documents/part-00001.jsonl")).unwrap(), "");
}

#[test]
fn stages_whose_settings_are_unchanged_are_not_done_again() {
    let place = Place::new();
    let mut job = two_parts(&place);
    job.config.tokenizer = TokenizerChoice::Bpe(BpeOptions::new(270));
    run(&job).unwrap();
    let stages = |job: &Job| {
        let mut stages = Vec::new();
        prepare(&job.config, &job.options, &mut |now| stages.push(now.stage)).unwrap();
        stages.dedup();
        stages
    };
    job.options.existing = Existing::Replace;
    job.config.shards.tokens_per_shard = 50;
    assert_eq!(stages(&job), [Stage::Hash, Stage::Encode]);
    job.config.tokenizer = TokenizerChoice::Bpe(BpeOptions::new(280));
    assert_eq!(stages(&job), [Stage::Hash, Stage::Train, Stage::Encode]);
    let reused = content(&place.out());
    fs::write(place.out().join("documents/part-00000.jsonl"), "damaged").unwrap();
    job.config.seed = 1;
    assert_eq!(stages(&job), [Stage::Hash, Stage::Clean, Stage::Train, Stage::Encode]);
    // What was used again is what would have been made.
    job.config.seed = 0;
    job.config.output = Some(place.0.path().join("other"));
    run(&job).unwrap();
    assert!(content(&job.output()) == reused);
}

#[test]
fn a_run_that_was_killed_goes_on_and_gives_the_same_bytes() {
    let place = Place::new();
    let mut job = two_parts(&place);
    job.config.tokenizer = TokenizerChoice::Bpe(BpeOptions::new(270));
    let (whole, seen) = with_fault(Fault::none(), || run(&job));
    whole.unwrap();
    let expected = content(&place.out());
    let work = place.0.path().join(".out.stages");
    let mut went_on = 0;
    for at in (0..seen.len()).step_by(7) {
        fs::remove_dir_all(place.out()).unwrap();
        let (killed, _) = with_fault(Fault::killed_at(at), || run(&job));
        assert!(killed.is_err(), "{:?}", seen[at]);
        // A part that is done is not done again, unless its file is not what it was.
        let part = work.join("filtered/part-00000.jsonl");
        if part.exists() && at % 2 == 0 {
            fs::write(part, "cut").unwrap();
        }
        let mut cleaned = false;
        if !place.out().exists() {
            prepare(&job.config, &job.options, &mut |now| cleaned |= now.stage == Stage::Clean).unwrap();
            went_on += usize::from(!cleaned);
        }
        let mut found = content(&place.out());
        found.remove(Path::new(".lock"));
        assert!(found == expected, "{:?}", seen[at]);
        run(&job.replacing()).unwrap();
        fs::remove_dir_all(&work).unwrap_or_default();
    }
    assert!(went_on > 3, "{went_on}");
}

#[test]
fn any_number_of_tasks_gives_the_same_output() {
    let place = Place::new();
    let mut job = two_parts(&place);
    for n in 0..7 {
        let rows: String = (0..20).map(|i| format!("{{\"text\":\"row {}\"}}\n", (n * 9 + i) % 70)).collect();
        let paths = vec![place.file(&format!("{n}.jsonl"), &rows)];
        job.config.sources.push(SourceConfig { name: n.to_string(), paths, ..SourceConfig::default() });
    }
    job.config.tokenizer = TokenizerChoice::Bpe(BpeOptions::new(270));
    run(&job).unwrap();
    let expected = content(&place.out());
    for of in [1, 3, 8] {
        let output = place.0.path().join(format!("by-{of}"));
        job.config.output = Some(output.clone());
        assert!(matches!(status(&output), Err(PrepareError::NotBegun { .. })));
        assert!(matches!(merge(&output, &job.options, &mut |_| ()), Err(PrepareError::NotBegun { .. })));
        let task = |number| prepare_task(&job.config, &job.options, Task { number, of }, &mut |_| ());
        assert!(matches!(task(0), Err(PrepareError::Task { .. })));
        assert!(matches!(task(of + 1), Err(PrepareError::Task { .. })));
        let mut filtered = 0;
        for number in (1..=of).rev() {
            assert!(matches!(status(&output), Err(PrepareError::NotBegun { .. })) || filtered > 0);
            let report = task(number).unwrap();
            assert_eq!((report.of_parts, task(number).unwrap()), (9, report.clone()));
            filtered += report.parts;
            let now = status(&output).unwrap();
            let tasks = (of + 1 - number) as usize;
            assert_eq!((now.complete, now.parts, now.filtered, now.tasks.len()), (false, 9, filtered, tasks));
            if number > 1 {
                let early = merge(&output, &job.options, &mut |_| ()).unwrap_err();
                assert!(matches!(early, PrepareError::Unfinished { parts: 9, .. }), "{early}");
            }
        }
        // The tasks encode as well, but the last one, of which the parts are left to the merge.
        let settled = merge_documents(&output, &job.options, &mut |_| ()).unwrap();
        assert!(settled.documents && settled.tokenizer && settled.encoded == 0);
        let mut encoded = 0;
        for number in 1..of.max(2) {
            let report = task(number).unwrap();
            assert_eq!((report.work, task(number).unwrap()), (TaskWork::Encode, report.clone()));
            encoded += report.parts;
            let now = status(&output).unwrap();
            assert_eq!((now.encoded, now.encoding_tasks.len() as u64), (encoded, number));
        }
        merge(&output, &job.options, &mut |_| ()).unwrap();
        assert!(status(&output).unwrap().complete);
        assert!(content(&output) == expected, "{of} tasks");
    }
}

#[test]
fn tasks_that_begin_at_once_do_not_disturb_each_other() {
    let place = Place::new();
    let paths =
        (0..4).map(|n| place.file(&format!("{n}.txt"), &format!("text {n}, of some letters"))).collect();
    let mut job = place.job(paths);
    run(&job).unwrap();
    let expected = content(&place.out());
    for round in 0..20 {
        let output = place.0.path().join(format!("round-{round}"));
        job.config.output = Some(output.clone());
        let together = std::sync::Barrier::new(8);
        let begin = &|number| {
            together.wait();
            prepare_task(&job.config, &job.options, Task { number, of: 8 }, &mut |_| ())
        };
        std::thread::scope(|scope| {
            let tasks: Vec<_> = (1..=8).map(|number| scope.spawn(move || begin(number))).collect();
            for task in tasks {
                task.join().unwrap().unwrap();
            }
        });
        merge(&output, &job.options, &mut |_| ()).unwrap();
        assert!(content(&output) == expected, "round {round}");
    }
}

#[test]
fn a_mixture_has_the_shares_that_its_weights_ask_for() {
    let place = Place::new();
    let rows = |n: usize, word: &str| -> String {
        (0..n).map(|i| format!("{{\"text\":\"{word} {i:04}\"}}\n")).collect()
    };
    let mut job = place.job(vec![place.file("a.jsonl", &rows(600, "many"))]);
    let paths = vec![place.file("b.jsonl", &rows(100, "some"))];
    job.config.sources.push(SourceConfig { name: "b".into(), paths, ..SourceConfig::default() });
    let paths = vec![place.file("c.jsonl", &rows(10, "rare"))];
    job.config.sources.push(SourceConfig { name: "c".into(), paths, ..SourceConfig::default() });
    job.config.split = Split { fraction: 0.1, by: SplitBy::Hash };
    let natural = run(&job).unwrap();
    assert!(natural.sources.iter().all(|source| source.epochs == 1.0 && source.wanted.is_none()));

    for (source, weight) in job.config.sources.iter_mut().zip([2.0, 1.0, 1.0]) {
        source.weight = Some(weight);
    }
    let job = job.replacing();
    let report = run(&job).unwrap();
    let [many, some, rare] = &report.sources[..] else { panic!("{report:?}") };
    assert_eq!((many.epochs, rare.epochs), (1.0, 4.0));
    // Half of the tokens of `many`, in whole documents chosen by hash.
    let epochs = many.tokens as f64 / 2.0 / some.tokens as f64;
    assert!((some.epochs - epochs).abs() < 0.15, "{some:?}, {epochs}");
    assert_eq!(report.train.stats.tokens, many.taken + some.taken + rare.taken);
    assert_eq!(report.valid, natural.valid);
    // Each document of `some` is there two or three times more or less than another one.
    let mut times = BTreeMap::new();
    for (_, text) in text_of(&place.out(), "train") {
        *times.entry(text).or_insert(0u64) += 1;
    }
    let of = |word: &str| -> Vec<u64> {
        times.iter().filter(|(text, _)| text.starts_with(word)).map(|(_, times)| *times).collect()
    };
    assert!(of("rare").iter().all(|&times| times == 4) && of("many").iter().all(|&times| times == 1));
    let floor = epochs.floor() as u64;
    assert!(of("some").iter().all(|&times| times == floor || times == floor + 1), "{:?}", of("some"));
    let letters: u64 = times.iter().map(|(text, times)| text.chars().count() as u64 * times).sum();
    assert_eq!(report.train.stats.characters, letters);
    what_a_run_reads_has_these_shares(&place.out(), &report);
}

/// An epoch of a loader, from wherever it is resumed: each token of the mixture is predicted as often as the report says, but for the
/// first one and for those after the last whole window.
fn what_a_run_reads_has_these_shares(out: &Path, report: &PrepareReport) {
    let dataset = Arc::new(Dataset::open(&out.join("train")).unwrap());
    let (rows, columns) = (3, 16);
    let options = LoaderOptions { rows, order: Order::Epochs };
    let loader = || {
        let collator = Arc::new(Causal { columns, pad: 0 });
        Loader::new(dataset.clone(), collator, options, Seed::new(5)).unwrap()
    };
    let n_windows = loader().epoch().unwrap().rows;
    let name_of = |id: &str| id.split('.').next().unwrap().to_owned();
    let mut read = BTreeMap::new();
    for window in 0..n_windows {
        // A loader for each window: nothing is kept but the number of the batch.
        let seen = loader().documents_of(window / rows as u64);
        let of_row = seen.iter().filter(|document| document.row as u64 == window % rows as u64);
        for (at, document) in of_row.enumerate() {
            // The first token of a window is not predicted in it.
            *read.entry(name_of(&document.id)).or_insert(0) += document.ids.len() as u64 - u64::from(at == 0);
        }
    }
    let mut expected = BTreeMap::new();
    for document in dataset.documents() {
        let predicted = document.tokens.start.max(1)..document.tokens.end.min(1 + n_windows * columns as u64);
        *expected.entry(name_of(document.id)).or_insert(0) += predicted.end.saturating_sub(predicted.start);
    }
    assert_eq!(read, expected);
    let left = report.train.stats.tokens - read.values().sum::<u64>();
    assert!(left <= columns as u64, "{left} of {} tokens were not read", report.train.stats.tokens);
    for source in &report.sources {
        let name = if source.name == "text" { "a" } else { &source.name };
        assert!(source.taken - read[name] <= left, "{source:?}: {read:?}");
    }
}

#[test]
fn a_filter_is_done_again_when_the_list_that_it_reads_has_changed() {
    let place = Place::new();
    let list = place.file("words.txt", "forbidden\n");
    let filter = format!("kind = \"word-blocklist\"\nfiles = [{:?}]\n", list.display().to_string());
    let rows: String = ["a forbidden word", "a rare word", "nothing", "more of it"]
        .map(|text| format!("{{\"text\":{text:?}}}\n"))
        .concat();
    let mut job = place.job(vec![place.file("r.jsonl", &rows)]);
    job.config.filters = vec![toml::from_str(&filter).unwrap()];
    job.config.split.fraction = 0.0;
    assert_eq!(run(&job).unwrap().documents.kept, 3);
    assert!(run(&job).unwrap().reused);
    fs::write(&list, "forbidden\nrare\n").unwrap();
    assert!(matches!(run(&job), Err(PrepareError::Exists { differs: "settings differ", .. })));
    let report = run(&job.replacing()).unwrap();
    assert_eq!((report.documents.kept, &*report.steps[1].step), (2, "word-blocklist"));
}

#[test]
fn near_duplicates_go_whatever_the_parts_and_threads() {
    let place = Place::new();
    // Words of letters: digits are all the same to MinHash.
    let words = |n: usize, of: &str| -> String {
        let letter = |at: usize| char::from(b'a' + (at % 26) as u8);
        (0..60).map(|i| format!("{of}{}{} ", letter(i * n / 26), letter(i * n))).collect()
    };
    let row = |id: &str, text: &str| format!("{}\n", serde_json::json!({ "id": id, "text": text }));
    let nearly = words(1, "a") + "other";
    let first = row("first", &words(1, "a")) + &row("short", "too short") + &row("alone", &words(3, "b"));
    let second = row("again", &words(1, "a")) + &row("nearly", &nearly) + &row("more", &words(7, "c"));
    let mut job = place.job(vec![place.file("a.jsonl", &first)]);
    let paths = vec![place.file("b.jsonl", &second)];
    job.config.sources.push(SourceConfig { name: "second".into(), paths, ..SourceConfig::default() });
    job.config.dedup.minhash = Some(MinHashConfig::default());
    job.config.split.fraction = 0.0;
    let report = run(&job).unwrap();
    let [.., exact, near] = &report.steps[..] else { panic!("{report:?}") };
    assert_eq!((exact.documents, exact.removed["duplicate"], exact.kept), (6, 1, 5));
    assert_eq!((near.documents, near.removed["near-duplicate"], near.kept), (5, 1, 4));
    assert_eq!(report.documents.kept, 4);
    let removed = fs::read_to_string(place.out().join("removed.jsonl")).unwrap();
    let removed: Vec<serde_json::Value> =
        removed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&removed[0]["id"], &removed[0]["duplicate_of"]), (&"again".into(), &"first".into()));
    assert_eq!((&removed[1]["id"], &removed[1]["duplicate_of"]), (&"nearly".into(), &"first".into()));
    assert!(removed[1]["score"].as_f64().unwrap() > 0.7 && removed[1]["cluster"] == 0, "{removed:?}");
    let stored = fs::read_to_string(place.out().join("documents/part-00000.jsonl")).unwrap();
    let clusters: Vec<_> = stored.lines().map(|line| line.ends_with(",\"cluster\":0}")).collect();
    assert_eq!(clusters, [true, false, false]);
    assert!(place.out().join("near-duplicates.json").exists());
    let page = fs::read_to_string(place.out().join("report.html")).unwrap();
    assert!(page.contains("near-duplicate") && page.contains("nearly"), "{page}");
    let expected = content(&place.out());
    job.config.output = Some(place.0.path().join("again"));
    job.options.threads = NonZeroUsize::new(3).unwrap();
    run(&job).unwrap();
    assert!(content(&job.output()) == expected);
}

/// Two sources: documents of a title, a line that all share, and one that some share.
fn with_notices(place: &Place) -> Job {
    let row = |id: String, text: String| format!("{}\n", serde_json::json!({ "id": id, "text": text }));
    let rows = |from: usize, to: usize| -> String {
        let text = |n: usize| {
            let number = n % 5;
            format!(
                "title {n}\nall rights of this site are reserved by its owners\nthe note of {number}, which some other pages have as well\n"
            )
        };
        (from..to).map(|n| row(format!("{from}-{n}"), text(n))).collect()
    };
    let only = row("only".into(), "all rights of this site are reserved by its owners\n".into());
    let mut job = place.job(vec![place.file("a.jsonl", &rows(0, 20))]);
    let paths = vec![place.file("b.jsonl", &(only + &rows(20, 40) + &rows(0, 1)))];
    job.config.sources.push(SourceConfig { name: "second".into(), paths, ..SourceConfig::default() });
    job.config.dedup.paragraphs =
        Some(ParagraphConfig { expected_paragraphs: 1000, ..ParagraphConfig::default() });
    job.config.split.fraction = 0.0;
    job
}

#[test]
fn repeated_paragraphs_go_whatever_the_threads_and_tasks() {
    let place = Place::new();
    let mut job = with_notices(&place);
    let report = run(&job).unwrap();
    let [.., exact, paragraphs] = &report.steps[..] else { panic!("{report:?}") };
    assert_eq!((exact.documents, exact.kept), (42, 41));
    let (step, left) = (paragraphs.step.as_str(), paragraphs.removed["nothing-left"]);
    assert_eq!((step, paragraphs.documents, left, paragraphs.kept), ("repeated-paragraphs", 41, 1, 40));
    assert_eq!(report.documents.kept, 40);
    // One of those that all share and five of the others stay; the duplicate of another document has no part in it.
    let ParagraphReport { counts, false_positive_rate } = report.paragraphs.unwrap();
    assert_eq!((counts.paragraphs, counts.removed), (81, 81 - 6));
    assert!((0.0..1e-3).contains(&false_positive_rate));
    let texts = text_of(&place.out(), "train");
    assert_eq!(texts[0].1.lines().count(), 3);
    assert_eq!(texts[1].1, "title 1\nthe note of 1, which some other pages have as well\n");
    assert!(texts[5..].iter().all(|(_, text)| text.lines().count() == 1), "{texts:?}");
    let stored = fs::read_to_string(place.out().join("documents/part-00000.jsonl")).unwrap();
    let counts: Vec<_> = stored
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["repeated_paragraphs"].as_u64())
        .collect();
    assert_eq!(counts[..6], [None, Some(1), Some(1), Some(1), Some(1), Some(2)]);
    let removed = fs::read_to_string(place.out().join("removed.jsonl")).unwrap();
    let removed: Vec<serde_json::Value> =
        removed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(removed.len(), 2);
    assert_eq!((&removed[0]["id"], &removed[0]["reason"]), (&"only".into(), &"nothing-left".into()));
    assert_eq!((&removed[1]["id"], &removed[1]["filter"]), (&"0-0".into(), &"exact-duplicates".into()));
    let page = fs::read_to_string(place.out().join("report.html")).unwrap();
    assert!(page.contains("75 of 81 removed as repeated"), "{page}");

    let expected = content(&place.out());
    job.config.output = Some(place.0.path().join("threads"));
    job.options.threads = NonZeroUsize::new(3).unwrap();
    run(&job).unwrap();
    assert!(content(&job.output()) == expected);
    job.config.output = Some(place.0.path().join("tasks"));
    for number in [2, 1] {
        prepare_task(&job.config, &job.options, Task { number, of: 2 }, &mut |_| ()).unwrap();
    }
    merge(&job.output(), &job.options, &mut |_| ()).unwrap();
    assert!(content(&job.output()) == expected);

    // What was filtered before is of use with other settings.
    job.config.dedup.paragraphs =
        Some(ParagraphConfig { expected_paragraphs: u64::MAX, ..Default::default() });
    let error = run(&job).unwrap_err().to_string();
    assert!(error.starts_with("dedup.paragraphs: the filter of paragraphs needs"), "{error}");
}

#[test]
fn a_file_is_read_the_same_in_one_block_or_in_many() {
    let place = Place::new();
    // Of several hundred kilobytes, with lines longer than a block, and without a line feed at its end.
    let row = |n: usize| match n % 50 {
        0 => format!("{{\"text\":\"long {n} {}\"}}\n", "x ".repeat(50_000)),
        7 => "not a row\n".to_owned(),
        9 => "\n".to_owned(),
        _ => format!("{{\"text\":\"row {n} {}\"}}\n", "y".repeat(n % 900)),
    };
    let rows: String = (0..800).map(row).collect();
    let mut job = place.job(vec![place.file("r.jsonl", rows.trim_end())]);
    let failed = run(&job).unwrap_err().to_string();
    assert!(failed.ends_with("r.jsonl:8: invalid JSON: expected ident at column 2"), "{failed}");
    job.config.on_error = OnError::Skip;
    job.config.split.fraction = 0.0;
    for threads in [1, 3] {
        job.config.output = Some(place.0.path().join(format!("by-{threads}")));
        job.options.threads = NonZeroUsize::new(threads).unwrap();
        let report = run(&job).unwrap();
        assert_eq!((report.documents.read, report.documents.kept), (784, 768));
        let texts = text_of(&job.output(), "train");
        let ids: Vec<String> = texts.into_iter().map(|(id, _)| id).collect();
        let expected: Vec<String> =
            (0..800).filter(|n| !matches!(n % 50, 7 | 9)).map(|n| format!("r.jsonl:{}", n + 1)).collect();
        assert_eq!(ids, expected);
        let removed = fs::read_to_string(job.output().join("removed.jsonl")).unwrap();
        let last: serde_json::Value = serde_json::from_str(removed.lines().last().unwrap()).unwrap();
        assert_eq!((&last["line"], &last["reason"]), (&758.into(), &"invalid-json".into()));
    }
}

#[test]
fn a_tokenizer_that_is_there_is_used() {
    let place = Place::new();
    let input = place.file("c.txt", "abcabcabc abc");
    run(&place.job(vec![input.clone()])).unwrap();
    let mut job = place.job(vec![input.clone()]);
    job.config.tokenizer = TokenizerChoice::Load { path: place.out().join("tokenizer") };
    job.config.output = Some(place.0.path().join("second"));
    let second = run(&job).unwrap();
    assert_eq!(second.vocab_size, 4);
    fs::write(input, "abcd and more").unwrap();
    job.config.output = Some(place.0.path().join("third"));
    let error = run(&job).unwrap_err();
    assert_eq!(error.to_string(), "document c.txt#chars=0-11 cannot be encoded");
    assert!(std::error::Error::source(&error).unwrap().to_string().starts_with("character 'd' at byte 3"));
}

#[test]
fn impossible_work_is_refused() {
    let place = Place::new();
    let empty = place.file("e.txt", "");
    assert!(matches!(run(&place.job(vec![empty])), Err(PrepareError::NoText { read: 1, dropped: 1 })));
    let mut job = place.job(vec![place.file("c.txt", "abc")]);
    job.config.split.by = SplitBy::Documents;
    assert!(matches!(run(&job), Err(PrepareError::EmptyPart { part: "training", .. })));
    for fraction in [1.0, -0.1, f64::NAN] {
        job.config.split.fraction = fraction;
        assert!(matches!(run(&job), Err(PrepareError::Config(PrepareConfigError::Value { .. }))));
    }
    job.config.split = Split { fraction: 0.1, by: SplitBy::Auto };
    job.config.sources[0].paths.push(place.0.path().join("missing.txt"));
    assert!(matches!(run(&job), Err(PrepareError::Source(SourceError::Read { .. }))));
}

#[test]
fn progress_reaches_the_end_of_every_stage() {
    let place = Place::new();
    let job = place.job(vec![place.file("c.txt", "abc abc"), place.file("d.txt", "abcd")]);
    let mut last = BTreeMap::new();
    prepare(&job.config, &job.options, &mut |progress| {
        last.insert(progress.stage, progress);
    })
    .unwrap();
    assert_eq!(last.len(), 4);
    assert!(last.values().all(|p| (p.bytes_done, p.bytes_total) == (11, 11)));
    assert_eq!((last[&Stage::Encode].documents, last[&Stage::Encode].tokens), (2, 11));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_text_is_lost_and_counts_add_up(
        texts in prop::collection::vec("[a-cé\n ]{0,6}", 2..30), fraction in 0.0f64..0.9,
        by in prop::sample::select(vec![SplitBy::Auto, SplitBy::Documents, SplitBy::Characters]),
    ) {
        let place = Place::new();
        let rows: String = texts.iter().map(|t| format!("{}\n", serde_json::json!({ "text": t }))).collect();
        let mut job = place.job(vec![place.file("r.jsonl", &rows)]);
        job.config.dedup.exact = Duplicates::Keep;
        job.config.split = Split { fraction, by };
        match run(&job) {
            Ok(report) => {
                let counts = &report.documents;
                prop_assert_eq!(counts.read, texts.len() as u64);
                prop_assert_eq!(counts.read, counts.kept + counts.dropped_total());
                let valid = report.valid.as_ref().map_or(0, |v| v.stats.characters);
                let total: usize = texts.iter().map(|t| t.chars().count()).sum();
                prop_assert_eq!(report.train.stats.characters + valid, total as u64);
                prop_assert_eq!(report.train.stats.tokens, report.train.stats.characters);
            }
            Err(error) => {
                let expected = matches!(error, PrepareError::NoText { .. } | PrepareError::EmptyPart { .. });
                prop_assert!(expected, "{:?}", error);
                prop_assert!(!place.out().exists());
            }
        }
    }
}

#[test]
fn a_preparation_killed_anywhere_leaves_nothing_or_all_of_it() {
    let place = Place::in_memory();
    let job = place.job(vec![place.file("a.txt", &"to be or not to be\n".repeat(30))]);
    let (whole, seen) = with_fault(Fault::none(), || run(&job));
    whole.unwrap();
    let expected = content(&place.out());
    assert!(seen.len() > 40, "{seen:?}");
    for (at, seen) in seen.iter().enumerate() {
        fs::remove_dir_all(place.out()).unwrap();
        let (_, _) = with_fault(Fault::killed_at(at), || run(&job));
        if place.out().exists() {
            let mut found = content(&place.out());
            // A lock that nobody holds.
            found.remove(Path::new(".lock"));
            assert_eq!(found, expected, "{seen:?}");
        }
        // What was left is in nobody's way.
        run(&job.replacing()).unwrap();
        assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 2, "{seen:?}");
    }
}

#[test]
fn a_preparation_names_the_file_that_it_cannot_read_or_write() {
    let place = Place::in_memory();
    let job = place.job(vec![place.file("a.txt", &"to be or not to be\n".repeat(30))]);
    let (whole, seen) = with_fault(Fault::none(), || run(&job));
    whole.unwrap();
    for (at, seen) in seen.iter().enumerate() {
        fs::remove_dir_all(place.out()).unwrap();
        let (result, _) = with_fault(Fault::once(at, 5), || run(&job));
        if let Err(error) = result {
            let text = error.to_string();
            let hidden = [".out.partial", ".out.stages"].map(|name| place.0.path().join(name));
            let named = [seen.path.as_path(), &place.out(), &hidden[0], &hidden[1]]
                .iter()
                .any(|path| text.contains(&path.display().to_string()));
            assert!(named, "{seen:?}: {text}");
        }
        run(&job.replacing()).unwrap();
    }
}
