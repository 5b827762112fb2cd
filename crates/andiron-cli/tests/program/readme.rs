//! The commands of the README, as they stand there.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Place, finish, text};

const README: &str = include_str!("../../README.md");

/// The blocks of the README in `language`.
fn blocks(language: &str) -> Vec<&'static str> {
    let mut rest = README;
    let mut blocks = Vec::new();
    while let Some((_, after)) = rest.split_once("\n```") {
        let (fence, after) = after.split_once('\n').unwrap();
        let (block, after) = after.split_once("\n```").unwrap();
        if fence == language {
            blocks.push(block);
        }
        rest = after;
    }
    blocks
}

#[test]
fn its_commands_do_what_it_says() {
    let place = Place::new();
    place.write("play.txt", text(8000));
    place.write("run.toml", blocks("toml").concat());
    let programs = Path::new(env!("CARGO_BIN_EXE_andiron")).parent().unwrap();
    let path = std::env::join_paths(
        [programs.to_owned()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let script = blocks("sh").join("\n");
    assert!(script.lines().count() >= 12, "{script}");
    let child = Command::new("sh")
        .args(["-e", "-u", "-c", &script])
        .current_dir(place.path(""))
        .env("PATH", path.unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ran = finish(child);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // Found by its bare name, the program says how to go on under that name.
    assert!(ran.out.contains("Serve it:     andiron serve --model story/run/model\n"), "{ran:?}");
    assert!(place.path("run/model/model.safetensors").exists());
}
