//! A client of a server: one streamed completion at a time, over a connection that is kept.

use std::time::Instant;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::load::Answer;

/// Longest event of a stream, and longest message of a refusal, in bytes.
const MAX_EVENT: usize = 1 << 20;

/// Where to send requests.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// `host:port`.
    authority: String,
    path: String,
    key: Option<String>,
}

/// The outcome of a request.
pub(super) enum Outcome {
    Answered(Answer),
    /// What the server said instead.
    Refused(String),
}

impl Server {
    /// The server at `url`, with or without `/v1`; the message if that is not a plain HTTP address.
    pub(super) fn new(url: &str, key: Option<String>) -> Result<Self, String> {
        let refused = || format!("--url {url}: not an address such as http://127.0.0.1:8080");
        let uri: Uri = url.parse().map_err(|_| refused())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(refused)?;
        let base = uri.path().trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        Ok(Self {
            authority: format!("{host}:{}", uri.port_u16().unwrap_or(80)),
            path: format!("{base}/v1/completions"),
            key,
        })
    }
}

/// One connection to a server.
pub(super) struct Client<'a> {
    server: &'a Server,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl<'a> Client<'a> {
    pub(super) fn new(server: &'a Server) -> Self {
        Self { server, connection: None }
    }

    /// Sends a request and reads its answer to the end.
    pub(super) async fn complete(&mut self, body: &str) -> anyhow::Result<Outcome> {
        let mut request = Request::post(&self.server.path)
            .header(header::HOST, &self.server.authority)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.server.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let request =
            request.body(Full::new(Bytes::from(body.to_owned()))).context("the API key is no header")?;
        let (mut connection, mut sent) = (self.connection.take(), Instant::now());
        let mut response = None;
        if let Some(kept) = &mut connection
            && kept.ready().await.is_ok()
        {
            // A server may close a connection that waits just when the next request comes, so a failure is asked again below.
            response = kept.send_request(request.clone()).await.ok();
        }
        let (connection, response) = match (connection, response) {
            (Some(kept), Some(response)) => (kept, response),
            _ => {
                sent = Instant::now();
                let mut fresh = self.connect().await?;
                let response = fresh.send_request(request).await.context("the server did not answer")?;
                (fresh, response)
            }
        };
        let outcome = match response.status() {
            StatusCode::OK => Outcome::Answered(read_events(response, sent).await?),
            status => Outcome::Refused(format!("{status}: {}", read_refusal(response).await)),
        };
        self.connection = Some(connection);
        Ok(outcome)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let address = &self.server.authority;
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        // A request is one write, and events are small.
        stream.set_nodelay(true).context("cannot set up a connection")?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.context("cannot set up a connection")?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

async fn read_refusal(response: Response<Incoming>) -> String {
    let body = http_body_util::Limited::new(response.into_body(), MAX_EVENT).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    text.chars().take(300).collect()
}

async fn read_events(response: Response<Incoming>, sent: Instant) -> anyhow::Result<Answer> {
    let mut body = response.into_body();
    let (mut events, mut times) = (Events::default(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the answer ended early")?;
        let now = Instant::now();
        for _ in 0..events.push(frame.data_ref().map_or(&[], |data| data))? {
            times.push(now);
        }
    }
    let Some(first) = times.first() else { bail!("the answer has no text") };
    Ok(Answer {
        tokens: events.usage.unwrap_or(times.len()),
        first: *first - sent,
        gaps: times.windows(2).map(|pair| pair[1] - pair[0]).collect(),
    })
}

/// Reads a stream of server-sent events.
#[derive(Debug, Default)]
struct Events {
    rest: Vec<u8>,
    /// Generated tokens, as the server counts them.
    usage: Option<usize>,
}

impl Events {
    /// Adds bytes; returns how many events with a token they complete.
    fn push(&mut self, bytes: &[u8]) -> anyhow::Result<usize> {
        self.rest.extend_from_slice(bytes);
        let mut tokens = 0;
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let data = line.trim_ascii().strip_prefix(b"data:").map(<[u8]>::trim_ascii);
            let Some(data) = data.filter(|&data| data != b"[DONE]") else { continue };
            let event: Value = serde_json::from_slice(data).context("an event of the stream is not JSON")?;
            if let Some(error) = event.get("error") {
                bail!("the server failed: {error}");
            }
            if let Some(count) = event["usage"]["completion_tokens"].as_u64() {
                self.usage = Some(count as usize);
            }
            let texts = event["choices"].as_array().into_iter().flatten();
            tokens +=
                texts.filter(|choice| choice["text"].as_str().is_some_and(|text| !text.is_empty())).count();
        }
        match self.rest.len() > MAX_EVENT {
            true => bail!("an event of the stream has more than {MAX_EVENT} bytes"),
            false => Ok(tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kept_connection_that_closes_is_replaced() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let answering = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = [0; 4096];
                assert!(stream.read(&mut request).await.expect("a request") > 0);
                stream
                    .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno")
                    .await
                    .expect("sent");
                // The next request on this connection gets no answer.
                let _ = stream.read(&mut request).await;
            }
        });
        let server = Server::new(&format!("http://{address}"), None).expect("an address");
        let mut client = Client::new(&server);
        for _ in 0..2 {
            let outcome = client.complete("{}").await.expect("an answer");
            assert!(matches!(outcome, Outcome::Refused(told) if told.contains("no")));
        }
        drop(client);
        answering.await.expect("both connections were used");
    }

    #[test]
    fn addresses_are_plain_http_with_or_without_v1() {
        for (url, authority, path) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", "/v1/completions"),
            ("http://localhost/v1/", "localhost:80", "/v1/completions"),
            ("http://[::1]:9/x/v1", "[::1]:9", "/x/v1/completions"),
        ] {
            let server = Server::new(url, None).unwrap();
            assert_eq!((server.authority.as_str(), server.path.as_str()), (authority, path));
        }
        for url in ["https://localhost", "localhost:8080", "", "http://"] {
            assert!(Server::new(url, None).unwrap_err().contains("not an address"), "{url}");
        }
    }

    #[test]
    fn events_are_counted_across_any_division_into_frames() {
        let stream = "data: {\"choices\": [{\"text\": \"a\"}]}\n\n: ping\n\ndata: {\"choices\": [{\"text\": \"\"}]}\r\n\r\n\
            data: {\"choices\": [{\"text\": \"b\"}], \"usage\": null}\n\n\
            data: {\"choices\": [], \"usage\": {\"completion_tokens\": 7}}\n\ndata: [DONE]\n\n";
        for size in [1, 7, 1000] {
            let mut events = Events::default();
            let tokens: usize = stream.as_bytes().chunks(size).map(|bytes| events.push(bytes).unwrap()).sum();
            assert_eq!((tokens, events.usage), (2, Some(7)), "{size}");
        }
        let failed = Events::default().push(b"data: {\"error\": {\"message\": \"no\"}}\n").unwrap_err();
        assert!(failed.to_string().contains("the server failed"));
        assert!(Events::default().push(b"data: nothing\n").is_err());
    }
}
