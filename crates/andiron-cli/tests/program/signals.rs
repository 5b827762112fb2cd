//! Runs that are killed or asked to stop end like those that are left alone.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use andiron_kernels::random::Seed;

use crate::common::{Place, finish, metrics};

const PRETRAIN: &[&str] = &["pretrain", "run.toml"];
const QUICKSTART: &[&str] =
    &["quickstart", "--recipe", "nanogpt", "--corpus", "corpus.txt", "--output", "story", "--steps", "40"];

/// Lines of the metrics file, which is being written.
fn lines(path: &Path) -> usize {
    match fs::read(path) {
        Ok(text) => text.iter().filter(|&&byte| byte == b'\n').count(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// Waits until the run has logged `steps` steps; false if the process ended before.
fn wait_for(child: &mut Child, run: &Path, steps: usize) -> bool {
    let deadline = Instant::now() + Duration::from_secs(120);
    while lines(&run.join("metrics.jsonl")) < steps {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(Instant::now() < deadline, "nothing happens");
        std::thread::yield_now();
    }
    true
}

pub fn terminate(child: &Child) {
    signal(child, "TERM");
}

fn signal(child: &Child, name: &str) {
    // The shell's own `kill`: a program of that name is not everywhere.
    let line = format!("kill -{name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
}

#[track_caller]
fn check_same(whole: &Path, broken: &Path) {
    let [expected, found] = [whole, broken].map(metrics);
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected, found);
    }
    assert_eq!(expected.len(), found.len());
    for file in ["model/model.safetensors", "model/config.json", "model/tokenizer.json"] {
        assert!(
            fs::read(whole.join(file)).unwrap() == fs::read(broken.join(file)).unwrap(),
            "{file} differs"
        );
    }
}

/// Bytes of all files below a directory, which is being written.
fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes_below(&entry.path()),
        _ => entry.metadata().map_or(0, |found| found.len()),
    });
    bytes.sum()
}

/// The files below a directory with their content.
fn files_below(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        let name = name.to_string_lossy().into_owned();
        if path.is_dir() {
            files.extend(
                files_below(&path).into_iter().map(|(below, content)| (format!("{name}/{below}"), content)),
            );
        } else if name != ".lock" {
            files.push((name, fs::read(path).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn a_killed_preparation_goes_on_to_the_same_bytes() {
    let place = Place::new();
    fs::create_dir(place.path("texts")).unwrap();
    for file in 0..3 {
        let row = |n: u64| {
            let words =
                (0..60).map(|at| format!("w{} ", (n * 31 + at * at + file) % 900)).collect::<String>();
            format!("{{\"text\":\"{} {words}\"}}\n", n % 1500)
        };
        place.write(&format!("texts/{file}.jsonl"), (0..2000).map(row).collect::<String>());
    }
    let args =
        |output| ["prepare", "texts", "--vocab-size", "400", "--remove-repeated-paragraphs", "-o", output];
    place.ok(&args("whole"));
    let seed = Seed::new(2026);
    let mut killed = 0;
    for moment in 0..5 {
        // Documents are written twice, and ids: 5 MB.
        let bytes = seed.below(moment, 4_000_000);
        let mut child = place.command(&args("broken")).spawn().unwrap();
        while bytes_below(&place.path(".broken.stages")) < bytes && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        killed += u64::from(finish(child).code.is_none());
    }
    assert!(killed > 1, "{killed}");
    place.ok(&args("broken"));
    let [whole, broken] = ["whole", "broken"].map(|name| files_below(&place.path(name)));
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&whole), names(&broken));
    for ((name, whole), (_, broken)) in whole.iter().zip(&broken) {
        assert!(whole == broken, "{name} differs");
    }
    assert!(!place.path(".broken.stages").exists());
}

#[test]
fn a_killed_pretraining_goes_on_to_the_same_bytes() {
    let [whole, broken] = [(); 2].map(|()| Place::new());
    for place in [&whole, &broken] {
        place.prepare();
    }
    whole.ok(PRETRAIN);
    let seed = Seed::new(2025);
    // Moments between checkpoints, each later than the last checkpoint before it.
    for (number, latest) in [15, 30, 45].into_iter().enumerate() {
        let step = latest - seed.below(number as u64, 12) as usize;
        let mut child = broken.command(PRETRAIN).spawn().unwrap();
        assert!(wait_for(&mut child, &broken.path("run"), step), "ended before step {step}");
        child.kill().unwrap();
        assert_eq!(finish(child).code, None);
    }
    let ran = broken.run(PRETRAIN);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("goes on after step "), "{ran:?}");
    check_same(&whole.path("run"), &broken.path("run"));
}

#[test]
fn a_pretraining_asked_to_stop_saves_and_says_so() {
    let [whole, broken] = [(); 2].map(|()| Place::new());
    for place in [&whole, &broken] {
        place.prepare();
    }
    whole.ok(PRETRAIN);
    let refused = [PRETRAIN, &["--resume"]].concat();
    broken.fails(&refused, 1, &["run has no checkpoint"]);
    let mut child = broken.command(&[PRETRAIN, &["--json"]].concat()).spawn().unwrap();
    assert!(wait_for(&mut child, &broken.path("run"), 10));
    terminate(&child);
    let ran = finish(child);
    assert_eq!(ran.code, Some(75), "{ran:?}");
    assert!(ran.err.contains("run the same command again"), "{ran:?}");
    let stopped: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&stopped["interrupted"], &stopped["model"]), (&true.into(), &serde_json::Value::Null));
    let step = stopped["step"].as_u64().unwrap();
    assert!((10..60).contains(&step), "{stopped}");
    let ran = broken.run(&refused);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains(&format!("goes on after step {step}:")), "{ran:?}");
    check_same(&whole.path("run"), &broken.path("run"));
}

#[cfg(unix)]
#[test]
fn a_pretraining_asked_to_save_saves_and_goes_on() {
    const LONG: &[&str] =
        &["pretrain", "run.toml", "--set", "run.steps=400", "--set", "checkpoint.every=1000"];
    let [whole, asked] = [(); 2].map(|()| Place::new());
    for place in [&whole, &asked] {
        place.prepare();
    }
    whole.ok(LONG);
    for name in ["USR1", "USR2"] {
        let run = asked.path("run");
        let _ = fs::remove_dir_all(&run);
        let mut child = asked.command(LONG).spawn().unwrap();
        assert!(wait_for(&mut child, &run, 10));
        signal(&child, name);
        let ran = finish(child);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.err.contains("saving after this step"), "{ran:?}");
        let steps = andiron_training::checkpoint::steps_in(&run).unwrap();
        assert!(steps.len() == 2 && (10..400).contains(&steps[0]) && steps[1] == 400, "{steps:?}");
        check_same(&whole.path("run"), &run);
    }
}

#[test]
fn a_quickstart_stopped_and_killed_ends_like_one_left_alone() {
    let [whole, broken] = [(); 2].map(|()| Place::new());
    let expected = whole.ok(QUICKSTART);
    let run = broken.path("story/run");
    let seed = Seed::new(5);
    let mut child = broken.command(QUICKSTART).spawn().unwrap();
    assert!(wait_for(&mut child, &run, 2 + seed.below(0, 10) as usize));
    terminate(&child);
    let ran = finish(child);
    assert_eq!((ran.code, ran.out.as_str()), (Some(75), ""), "{ran:?}");
    // This one saves nothing, but leaves lines of steps that will be done once more.
    let later = lines(&run.join("metrics.jsonl")) + 2 + seed.below(1, 10) as usize;
    let mut child = broken.command(QUICKSTART).spawn().unwrap();
    assert!(wait_for(&mut child, &run, later));
    child.kill().unwrap();
    assert_eq!(finish(child).code, None);
    assert_eq!(broken.ok(QUICKSTART), expected);
    check_same(&whole.path("story/run"), &run);
}
