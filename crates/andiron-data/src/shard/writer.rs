//! Writing a dataset.

use std::path::{Path, PathBuf};

use super::documents::IndexBuilder;
use super::file::HashedFile;
use super::manifest::{FORMAT, Manifest, ShardEntry, Stats, TokenType, VERSION, docs_file, ids_file};
use super::{Dataset, DatasetError};
use crate::files::{PartialDirectory, link_or_copy, write_synced};

const NAME_LIMIT: usize = 64 << 10;

/// Vocabulary of a dataset and size of its shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// Ids are below this.
    pub vocab_size: u32,
    /// The hash of the tokenizer that made the ids.
    pub tokenizer_blake3: String,
    /// A shard is closed when it has this many tokens. Documents are never cut.
    pub tokens_per_shard: u64,
}

impl WriterOptions {
    /// Shards of 2^28 tokens: half a gibibyte of `u16`.
    pub fn new(vocab_size: u32, tokenizer_blake3: impl Into<String>) -> Self {
        Self { vocab_size, tokenizer_blake3: tokenizer_blake3.into(), tokens_per_shard: 1 << 28 }
    }
}

/// Writes documents into a dataset that appears when [`finish`](Self::finish) succeeds and leaves nothing behind
/// when it is dropped before.
///
/// # Example
/// ```
/// use andiron_data::shard::{Dataset, DatasetWriter, WriterOptions};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("train");
/// let mut writer = DatasetWriter::create(&path, WriterOptions::new(65, "0".repeat(64)))?;
/// writer.push("a.txt", &[1, 2, 3], "abc")?;
/// writer.finish()?;
/// let dataset = Dataset::open(&path)?;
/// let mut ids = [0; 2];
/// dataset.read(1, &mut ids);
/// assert_eq!(ids, [2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DatasetWriter {
    target: PathBuf,
    directory: PartialDirectory,
    options: WriterOptions,
    token_type: TokenType,
    shards: Vec<ShardEntry>,
    open: Option<OpenShard>,
    stats: Stats,
    buffer: Vec<u8>,
}

struct OpenShard {
    ids: HashedFile,
    index: IndexBuilder,
}

impl DatasetWriter {
    /// Begins a dataset that will replace whatever is at `path`.
    ///
    /// # Errors
    /// If the temporary directory beside it cannot be created, or another process is building the same dataset.
    pub fn create(path: &Path, options: WriterOptions) -> Result<Self, DatasetError> {
        let directory = PartialDirectory::begin(path)
            .map_err(|source| DatasetError::Write { path: path.to_owned(), source })?;
        Ok(Self {
            target: path.to_owned(),
            directory,
            token_type: TokenType::for_vocabulary(options.vocab_size),
            options,
            shards: Vec::new(),
            open: None,
            stats: Stats::default(),
            buffer: Vec::new(),
        })
    }

    /// Appends a document: its name, its ids and its text, of which only the length is stored.
    ///
    /// # Errors
    /// If an id is outside of the vocabulary, the name is longer than 64 KiB, or writing fails.
    pub fn push(&mut self, name: &str, ids: &[u32], text: &str) -> Result<(), DatasetError> {
        let vocab_size = self.options.vocab_size;
        if let Some(position) = ids.iter().position(|&id| id >= vocab_size) {
            let (id, position) = (ids[position], position as u64);
            return Err(DatasetError::IdOutOfRange { id, position, vocab_size });
        }
        if name.len() > NAME_LIMIT {
            return Err(DatasetError::DocumentId { bytes: name.len(), limit: NAME_LIMIT });
        }
        if self.open.as_ref().is_some_and(|shard| shard.index.tokens() >= self.options.tokens_per_shard) {
            self.close_shard()?;
        }
        let shard = match &mut self.open {
            Some(shard) => shard,
            None => {
                let ids = HashedFile::create(self.directory.path().join(ids_file(self.shards.len())))?;
                self.open.insert(OpenShard { ids, index: IndexBuilder::default() })
            }
        };
        self.buffer.clear();
        self.token_type.encode(ids, &mut self.buffer);
        shard.ids.write(&self.buffer)?;
        shard.index.push(name, ids.len() as u64);
        self.stats.add(ids.len() as u64, text);
        Ok(())
    }

    /// Appends the shards of a finished dataset of the same tokenizer. Its files get a second name, or are copied where the file
    /// system has no hard links; they are not read.
    ///
    /// # Errors
    /// If a file cannot be linked or copied.
    ///
    /// # Panics
    /// If the tokenizers differ.
    pub fn append(&mut self, dataset: &Dataset) -> Result<(), DatasetError> {
        let manifest = dataset.manifest();
        let same = manifest.tokenizer_blake3 == self.options.tokenizer_blake3
            && manifest.vocab_size == self.options.vocab_size;
        assert!(same, "{} has another tokenizer", dataset.path().display());
        self.close_shard()?;
        for (number, entry) in manifest.shards.iter().enumerate() {
            let to = self.shards.len();
            for (from, to) in [(ids_file(number), ids_file(to)), (docs_file(number), docs_file(to))] {
                let to = self.directory.path().join(to);
                link_or_copy(&dataset.path().join(from), &to)
                    .map_err(|source| DatasetError::Write { path: to, source })?;
            }
            self.shards.push(entry.clone());
        }
        self.stats.join(dataset.stats());
        Ok(())
    }

    /// Statistics of what was written so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Completes and publishes the dataset.
    ///
    /// # Errors
    /// If writing fails; then nothing is published.
    pub fn finish(mut self) -> Result<Manifest, DatasetError> {
        self.close_shard()?;
        let manifest = Manifest {
            format: FORMAT.into(),
            version: VERSION,
            token_type: self.token_type,
            vocab_size: self.options.vocab_size,
            tokenizer_blake3: self.options.tokenizer_blake3.clone(),
            tokens: self.stats.tokens,
            documents: self.stats.documents,
            shards: std::mem::take(&mut self.shards),
        };
        let stats = serde_json::to_vec_pretty(&self.stats).expect("counts can be written as JSON");
        self.write_file("stats.json", &stats)?;
        self.write_file("manifest.json", &manifest.to_json())?;
        self.directory.publish().map_err(|source| DatasetError::Write { path: self.target, source })?;
        Ok(manifest)
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), DatasetError> {
        let path = self.directory.path().join(name);
        write_synced(&path, bytes).map_err(|source| DatasetError::Write { path, source })
    }

    fn close_shard(&mut self) -> Result<(), DatasetError> {
        let Some(OpenShard { ids, index }) = self.open.take() else { return Ok(()) };
        let ids_blake3 = ids.finish()?;
        let docs = index.to_bytes();
        let docs_path = self.directory.path().join(docs_file(self.shards.len()));
        write_synced(&docs_path, &docs).map_err(|source| DatasetError::Write { path: docs_path, source })?;
        self.shards.push(ShardEntry {
            tokens: index.tokens(),
            documents: index.documents(),
            ids_blake3,
            docs_blake3: blake3::hash(&docs).to_hex().to_string(),
        });
        Ok(())
    }
}
