//! Writes safetensors files, tensor by tensor.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use andiron_files::PartialFile;
use safetensors::tensor::{Metadata, TensorInfo, View};

use super::FileError;

/// Alignment of the header, so that tensors are aligned to their elements.
const ALIGNMENT: usize = 8;

/// Writes named tensors, and optional metadata, as a safetensors file. It appears at `path` complete and synced, with
/// the permissions of other new files. Elements are requested one tensor at a time.
///
/// # Errors
/// If the file cannot be written.
///
/// # Panics
/// If a tensor's byte count differs from its shape and type.
pub fn write_tensors<V: View>(
    path: &Path,
    mut tensors: Vec<(String, V)>,
    metadata: Option<HashMap<String, String>>,
) -> Result<(), FileError> {
    // In the order of the format's own library: the widest elements first, then by name.
    tensors.sort_by(|(name, tensor), (other_name, other)| {
        other.dtype().cmp(&tensor.dtype()).then_with(|| name.cmp(other_name))
    });
    let write = || -> io::Result<()> {
        let mut file = BufWriter::new(PartialFile::begin(path)?);
        let header = header(&tensors, metadata)?;
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (name, tensor) in &tensors {
            let bytes = tensor.data();
            assert_eq!(bytes.len(), tensor.data_len(), "bytes of {name}");
            file.write_all(&bytes)?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.publish()
    };
    write().map_err(|source| FileError::Write { path: path.to_owned(), source })
}

fn header<V: View>(
    tensors: &[(String, V)],
    metadata: Option<HashMap<String, String>>,
) -> io::Result<Vec<u8>> {
    let mut end = 0;
    let describe = |(name, tensor): &(String, V)| {
        let start = end;
        end += tensor.data_len();
        let info =
            TensorInfo { dtype: tensor.dtype(), shape: tensor.shape().to_vec(), data_offsets: (start, end) };
        (name.clone(), info)
    };
    let described = tensors.iter().map(describe).collect();
    let header = Metadata::new(metadata, described).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use andiron_files::fault::{Fault, with_fault};
    use safetensors::tensor::TensorView;
    use safetensors::{Dtype, serialize};

    use super::*;

    fn tensors(bytes: &[u8]) -> Vec<(String, TensorView<'_>)> {
        let view = |dtype, shape: &[usize], len| TensorView::new(dtype, shape.to_vec(), &bytes[..len]);
        let named = [
            ("b", view(Dtype::F32, &[2, 3], 24)),
            ("a", view(Dtype::F32, &[1], 4)),
            ("half", view(Dtype::F16, &[5], 10)),
            ("none", view(Dtype::F32, &[0, 4], 0)),
        ];
        named.map(|(name, view)| (name.to_owned(), view.expect("sizes fit"))).into()
    }

    #[test]
    fn a_file_is_what_the_format_s_own_library_writes() {
        let bytes: Vec<u8> = (0..24).collect();
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.safetensors");
        for metadata in [None, Some(HashMap::from([("format".to_owned(), "pt".to_owned())]))] {
            write_tensors(&path, tensors(&bytes), metadata.clone()).expect("it can be written");
            let expected = serialize(tensors(&bytes), metadata).expect("it can be written");
            assert_eq!(fs::read(&path).expect("it is there"), expected);
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_anywhere_leaves_the_old_one_and_is_named() {
        let bytes: Vec<u8> = (0..24).collect();
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.safetensors");
        let (written, seen) = with_fault(Fault::none(), || write_tensors(&path, tensors(&bytes), None));
        written.expect("it can be written");
        for (at, operation) in seen.iter().enumerate() {
            fs::write(&path, "old").expect("it can be written");
            let (written, _) =
                with_fault(Fault::once(at, 28), || write_tensors(&path, tensors(&bytes), None));
            let error = written.expect_err("a full disk");
            assert!(error.to_string().contains("x.safetensors"), "{error}");
            let whole = at + 1 == seen.len();
            assert_eq!(fs::read(&path).expect("it is there") == b"old", !whole, "{:?}", operation);
            assert_eq!(andiron_files::list(dir.path()).expect("it is there"), ["x.safetensors"]);
        }
    }
}
