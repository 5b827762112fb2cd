use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// Files that `tests/golden/torch_files.py` made with PyTorch 2.15.0.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch").join(name)
}

fn open(name: &str) -> Result<TorchFile, FileError> {
    TorchFile::open(&fixture(name))
}

/// Names, shapes and elements of what a file holds as floats.
fn floats(file: &mut TorchFile) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let tensors = file.tensors().into_iter();
    tensors
        .filter_map(|(name, shape)| file.read_f32(&name).ok().map(|values| (name, shape, values)))
        .collect()
}

#[test]
fn tensors_have_the_values_that_pytorch_gives_them() {
    let mut file = open("tensors.bin").unwrap();
    let mut check = |name: &str, shape: &[usize], wanted: &[f32]| {
        let found = file.tensors().into_iter().find(|(found, _)| found == name).unwrap();
        assert_eq!((found.1.as_slice(), file.read_f32(name).unwrap().as_slice()), (shape, wanted), "{name}");
    };
    let row = |start: usize, step: usize, n: usize| (0..n).map(move |i| (start + i * step) as f32 / 8.0);
    check("plain", &[3], &[1.5, -2.0, 3.0]);
    check("matrix", &[4, 6], &row(0, 1, 24).collect::<Vec<_>>());
    check("transposed", &[6, 4], &(0..6).flat_map(|column| row(column, 6, 4)).collect::<Vec<_>>());
    check("slice", &[2, 3], &row(8, 1, 3).chain(row(14, 1, 3)).collect::<Vec<_>>());
    check("every_other", &[3], &[1.0, 4.0, 7.0]);
    check("half", &[2], &[0.5, -0.25]);
    check("bfloat", &[2, 1], &[1.0, -3.0]);
    check("tied", &[2, 2], &[0.5, -1.0, 2.0, 3.25]);
    check("tied_again", &[2, 2], &[0.5, -1.0, 2.0, 3.25]);
    check("tied_row", &[2], &[2.0, 3.25]);
    check("scalar", &[], &[7.0]);
    check("empty", &[0, 3], &[]);
    check("parameter", &[2], &[4.0, 5.0]);
    for (name, dtype) in [("positions", Dtype::I64), ("mask", Dtype::BOOL), ("bytes", Dtype::U8)] {
        let error = file.read_f32(name).unwrap_err();
        assert!(matches!(error, FileError::Dtype { dtype: found, .. } if found == dtype), "{error}");
    }
    assert!(file.has("plain") && !file.has("plane"));
}

#[test]
fn other_protocols_and_state_dicts_of_modules_are_read() {
    let plain = floats(&mut open("tensors.bin").unwrap());
    assert_eq!(floats(&mut open("protocol4.bin").unwrap()), plain);
    let module = floats(&mut open("module.bin").unwrap());
    let wanted =
        [("bias", vec![3], vec![0.5, 1.5, 2.5]), ("weight", vec![3, 2], (0..6).map(|n| n as f32).collect())];
    assert_eq!(module, wanted.map(|(name, shape, values)| (name.to_owned(), shape, values)));
}

#[track_caller]
fn check_refused(name: &str, parts: &[&str]) {
    let mut said = String::new();
    let error = open(name).err().unwrap();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        said.push_str(&format!("{error}: "));
        cause = error.source();
    }
    for part in parts.iter().chain(&[name]) {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

#[test]
fn what_is_no_plain_state_dict_is_refused_by_name() {
    check_refused("whole_module.bin", &["torch.nn.modules.linear.Linear", "nothing is executed"]);
    check_refused("nested.bin", &["state is not a tensor"]);
    check_refused("expanded.bin", &["wide", "outside its storage"]);
    check_refused("legacy.bin", &["before 1.6"]);
    check_refused("compressed.bin", &["ompress"]);
    check_refused("missing.bin", &["cannot read"]);
}

fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pytorch_model.bin");
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

#[test]
fn a_file_that_ends_early_is_refused() {
    let whole = fs::read(fixture("tensors.bin")).unwrap();
    for len in (0..whole.len()).step_by(97) {
        let (_dir, path) = written(&whole[..len]);
        assert!(TorchFile::open(&path).is_err(), "{len} bytes");
    }
    let (_dir, path) = written(b"version https://git-lfs.github.com/spec/v1\n");
    assert!(TorchFile::open(&path).err().unwrap().to_string().contains("Git LFS"));
    let (_dir, path) = written(b"{}");
    assert!(TorchFile::open(&path).err().unwrap().to_string().contains("no zip archive"));
}

#[test]
fn views_stay_in_their_storages() {
    let view = |offset: u64, shape: &[u64], strides: &[u64]| TensorView {
        storage: "0".to_owned(),
        dtype: Dtype::F32,
        storage_len: 12,
        offset,
        shape: shape.to_vec(),
        strides: strides.to_vec(),
    };
    let fits = |view: TensorView| Tensor::check(&view, 100, 48).is_ok();
    assert!(fits(view(0, &[3, 4], &[4, 1])) && fits(view(0, &[4, 3], &[1, 4])) && fits(view(11, &[1], &[1])));
    assert!(fits(view(12, &[0], &[1])) && fits(view(0, &[], &[])));
    for (offset, shape, strides) in [
        (1, vec![3, 4], vec![4, 1]),
        (12, vec![1], vec![1]),
        (0, vec![13], vec![1]),
        (0, vec![13], vec![0]),
        (0, vec![3, 4], vec![5, 1]),
        (0, vec![3, 4], vec![4]),
        (u64::MAX, vec![1], vec![1]),
        (0, vec![u64::MAX, u64::MAX], vec![1, 1]),
        (0, vec![2], vec![u64::MAX]),
        (0, vec![2, 2], vec![u64::MAX / 2, u64::MAX / 2 + 9]),
    ] {
        assert!(!fits(view(offset, &shape, &strides)), "{offset} {shape:?} {strides:?}");
    }
    let longer = TensorView { storage_len: 13, ..view(0, &[1], &[1]) };
    assert!(Tensor::check(&longer, 100, 48).unwrap_err().contains("48 bytes"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What is read of a damaged file lies in it: no more elements than bytes.
    #[test]
    fn damaged_files_are_refused_or_read_within_their_bounds(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        near_the_pickle in any::<bool>(),
    ) {
        let mut bytes = fs::read(fixture("module.bin")).unwrap();
        let end = if near_the_pickle { 500 } else { bytes.len() };
        for (at, byte) in flips {
            let at = at.index(end);
            bytes[at] = byte;
        }
        let (_dir, path) = written(&bytes);
        if let Ok(mut file) = TorchFile::open(&path) {
            let read: usize = floats(&mut file).iter().map(|(_, _, values)| values.len()).sum();
            prop_assert!(read <= 2 * bytes.len());
        }
    }

    #[test]
    fn no_pickle_is_a_panic(bytes in prop::collection::vec(
        prop_oneof![
            any::<u8>(),
            prop::sample::select(b".(N\x88K\x8c)\x85\x86\x87t]lae}dsuqh\x94cQRb0".to_vec()),
            0_u8..4,
        ],
        0..60,
    )) {
        let _ = read_state_dict(&bytes);
    }
}
