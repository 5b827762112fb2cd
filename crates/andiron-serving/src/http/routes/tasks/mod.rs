//! Routes of models that answer a request at once.

pub(super) mod answer;
pub(super) mod attention;
pub(super) mod classify;
pub(super) mod embeddings;
pub(super) mod fill_mask;
pub(super) mod rerank;
mod rewrite;
pub(super) mod summarize;
pub(super) mod tei;
pub(super) mod token_classify;
pub(super) mod translate;

use std::sync::Arc;

use axum::extract::Request;
use tokio::time::sleep;

use crate::http::asked::{self, Asked};
use crate::http::fields::Fields;
use crate::http::{ApiError, App, Phase};
use crate::registry::{Capability, Served};
use crate::runner::{Output, Reply, Task, TaskError};

/// A request that was answered.
pub(super) struct Answered<P> {
    pub(super) served: Arc<Served>,
    /// What the request wants besides its tasks.
    pub(super) plan: P,
    /// One for each task, in order.
    pub(super) outputs: Vec<Output>,
}

/// Reads a request for a model with `wanted`, makes its tasks and runs them. `param` is the field that errors of a task name.
pub(super) async fn answer<P>(
    app: &Arc<App>,
    request: Request,
    wanted: Capability,
    param: &'static str,
    parse: impl FnOnce(&Fields<'_>, &App, &Served) -> Result<(P, Vec<Task>), ApiError>,
) -> Result<Answered<P>, ApiError> {
    let parse = |fields: &Fields<'_>, served: &Served| parse(fields, app, served);
    let Asked { served, parsed: (plan, tasks), client, reserved } =
        asked::read(app, request, wanted, parse).await?;
    let outputs = run(app, &served, wanted, (client, param), tasks).await?;
    drop(reserved);
    Ok(Answered { served, plan, outputs })
}

/// Reads a request for a model with `wanted`, for the description of the API.
pub(super) fn describe<P>(
    fields: &Fields<'_>,
    app: &App,
    wanted: Capability,
    parse: impl FnOnce(&Fields<'_>, &App, &Served) -> Result<P, ApiError>,
) -> Result<(), ApiError> {
    let served = app.served_for(fields.model()?.as_deref(), wanted)?;
    parse(fields, app, &served).map(drop)
}

/// Runs the tasks of a request, all or none.
pub(super) async fn run(
    app: &Arc<App>,
    served: &Served,
    wanted: Capability,
    (client, param): (u64, &str),
    tasks: Vec<Task>,
) -> Result<Vec<Output>, ApiError> {
    let model = served.one_shot(wanted)?;
    let _answering = app.answering();
    let replies = model.submit(client, tasks)?;
    let timeout = app.config.limits.request_timeout;
    tokio::select! {
        biased;
        () = app.shutdown.reached(Phase::Cut) => Err(ApiError::shutting_down()),
        () = sleep(timeout) => Err(ApiError::deadline_exceeded(timeout.as_secs())),
        outputs = collect(replies, param) => outputs,
    }
}

async fn collect(replies: Vec<Reply>, param: &str) -> Result<Vec<Output>, ApiError> {
    let several = replies.len() > 1;
    let mut outputs = Vec::with_capacity(replies.len());
    for (at, reply) in replies.into_iter().enumerate() {
        let named = |error: TaskError| match several {
            true => ApiError::of_task(&format!("{param}[{at}]"), error),
            false => ApiError::of_task(param, error),
        };
        outputs.push(reply.output().await.map_err(named)?);
    }
    Ok(outputs)
}

/// The model answered another question than it was asked.
pub(super) fn mixed_up() -> ApiError {
    tracing::error!("a one-shot model gave an output of another kind than its task");
    ApiError::internal("the server failed on this request")
}
