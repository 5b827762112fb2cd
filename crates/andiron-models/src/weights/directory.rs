//! The weight files of a model directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use andiron_files::without_mark;
use serde::Deserialize;

use super::file::TensorFile;
use super::source::TensorSource;
use super::torch::TorchFile;
use super::{FileError, LoadError};

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
const TORCH: &str = "pytorch_model.bin";
const TORCH_INDEX: &str = "pytorch_model.bin.index.json";

/// Unsupported weight formats by the beginning or end of their file names, and the program that writes them.
const OTHERS: &[(&str, &str)] = &[
    ("tf_model.h5", "TensorFlow's"),
    ("flax_model.msgpack", "Flax's"),
    ("model.ckpt", "TensorFlow's"),
    (".ckpt.index", "TensorFlow's"),
    (".onnx", "ONNX's"),
    ("consolidated.", "of the form that Meta and Mistral publish"),
    ("rust_model.ot", "rust-bert's"),
    ("adapter_model.", "an adapter's: open its base model with it"),
    (".gguf", "a GGUF file: give its path"),
    (".safetensors", "of another name"),
    (".pth", "of another name"),
    (".pt", "of another name"),
    (".bin", "of another name"),
];

/// An open weight file.
pub(crate) enum WeightFile {
    Safetensors(TensorFile),
    Torch(TorchFile),
}

impl WeightFile {
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        if path.extension().is_some_and(|extension| extension == "bin") {
            return TorchFile::open(path).map(Self::Torch);
        }
        TensorFile::open(path).map(Self::Safetensors)
    }

    /// Treats tensors whose names match `is_stale` as absent.
    fn leave_out(&mut self, is_stale: impl Fn(&str) -> bool) {
        match self {
            Self::Safetensors(file) => file.leave_out(is_stale),
            Self::Torch(file) => file.leave_out(is_stale),
        }
    }
}

impl TensorSource for WeightFile {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        match self {
            Self::Safetensors(file) => file.tensors(),
            Self::Torch(file) => file.tensors(),
        }
    }

    fn read_f32(&mut self, name: &str) -> Result<Vec<f32>, FileError> {
        match self {
            Self::Safetensors(file) => file.read_f32(name),
            Self::Torch(file) => file.read_f32(name),
        }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Safetensors(file) => file.has(name),
            Self::Torch(file) => file.has(name),
        }
    }
}

/// The weight files of a directory.
enum Found {
    Single(PathBuf),
    /// The shard of each tensor, from the index.
    Shards(BTreeMap<String, String>),
}

impl Found {
    fn shards(weight_map: &BTreeMap<String, String>) -> BTreeSet<&String> {
        weight_map.values().collect()
    }
}

/// Opens the weights in the directory `dir`: one file or the shards of an index; safetensors, or PyTorch if there is
/// no other. If several shards hold a tensor, the one in the index counts; the others are stale.
pub(crate) fn open(dir: &Path) -> Result<Vec<WeightFile>, LoadError> {
    let weight_map = match find(dir)? {
        Found::Single(path) => return Ok(vec![WeightFile::open(&path)?]),
        Found::Shards(weight_map) => weight_map,
    };
    let open = |shard: &String| {
        let mut file = WeightFile::open(&dir.join(shard))?;
        file.leave_out(|tensor| weight_map.get(tensor).is_some_and(|named| named != shard));
        Ok(file)
    };
    Found::shards(&weight_map).into_iter().map(open).collect()
}

/// The weight files of the model directory `dir`; shards are sorted by name.
///
/// # Errors
/// If there are none, or the index cannot be read.
pub fn paths(dir: &Path) -> Result<Vec<PathBuf>, LoadError> {
    Ok(match find(dir)? {
        Found::Single(path) => vec![path],
        Found::Shards(weight_map) => {
            Found::shards(&weight_map).into_iter().map(|shard| dir.join(shard)).collect()
        }
    })
}

fn find(dir: &Path) -> Result<Found, LoadError> {
    for (single, index) in [(SINGLE, INDEX), (TORCH, TORCH_INDEX)] {
        let (single, index) = (dir.join(single), dir.join(index));
        if is_there(&single)? {
            return Ok(Found::Single(single));
        }
        if is_there(&index)? {
            return Ok(Found::Shards(read_index(&index)?));
        }
    }
    Err(LoadError::NoWeights { path: dir.to_owned(), found: others(dir) })
}

fn is_there(path: &Path) -> Result<bool, FileError> {
    andiron_files::is_there(path).map_err(|source| FileError::Read { path: path.to_owned(), source })
}

/// The shard of each tensor; shards are files beside the index.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, FileError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }

    let at = || path.to_owned();
    let text = andiron_files::read(path).map_err(|source| FileError::Read { path: at(), source })?;
    let index: Index = serde_json::from_slice(without_mark(&text))
        .map_err(|source| FileError::Header { path: at(), source })?;
    // A path in a shard's name would leave the model directory.
    let is_plain = |name: &str| Path::new(name).file_name() == Some(Path::new(name).as_os_str());
    match index.weight_map.values().find(|name| !is_plain(name)) {
        Some(name) => {
            let reason = format!("shard name {name:?} is not a plain file name");
            Err(FileError::Malformed { path: at(), reason })
        }
        None => Ok(index.weight_map),
    }
}

/// Describes unsupported weights in a directory, as the end of a sentence.
fn others(dir: &Path) -> Option<String> {
    let names = andiron_files::list(dir).ok()?;
    let known = |(part, whose): &(&str, &'static str)| {
        let name = names.iter().find(|name| name.starts_with(part) || name.ends_with(part))?;
        Some(format!("; {name} is there, which is {whose}"))
    };
    OTHERS.iter().find_map(known)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_there_instead_is_named() {
        let said = |files: &[&str]| {
            let dir = tempfile::tempdir().expect("a directory");
            for file in files {
                fs::write(dir.path().join(file), "").expect("it can be written");
            }
            open(dir.path()).err().expect("there are no weights").to_string()
        };
        for name in [
            "tf_model.h5",
            "flax_model.msgpack",
            "model.ckpt.index",
            "bert_model.ckpt.index",
            "model.onnx",
            "consolidated.00.pth",
            "adapter_model.safetensors",
            "llama.gguf",
            "weights.bin",
            "model.pt",
        ] {
            let said = said(&["config.json", name]);
            assert!(said.contains(name) && said.contains("model.safetensors is not there"), "{said}");
        }
        assert!(said(&["config.json"]).ends_with("that are read"));
    }

    #[test]
    fn safetensors_go_before_pytorch() {
        let dir = tempfile::tempdir().expect("a directory");
        let found = || {
            paths(dir.path()).map(|paths| {
                paths.into_iter().map(|path| path.file_name().map(|name| name.to_owned())).collect::<Vec<_>>()
            })
        };
        let names = |names: &[&str]| names.iter().map(|name| Some((*name).into())).collect::<Vec<_>>();
        let index = r#"{"weight_map":{"b":"two.bin","a":"one.bin","c":"one.bin"}}"#;
        fs::write(dir.path().join(TORCH_INDEX), index).expect("it can be written");
        assert_eq!(found().expect("files"), names(&["one.bin", "two.bin"]));
        fs::write(dir.path().join(TORCH), "").expect("it can be written");
        assert_eq!(found().expect("files"), names(&[TORCH]));
        fs::write(dir.path().join(SINGLE), "").expect("it can be written");
        assert_eq!(found().expect("files"), names(&[SINGLE]));
        fs::remove_file(dir.path().join(SINGLE)).expect("it is there");
        fs::remove_file(dir.path().join(TORCH)).expect("it is there");
        fs::write(dir.path().join(TORCH_INDEX), r#"{"weight_map":{"a":"../one.bin"}}"#)
            .expect("it can be written");
        assert!(found().is_err_and(|error| error.to_string().contains("plain file name")));
    }
}
