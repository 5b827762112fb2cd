//! The response to a request that generates: whole, or as a stream of events.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::answer::{Answer, Usage};
use super::choice::Delta;
use super::plan::Work;
use crate::http::sse::{self, Events, Gone};
use crate::http::{ApiError, App, Phase};
use crate::registry::Served;

/// Interval of keep-alive comments in an idle stream.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What identifies a response.
#[derive(Clone, Debug)]
pub(in crate::http) struct Identity {
    /// Unique, without the prefix of an API.
    pub(in crate::http) id: String,
    /// Unix time in seconds.
    pub(in crate::http) created: u64,
    pub(in crate::http) model: String,
    /// For requests without a seed.
    seed: u64,
}

impl Identity {
    /// The identity of the next response.
    pub(in crate::http) fn next(app: &App, served: &Served) -> Self {
        let (id, seed) = app.next_request();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        Self { id, created, model: served.info.id.clone(), seed }
    }
}

/// An event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::http) struct Frame {
    /// Its name, in APIs that name them.
    pub(in crate::http) name: Option<&'static str>,
    pub(in crate::http) data: Value,
}

impl From<Value> for Frame {
    fn from(data: Value) -> Self {
        Self { name: None, data }
    }
}

/// Writes the updates of a request in the form of one API.
pub(in crate::http) trait Renderer: Send + 'static {
    /// The whole response in one object.
    fn whole(&mut self, choices: Vec<Delta>, usage: Usage) -> Value;

    /// The events before the first update of a stream.
    fn begin(&mut self, usage: Usage) -> Vec<Frame>;

    /// The events of an update.
    fn update(&mut self, index: usize, delta: Delta, usage: Usage) -> Vec<Frame>;

    /// The events after the last update.
    fn end(&mut self, usage: Usage) -> Vec<Frame>;

    /// The last event of a stream that fails.
    fn fail(&mut self, error: &ApiError) -> Frame {
        error.body().into()
    }

    /// Whether `[DONE]` ends a stream.
    fn says_done(&self) -> bool {
        true
    }
}

/// Generates what `work` asks for, and answers as `renderer` writes it.
pub(in crate::http) async fn respond(
    app: &Arc<App>,
    served: &Arc<Served>,
    work: Work,
    (identity, client): (&Identity, u64),
    mut renderer: impl Renderer,
) -> Result<Response, ApiError> {
    if app.shutdown.phase() != Phase::Serving {
        return Err(ApiError::shutting_down());
    }
    let mut answer = Answer::start(app, served, &work, client, identity.seed)?;
    if work.options.stream.is_none() {
        let whole = answer.collect().await?;
        let usage = answer.usage();
        tracing::info!(id = identity.id, ?usage, "generated");
        return Ok(Json(renderer.whole(whole, usage)).into_response());
    }
    let (events, response) = sse::channel();
    let id = identity.id.clone();
    tokio::spawn(async move {
        let written = AssertUnwindSafe(write(&mut answer, &mut renderer, &events)).catch_unwind().await;
        let ended = match written {
            Ok(Err(Gone)) => return,
            Ok(Ok(ended)) => ended,
            Err(_) => Err(ApiError::internal("the server failed on this request")),
        };
        let usage = answer.usage();
        tracing::info!(id, ?usage, "generated");
        // The work ends before the last words, which may wait for a slow reader.
        answer.cancel();
        if let Err(error) = ended
            && send(&events, renderer.fail(&error)).await.is_err()
        {
            return;
        }
        if renderer.says_done() {
            // A client that has gone needs no farewell.
            drop(events.done().await);
        }
    });
    Ok(response)
}

/// Writes all events, unless the client disconnects or the generation fails.
async fn write(
    answer: &mut Answer,
    renderer: &mut impl Renderer,
    events: &Events,
) -> Result<Result<(), ApiError>, Gone> {
    let mut keep_alive = interval(KEEP_ALIVE);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    keep_alive.reset();
    for frame in renderer.begin(answer.usage()) {
        send(events, frame).await?;
    }
    loop {
        let next = tokio::select! {
            biased;
            () = events.gone() => return Err(Gone),
            next = answer.next() => next,
            _ = keep_alive.tick() => {
                events.keep_alive().await?;
                continue;
            }
        };
        let (index, delta) = match next {
            Err(error) => return Ok(Err(error)),
            Ok(Some(update)) => update,
            Ok(None) => break,
        };
        for frame in renderer.update(index, delta, answer.usage()) {
            send(events, frame).await?;
        }
        keep_alive.reset();
    }
    for frame in renderer.end(answer.usage()) {
        send(events, frame).await?;
    }
    Ok(Ok(()))
}

async fn send(events: &Events, frame: Frame) -> Result<(), Gone> {
    events.send(frame.name, &frame.data).await
}
