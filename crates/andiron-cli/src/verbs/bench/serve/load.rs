//! The load: clients that send their next request when they have the answer to the last.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::client::{Client, Outcome, Server};

/// Requests to send.
pub(super) struct Plan {
    pub(super) clients: usize,
    /// Requests of each client.
    pub(super) requests: usize,
    /// Bodies, used in turn.
    pub(super) bodies: Vec<String>,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Generated tokens.
    pub(super) tokens: usize,
    /// Time to the first event with text.
    pub(super) first: Duration,
    /// Times between events with text.
    pub(super) gaps: Vec<Duration>,
}

/// What happened.
pub(super) struct Measured {
    /// One for each request; `None` if it was refused.
    pub(super) answers: Vec<Option<Answer>>,
    pub(super) wall: Duration,
    /// The latest refusal.
    pub(super) refusal: String,
}

/// Runs all clients to their ends, after one request to warm up.
pub(super) async fn run(server: &Server, plan: &Plan) -> anyhow::Result<Measured> {
    Client::new(server).complete(&plan.bodies[0]).await?;
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    let one = async || {
        let mut client = Client::new(server);
        let (mut answers, mut refusal) = (Vec::new(), String::new());
        for _ in 0..plan.requests {
            let body = &plan.bodies[next.fetch_add(1, Ordering::Relaxed) % plan.bodies.len()];
            match client.complete(body).await? {
                Outcome::Answered(answer) => answers.push(Some(answer)),
                Outcome::Refused(why) => {
                    answers.push(None);
                    refusal = why;
                }
            }
        }
        anyhow::Ok((answers, refusal))
    };
    let mut measured = Measured { answers: Vec::new(), wall: Duration::ZERO, refusal: String::new() };
    for client in futures_util::future::join_all((0..plan.clients).map(|_| one())).await {
        let (answers, refusal) = client?;
        measured.answers.extend(answers);
        if !refusal.is_empty() {
            measured.refusal = refusal;
        }
    }
    measured.wall = started.elapsed();
    Ok(measured)
}
