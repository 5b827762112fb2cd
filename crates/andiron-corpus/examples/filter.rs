//! Runs the filters of a TOML file over documents as JSON lines: `filter FILTERS.toml [DOCUMENTS.jsonl]`.
//!
//! The file has one `[[filter]]` table for each filter, with its `kind` and settings. Each document is an object with `text` and
//! any further fields; it is read from the file or from standard input. For each, one line is written: the text that is left
//! and the metadata, or the filter that removed it, the reason and the score. With `--each`, every filter sees the original
//! document, and the line has a list with what each makes of it. With `--time`, nothing but the speed is written. With
//! `--words`, each line is a list of the English words of a document.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::time::Instant;

use andiron_corpus::clean::{Filter, FilterSettings, Verdict, WordSplit};
use andiron_data::Document;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    filter: Vec<FilterSettings>,
}

type Named = (&'static str, Box<dyn Filter>);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (flags, paths): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|one| one.starts_with("--"));
    let [settings, documents @ ..] = paths.as_slice() else {
        return Err("usage: filter [--each | --time | --words] FILTERS.toml [DOCUMENTS.jsonl]".into());
    };
    let settings: Settings = toml::from_str(&std::fs::read_to_string(settings)?)?;
    let filters: Vec<Named> = settings
        .filter
        .iter()
        .map(|one| Ok((one.name(), one.build()?)))
        .collect::<Result<_, Box<dyn std::error::Error>>>()?;
    let input: Box<dyn BufRead> = match documents {
        [] => Box::new(stdin().lock()),
        [path, ..] => Box::new(BufReader::new(std::fs::File::open(path)?)),
    };
    let documents = input.lines().map(|line| document(&line?));
    if flags.iter().any(|flag| flag == "--time") {
        return time(&filters, documents.collect::<Result<_, _>>()?);
    }
    let mut output = stdout().lock();
    for document in documents {
        let document = document?;
        let line = if flags.iter().any(|flag| flag == "--words") {
            let mut words = Vec::new();
            WordSplit::English.for_each(&document.text, |word| words.push(word));
            json!(words)
        } else if flags.iter().any(|flag| flag == "--each") {
            let each = filters.iter().map(|filter| run(std::slice::from_ref(filter), document.clone()));
            Value::Array(each.collect())
        } else {
            run(&filters, document)
        };
        writeln!(output, "{line}")?;
    }
    Ok(())
}

fn document(line: &str) -> Result<Document, Box<dyn std::error::Error>> {
    let mut metadata: Map<String, Value> = serde_json::from_str(line)?;
    let Some(Value::String(text)) = metadata.remove("text") else {
        return Err("a document has no text".into());
    };
    Ok(Document { metadata, ..Document::new("", text) })
}

fn run(filters: &[Named], mut document: Document) -> Value {
    for (name, filter) in filters {
        if let Verdict::Remove(removal) = filter.apply(&mut document) {
            return json!({ "filter": name, "reason": removal.reason, "score": removal.score });
        }
    }
    json!({ "text": document.text, "metadata": document.metadata })
}

/// All processors, a part of the documents each.
fn time(filters: &[Named], mut documents: Vec<Document>) -> Result<(), Box<dyn std::error::Error>> {
    let bytes: usize = documents.iter().map(|document| document.text.len()).sum();
    let threads = std::thread::available_parallelism()?.get();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let kept = std::sync::atomic::AtomicUsize::new(0);
    let chunks: Vec<std::sync::Mutex<&mut [Document]>> =
        documents.chunks_mut(64).map(std::sync::Mutex::new).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(chunk) = chunks.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let Ok(mut chunk) = chunk.lock() else { return };
                    for document in chunk.iter_mut() {
                        if filters.iter().all(|(_, filter)| filter.apply(document) == Verdict::Keep) {
                            kept.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let speed = bytes as f64 / 1e6 / seconds;
    println!(
        "{}",
        json!({ "megabytes_per_second": speed, "seconds": seconds, "bytes": bytes, "kept": kept.into_inner() })
    );
    Ok(())
}
