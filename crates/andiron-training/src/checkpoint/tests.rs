use std::fs;
use std::io;
use std::path::Path;

use andiron_files::fault::{Fault, with_fault};
use andiron_kernels::random::Seed;
use tempfile::TempDir;

use super::*;
use crate::files::FileError;

fn content(step: u64, file: &str) -> Vec<u8> {
    let seed = Seed::new(step).derive(file);
    (0..97).map(|i| seed.bits(i) as u8).collect()
}

fn save(checkpoints: &Checkpoints, step: u64) {
    let write = |dir: &Path| -> Result<(), CheckpointError> {
        fs::create_dir(dir.join("model")).unwrap();
        for file in ["state.json", "model/weights"] {
            fs::write(dir.join(file), content(step, file)).unwrap();
        }
        Ok(())
    };
    checkpoints.save(step, write).unwrap();
}

/// The step that loads, and the steps that were set aside on the way.
fn load(checkpoints: &Checkpoints) -> Result<(Option<u64>, Vec<u64>), CheckpointError> {
    let mut aside = Vec::new();
    let step = checkpoints.load_newest::<_, CheckpointError>(
        |dir| {
            let name = dir.file_name().unwrap().to_str().unwrap();
            let step = name.strip_prefix("step-").unwrap().parse().unwrap();
            for file in ["state.json", "model/weights"] {
                assert_eq!(fs::read(dir.join(file)).unwrap(), content(step, file));
            }
            Ok(step)
        },
        &mut |damaged| aside.push(damaged.step),
    )?;
    Ok((step, aside))
}

fn with_steps(steps: &[u64]) -> (TempDir, Checkpoints) {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(dir.path(), 3).unwrap();
    for &step in steps {
        save(&checkpoints, step);
    }
    (dir, checkpoints)
}

fn names(dir: &TempDir) -> Vec<String> {
    crate::files::list(dir.path()).unwrap()
}

#[test]
fn the_newest_are_kept_and_the_newest_of_them_loads() {
    let (dir, checkpoints) = with_steps(&[]);
    assert_eq!(load(&checkpoints).unwrap(), (None, vec![]));
    for step in [5, 10, 15, 20] {
        save(&checkpoints, step);
        assert_eq!(load(&checkpoints).unwrap(), (Some(step), vec![]));
        assert_eq!(fs::read_to_string(dir.path().join("latest")).unwrap(), format!("step-{step:06}\n"));
    }
    assert_eq!(names(&dir), ["latest", "step-000010", "step-000015", "step-000020"]);
    // Beyond six digits the order is still that of numbers.
    save(&checkpoints, 1_000_000);
    assert_eq!(checkpoints.steps().unwrap(), [15, 20, 1_000_000]);
}

#[test]
fn a_step_that_is_saved_again_is_replaced() {
    let (dir, checkpoints) = with_steps(&[5, 10]);
    save(&checkpoints, 10);
    assert_eq!(load(&checkpoints).unwrap(), (Some(10), vec![]));
    assert_eq!(names(&dir), ["latest", "step-000005", "step-000010"]);
}

#[test]
fn what_a_crash_left_is_cleared() {
    let (dir, _) = with_steps(&[5]);
    for name in [".step-000010.partial/model", ".step-000002.old/model", "step-12", "notes"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let checkpoints = Checkpoints::open(dir.path(), 2).unwrap();
    assert_eq!(names(&dir), ["latest", "notes", "step-000005", "step-12"]);
    assert_eq!(load(&checkpoints).unwrap(), (Some(5), vec![]));
}

#[test]
fn every_changed_bit_is_noticed() {
    let seed = Seed::new(11);
    let (dir, checkpoints) = with_steps(&[5]);
    let path = checkpoints.path(5);
    for (number, file) in ["manifest.json", "state.json", "model/weights"].into_iter().enumerate() {
        let whole = fs::read(path.join(file)).unwrap();
        for trial in 0..300 {
            let mut bytes = whole.clone();
            let bit = seed.at(number as u64).below(trial, 8 * bytes.len() as u64);
            bytes[bit as usize / 8] ^= 1 << (bit % 8);
            fs::write(path.join(file), &bytes).unwrap();
            let loaded = load(&checkpoints);
            assert!(
                matches!(loaded, Err(CheckpointError::AllDamaged { .. })),
                "{file} bit {bit}: {loaded:?}"
            );
            // Back under its name for the next trial.
            fs::rename(dir.path().join("step-000005.corrupt"), &path).unwrap();
        }
        fs::write(path.join(file), &whole).unwrap();
    }
    assert_eq!(load(&checkpoints).unwrap(), (Some(5), vec![]));
}

#[test]
fn a_truncated_or_missing_file_falls_back_to_the_next_older() {
    for file in ["manifest.json", "state.json", "model/weights"] {
        let (dir, checkpoints) = with_steps(&[5, 10, 15]);
        let cut = checkpoints.path(15).join(file);
        let whole = fs::read(&cut).unwrap();
        fs::write(&cut, &whole[..whole.len() - 1]).unwrap();
        fs::remove_file(checkpoints.path(10).join(file)).unwrap();
        assert_eq!(load(&checkpoints).unwrap(), (Some(5), vec![15, 10]), "{file}");
        let kept = ["latest", "step-000005", "step-000010.corrupt", "step-000015.corrupt"];
        assert_eq!(names(&dir), kept);
        // Once set aside they stay so, and the next one of that step gets a name of its own.
        save(&checkpoints, 15);
        fs::write(checkpoints.path(15).join(file), b"").unwrap();
        assert_eq!(load(&checkpoints).unwrap(), (Some(5), vec![15]));
        assert!(dir.path().join("step-000015.corrupt.1").exists());
    }
}

#[test]
fn a_checkpoint_under_another_step_s_name_is_damaged() {
    let (_dir, checkpoints) = with_steps(&[5, 10]);
    fs::rename(checkpoints.path(10), checkpoints.path(99)).unwrap();
    assert_eq!(load(&checkpoints).unwrap(), (Some(5), vec![99]));
}

#[test]
fn a_later_format_is_refused_and_left_alone() {
    let (dir, checkpoints) = with_steps(&[5, 10]);
    fs::write(checkpoints.path(10).join("manifest.json"), r#"{"format": 2, "anything": []}"#).unwrap();
    let error = load(&checkpoints).unwrap_err();
    assert!(
        matches!(&error, CheckpointError::TooNew { source: Damage::TooNew { format: 2 }, .. }),
        "{error}"
    );
    assert_eq!(names(&dir), ["latest", "step-000005", "step-000010"]);
}

#[test]
fn a_failed_save_leaves_the_older_ones_and_gives_the_space_back() {
    let (dir, checkpoints) = with_steps(&[5, 10]);
    let full = |dir: &Path| -> Result<(), CheckpointError> {
        fs::write(dir.join("state.json"), b"half").unwrap();
        let source = io::ErrorKind::StorageFull.into();
        Err(FileError { action: "write", path: dir.join("model"), source }.into())
    };
    let error = checkpoints.save(15, full).unwrap_err();
    assert!(
        matches!(&error, CheckpointError::File(file) if file.source.kind() == io::ErrorKind::StorageFull)
    );
    assert_eq!(names(&dir), ["latest", "step-000005", "step-000010"]);
    assert_eq!(load(&checkpoints).unwrap(), (Some(10), vec![]));
    save(&checkpoints, 15);
    assert_eq!(load(&checkpoints).unwrap(), (Some(15), vec![]));
}

#[test]
fn a_panic_while_saving_leaves_the_older_ones() {
    let (dir, checkpoints) = with_steps(&[5]);
    let unwound = std::panic::catch_unwind(|| {
        checkpoints.save(10, |dir: &Path| -> Result<(), CheckpointError> {
            fs::write(dir.join("state.json"), b"half").unwrap();
            panic!("in the middle")
        })
    });
    assert!(unwound.is_err());
    let checkpoints = Checkpoints::open(dir.path(), 2).unwrap();
    assert_eq!(names(&dir), ["latest", "step-000005"]);
    assert_eq!(load(&checkpoints).unwrap(), (Some(5), vec![]));
}

#[test]
fn a_later_format_is_refused_even_if_everything_else_looks_like_this_one() {
    let (dir, checkpoints) = with_steps(&[5, 10]);
    let path = checkpoints.path(10).join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    // As a later version might write it: the checksum is over its own format.
    let later = text.replacen("\"format\": 1", "\"format\": 2", 1);
    let at = later.rfind("\"blake3\": \"").unwrap() + 11;
    let other = if &later[at..=at] == "0" { "1" } else { "0" };
    fs::write(&path, format!("{}{other}{}", &later[..at], &later[at + 1..])).unwrap();
    let error = load(&checkpoints).unwrap_err();
    assert!(
        matches!(&error, CheckpointError::TooNew { source: Damage::TooNew { format: 2 }, .. }),
        "{error}"
    );
    assert_eq!(names(&dir), ["latest", "step-000005", "step-000010"]);
}

#[test]
fn a_changed_bit_in_the_format_is_damage_and_no_later_format() {
    let (dir, checkpoints) = with_steps(&[5, 10]);
    let path = checkpoints.path(10).join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"format\": 1", "\"format\": 3", 1)).unwrap();
    assert_eq!(load(&checkpoints).unwrap(), (Some(5), vec![10]));
    assert_eq!(names(&dir), ["latest", "step-000005", "step-000010.corrupt"]);
}

#[test]
fn a_step_that_was_being_replaced_comes_back() {
    let (dir, checkpoints) = with_steps(&[5, 10]);
    fs::rename(checkpoints.path(10), dir.path().join(".step-000010.old")).unwrap();
    let checkpoints = Checkpoints::open(dir.path(), 2).unwrap();
    assert_eq!(names(&dir), ["latest", "step-000005", "step-000010"]);
    assert_eq!(load(&checkpoints).unwrap(), (Some(10), vec![]));
}

#[test]
fn the_newest_step_is_found_whatever_latest_says() {
    let (dir, checkpoints) = with_steps(&[5, 10]);
    for latest in ["step-000005\n", "step-000099\n", ""] {
        fs::write(dir.path().join("latest"), latest).unwrap();
        assert_eq!(load(&checkpoints).unwrap(), (Some(10), vec![]));
    }
    fs::remove_file(dir.path().join("latest")).unwrap();
    assert_eq!(load(&checkpoints).unwrap(), (Some(10), vec![]));
}

/// Linux error numbers that do not mean damage: EIO, ENOMEM, EACCES, EMFILE, ENFILE, ELOOP, ESTALE.
const NO_DAMAGE: [i32; 7] = [5, 12, 13, 24, 23, 40, 116];

#[test]
fn a_checkpoint_that_cannot_be_read_is_named_and_left_alone() {
    let (dir, checkpoints) = with_steps(&[5, 10]);
    let before = names(&dir);
    let (loaded, seen) = with_fault(Fault::none(), || load(&checkpoints));
    assert_eq!(loaded.unwrap(), (Some(10), vec![]));
    assert!(seen.len() > 8 && seen.iter().all(|seen| seen.operation.is_reading()), "{seen:?}");
    for (at, seen) in seen.iter().enumerate() {
        for number in NO_DAMAGE {
            let (loaded, _) = with_fault(Fault::once(at, number), || load(&checkpoints));
            let error = loaded.unwrap_err();
            let file = match &error {
                CheckpointError::Unreadable { path, source } => {
                    assert_eq!(path, &checkpoints.path(10));
                    source
                }
                CheckpointError::File(file) => file,
                other => panic!("{other}"),
            };
            assert_eq!((&file.path, file.source.raw_os_error()), (&seen.path, Some(number)));
            assert_eq!(names(&dir), before, "{seen:?} {number}");
        }
    }
}

#[test]
fn a_refusal_tries_no_older_one() {
    let (dir, checkpoints) = with_steps(&[5, 10]);
    let refuse = |path: &Path| -> Result<(), CheckpointError> {
        Err(CheckpointError::AllDamaged { root: path.to_owned() })
    };
    assert!(checkpoints.load_newest(refuse, &mut |_| panic!("nothing is damaged")).is_err());
    assert_eq!(names(&dir), ["latest", "step-000005", "step-000010"]);
}
