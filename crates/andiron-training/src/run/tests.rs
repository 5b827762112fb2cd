//! Faults at every file operation of a checkpoint, for every objective, and for adapters of each family.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::fs;
use std::io;

use andiron_files::fault::{Fault, Seen, with_fault};
use burn::module::{Module as _, ModuleMapper, Param};
use burn::tensor::Tensor;

use super::*;
use crate::objective::with_plan;
use crate::observe::with_causes;
use crate::plan::{Plan, PlanUser};
use crate::testing::device;
use common::{Form, NAMES, Place};

/// Input/output error: what a disk that fails says.
const EIO: i32 = 5;

/// Adds one to every parameter that is trained, so that a later checkpoint is another one.
struct AddOne;

impl ModuleMapper for AddOne {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !crate::optimizer::is_trainable(&param) {
            return param;
        }
        param.map(|value| Tensor::from_inner(value.inner() + 1.0).require_grad())
    }
}

/// Warnings of damage, of which there may be none.
#[derive(Default)]
struct Heard(Vec<String>);

impl Observer for Heard {
    fn on_warning(&mut self, warning: &Warning) {
        self.0.push(warning.to_string());
    }
}

/// The files of the checkpoint of a step, with every byte of each.
fn content<C: FamilyConfig>(run: &Run<C>, step: u64) -> Vec<(String, Vec<u8>)> {
    let path = run.checkpoints.path(step);
    let files = files::list_files(&path).unwrap();
    files.into_iter().map(|name| (name.clone(), fs::read(path.join(&name)).unwrap())).collect()
}

/// Saves with every fault that there can be, and reads with every one.
struct Faults<'a> {
    setup: &'a Setup<'a>,
    what: &'a str,
}

impl PlanUser for Faults<'_> {
    type Output = usize;

    fn with<O: Objective>(self, Plan { objective: _, start, data }: Plan<O>) -> Result<usize, TrainError> {
        let run = Run::open(self.setup, start, data, Unit::Row, &device())?;
        let what = self.what;
        let mut old = run.fresh_state()?;
        old.progress.step = 1;
        let mut new = old.clone();
        new.progress.step = 2;
        new.bundle.model = new.bundle.model.map(&mut AddOne);

        run.save(&old, None).unwrap();
        let (saved, seen) = with_fault(Fault::none(), || run.save(&new, None));
        saved.unwrap();
        let whole = [1, 2].map(|step| content(&run, step));
        assert_ne!(whole[0], whole[1], "{what}");
        let forget = || files::remove_directory(&run.checkpoints.path(2)).unwrap();
        forget();
        let mut n_faults = 0;
        for (at, operation) in seen.iter().enumerate() {
            for fault in [Fault::once(at, EIO), Fault::killed_at(at)] {
                let (saved, _) = with_fault(fault, || run.save(&new, None));
                let context = format!("{what}: {fault:?}, {operation:?}");
                let error = saved.expect_err("a file cannot be written");
                assert_named(&with_causes(&error), operation, &context);
                // What a new process does.
                Checkpoints::open(&run.config.run.output, run.config.checkpoint.keep_last).unwrap();
                let mut heard = Heard::default();
                let found = run.load(&mut heard)?.unwrap().progress.step;
                assert!(heard.0.is_empty() && (1..=2).contains(&found), "{context}: {:?}", heard.0);
                assert!(content(&run, found) == whole[found as usize - 1], "{context}: step {found}");
                assert!(content(&run, 1) == whole[0], "{context}: the older one");
                forget();
                n_faults += 1;
            }
        }

        run.save(&new, None).unwrap();
        let (loaded, seen) = with_fault(Fault::none(), || run.load(&mut ()));
        assert_eq!(loaded?.unwrap().progress.step, 2);
        for (at, operation) in seen.iter().enumerate() {
            let (loaded, _) = with_fault(Fault::once(at, EIO), || run.load(&mut ()));
            let said = with_causes(&loaded.map(|_| ()).expect_err("a file cannot be read"));
            assert_named(&said, operation, what);
            assert!(content(&run, 2) == whole[1] && content(&run, 1) == whole[0], "{what}: {said}");
            n_faults += 1;
        }
        Ok(n_faults)
    }
}

/// What is written beside its place, a file or a whole directory, may be named by its place.
#[track_caller]
fn assert_named(said: &str, operation: &Seen, context: &str) {
    // The lock of a directory that is being written stands for it.
    let is_lock = operation.path.file_name().is_some_and(|name| name == ".lock");
    let written = if is_lock { operation.path.parent().unwrap() } else { &operation.path };
    let place = written.ancestors().find_map(|path| {
        let name = path.file_name()?.to_str()?.strip_prefix('.').filter(|name| !name.starts_with("step-"))?;
        let name = [".tmp", ".partial", ".old"].iter().find_map(|end| name.strip_suffix(end))?;
        Some(path.with_file_name(name))
    });
    let places = [Some(written), place.as_deref()];
    let is_named = places.into_iter().flatten().any(|path| said.contains(&path.display().to_string()));
    let cause = io::Error::from_raw_os_error(EIO).to_string();
    assert!(is_named && said.contains(&cause), "{context}: {said}");
}

#[track_caller]
fn check(names: &[&'static str], form: Form) {
    for &name in names {
        let place = Place::of_all();
        let config = place.run(&place.case(name), form, "run");
        let device = device();
        let setup = Setup::open(&config, &device).unwrap();
        let what = format!("{name}, {form:?}");
        let n_faults = with_plan(&setup, Faults { setup: &setup, what: &what }).unwrap();
        assert!(n_faults > 60, "{what}: {n_faults}");
    }
}

#[test]
fn a_fault_at_any_file_leaves_a_whole_checkpoint_of_a_decoder() {
    check(&NAMES[..3], Form::Full);
}

#[test]
fn a_fault_at_any_file_leaves_a_whole_checkpoint_of_a_masked_model() {
    check(&NAMES[3..5], Form::Full);
}

#[test]
fn a_fault_at_any_file_leaves_a_whole_checkpoint_of_an_encoder_decoder() {
    check(&NAMES[5..9], Form::Full);
}

#[test]
fn a_fault_at_any_file_leaves_a_whole_checkpoint_of_a_classifier() {
    check(&NAMES[9..12], Form::Full);
}

#[test]
fn a_fault_at_any_file_leaves_a_whole_checkpoint_of_another_encoder() {
    check(&NAMES[12..], Form::Full);
}

#[test]
fn a_fault_at_any_file_leaves_a_whole_checkpoint_of_an_adapter() {
    check(&["chat", "seq2seq"], Form::Lora);
    check(&["classify"], Form::Qlora);
}
