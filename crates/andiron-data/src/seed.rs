//! Random numbers for data: a re-export of [`andiron_kernels::random::Seed`] and the labels used here.
//!
//! A run has one seed. Each user of random numbers derives a stream of its own from it by a label, so that a new user does
//! not change the numbers of the others. The streams of this crate:
//!
//! | label | counter | decides |
//! |---|---|---|
//! | [`LOADER`] | `batch * rows + row` ([`Order::Windows`](crate::loader::Order::Windows)) | where a window begins |
//! | [`LOADER`], then `.at(epoch)` | window ([`Order::Epochs`](crate::loader::Order::Epochs)) | the order of the windows |
//! | [`LOADER`], then `.at(epoch)` | record ([`RecordOrder`](crate::records::RecordOrder)) | the order of the records |
//! | the same, then [`LENGTHS`] and `.at(row)` | group | the order of groups of similar length |
//! | [`LOADER`], then `.at(epoch)` | batch ([`TokenLoader`](crate::records::TokenLoader)) | the order of the batches |
//! | the same, then [`LENGTHS`] and `.at(longer records)` | record of one bucket | the records of a batch |
//! | the same, then [`PACKING`] and `.at(longer records)` | record of one length | the records that are packed together |
//! | [`COLLATE`] | rows before | what a collator draws for a row, such as masked positions |
//! | [`SPLIT`] | document | which documents are held out |
//!
//! ```
//! use andiron_data::seed::{LOADER, Seed};
//! let stream = Seed::new(1337).derive(LOADER);
//! assert!(stream.below(0, 100) < 100);
//! ```

pub use andiron_kernels::random::Seed;

/// The stream that orders a [`Loader`](crate::loader::Loader)'s windows and a
/// [`RecordLoader`](crate::records::RecordLoader)'s records.
pub const LOADER: &str = "data.loader";

/// The stream that orders groups of records of similar length.
pub const LENGTHS: &str = "lengths";

/// The stream that chooses among records of one length those that are packed into one row.
pub const PACKING: &str = "packing";

/// The streams of rows, for collators that draw.
pub const COLLATE: &str = "data.collate";

/// The stream that chooses the documents held out by `andiron_corpus::prepare`.
pub const SPLIT: &str = "data.split";
