//! The manifest and the statistics of a dataset.

use serde::{Deserialize, Serialize};

pub(super) const FORMAT: &str = "andiron-dataset";
pub(super) const VERSION: u32 = 1;

/// The content of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always `andiron-dataset`.
    pub format: String,
    /// The version of the layout, 1.
    pub version: u32,
    /// How ids are stored.
    pub token_type: TokenType,
    /// Ids are below this.
    pub vocab_size: u32,
    /// The BLAKE3 hash of the `tokenizer.json` that made the ids
    /// ([`Tokenizer::fingerprint`](crate::tokenizer::Tokenizer::fingerprint)).
    pub tokenizer_blake3: String,
    /// Token ids in all shards.
    pub tokens: u64,
    /// Documents in all shards.
    pub documents: u64,
    /// The shards, in order.
    pub shards: Vec<ShardEntry>,
}

impl Manifest {
    /// The bytes of `manifest.json`.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a manifest holds nothing that JSON cannot say")
    }

    /// The BLAKE3 hash of `manifest.json` in hexadecimal. It covers the hashes of all files and so identifies the content of
    /// the dataset.
    pub fn fingerprint(&self) -> String {
        blake3::hash(&self.to_json()).to_hex().to_string()
    }
}

/// One shard in a [`Manifest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// Token ids in it.
    pub tokens: u64,
    /// Documents in it.
    pub documents: u64,
    /// The BLAKE3 hash of its `.ids` file.
    pub ids_blake3: String,
    /// The BLAKE3 hash of its `.docs` file.
    pub docs_blake3: String,
}

/// How token ids are stored: the smallest type that holds the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenType {
    /// Two bytes, for vocabularies of at most 65536.
    U16,
    /// Four bytes.
    U32,
}

impl TokenType {
    /// The type for a vocabulary.
    pub fn for_vocabulary(vocab_size: u32) -> Self {
        if vocab_size <= 1 << 16 { Self::U16 } else { Self::U32 }
    }

    /// Bytes of one id.
    pub fn bytes(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }

    /// Appends ids, little-endian. Ids must fit.
    pub(super) fn encode(self, ids: &[u32], out: &mut Vec<u8>) {
        match self {
            Self::U16 => out.extend(ids.iter().flat_map(|&id| (id as u16).to_le_bytes())),
            Self::U32 => out.extend(ids.iter().flat_map(|&id| id.to_le_bytes())),
        }
    }

    /// Reads as many ids as `out` holds.
    pub(super) fn decode(self, bytes: &[u8], out: &mut [u32]) {
        match self {
            Self::U16 => {
                for (id, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *id = u32::from(u16::from_le_bytes(*bytes));
                }
            }
            Self::U32 => {
                for (id, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *id = u32::from_le_bytes(*bytes);
                }
            }
        }
    }
}

/// The content of `stats.json`: how much text a dataset holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stats {
    /// Documents.
    pub documents: u64,
    /// Token ids, separators included.
    pub tokens: u64,
    /// Characters of the text.
    pub characters: u64,
    /// Bytes of the text in UTF-8, the denominator of bits per byte.
    pub bytes: u64,
    /// Tokens of the shortest document.
    pub min_document_tokens: u64,
    /// Tokens of the longest document.
    pub max_document_tokens: u64,
}

impl Stats {
    /// Adds other documents.
    pub(super) fn join(&mut self, other: &Self) {
        if other.documents == 0 {
            return;
        }
        self.min_document_tokens = match self.documents {
            0 => other.min_document_tokens,
            _ => self.min_document_tokens.min(other.min_document_tokens),
        };
        self.max_document_tokens = self.max_document_tokens.max(other.max_document_tokens);
        self.documents += other.documents;
        self.tokens += other.tokens;
        self.characters += other.characters;
        self.bytes += other.bytes;
    }

    pub(super) fn add(&mut self, tokens: u64, text: &str) {
        self.min_document_tokens =
            if self.documents == 0 { tokens } else { self.min_document_tokens.min(tokens) };
        self.max_document_tokens = self.max_document_tokens.max(tokens);
        self.documents += 1;
        self.tokens += tokens;
        self.characters += text.chars().count() as u64;
        self.bytes += text.len() as u64;
    }
}

pub(super) fn ids_file(shard: usize) -> String {
    format!("shard-{shard:05}.ids")
}

pub(super) fn docs_file(shard: usize) -> String {
    format!("shard-{shard:05}.docs")
}
