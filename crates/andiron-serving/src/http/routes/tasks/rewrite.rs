//! Targets of sources: what translating and summarizing have in common.

use std::sync::Arc;

use andiron_models::generate::{BeamOptions, FinishReason};
use andiron_pipelines::{PromptInput, RewriteOptions, TextStream};
use tokio::time::sleep;

use super::{mixed_up, run};
use crate::engine::{Event, Generation};
use crate::http::text::{self, Overlong};
use crate::http::{ApiError, App, Phase};
use crate::registry::{Capability, Served};
use crate::runner::{Output, Task};

/// Sources and how to write their targets.
pub(super) struct Rewriting {
    pub(super) wanted: Capability,
    /// The field that has the sources.
    pub(super) param: &'static str,
    pub(super) sources: Vec<String>,
    /// Maximum new tokens of a target.
    pub(super) max_tokens: Option<usize>,
    /// Targets of a source besides the best.
    pub(super) alternatives: usize,
}

/// The targets of a source, best first; at least one.
pub(super) struct Written {
    pub(super) texts: Vec<String>,
    /// Whether the best one was ended by the maximum of tokens.
    pub(super) cut: bool,
}

impl Rewriting {
    /// The targets of each source.
    pub(super) async fn write(
        self,
        app: &Arc<App>,
        served: &Arc<Served>,
        client: u64,
    ) -> Result<Vec<Written>, ApiError> {
        let Self { wanted, param, sources, max_tokens, alternatives } = self;
        let rewriter = served.rewriter(wanted)?;
        let sources = encode(app, served, wanted, param, sources).await?;
        let options = rewriter.options();
        let max_new_tokens = max_tokens.unwrap_or(options.beams.max_new_tokens);
        let num_beams = options.beams.num_beams.max(alternatives + 1);
        if num_beams > 1 {
            let beams = BeamOptions {
                num_beams,
                num_return_sequences: alternatives + 1,
                max_new_tokens,
                ..options.beams.clone()
            };
            beams.validate().map_err(|error| ApiError::invalid("alternatives", error))?;
            let stop_ids = beams.stop_ids.clone();
            let options = RewriteOptions { beams, ..options.clone() };
            let search = |source: Vec<u32>| Task::Search(PromptInput::Ids(source), options.clone());
            let tasks = sources.into_iter().map(search).collect();
            let outputs = run(app, served, wanted, (client, param), tasks).await?;
            return outputs.into_iter().map(|output| found(output, &stop_ids)).collect();
        }
        served.metrics().add_prompt_tokens(sources.iter().map(Vec::len).sum());
        let _answering = app.answering();
        let jobs = sources.into_iter().map(|source| rewriter.job(source, max_new_tokens, client)).collect();
        let generations = rewriter.engine().submit(jobs)?;
        let timeout = app.config.limits.request_timeout;
        tokio::select! {
            biased;
            () = app.shutdown.reached(Phase::Cut) => Err(ApiError::shutting_down()),
            () = sleep(timeout) => Err(ApiError::deadline_exceeded(timeout.as_secs())),
            written = collect(served, &options.beams.stop_ids, generations) => written,
        }
    }
}

/// The ids of each source, with the model's prefix before its text.
async fn encode(
    app: &App,
    served: &Arc<Served>,
    wanted: Capability,
    param: &'static str,
    sources: Vec<String>,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let rewriter = served.rewriter(wanted)?;
    let (limit, prefix) = (rewriter.source_limit(), rewriter.options().prefix.clone());
    let on_thread = Arc::clone(served);
    let encode = move |source: String| {
        let text = &on_thread.text;
        let source = text::bounded(param, text, source, limit, Overlong::Refused)?;
        let tokenizer = text.tokenizer().ok_or_else(|| ApiError::no_tokenizer(param))?;
        let framed = tokenizer.frame_prompt(&format!("{prefix}{source}"), limit);
        let framed = framed.map_err(|error| ApiError::of_text(param, error.into()))?;
        match framed.ids.is_empty() {
            _ if framed.truncated => Err(ApiError::too_long(param, limit)),
            true => Err(ApiError::invalid(param, "empty, send a text")),
            false => Ok(framed.ids),
        }
    };
    let encoded = app.tokenizing.run(move || sources.into_iter().map(encode).collect());
    encoded.await.unwrap_or_else(|| Err(ApiError::internal("the tokenizer failed on this request")))
}

fn found(output: Output, stop_ids: &[u32]) -> Result<Written, ApiError> {
    let Output::Targets(targets) = output else { return Err(mixed_up()) };
    let best = targets.first().and_then(|target| target.ids.last());
    let cut = best.is_none_or(|id| !stop_ids.contains(id));
    let texts = targets.into_iter().map(|target| target.text.unwrap_or_default()).collect();
    Ok(Written { texts, cut })
}

/// Collects one target per generation.
async fn collect(
    served: &Served,
    stop_ids: &[u32],
    generations: Vec<Generation>,
) -> Result<Vec<Written>, ApiError> {
    let mut written = Vec::with_capacity(generations.len());
    for mut generation in generations {
        let mut stream = TextStream::new(&served.text, &[], stop_ids, &served.info.stop_strings)?;
        let (mut target, mut cut) = (String::new(), false);
        while let Some(event) = generation.next_event().await {
            let piece = match event {
                Event::Prompt(_) => continue,
                Event::Token(token) => stream.push(token.id)?,
                Event::Finished(reason) => {
                    cut = reason == FinishReason::Length;
                    stream.finish()?
                }
                Event::Failed(error) => return Err(error.into()),
            };
            target.push_str(&piece.text);
            if piece.stopped {
                break;
            }
        }
        written.push(Written { texts: vec![target], cut });
    }
    Ok(written)
}
