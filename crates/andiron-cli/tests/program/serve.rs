//! `andiron serve`: it says where it listens, answers, and goes when it is asked to.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Place, finish};
use crate::signals::terminate;

/// A server, killed when the test is over however it ends.
pub struct Server {
    child: Option<Child>,
    address: String,
}

impl Server {
    pub fn start(place: &Place, more: &[&str]) -> Self {
        Self::start_with(place, &[&["--model", "run/model"], more].concat())
    }

    pub fn start_with(place: &Place, more: &[&str]) -> Self {
        let args = [&["serve", "--port", "0"], more].concat();
        let mut child = place.command(&args).spawn().unwrap();
        let mut line = String::new();
        // One byte at a time: what follows the line stays for whoever collects the output.
        let mut stdout = BufReader::with_capacity(1, child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        child.stdout = Some(stdout.into_inner());
        let mut server = Self { child: Some(child), address: String::new() };
        let address = line.strip_prefix("listening on http://").and_then(|rest| rest.strip_suffix('\n'));
        server.address = address.unwrap_or_else(|| panic!("{line:?}")).to_owned();
        server
    }

    /// Status and body of the answer to a request.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let (host, len) = (&self.address, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}");
        write!(stream, "{head}Content-Length: {len}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub fn complete(&self, request: &Value) -> Value {
        let headers = "Content-Type: application/json\r\n";
        let (status, body) = self.request("POST", "/v1/completions", headers, &request.to_string());
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    #[track_caller]
    pub fn post(&self, path: &str, request: &Value) -> Value {
        let headers = "Content-Type: application/json\r\n";
        let (status, body) = self.request("POST", path, headers, &request.to_string());
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.request("GET", path, "", "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    #[track_caller]
    pub fn stop(mut self) {
        let child = self.child.take().unwrap();
        terminate(&child);
        let ran = finish(child);
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{ran:?}");
        assert!(!ran.err.contains('\u{1b}'), "colours where there is no terminal: {ran:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may be gone already; the test has failed in any case.
            let _ = child.kill();
        }
    }
}

#[test]
fn it_answers_like_generate_and_stops_when_asked() {
    let place = Place::with_model();
    let server = Server::start(&place, &["--name", "small"]);
    assert!(server.address.starts_with("127.0.0.1:"), "{}", server.address);
    assert_eq!(server.request("GET", "/health", "", "").0, 200);
    let (_, models) = server.request("GET", "/v1/models", "", "");
    assert_eq!(serde_json::from_str::<Value>(&models).unwrap()["data"][0]["id"], "small");
    let (status, page) = server.request("GET", "/", "", "");
    assert!(status == 200 && page.contains("<html"), "{page}");

    let request = json!({ "model": "small", "prompt": "Ham", "max_tokens": 8, "temperature": 0 });
    let answer = server.complete(&request);
    let args = ["generate", "--model", "run/model", "--max-tokens", "8", "--temperature", "0", "Ham"];
    assert_eq!(answer["choices"][0]["text"], place.json(&args)["text"]);
    server.stop();
}

#[cfg(unix)]
#[test]
fn it_tells_the_service_manager_when_it_is_ready_alive_and_stopping() {
    let place = Place::with_model();
    let manager = std::os::unix::net::UnixDatagram::bind(place.path("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = || {
        let mut message = [0; 64];
        let n = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..n].to_vec()).unwrap()
    };
    let mut command = place.command(&["serve", "--model", "run/model", "--port", "0"]);
    command
        .env("NOTIFY_SOCKET", place.path("notify"))
        .env("WATCHDOG_USEC", "200000")
        .env_remove("WATCHDOG_PID");
    let child = command.spawn().unwrap();
    assert_eq!([hear(), hear(), hear()], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    terminate(&child);
    let last = (0..100).map(|_| hear()).find(|message| message != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert_eq!(finish(child).code, Some(0));
}

#[test]
fn it_shows_the_attention_that_inspect_shows() {
    let place = Place::with_model();
    let server = Server::start(&place, &["--name", "small", "--max-attention-tokens", "8"]);
    let send = |body: Value| {
        let headers = "Content-Type: application/json\r\n";
        let (status, answer) = server.request("POST", "/attention", headers, &body.to_string());
        (status, serde_json::from_str::<Value>(&answer).unwrap())
    };
    let (_, models) = server.request("GET", "/v1/models", "", "");
    assert!(models.contains(r#""capabilities":["generate","attention"]"#), "{models}");
    let (status, served) = send(json!({ "model": "small", "input": "Ham", "layer": 0 }));
    assert_eq!(status, 200, "{served}");
    let shown = place.json(&["inspect", "--model", "run/model", "--attention", "Ham", "--layer", "0"]);
    assert_eq!((&served["n_layers"], &served["tokens"]), (&shown["n_layers"], &shown["tokens"]));
    let rows = |found: &Value| -> Vec<f32> {
        let heads: Vec<Vec<Vec<f32>>> =
            serde_json::from_value(found["attention"][0]["probabilities"].clone()).unwrap();
        heads.into_iter().flatten().flatten().collect()
    };
    let (served, shown) = (rows(&served), rows(&shown));
    assert_eq!(served.len(), shown.len());
    assert!(served.iter().zip(&shown).all(|(a, b)| (a - b).abs() <= 5.1e-6), "{served:?} {shown:?}");
    // Without a layer: the last one.
    assert_eq!(send(json!({ "input": "Ham" })).1["attention"].as_array().unwrap().len(), 1);
    for (body, param) in [
        (json!({ "input": "Ham", "layer": 99 }), "layer"),
        (json!({ "input": "Ham", "target": "let" }), "target"),
        (json!({ "input": "Ham", "layer": -1 }), "layer"),
        (json!({ "input": "To be, or not" }), "input"),
        (json!({}), "input"),
    ] {
        let (status, answer) = send(body.clone());
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(param)), "{body} {answer}");
    }
    server.stop();
}

#[test]
fn a_key_file_closes_the_door_to_others() {
    let place = Place::with_model();
    place.write("keys", "first-key\nsecond-key\n");
    let server = Server::start(&place, &["--api-key-file", "keys"]);
    assert_eq!(server.request("GET", "/v1/models", "", "").0, 401);
    assert_eq!(server.request("GET", "/v1/models", "Authorization: Bearer second-key\r\n", "").0, 200);
    server.stop();
    place.write("empty", "\n");
    place.fails(&["serve", "--model", "run/model", "--api-key-file", "empty"], 2, &["empty", "API key"]);
}

#[test]
fn an_address_that_cannot_be_used_is_named() {
    let place = Place::with_model();
    let serve = |more: &[&'static str]| [&["serve", "--model", "run/model", "--port", "0"], more].concat();
    place.fails(&serve(&["--host", "0.0.0.0"]), 1, &["0.0.0.0", "API key"]);
    let server = Server::start(&place, &[]);
    let port = server.address.rsplit(':').next().unwrap();
    place.fails(&["serve", "--model", "run/model", "--port", port], 1, &[port, "in use"]);
    server.stop();
    assert!(fs::metadata(place.path("run/model")).is_ok());
}

/// Sends SIGTERM `times` times while a long answer is being written, and says how the server ended and in what time.
fn ended_by(times: usize, drain_timeout: &str) -> (Option<i32>, Duration) {
    let place = Place::with_model();
    let mut server = Server::start(&place, &["--drain-timeout", drain_timeout]);
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let request =
        json!({ "prompt": "Ham", "max_tokens": 30_000, "n": 8, "ignore_eos": true, "stream": true })
            .to_string();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n{request}", request.len()).unwrap();
    stream.read_exact(&mut [0; 300]).unwrap();
    // Who stops reading loses its place.
    std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
    let child = server.child.take().unwrap();
    let begun = Instant::now();
    for _ in 0..times {
        terminate(&child);
        // Two signals that come together are one.
        std::thread::sleep(Duration::from_millis(200));
    }
    let ran = finish(child);
    assert!(ran.err.contains("cut off"), "{ran:?}");
    (ran.code, begun.elapsed())
}

#[test]
fn a_signal_ends_it_within_the_drain_timeout_and_a_second_one_at_once() {
    let (code, took) = ended_by(1, "1");
    assert!(code == Some(1) && took < Duration::from_secs(3), "{code:?} after {took:?}");
    let (code, took) = ended_by(2, "60");
    assert!(code == Some(1) && took < Duration::from_secs(2), "{code:?} after {took:?}");
}

/// A stream that has begun. Its reader waits for the end on a thread of its own.
fn open_stream(address: &str, request: &Value) -> std::thread::JoinHandle<String> {
    let mut stream = TcpStream::connect(address).unwrap();
    let (body, head) =
        (request.to_string(), "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    write!(stream, "{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .unwrap();
    std::thread::spawn(move || {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
}

#[test]
fn a_signal_cuts_none_of_many_open_streams() {
    let place = Place::with_model();
    let mut server = Server::start(&place, &["--drain-timeout", "120"]);
    let request = json!({ "prompt": "Ham", "max_tokens": 400, "ignore_eos": true, "stream": true });
    let streams: Vec<_> = (0..64).map(|_| open_stream(&server.address, &request)).collect();
    let there = |text: &str| -> u64 {
        let load: Value = serde_json::from_str(text).unwrap();
        load["running"].as_u64().unwrap_or(0) + load["queued"].as_u64().unwrap_or(0)
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    // What arrives after the signal is refused.
    while there(&server.request("GET", "/ready", "", "").1) < 64 {
        assert!(Instant::now() < deadline, "the streams never began together");
    }
    let child = server.child.take().unwrap();
    terminate(&child);
    for stream in streams {
        let answer = stream.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.contains("\"finish_reason\":\"length\"") && answer.contains("data: [DONE]"),
            "{answer}"
        );
    }
    let ran = finish(child);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn logs_are_lines_of_json_without_prompts_or_keys() {
    let place = Place::with_model();
    place.write("keys", "canary-key\n");
    let log = ["--log-format", "json", "--log", "andiron_serving=trace"];
    let more = [&["--name", "small", "--api-key-file", "keys"], log.as_slice()].concat();
    let mut server = Server::start(&place, &more);
    let headers = "Content-Type: application/json\r\nAuthorization: Bearer canary-key\r\n";
    for body in [
        json!({ "prompt": "canaryprompt", "max_tokens": 3 }),
        json!({ "prompt": "canaryprompt", "stop": "canarystop", "stream": true, "max_tokens": 3 }),
        json!({ "prompt": "canaryprompt", "temperature": "canary-value" }),
        json!({ "prompt": "canaryprompt", "guided_regex": "canary-grammar(" }),
        json!({ "prompt": "canaryprompt", "model": "canary-model" }),
    ] {
        server.request("POST", "/v1/completions", headers, &body.to_string());
    }
    server.request("GET", "/canary-path?canary-query", "Authorization: Bearer canary-wrong\r\n", "");
    let child = server.child.take().unwrap();
    terminate(&child);
    let ran = finish(child);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!ran.err.contains("canary"), "{}", ran.err);
    let lines: Vec<Value> = ran.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let requests = lines.iter().filter(|line| line["message"] == "request");
    let statuses: Vec<u64> = requests.filter_map(|line| line["status"].as_u64()).collect();
    assert_eq!(statuses, [200, 200, 400, 400, 404, 401], "{}", ran.err);
    assert!(
        lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()),
        "{}",
        ran.err
    );
    let [loaded] = lines.iter().filter(|line| line["message"] == "loaded").collect::<Vec<_>>()[..] else {
        panic!("{}", ran.err);
    };
    assert_eq!((&loaded["model"], &loaded["family"]), (&json!("small"), &json!("decoder")));
    assert!(loaded["bytes"].as_u64() > Some(0) && loaded["seconds"].as_f64() > Some(0.0), "{loaded}");
}

#[test]
fn a_model_of_the_folder_comes_and_goes_and_the_log_says_so() {
    let place = Place::with_model();
    let mut server = Server::start_with(&place, &["--models-dir", "run", "--log-format", "json"]);
    let change = |what: &str| {
        let headers = "Content-Type: application/json\r\n";
        server.request("POST", &format!("/models/{what}"), headers, r#"{"model":"model"}"#)
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    assert_eq!(change("load").0, 200);
    let is_loaded = || {
        let models = server.get("/models");
        let found = models["data"].as_array().unwrap().iter().find(|model| model["id"] == "model").cloned();
        found.is_some_and(|model| model["status"]["value"] == "loaded")
    };
    while !is_loaded() {
        assert!(Instant::now() < deadline, "it never was loaded");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.complete(&json!({ "prompt": "Ham", "max_tokens": 2 }))["model"], "model");
    assert_eq!(change("unload").0, 200);
    let log = BufReader::new(server.child.as_mut().unwrap().stderr.take().unwrap()).lines();
    let mut about_it = log
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .filter(|line| line["model"] == "model" && line["seconds"].is_f64());
    for message in ["loaded", "unloaded"] {
        let line = about_it.next().unwrap();
        assert_eq!((&line["message"], &line["family"]), (&json!(message), &json!("decoder")), "{line}");
    }
}

#[test]
fn settings_come_from_flags_before_the_environment_before_a_file() {
    let place = Place::with_model();
    place.write(
        "serve.toml",
        "model = \"run/model\"\nport = 0\nmax_n = 3\nname = \"filed\"\nlog_format = \"json\"\n",
    );
    let mut command = place.command(&["serve", "--config", "serve.toml", "--max-n", "2", "--print-config"]);
    let child = command.env("ANDIRON_SERVE_MAX_N", "5").env("ANDIRON_SERVE_NAME", "varied").spawn().unwrap();
    let ran = finish(child);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let settings: toml::Table = ran.out.parse().unwrap();
    assert_eq!((settings["max_n"].as_integer(), settings["name"].as_str()), (Some(2), Some("varied")));
    assert_eq!(
        (settings["log_format"].as_str(), settings["max_queued"].as_integer()),
        (Some("json"), Some(256))
    );
    for (line, source) in [
        ("max_n = 2", "flag"),
        ("name = \"varied\"", "environment"),
        ("port = 0", "file"),
        ("max_queued = 256", "default"),
    ] {
        assert!(
            ran.out.lines().any(|found| found.starts_with(line) && found.ends_with(source)),
            "{line}\n{}",
            ran.out
        );
    }
    // The settings hold in the server, too.
    let mut child = place.command(&["serve", "--config", "serve.toml"]).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::with_capacity(1, child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    child.stdout = Some(stdout.into_inner());
    let address =
        line.trim_end().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    let server = Server { child: Some(child), address };
    let headers = "Content-Type: application/json\r\n";
    let (status, body) = server.request("POST", "/v1/completions", headers, r#"{"prompt":"Ham","n":4}"#);
    assert!(status == 400 && body.contains("between 1 and 3"), "{body}");
    server.stop();
    place.write("serve.toml", "model = \"run/model\"\n\nmax_qeued = 3\n");
    place.fails(&["serve", "--config", "serve.toml"], 2, &["serve.toml:3", "max_qeued", "max_queued"]);
    let ran = place.run(&["serve", "--model", "run/model", "--max-body-bytes", "0"]);
    assert!(ran.code == Some(2) && ran.err.contains("from 1"), "{ran:?}");
}
