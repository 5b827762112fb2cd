//! Character vocabularies: one id per Unicode character.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{SpecialTokens, TrainError, check_special};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::files::Files;
use crate::tokenizer::validate::EACH_CHARACTER;

/// Builds a vocabulary of the characters in `texts`, with ids in the order of their code points, followed by the control
/// tokens.
///
/// The result is a standard `tokenizer.json` (a `WordLevel` model over single characters) that the Python
/// libraries `tokenizers` and `transformers` load and that gives the same ids there. Decoding gives exactly the
/// text back. There is no unknown token: a text with another character is an error that names it
/// ([`TokenizerError::UnknownCharacter`](crate::tokenizer::TokenizerError::UnknownCharacter)), in Python too, because
/// silently dropped characters are worse. Ids are those of nanoGPT's `shakespeare_char`.
///
/// # Errors
/// If the texts have no character, or a control token is empty or one of the characters.
///
/// # Example
/// ```
/// use andiron_data::tokenizer::{SpecialTokens, train_chars};
/// let tokenizer = train_chars(["to be", "or not"], &SpecialTokens::default())?;
/// assert_eq!(tokenizer.encode("bot")?, [1, 4, 6]);
/// assert!(tokenizer.encode("boat").unwrap_err().to_string().starts_with("character 'a' at byte 2"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn train_chars<I, S>(texts: I, special: &SpecialTokens) -> Result<Tokenizer, TrainError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<str>,
{
    // A bit for each.
    let mut seen = vec![0u64; (char::MAX as usize + 1) / 64];
    for text in texts {
        for character in text.as_ref().chars() {
            seen[character as usize / 64] |= 1 << (character as usize % 64);
        }
    }
    let is_seen = |c: &char| seen[*c as usize / 64] >> (*c as usize % 64) & 1 == 1;
    let characters: BTreeSet<char> = ('\0'..=char::MAX).filter(is_seen).collect();
    if characters.is_empty() {
        return Err(TrainError::NoText);
    }
    check_special(special, |token| {
        let mut chars = token.chars();
        chars.next().is_some_and(|c| chars.next().is_none() && characters.contains(&c))
    })?;
    let n_characters = characters.len();
    let vocabulary: Map<String, Value> =
        characters.into_iter().enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
    let added: Vec<Value> = special
        .all()
        .into_iter()
        .enumerate()
        .map(|(i, token)| {
            json!({
                "id": n_characters + i, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Split", "pattern": { "Regex": EACH_CHARACTER }, "behavior": "Isolated", "invert": false,
        },
        "post_processor": null,
        "decoder": { "type": "Fuse" },
        // The format requires a name here. As it is not a token, an unknown character is an error.
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>" },
    });
    let files = Files::made(format!("{json:#}\n").into_bytes(), special.clone());
    Ok(Tokenizer::from_files(files)?)
}
