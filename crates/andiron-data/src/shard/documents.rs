//! The document index of a shard: where each document begins and what it is called.
//!
//! Little-endian: 8 bytes `ANDRDOCS`; the number of documents `n` as `u64`; `n + 1` token offsets as `u64`, the
//! last of which is the number of tokens; `n + 1` byte offsets into the names as `u64`; the names, UTF-8 without
//! separators.

use andiron_kernels::mapped::MappedFile;

const MAGIC: &[u8; 8] = b"ANDRDOCS";

/// Collects the index of a shard while it is written.
#[derive(Default)]
pub(super) struct IndexBuilder {
    ends: Vec<u64>,
    name_ends: Vec<u64>,
    names: Vec<u8>,
    tokens: u64,
}

impl IndexBuilder {
    pub(super) fn push(&mut self, name: &str, tokens: u64) {
        self.tokens += tokens;
        self.ends.push(self.tokens);
        self.names.extend_from_slice(name.as_bytes());
        self.name_ends.push(self.names.len() as u64);
    }

    pub(super) fn documents(&self) -> u64 {
        self.ends.len() as u64
    }

    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.documents().to_le_bytes());
        for ends in [&self.ends, &self.name_ends] {
            bytes.extend(0u64.to_le_bytes());
            bytes.extend(ends.iter().flat_map(|end| end.to_le_bytes()));
        }
        bytes.extend_from_slice(&self.names);
        bytes
    }
}

/// The index of a shard, in a mapped file that has been checked.
pub(super) struct Index {
    file: MappedFile,
    documents: usize,
}

impl Index {
    /// Checks a file against the counts in the manifest; the error says what is wrong with it.
    pub(super) fn new(file: MappedFile, documents: u64, tokens: u64) -> Result<Self, &'static str> {
        let size = file.len() as u64;
        let table = documents.checked_add(1).and_then(|n| n.checked_mul(16)).and_then(|n| n.checked_add(16));
        let Some(names_at) = table.filter(|&at| at <= size) else {
            return Err("the index is too short for its documents");
        };
        if &file[..8] != MAGIC {
            return Err("it is no document index");
        }
        // Fits, because the table that holds it does.
        let index = Self { file, documents: documents as usize };
        if index.word(0) != documents {
            return Err("the number of documents differs from the manifest");
        }
        let (starts, names) = (index.documents + 1, size - names_at);
        let rises = |at: usize| (1..starts).all(|i| index.word(at + i - 1) <= index.word(at + i));
        if index.start(0) != 0 || index.start(index.documents) != tokens || !rises(1) {
            return Err("the documents do not cover the tokens");
        }
        if index.word(1 + starts) != 0 || index.word(2 * starts) != names || !rises(1 + starts) {
            return Err("the names of the documents do not fit the file");
        }
        if (0..index.documents).any(|i| std::str::from_utf8(index.name_bytes(i)).is_err()) {
            return Err("the name of a document is no UTF-8");
        }
        Ok(index)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.file
    }

    pub(super) fn documents(&self) -> usize {
        self.documents
    }

    /// Where document `i` begins; for the number of documents, where the last ends.
    pub(super) fn start(&self, i: usize) -> u64 {
        self.word(1 + i)
    }

    pub(super) fn name(&self, i: usize) -> &str {
        std::str::from_utf8(self.name_bytes(i)).expect("names were checked when the index was opened")
    }

    /// The document that a token belongs to.
    pub(super) fn document_at(&self, token: u64) -> usize {
        let (mut low, mut high) = (0, self.documents);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.start(middle) <= token {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    fn name_bytes(&self, i: usize) -> &[u8] {
        let ends = 2 + self.documents;
        let names = 16 + 16 * (self.documents + 1);
        &self.file[names + self.word(ends + i) as usize..names + self.word(ends + i + 1) as usize]
    }

    /// The `i`-th number after the magic.
    fn word(&self, i: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.file[8 + 8 * i..16 + 8 * i]);
        u64::from_le_bytes(bytes)
    }
}
