//! The units of work: each is some files, or one. Which they are follows from the files alone, so that any number of threads or
//! tasks makes the same parts.

use super::inputs::Inputs;

/// Files are put together in one part up to this many bytes.
const PART_BYTES: u64 = 32 << 20;

/// Some files of one source that are worked on together, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The index of the source.
    pub(super) source: usize,
    /// Indexes of the files.
    pub(super) files: std::ops::Range<usize>,
    /// Bytes of the files.
    pub(super) bytes: u64,
}

/// The parts of all inputs, in order.
pub(super) fn parts(found: &Inputs) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (index, ((source, _), &bytes)) in found.files.iter().zip(&found.bytes).enumerate() {
        match parts.last_mut() {
            Some(part) if part.source == *source && part.bytes + bytes <= PART_BYTES => {
                part.files.end = index + 1;
                part.bytes += bytes;
            }
            _ => parts.push(Part { source: *source, files: index..index + 1, bytes }),
        }
    }
    parts
}

/// The name of a part in a directory of its stage.
pub(super) fn name(stage: &str, part: usize) -> String {
    format!("{stage}/part-{part:05}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_put_together_and_sources_kept_apart() {
        let sizes = [(0, 1), (0, PART_BYTES - 1), (0, 1), (0, 2 * PART_BYTES), (0, 5), (1, 5), (1, 6)];
        let found = Inputs {
            files: sizes.iter().map(|&(source, _)| (source, "f".into())).collect(),
            names: vec!["f".to_owned(); sizes.len()],
            bytes: sizes.iter().map(|&(_, bytes)| bytes).collect(),
            passed_over: Vec::new(),
        };
        let files: Vec<_> = parts(&found).into_iter().map(|part| (part.source, part.files)).collect();
        assert_eq!(files, [(0, 0..2), (0, 2..3), (0, 3..4), (0, 4..5), (1, 5..7)]);
    }
}
