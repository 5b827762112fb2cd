use super::*;
use crate::objective::Causal;
use crate::testing::{config_in, open};
use crate::trainer::{Requests, Status};

/// Trains to a step.
fn train(config: &TrainConfig, step: u64) {
    let requests = Requests::default();
    requests.stop_after(step);
    let outcome = open(config, Causal).unwrap().run(&mut (), &requests).unwrap();
    assert_eq!((outcome.status, outcome.step, outcome.saved), (Status::Interrupted, step, true));
}

#[track_caller]
fn check_same(overrides: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let config = config_in(dir.path(), overrides);
    let check = ResumeCheck::begin(&config).unwrap();
    train(&check.straight(), 6);
    assert_eq!(check.reached().unwrap(), 6);
    train(&check.stopped(), 3);
    train(&check.stopped(), 6);
    assert_eq!(check.first_difference(6).unwrap(), None);
    drop(check);
    // The run itself was not begun, and nothing is left of the check.
    assert_eq!(files::list(dir.path()).unwrap(), ["train", "valid"]);
}

#[test]
fn a_resumed_run_is_the_straight_one() {
    check_same(&[]);
    check_same(&["run.accumulate=3", "optimizer.ema_decay=0.9", "evaluate.every=1", "run.log_every=5"]);
}

#[test]
fn runs_of_other_seeds_differ_from_the_first_step_on() {
    let dir = tempfile::tempdir().unwrap();
    let check = ResumeCheck::begin(&config_in(dir.path(), &[])).unwrap();
    train(&check.straight(), 2);
    let mut other = check.stopped();
    other.run.seed += 1;
    train(&other, 2);
    let found = check.first_difference(2).unwrap().unwrap();
    assert!(found.place.ends_with(" of step 1"), "{found}");
}

#[test]
fn the_first_step_that_differs_is_named_and_speed_is_no_difference() {
    let dir = tempfile::tempdir().unwrap();
    let roots = ["a", "b"].map(|name| dir.path().join(name));
    let write = |root: &Path, text: &str| {
        fs::create_dir_all(root).unwrap();
        fs::write(root.join("metrics.jsonl"), text).unwrap();
    };
    write(&roots[0], "{\"step\":1,\"loss\":0.5,\"elapsed_s\":1.5}\n{\"step\":2,\"loss\":0.25}\n");
    write(&roots[1], "{\"step\":1,\"loss\":0.5,\"elapsed_s\":2.5}\n{\"step\":2,\"loss\":0.2500001}\n");
    let found = metrics(&roots).unwrap().unwrap();
    assert_eq!(
        found.to_string(),
        "loss of step 2 is 0.25 in the straight run and 0.2500001 in the resumed one"
    );
    write(&roots[1], "{\"step\":1,\"loss\":0.5}\n");
    let found = metrics(&roots).unwrap().unwrap();
    assert_eq!(found.to_string(), "step 2 is there in the straight run and missing in the resumed one");
}

#[test]
fn tensors_and_files_that_differ_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = ["a", "b"].map(|name| dir.path().join(name));
    let write = |dir: &Path, values: [f32; 2]| {
        fs::create_dir_all(dir).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![2], &bytes).unwrap();
        let file = safetensors::serialize([("wte.mean", view)], None).unwrap();
        fs::write(dir.join("optimizer.safetensors"), file).unwrap();
    };
    write(&dirs[0], [1.0, 2.0]);
    write(&dirs[1], [1.0, 2.0]);
    assert_eq!(checkpoints(&dirs).unwrap(), None);
    write(&dirs[1], [1.0, 2.000_000_2]);
    let found = checkpoints(&dirs).unwrap().unwrap();
    assert_eq!(
        found.to_string(),
        "wte.mean[1] of optimizer.safetensors is 2 in the straight run and 2.0000002 in the resumed one"
    );
    fs::write(dirs[1].join("optimizer.safetensors"), "no tensors").unwrap();
    assert!(checkpoints(&dirs).unwrap().unwrap().place.contains("optimizer.safetensors"));
    fs::remove_file(dirs[1].join("optimizer.safetensors")).unwrap();
    assert_eq!(checkpoints(&dirs).unwrap().unwrap().resumed, "missing");
}

#[test]
fn a_check_in_use_is_not_removed_and_one_that_was_killed_is() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_in(dir.path(), &[]);
    let left = files::sibling(&config.run.output, "verify-resume").join("stopped");
    fs::create_dir_all(&left).unwrap();
    let check = ResumeCheck::begin(&config).unwrap();
    assert!(!left.exists());
    assert!(matches!(ResumeCheck::begin(&config), Err(TrainError::Busy { .. })));
    drop(check);
}

#[test]
fn directories_above_that_were_made_for_it_go_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_in(dir.path(), &[]);
    config.run.output = dir.path().join("runs/deep/out");
    drop(ResumeCheck::begin(&config).unwrap());
    assert!(!dir.path().join("runs").exists());
}

#[test]
fn records_of_the_run_are_shared_without_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_in(dir.path(), &[]);
    let records = config.run.output.join("records/train");
    fs::create_dir_all(&records).unwrap();
    fs::write(records.join("manifest.json"), "{}").unwrap();
    fs::write(config.run.output.join("records/reference.partial"), "…").unwrap();
    let check = ResumeCheck::begin(&config).unwrap();
    let stopped = check.stopped().run.output;
    assert_eq!(fs::read(stopped.join("records/train/manifest.json")).unwrap(), b"{}");
    drop(check);
    assert_eq!(fs::read(records.join("manifest.json")).unwrap(), b"{}");
}
