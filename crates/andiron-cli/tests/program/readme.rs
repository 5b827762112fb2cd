//! The commands of the README and of a page of `examples/uses`, as they stand there.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Place, Ran, finish, text, word};
use crate::serve::Server;

const README: &str = include_str!("../../README.md");
const OWN_CORPUS: &str = include_str!("../../../../examples/uses/own-corpus.md");
const OWN_CORPUS_CONFIG: &str = include_str!("../../../../examples/configs/own-corpus.toml");

/// The blocks of a page in `language`.
fn blocks(page: &'static str, language: &str) -> Vec<&'static str> {
    let mut rest = page;
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

/// Runs a script of a shell in which the program is found by its bare name.
#[track_caller]
fn run(place: &Place, script: &str) -> Ran {
    let programs = Path::new(env!("CARGO_BIN_EXE_andiron")).parent().unwrap();
    let path = std::env::join_paths(
        [programs.to_owned()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let child = Command::new("sh")
        .args(["-e", "-u", "-c", script])
        .current_dir(place.path(""))
        .env("PATH", path.unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ran = finish(child);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran
}

#[test]
fn its_commands_do_what_it_says() {
    let place = Place::new();
    place.write("play.txt", text(8000));
    place.write("run.toml", blocks(README, "toml").concat());
    let script = blocks(README, "sh").join("\n");
    assert!(script.lines().count() >= 12, "{script}");
    let ran = run(&place, &script);
    // Found by its bare name, the program says how to go on under that name.
    assert!(ran.out.contains("Serve it:     andiron serve --model story/run/model\n"), "{ran:?}");
    assert!(place.path("run/model/model.safetensors").exists());
}

/// A page of the web with a menu, and sentences of its own, which it returns.
fn page(number: usize) -> (String, Vec<String>) {
    let sentence = |at: usize| {
        let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(|place| word((number * 8 + at) * 5 + place));
        format!("The {a} of the {b} is older than the {c} & the {d} near {e}.")
    };
    let sentences: Vec<String> = (0..8).map(sentence).collect();
    let paragraphs: String =
        sentences.iter().map(|sentence| format!("<p>{}</p>\n", sentence.replace('&', "&amp;"))).collect();
    let menu = "<nav><a href='/'>Home</a> <a href='/map'>Map</a></nav><svg><path d='M0 0'/></svg><script>let x = 1;</script>";
    (
        format!(
            "<!doctype html><html><head><title>{number}</title></head><body>{menu}{paragraphs}</body></html>"
        ),
        sentences,
    )
}

#[test]
fn a_folder_of_pages_becomes_a_model_that_is_served_and_a_step_names_its_pages() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("examples/configs")).unwrap();
    place.write("examples/configs/own-corpus.toml", OWN_CORPUS_CONFIG);
    let mut texts = std::collections::BTreeMap::new();
    for number in 0..84 {
        let folder = format!("data/pages/{}", number % 3);
        std::fs::create_dir_all(place.path(&folder)).unwrap();
        let (page, sentences) = page(number);
        // The same names in each folder.
        let name = format!("{}.html", number / 3);
        place.write(&format!("{folder}/{name}"), page);
        texts.insert(format!("{}/{name}", number % 3), sentences.join("\n"));
    }
    // What cannot be run here: the manual of Rust, and a server that does not end.
    let elsewhere = ["cp -r", "andiron serve", "curl "];
    let commands = blocks(OWN_CORPUS, "sh").join("\n");
    let (left_out, script): (Vec<&str>, Vec<&str>) =
        commands.lines().partition(|line| elsewhere.iter().any(|begin| line.starts_with(begin)));
    assert_eq!((left_out.len(), script.len()), (3, 6), "{script:?}");
    let ran = run(&place, &script.join("\n"));
    assert!(ran.out.contains("Train on it: andiron pretrain --params "), "{ran:?}");
    assert!(ran.out.contains("Serve it: andiron serve --model runs/own-corpus/model\n"), "{ran:?}");

    let seen = place.json(&["prepare", "trace", "--run", "runs/own-corpus", "--step", "10", "--text"]);
    let documents = seen["documents"].as_array().unwrap();
    let mut bytes = 0;
    for document in documents {
        let text = document["text"].as_str().unwrap();
        let text = text.strip_suffix("<|endoftext|>").unwrap_or(text);
        let of_page = &texts[document["id"].as_str().unwrap()];
        assert!(of_page.contains(text), "{text:?} is not of the page {document:?}, {of_page:?}");
        if document["offset"] == 0 {
            assert!(of_page.starts_with(text), "{document:?}");
        }
        bytes += text.len();
    }
    assert!(documents.len() > 20 && bytes > 4000, "{} documents, {bytes} bytes", documents.len());
    place.fails(
        &["prepare", "trace", "--run", "runs/own-corpus", "--step", "999"],
        1,
        &["step 999", "which has"],
    );

    let server = Server::start_with(&place, &["--model", "runs/own-corpus/model"]);
    let request = serde_json::json!({ "prompt": "The", "max_tokens": 8, "temperature": 0 });
    assert!(!server.complete(&request)["choices"][0]["text"].as_str().unwrap().is_empty());
    server.stop();
}
