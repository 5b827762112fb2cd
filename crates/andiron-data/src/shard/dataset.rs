//! Reading a dataset.

use std::ops::Range;
use std::path::{Path, PathBuf};

use andiron_kernels::mapped::MappedFile;

use super::DatasetError;
use super::documents::Index;
use super::file::{map, map_values, parse, read, verify};
use super::manifest::{FORMAT, Manifest, Stats, TokenType, VERSION, docs_file, ids_file};

/// A memory-mapped dataset.
///
/// Its tokens form one sequence; positions run from 0 to [`tokens`](Self::tokens). Layout of the files: `.ids` holds the
/// ids, little-endian, and nothing else. `.docs` holds, little-endian, the bytes `ANDRDOCS`; the number `n` of documents
/// as `u64`; `n + 1` token offsets as `u64`; `n + 1` byte offsets into the names as `u64`; the names in UTF-8.
pub struct Dataset {
    path: PathBuf,
    manifest: Manifest,
    stats: Stats,
    fingerprint: String,
    shards: Vec<Shard>,
}

struct Shard {
    ids: MappedFile,
    index: Index,
    /// Positions of its first token and first document in the dataset.
    first_token: u64,
    first_document: u64,
}

/// A document of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentRef<'a> {
    /// Its index in the dataset.
    pub index: u64,
    /// Its name, the [`id`](crate::document::Document::id) it came with.
    pub id: &'a str,
    /// The positions of its tokens in the dataset.
    pub tokens: Range<u64>,
}

impl Dataset {
    /// Opens a dataset and checks that its files exist, have the sizes and counts of the manifest, and have valid document
    /// indices. The ids themselves are not read; [`verify`](Self::verify) reads them.
    ///
    /// # Errors
    /// If anything is missing, damaged or of another version.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let manifest_path = path.join("manifest.json");
        let bytes = read(&manifest_path)?;
        let manifest: Manifest = parse(&manifest_path, &bytes)?;
        let fingerprint = manifest.fingerprint();
        if manifest.format != FORMAT || manifest.version != VERSION {
            return Err(DatasetError::Format {
                path: manifest_path,
                found: manifest.format,
                version: manifest.version,
                wanted: FORMAT,
                wanted_version: VERSION,
            });
        }
        let damaged = |problem| DatasetError::Damaged { path: manifest_path.clone(), problem };
        if manifest.token_type != TokenType::for_vocabulary(manifest.vocab_size) {
            return Err(damaged("the token type does not fit the vocabulary"));
        }
        let mut shards = Vec::new();
        let (mut tokens, mut documents) = (0u64, 0u64);
        for (number, entry) in manifest.shards.iter().enumerate() {
            let ids = map_values(path.join(ids_file(number)), entry.tokens, manifest.token_type.bytes())?;
            let docs_path = path.join(docs_file(number));
            let docs = map(&docs_path)?;
            let index = Index::new(docs, entry.documents, entry.tokens)
                .map_err(|problem| DatasetError::Damaged { path: docs_path, problem })?;
            shards.push(Shard { ids, index, first_token: tokens, first_document: documents });
            let sums = (tokens.checked_add(entry.tokens), documents.checked_add(entry.documents));
            let (Some(t), Some(d)) = sums else { return Err(damaged("its counts overflow")) };
            (tokens, documents) = (t, d);
        }
        if (tokens, documents) != (manifest.tokens, manifest.documents) {
            return Err(damaged("its counts are not the sums over the shards"));
        }
        let stats_path = path.join("stats.json");
        let stats = parse(&stats_path, &read(&stats_path)?)?;
        Ok(Self { path: path.to_owned(), manifest, stats, fingerprint, shards })
    }

    /// Reads everything: compares the hashes and checks that every id is in the vocabulary.
    ///
    /// # Errors
    /// If a file differs from what was written.
    pub fn verify(&self) -> Result<(), DatasetError> {
        for (number, (shard, entry)) in self.shards.iter().zip(&self.manifest.shards).enumerate() {
            for (name, bytes, wanted) in [
                (ids_file(number), &shard.ids[..], &entry.ids_blake3),
                (docs_file(number), shard.index.bytes(), &entry.docs_blake3),
            ] {
                verify(self.path.join(name), bytes, wanted)?;
            }
        }
        self.check_ids(self.manifest.vocab_size)
    }

    /// Reads every id: it must be below `vocab_size`, which may be less than that of the tokenizer which made them.
    ///
    /// # Errors
    /// [`DatasetError::IdOutOfRange`] with the first that is not.
    pub fn check_ids(&self, vocab_size: u32) -> Result<(), DatasetError> {
        let mut ids = vec![0; 1 << 16];
        let mut at = 0;
        while at < self.tokens() {
            let n = (self.tokens() - at).min(1 << 16) as usize;
            self.read(at, &mut ids[..n]);
            if let Some(bad) = ids[..n].iter().position(|&id| id >= vocab_size) {
                let (id, position) = (ids[bad], at + bad as u64);
                return Err(DatasetError::IdOutOfRange { id, position, vocab_size });
            }
            at += n as u64;
        }
        Ok(())
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How much text it holds.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The BLAKE3 hash of its manifest in hexadecimal ([`Manifest::fingerprint`]), which identifies its content.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Number of token ids.
    pub fn tokens(&self) -> u64 {
        self.manifest.tokens
    }

    /// Ids are below this.
    pub fn vocab_size(&self) -> usize {
        self.manifest.vocab_size as usize
    }

    /// Fills `out` with the ids from position `start` on.
    ///
    /// # Panics
    /// If the range ends beyond the last token.
    pub fn read(&self, start: u64, out: &mut [u32]) {
        let end = start.checked_add(out.len() as u64);
        assert!(
            end.is_some_and(|end| end <= self.tokens()),
            "{} ids from {start} on, of {}",
            out.len(),
            self.tokens()
        );
        let width = self.manifest.token_type.bytes();
        let mut done = 0;
        while done < out.len() {
            let at = start + done as u64;
            let shard = &self.shards[self.shard_at(at)];
            // Below the length of a mapping, so it fits.
            let from = (at - shard.first_token) as usize * width;
            let n = ((shard.ids.len() - from) / width).min(out.len() - done);
            self.manifest.token_type.decode(&shard.ids[from..from + n * width], &mut out[done..done + n]);
            done += n;
        }
    }

    /// The document with an index.
    ///
    /// # Panics
    /// If there is no such document.
    pub fn document(&self, index: u64) -> DocumentRef<'_> {
        assert!(index < self.manifest.documents, "document {index} of {}", self.manifest.documents);
        let shard = self.shards.partition_point(|shard| shard.first_document <= index) - 1;
        let shard = &self.shards[shard];
        let i = (index - shard.first_document) as usize;
        let tokens = shard.first_token + shard.index.start(i)..shard.first_token + shard.index.start(i + 1);
        DocumentRef { index, id: shard.index.name(i), tokens }
    }

    /// The documents that contain some positions, in order. Documents without tokens are left out.
    ///
    /// # Panics
    /// If a position is beyond the last token.
    pub fn documents_in(&self, positions: Range<u64>) -> impl Iterator<Item = DocumentRef<'_>> {
        assert!(positions.end <= self.tokens(), "position {} of {}", positions.end, self.tokens());
        let first = (positions.start < positions.end).then(|| {
            let shard = &self.shards[self.shard_at(positions.start)];
            shard.first_document + shard.index.document_at(positions.start - shard.first_token) as u64
        });
        (first.unwrap_or(self.manifest.documents)..self.manifest.documents)
            .map(|index| self.document(index))
            .take_while(move |document| document.tokens.start < positions.end)
            .filter(|document| !document.tokens.is_empty())
    }

    /// All documents, in order.
    pub fn documents(&self) -> impl Iterator<Item = DocumentRef<'_>> {
        (0..self.manifest.documents).map(|index| self.document(index))
    }

    /// The shard of an existing position: the last one that begins at or before it, because an empty shard begins where the
    /// next one does.
    fn shard_at(&self, position: u64) -> usize {
        self.shards.partition_point(|shard| shard.first_token <= position) - 1
    }
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let documents = self.shards.iter().map(|shard| shard.index.documents()).sum::<usize>();
        f.debug_struct("Dataset")
            .field("path", &self.path)
            .field("tokens", &self.tokens())
            .field("documents", &documents)
            .finish_non_exhaustive()
    }
}
