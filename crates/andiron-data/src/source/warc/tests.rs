use super::*;
use crate::input::tests::gzip;
use crate::source::{Documents, OnError};

fn record(header: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("WARC/1.0\r\n{header}\r\nContent-Length: {}\r\n\r\n", content.len());
    [head.as_bytes(), content, b"\r\n\r\n"].concat()
}

fn page(id: &str, http: &str, body: &[u8]) -> Vec<u8> {
    let header = format!(
        "WARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{id}>\r\nWARC-Target-URI: <http://a.example/{id}>\r\nWARC-Date: 2024-01-02T03:04:05Z"
    );
    record(&header, &[format!("HTTP/1.1 {http}\r\n\r\n").as_bytes(), body].concat())
}

fn source(content: &[u8], options: &SourceOptions) -> WarcSource {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.warc");
    std::fs::write(&path, content).unwrap();
    WarcSource::open(&path, options).unwrap()
}

/// Each document as `id: text`, each fault after the name of the file.
fn read(content: &[u8]) -> Vec<String> {
    let show = |item: Result<Document, SourceError>| match item {
        Ok(document) => format!("{}: {}", document.id, document.text),
        Err(error) => error.to_string().rsplit_once("w.warc").unwrap().1.to_owned(),
    };
    source(content, &SourceOptions::default()).map(show).collect()
}

#[test]
fn pages_are_documents() {
    let content = [
        record("WARC-Type: warcinfo\r\nContent-Type: application/warc-fields", b"a: b\r\n"),
        record("WARC-Type: request", b"GET / HTTP/1.1\r\n\r\n"),
        page("one", "200 OK\r\nContent-Type: text/html; charset=euc-kr", b"<p>\xc7\xd1\xb1\xb9"),
        page("image", "200 OK\r\nContent-Type: image/png", b"\x89PNG"),
        page("moved", "301 Moved\r\nContent-Type: text/html", b"<p>moved"),
        page("sniffed", "200 OK\r\nX: y", b"\n<html>"),
        page("binary", "200 OK\r\nX: y", b"\0"),
        page("text", "206 Partial\r\ncontent-type: TEXT/PLAIN", b"t"),
        page("bad", "200 OK\r\nContent-Type: text/html", b"\xff"),
        record("WARC-Type: response\r\nContent-Type: text/dns", b"example. 1 IN A 1.2.3.4"),
        record("WARC-Type: resource\r\nWARC-Record-ID: <r>\r\nContent-Type: text/html", b"<b>"),
    ]
    .concat();
    let expected = [
        "one: <p>한국",
        "sniffed: \n<html>",
        "text: t",
        ": record 9: invalid UTF-8 at byte 0 of the record; convert the file to UTF-8",
        "r: <b>",
    ];
    assert_eq!(read(&content), expected);
    let first = source(&content, &SourceOptions::default()).next().unwrap().unwrap();
    let metadata = serde_json::json!({
        "url": "http://a.example/one", "date": "2024-01-02T03:04:05Z", "content_type": "text/html" });
    assert_eq!(serde_json::Value::Object(first.metadata), metadata);
    // Compressed by the record, as archives are, and as a whole.
    let records: Vec<Vec<u8>> = [
        page("a", "200 OK\r\nContent-Type: text/html", b"x"),
        page("b", "200 OK\r\nContent-Type: text/html", b"y"),
    ]
    .into();
    let by_record: Vec<u8> = records.iter().flat_map(|record| gzip(record)).collect();
    assert_eq!(read(&by_record), ["a: x", "b: y"]);
    assert_eq!(read(&gzip(&records.concat())), ["a: x", "b: y"]);
}

#[test]
fn extracted_texts_are_documents() {
    let header = "WARC-Type: conversion\nwarc-record-id: <urn:uuid:c>\nContent-Type: text/plain\nWARC-Target-URI: http://a.example/\n\thome";
    let content = record(header, "né".as_bytes());
    let version = String::from_utf8(content).unwrap().replace("WARC/1.0", "WARC/1.1").replace("\r\n", "\n");
    let documents: Vec<Document> =
        source(version.as_bytes(), &SourceOptions::default()).map(Result::unwrap).collect();
    assert_eq!((documents[0].id.as_str(), documents[0].text.as_str()), ("c", "né"));
    assert_eq!(documents[0].metadata["url"], "http://a.example/ home");
    assert_eq!(documents[0].metadata["content_type"], "text/plain");
}

#[test]
fn a_bad_record_loses_no_other_one() {
    let good = |id| page(id, "200 OK\r\nContent-Type: text/html", b"x");
    let content = [
        b"garbage\r\nmore\r\n".to_vec(),
        good("a"),
        b"WARC/1.0\r\nno colon\r\n\r\n".to_vec(),
        good("b"),
        b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: -1\r\n\r\nxyz\r\n".to_vec(),
        good("c"),
        b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 999\r\n\r\nxyz".to_vec(),
    ]
    .concat();
    let expected = [
        ": record 1: not a WARC record: it does not begin with WARC/1.0 or WARC/1.1",
        "a: x",
        ": record 3: not a WARC record: its header has a line without a colon",
        "b: x",
        ": record 5: not a WARC record: it has no Content-Length",
        "c: x",
        ": record 7: not a WARC record: the file ends inside of it",
    ];
    assert_eq!(read(&content), expected);
    let mut documents = Documents::new(source(&content, &SourceOptions::default()), OnError::Skip);
    assert_eq!(documents.by_ref().map(|d| d.unwrap().id).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(documents.skipped()["not-a-warc-record"], 4);
}

#[test]
fn long_records_are_passed_over() {
    let content = [
        page("long", "200 OK\r\nContent-Type: text/html", &vec![b'a'; 100_000]),
        page("short", "200 OK\r\nContent-Type: text/html", b"x"),
    ]
    .concat();
    let options = SourceOptions { max_record_bytes: 1000, ..SourceOptions::default() };
    let read: Vec<_> = source(&content, &options).collect();
    assert!(
        read[0]
            .as_ref()
            .unwrap_err()
            .to_string()
            .ends_with("w.warc: record 1: longer than 1000 bytes; raise the limit if this is meant")
    );
    assert_eq!(read[1].as_ref().unwrap().id, "short");
    assert_eq!(read.len(), 2);
}
