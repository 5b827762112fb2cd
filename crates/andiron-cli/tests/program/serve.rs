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
        let args = [&["serve", "--model", "run/model", "--port", "0"], more].concat();
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
    fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
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
