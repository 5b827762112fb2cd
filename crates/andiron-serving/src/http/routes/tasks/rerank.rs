//! `POST /v1/rerank`, `/v2/rerank` and `/rerank`: documents by relevance to a query, as Jina and Cohere have it; a request for
//! `/rerank` with `texts` in the place of `documents` is Text Embeddings Inference's.
//!
//! Sources: Jina, "Reranker API", <https://jina.ai/reranker>; Cohere, "Rerank", <https://docs.cohere.com/reference/rerank>.

use std::sync::Arc;

use andiron_pipelines::{Ranking, RerankRequest};
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::tei::{self, TeiError};
use super::{Answered, answer, mixed_up};
use crate::http::fields::Fields;
use crate::http::inputs::{bounded, check_count};
use crate::http::text::Overlong;
use crate::http::{ApiError, App};
use crate::registry::{Capability, Served};
use crate::runner::{Output, Task};

/// Documents of one task, and bytes of all of them unless one is longer: a long list holds up nobody else for long.
const DOCUMENTS_TOGETHER: usize = 16;
const BYTES_TOGETHER: usize = 8 << 10;

/// Fields of other servers that would change the answer, unless they have one of these values.
const REFUSED: &[(&str, &[&str])] = &[
    // Cohere: which parts of a document count.
    ("rank_fields", &["[\"text\"]"]),
    ("max_chunks_per_doc", &["1"]),
    ("max_tokens_per_doc", &[]),
    // Jina, vLLM.
    ("truncation", &["true"]),
    ("truncate_prompt_tokens", &["-1"]),
];

/// A document, as a string or as Cohere's and Jina's object.
#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Text(String),
    Object { text: String },
}

/// What a request wants besides its ranking.
enum Plan {
    /// Jina's and Cohere's shape.
    Documents { returned: Option<Vec<String>>, top_n: usize },
    /// Text Embeddings Inference's.
    Texts(tei::RerankPlan),
}

#[derive(Serialize)]
struct Reranked {
    id: String,
    object: &'static str,
    model: String,
    results: Vec<Ranked>,
    usage: Usage,
}

#[derive(Serialize)]
struct Ranked {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Returned>,
}

#[derive(Serialize)]
struct Returned {
    text: String,
}

#[derive(Serialize)]
struct Usage {
    total_tokens: usize,
    prompt_tokens: usize,
}

/// Reads a request, for the description of the API.
pub(in crate::http::routes) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    super::describe(fields, app, Capability::Rerank, documents)
}

/// `/v1/rerank` and `/v2/rerank`.
pub(in crate::http::routes) async fn create(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    rank(&app, request, documents).await
}

/// `/rerank`, in either shape.
pub(in crate::http::routes) async fn create_either(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut is_tei = false;
    let parse = |fields: &Fields<'_>, app: &App, served: &Served| {
        is_tei = fields.raw("texts").is_some() && fields.raw("documents").is_none();
        match is_tei {
            true => {
                let (plan, tasks) = tei::parse_rerank(fields, app, served)?;
                Ok((Plan::Texts(plan), tasks))
            }
            false => documents(fields, app, served),
        }
    };
    let answered = rank(&app, request, parse).await;
    match answered {
        Err(error) if is_tei => Ok(TeiError::from(error).into_response()),
        answered => answered,
    }
}

async fn rank(
    app: &Arc<App>,
    request: Request,
    parse: impl FnOnce(&Fields<'_>, &App, &Served) -> Result<(Plan, Vec<Task>), ApiError>,
) -> Result<Response, ApiError> {
    let Answered { served, plan, outputs } =
        answer(app, request, Capability::Rerank, "documents", parse).await?;
    let parts = outputs.into_iter().map(|output| match output {
        Output::Ranking(ranking) => Ok(ranking),
        _ => Err(mixed_up()),
    });
    let Ranking { results, tokens, truncated } = Ranking::join(parts.collect::<Result<Vec<_>, _>>()?);
    let (mut returned, top_n) = match plan {
        Plan::Texts(plan) => return plan.response(results, truncated, &served),
        Plan::Documents { returned, top_n } => (returned, top_n),
    };
    let ranked = results.into_iter().take(top_n).map(|found| {
        let text = returned.as_mut().map(|documents| std::mem::take(&mut documents[found.index]));
        Ranked {
            index: found.index,
            relevance_score: found.score,
            document: text.map(|text| Returned { text }),
        }
    });
    let (id, _) = app.next_request();
    let reranked = Reranked {
        id: format!("rerank-{id}"),
        object: "list",
        model: served.info.id.clone(),
        results: ranked.collect(),
        usage: Usage { total_tokens: tokens, prompt_tokens: tokens },
    };
    Ok(Json(reranked).into_response())
}

fn documents(fields: &Fields<'_>, app: &App, served: &Served) -> Result<(Plan, Vec<Task>), ApiError> {
    fields.refuse(REFUSED)?;
    let documents: Vec<Document> =
        fields.required("documents", "an array of strings, or of objects with `text`")?;
    let documents: Vec<String> = documents
        .into_iter()
        .map(|document| match document {
            Document::Text(text) | Document::Object { text } => text,
        })
        .collect();
    let top_n = fields.count("top_n", 1, usize::MAX)?.unwrap_or(usize::MAX);
    let returned = fields.optional("return_documents", "true or false")?.unwrap_or(true);
    let returned = returned.then(|| documents.clone());
    let tasks = tasks(fields, "documents", documents, app, served)?;
    Ok((Plan::Documents { returned, top_n }, tasks))
}

/// The tasks of ranking `documents`, which the field `name` has, for the `query` of a request.
pub(super) fn tasks(
    fields: &Fields<'_>,
    name: &'static str,
    documents: Vec<String>,
    app: &App,
    served: &Served,
) -> Result<Vec<Task>, ApiError> {
    let query: String = fields.required("query", "a string")?;
    let query = bounded("query", query, Overlong::Cut, served)?;
    if documents.is_empty() {
        return Err(ApiError::invalid(name, "empty, send at least one"));
    }
    check_count(name, documents.len(), app.config.limits.max_documents)?;
    let documents: Vec<String> = documents
        .into_iter()
        .map(|document| bounded(name, document, Overlong::Cut, served))
        .collect::<Result<_, _>>()?;
    let mut parts: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for document in documents {
        bytes += document.len();
        match parts.last_mut() {
            Some(part) if part.len() < DOCUMENTS_TOGETHER && bytes <= BYTES_TOGETHER => part.push(document),
            _ => {
                bytes = document.len();
                parts.push(vec![document]);
            }
        }
    }
    let task = |documents| Task::Rerank(RerankRequest { query: query.clone(), documents });
    Ok(parts.into_iter().map(task).collect())
}
