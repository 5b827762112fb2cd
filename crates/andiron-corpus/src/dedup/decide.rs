//! Which near-duplicates go: signature files in, a file of decisions for each of them out.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use andiron_files::{PartialDirectory, create, sibling};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::clusters::Clusters;
use super::decisions::{SUMMARY, decisions_name, write_line};
use super::minhash::similarity;
use super::signatures::{SignatureError, SignatureFile};
use super::spill::Spill;
use super::words::NoHasher;
use super::{Clustered, MinHashConfig};

/// Memory for a pair in the map of a cell: an entry of 16 bytes, of which up to half may be empty, and a control byte.
const BYTES_PER_PAIR: usize = 40;

/// The most cells: each keeps a block in memory.
const MAX_CELLS: usize = 1 << 14;

/// Matches that a thread keeps before it joins them.
const BATCH: usize = 1 << 14;

/// How [`decide`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecideOptions {
    /// About how much memory is used, in bytes, besides eight bytes for each document.
    pub memory_bytes: usize,
}

impl Default for DecideOptions {
    /// 256 MiB.
    fn default() -> Self {
        Self { memory_bytes: 256 << 20 }
    }
}

/// What [`decide`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DuplicateSummary {
    /// Documents in all files.
    pub documents: u64,
    /// Those without a signature, which are too short to be compared.
    pub too_short: u64,
    /// Those in clusters that are no cluster's first: the ones to remove.
    pub duplicates: u64,
    /// Clusters of two or more documents.
    pub clusters: u64,
    /// How many clusters there are of each size.
    pub sizes: BTreeMap<u32, u64>,
    /// Bytes for which memory was not enough; not in the file, which depends neither on memory nor on threads.
    #[serde(skip)]
    pub spilled_bytes: u64,
}

/// Decides which documents are near-duplicates of earlier ones, and writes the directory `output`, with a file of decisions for each file of
/// signatures. Read it with [`Decisions`](super::Decisions).
///
/// Two documents with an equal bucket belong to the same cluster, and so do clusters that have a document in common. Of each cluster the first
/// document stays, in the order of `files` and within them. The result depends on nothing else: neither on the number of
/// threads nor on the memory.
///
/// # Errors
/// If a file cannot be read or written, or was made with other settings than the first.
pub fn decide(
    files: &[PathBuf],
    output: &Path,
    options: &DecideOptions,
) -> Result<DuplicateSummary, SignatureError> {
    let inputs = Inputs::open(files)?;
    let spill = inputs.spill(&sibling(output, "spill"), options)?;
    let clusters = cluster(&spill, inputs.signed)?;
    let mut summary = DuplicateSummary { spilled_bytes: spill.written(), ..inputs.summary() };
    drop(spill);
    let failed = |source| SignatureError::write(output, source);
    let directory = PartialDirectory::begin(output).map_err(failed)?;
    write(&inputs, clusters, directory.path(), &mut summary)?;
    let json = serde_json::to_vec_pretty(&summary).map_err(|error| failed(error.into()))?;
    andiron_files::write_synced(&directory.path().join(SUMMARY), &json).map_err(failed)?;
    directory.publish().map_err(failed)?;
    Ok(summary)
}

/// Signature files of equal settings. Documents with a signature are numbered through all of them.
struct Inputs {
    files: Vec<SignatureFile>,
    /// The number of the first document of each file that has a signature.
    begins: Vec<u32>,
    signed: u32,
    config: MinHashConfig,
}

impl Inputs {
    fn open(paths: &[PathBuf]) -> Result<Self, SignatureError> {
        let (mut files, mut begins, mut signed) = (Vec::new(), Vec::new(), 0u32);
        let mut config = None;
        for path in paths {
            let file = SignatureFile::open(path)?;
            if *config.get_or_insert(file.config) != file.config {
                return Err(SignatureError::Settings { path: path.clone(), other: paths[0].clone() });
            }
            begins.push(signed);
            let sum = u32::try_from(file.signed).ok().and_then(|more| signed.checked_add(more));
            signed = sum.ok_or_else(|| SignatureError::TooMany { path: path.clone() })?;
            files.push(file);
        }
        Ok(Self { files, begins, signed, config: config.unwrap_or_default() })
    }

    fn summary(&self) -> DuplicateSummary {
        let documents = self.files.iter().map(|file| file.documents).sum();
        DuplicateSummary {
            documents,
            too_short: documents - u64::from(self.signed),
            ..DuplicateSummary::default()
        }
    }

    /// The keys of all documents, divided so that the map of a cell fits into the memory of a thread.
    fn spill(&self, path: &Path, options: &DecideOptions) -> Result<Spill, SignatureError> {
        let memory = options.memory_bytes / 2;
        let per_thread = (memory / rayon::current_num_threads()).max(1 << 16);
        let buckets = self.config.buckets;
        let needed = (self.signed as usize).saturating_mul(BYTES_PER_PAIR).div_ceil(per_thread);
        let most = (MAX_CELLS / buckets).max(1);
        let parts = needed.clamp(1, most).next_power_of_two();
        let mut spill = Spill::new(parts * buckets, memory, path.to_owned());
        let mut number = 0;
        for file in &self.files {
            for index in 0..file.signed {
                for (bucket, key) in file.record(index).keys().enumerate() {
                    // The highest bits choose the part; the map uses the lowest.
                    let part = ((u128::from(key) * parts as u128) >> 64) as usize;
                    spill
                        .push(bucket * parts + part, key, number)
                        .map_err(|source| SignatureError::write(path, source))?;
                }
                number += 1;
            }
        }
        Ok(spill)
    }

    /// The file that holds a document with a signature, and the place there.
    fn find(&self, number: u32) -> (&SignatureFile, usize) {
        let file = self.begins.partition_point(|begin| *begin <= number) - 1;
        (&self.files[file], (number - self.begins[file]) as usize)
    }
}

/// A map from keys, which are hashes already.
type Firsts = HashMap<u64, u32, BuildHasherDefault<NoHasher>>;

/// Joins all documents that have an equal key in a bucket.
fn cluster(spill: &Spill, signed: u32) -> Result<Clusters, SignatureError> {
    let clusters = Mutex::new(Clusters::new(signed));
    let join = |matches: &mut Vec<(u32, u32)>| {
        // A poisoned lock means that another thread panicked, which ends all of this.
        let mut clusters = clusters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (a, b) in matches.drain(..) {
            clusters.join(a, b);
        }
    };
    (0..spill.n_cells()).into_par_iter().try_for_each(|cell| {
        let (mut firsts, mut matches) = (Firsts::default(), Vec::new());
        spill
            .for_each(cell, |key, number| {
                let first = *firsts.entry(key).or_insert(number);
                if first != number {
                    matches.push((first, number));
                    if matches.len() == BATCH {
                        join(&mut matches);
                    }
                }
            })
            .map_err(|source| SignatureError::Read { path: spill.path().to_owned(), source })?;
        join(&mut matches);
        Ok(())
    })?;
    Ok(clusters.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Writes the decisions, and counts them.
fn write(
    inputs: &Inputs,
    mut clusters: Clusters,
    directory: &Path,
    summary: &mut DuplicateSummary,
) -> Result<(), SignatureError> {
    // Of a first document the size of its cluster; then its number among clusters is looked up by the same index.
    let mut sizes = vec![0u32; inputs.signed as usize];
    for number in 0..inputs.signed {
        sizes[clusters.first(number) as usize] += 1;
    }
    let mut ids = BTreeMap::<u32, u32>::new();
    let mut number = 0;
    for (index, file) in inputs.files.iter().enumerate() {
        let path = directory.join(decisions_name(index));
        let failed = |source| SignatureError::write(&path, source);
        let mut out = BufWriter::new(create(&path).map_err(failed)?);
        for record in (0..file.signed).map(|index| file.record(index)) {
            let first = clusters.first(number);
            let size = sizes[first as usize];
            if size > 1 {
                let n_clusters = ids.len() as u32;
                let cluster = *ids.entry(first).or_insert(n_clusters);
                let document = record.number;
                let line = if first == number {
                    *summary.sizes.entry(size).or_default() += 1;
                    summary.clusters += 1;
                    Clustered { document, cluster, size: Some(size), duplicate_of: None, similarity: None }
                } else {
                    summary.duplicates += 1;
                    let (kept_file, kept) = inputs.find(first);
                    let kept = kept_file.record(kept);
                    let similarity = similarity(record.sketch, kept.sketch);
                    let duplicate_of = Some(kept_file.id(kept)?.to_owned());
                    // Three decimals are more than the estimate has.
                    let similarity = Some((similarity * 1000.0).round() / 1000.0);
                    Clustered { document, cluster, size: None, duplicate_of, similarity }
                };
                write_line(&mut out, &line).map_err(failed)?;
            }
            number += 1;
        }
        out.flush().map_err(failed)?;
    }
    Ok(())
}
