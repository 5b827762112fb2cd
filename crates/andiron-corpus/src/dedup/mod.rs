//! Deduplication: one file per method.
//!
//! Exact duplicates are found by a hash of the text ([`ExactDuplicates`]), near-duplicates by MinHash in two phases. First a
//! [`Signer`] signs each document, in any number of threads and processes, and a [`SignatureWriter`] writes a file for each input. Then
//! [`decide`] reads all of these files and writes what is a duplicate of what, which [`Decisions`] gives to whoever copies the
//! documents that stay.
//!
//! # Example
//! ```
//! use andiron_corpus::dedup::{DecideOptions, Decisions, MinHashConfig, SignatureWriter, Signer, SignerScratch, decide};
//! let dir = tempfile::tempdir()?;
//! let (signatures, decisions) = (dir.path().join("input.minhash"), dir.path().join("duplicates"));
//! let (config, mut scratch) = (MinHashConfig::default(), SignerScratch::default());
//! let signer = Signer::new(&config)?;
//! let mut writer = SignatureWriter::begin(&signatures, &config)?;
//! for (id, text) in [("a", "To be, or not to be: that is the question."), ("b", "to be or not to be, that is the question!")] {
//!     writer.push(id, signer.sign(text, &mut scratch).as_ref())?;
//! }
//! writer.finish()?;
//! decide(&[signatures], &decisions, &DecideOptions::default())?;
//! let mut decisions = Decisions::open(&decisions, 0)?;
//! assert!(!decisions.next_document()?.unwrap().is_duplicate());
//! assert_eq!(decisions.next_document()?.unwrap().duplicate_of.as_deref(), Some("a"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clusters;
mod decide;
mod decisions;
mod exact;
mod minhash;
mod paragraphs;
mod signatures;
mod spill;
pub(crate) mod words;

pub use decide::{DecideOptions, DuplicateSummary, decide};
pub use decisions::{Clustered, Decisions};
pub use exact::ExactDuplicates;
pub use minhash::{MinHashConfig, MinHashError, Signature, Signer, SignerScratch};
pub(crate) use paragraphs::cut;
pub use paragraphs::{Paragraph, ParagraphConfig, ParagraphCounts, ParagraphError, RepeatedParagraphs};
pub use signatures::{SignatureError, SignatureWriter};

#[cfg(test)]
mod tests;
