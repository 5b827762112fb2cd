//! The hash of a model: of its weights alone, and of all files that its results depend on.

use std::fs::File;
use std::path::{Path, PathBuf};

use andiron_models::{adapter, weights};
use anyhow::Context as _;
use serde_json::{Map, Value};

use crate::model::ModelChoice;

/// Files of a model directory, besides the weights, that results depend on.
const OTHERS: [&str; 14] = [
    "added_tokens.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "modules.json",
    "source.spm",
    "special_tokens_map.json",
    "target.spm",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

/// The hashes of a model and its adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// BLAKE3 of the weight files, one after the other.
    pub checkpoint: String,
    /// BLAKE3 over the files of the model, in the order of their names: for each its name, a NUL, and its own BLAKE3 hash in
    /// hexadecimal. Of a GGUF file, its own hash.
    pub model: String,
    /// BLAKE3 of the adapter's files, one after the other.
    pub adapter: Option<String>,
}

impl Fingerprint {
    /// Reads the files of a model.
    pub fn of(choice: &ModelChoice) -> anyhow::Result<Self> {
        let dir = &choice.path;
        let adapter = match &choice.adapter.path {
            Some(dir) => Some(hash(&adapter::paths(dir)?)?),
            None => None,
        };
        if !dir.is_dir() {
            let file = hash(std::slice::from_ref(dir))?;
            return Ok(Self { checkpoint: file.clone(), model: file, adapter });
        }
        let weights = weights::paths(dir)?;
        let others = OTHERS.iter().map(|name| dir.join(name)).filter(|path| path.is_file());
        let mut files: Vec<PathBuf> = weights.iter().cloned().chain(others).collect();
        files.sort();
        // The weights are read once: a single file has the hash of them all.
        let mut of_weights = (weights.len() > 1).then(blake3::Hasher::new);
        let mut of_model = blake3::Hasher::new();
        let mut single = String::new();
        for path in files {
            let own = hash(std::slice::from_ref(&path))?;
            if weights.contains(&path) {
                match &mut of_weights {
                    Some(all) => update(all, &path)?,
                    None => single = own.clone(),
                }
            }
            of_model.update(path.file_name().unwrap_or_default().as_encoded_bytes());
            of_model.update(b"\0").update(own.as_bytes());
        }
        let checkpoint = of_weights.map_or(single, |all| all.finalize().to_hex().to_string());
        Ok(Self { checkpoint, model: of_model.finalize().to_hex().to_string(), adapter })
    }

    /// Adds the hashes and Andiron's version to an object.
    pub fn add_to(&self, object: &mut Map<String, Value>) {
        object.insert("checkpoint_blake3".to_owned(), self.checkpoint.clone().into());
        object.insert("model_blake3".to_owned(), self.model.clone().into());
        if let Some(adapter) = &self.adapter {
            object.insert("adapter_blake3".to_owned(), adapter.clone().into());
        }
        object.insert("andiron_version".to_owned(), env!("CARGO_PKG_VERSION").into());
    }
}

/// Hash of files one after the other.
fn hash(files: &[PathBuf]) -> anyhow::Result<String> {
    let mut hasher = blake3::Hasher::new();
    for path in files {
        update(&mut hasher, path)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn update(hasher: &mut blake3::Hasher, path: &Path) -> anyhow::Result<()> {
    let read = || format!("cannot read {}", path.display());
    hasher.update_reader(File::open(path).with_context(read)?).with_context(read)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AdapterChoice;

    #[test]
    fn what_a_result_depends_on_changes_the_hash() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "weights");
        let choice = ModelChoice { path: dir.path().to_owned(), adapter: AdapterChoice::default() };
        let before = Fingerprint::of(&choice).unwrap();
        assert_eq!(before.checkpoint, blake3::hash(b"weights").to_hex().to_string());
        write("README.md", "nothing");
        assert_eq!(Fingerprint::of(&choice).unwrap(), before);
        write("config.json", "{ }");
        let after = Fingerprint::of(&choice).unwrap();
        assert!(after.model != before.model && after.checkpoint == before.checkpoint);
        let mut object = Map::new();
        after.add_to(&mut object);
        assert_eq!(object.len(), 3, "{object:?}");
    }
}
