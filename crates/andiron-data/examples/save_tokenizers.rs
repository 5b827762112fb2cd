//! Trains a character vocabulary and a byte-level one, and saves them with texts and their ids, for
//! `tests/check_tokenizer.py`.

use std::path::Path;

use andiron_data::tokenizer::{BpeOptions, Special, SpecialTokens, Tokenizer, train_bpe, train_chars};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(out), Some(corpus)) = (arguments.next(), arguments.next()) else {
        return Err("usage: save_tokenizers OUT TEXT".into());
    };
    let text = std::fs::read_to_string(corpus)?;
    let out = Path::new(&out);
    let extra = "héllo wörld 你好 👩‍👧 \u{200f}\t\r\n ";
    let with_extra = text.clone() + extra + "<|endoftext|>";
    save(&out.join("characters"), &train_chars([&text], &SpecialTokens::default())?, &text, extra)?;
    let special = SpecialTokens::end_of_text("<|endoftext|>");
    save(&out.join("characters-eos"), &train_chars([&with_extra], &special)?, &text, extra)?;
    save(&out.join("byte-level"), &train_bpe([&text], &BpeOptions::new(2048))?, &text, extra)
}

fn save(
    dir: &Path,
    tokenizer: &Tokenizer,
    text: &str,
    extra: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    tokenizer.save(dir)?;
    let info = json!({ "vocab_size": tokenizer.vocab_size(), "eos_id": tokenizer.eos_id() });
    std::fs::write(dir.join("info.json"), info.to_string())?;
    let mut texts: Vec<String> = text.split_inclusive("\n\n").step_by(25).map(str::to_owned).collect();
    texts.extend(
        [" .  , 's n't ?", "\n\n\n a", "  ", "a\nb\n\nc \n d", "end<|endoftext|>\n"].map(str::to_owned),
    );
    texts.extend([extra.to_owned(), extra.repeat(3), text.chars().take(200_000).collect()]);
    let mut cases = String::new();
    for text in texts {
        let ids = tokenizer.encode(&text).ok();
        let decoded = ids.as_ref().map(|ids| tokenizer.decode(ids, Special::Keep)).transpose()?;
        cases += &format!("{}\n", json!({ "text": text, "ids": ids, "decoded": decoded }));
    }
    std::fs::write(dir.join("cases.jsonl"), cases)?;
    Ok(())
}
