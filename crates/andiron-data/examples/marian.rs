//! Reads texts, one JSON string per line, and writes for each its ids as a source text, its ids as a target text, and the
//! decoded source ids. Saves the tokenizer too. Used by `tests/check_marian.py`.

use std::io::BufRead;
use std::path::Path;

use andiron_data::tokenizer::{Special, Tokenizer};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(saved)) = (arguments.next(), arguments.next()) else {
        return Err("usage: marian DIR SAVED < TEXTS".into());
    };
    let source = Tokenizer::load(Path::new(&dir))?;
    let target = source.for_targets()?;
    source.save(Path::new(&saved))?;
    for line in std::io::stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        let ids = source.encode_framed(&text)?;
        let decoded = source.decode(&ids, Special::Skip)?;
        let target_ids = target.encode_framed(&text)?;
        println!("{}", json!({ "ids": ids, "target_ids": target_ids, "decoded": decoded }));
    }
    Ok(())
}
