//! Text Embeddings Inference's `POST /embed`, `/predict`, `GET /info`, and its shape of `/rerank`.
//!
//! As there, a text that is too long is truncated unless `truncate` is false, and an invalid request gets 422 with
//! `{"error", "error_type"}`. Source: Hugging Face, text-embeddings-inference 1.9, `router/src/http/{types,server}.rs`.

use std::sync::Arc;

use andiron_pipelines::{RankedDocument, TextInput};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Answered, answer, mixed_up, rerank};
use crate::http::fields::Fields;
use crate::http::inputs::{Inputs, bounded, check_count};
use crate::http::text::Overlong;
use crate::http::{ApiError, App};
use crate::registry::{Capability, Served};
use crate::runner::{OneShot, Output, Task};

/// An error in Text Embeddings Inference's shape.
pub(in crate::http::routes) struct TeiError(ApiError);

impl From<ApiError> for TeiError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for TeiError {
    fn into_response(self) -> Response {
        let (status, kind) = match self.0.status() {
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => {
                (StatusCode::UNPROCESSABLE_ENTITY, "Validation")
            }
            status @ StatusCode::TOO_MANY_REQUESTS => (status, "Overloaded"),
            status @ StatusCode::SERVICE_UNAVAILABLE => (status, "Unhealthy"),
            StatusCode::INTERNAL_SERVER_ERROR => (StatusCode::FAILED_DEPENDENCY, "Backend"),
            status => (status, "Validation"),
        };
        let mut response = self.0.with_body(|error| json!({"error": error.to_string(), "error_type": kind}));
        *response.status_mut() = status;
        response
    }
}

/// What to do with texts that are too long: `truncate`, true by default.
fn overlong(fields: &Fields<'_>) -> Result<Overlong, ApiError> {
    const DIRECTIONS: &str = "`Right` or `Left`";
    let cuts = fields.optional("truncate", "true or false")?.unwrap_or(true);
    match fields.optional::<String>("truncation_direction", DIRECTIONS)?.as_deref() {
        None | Some("Right" | "right") => {}
        Some("Left" | "left") if !cuts => {}
        Some("Left" | "left") => {
            return Err(ApiError::unsupported("truncation_direction", " but for `Right`"));
        }
        Some(_) => return Err(fields.unexpected("truncation_direction", DIRECTIONS)),
    }
    Ok(if cuts { Overlong::Cut } else { Overlong::Refused })
}

struct EmbedPlan {
    overlong: Overlong,
    normalize: bool,
    dimensions: Option<usize>,
}

/// Reads a request, for the description of the API.
pub(in crate::http::routes) fn describe_embed(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    super::describe(fields, app, Capability::Embed, parse_embed)
}

/// `POST /embed`.
pub(in crate::http::routes) async fn embed(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Vec<Vec<f32>>>, TeiError> {
    let Answered { served, plan, outputs } =
        answer(&app, request, Capability::Embed, "inputs", parse_embed).await?;
    let vectors = outputs.into_iter().map(|output| {
        let Output::Embedding(embedding) = output else { return Err(mixed_up()) };
        if embedding.truncated && plan.overlong == Overlong::Refused {
            return Err(ApiError::too_long("inputs", served.sizes().context_len));
        }
        let width = plan.dimensions.unwrap_or(embedding.vector.len());
        Ok(embedding.shortened(width, plan.normalize).vector)
    });
    Ok(Json(vectors.collect::<Result<_, _>>()?))
}

fn parse_embed(fields: &Fields<'_>, app: &App, served: &Served) -> Result<(EmbedPlan, Vec<Task>), ApiError> {
    fields.refuse(&[("prompt_name", &[])])?;
    let overlong = overlong(fields)?;
    let normalize = fields.optional("normalize", "true or false")?.unwrap_or(true);
    let shape = served.shape();
    if !normalize && shape.is_some_and(|shape| shape.normalizes) {
        return Err(ApiError::unsupported("normalize", ": this model's own files normalize its vectors"));
    }
    let dimensions = fields.count("dimensions", 1, shape.map_or(0, |shape| shape.width))?;
    let Inputs { inputs, .. } = Inputs::parse(fields, "inputs", overlong, app, served)?;
    Ok((EmbedPlan { overlong, normalize, dimensions }, inputs.into_iter().map(Task::Embed).collect()))
}

/// A text or a pair of texts of `/predict`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Sequence {
    One(String),
    Several(Vec<String>),
}

#[derive(Serialize)]
pub(in crate::http::routes) struct Prediction {
    score: f32,
    label: String,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(in crate::http::routes) enum Predictions {
    Single(Vec<Prediction>),
    Batch(Vec<Vec<Prediction>>),
}

struct PredictPlan {
    overlong: Overlong,
    single: bool,
}

/// Reads a request, for the description of the API.
pub(in crate::http::routes) fn describe_predict(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    super::describe(fields, app, Capability::Classify, parse_predict)
}

/// `POST /predict`.
pub(in crate::http::routes) async fn predict(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Predictions>, TeiError> {
    let Answered { served, plan, outputs } =
        answer(&app, request, Capability::Classify, "inputs", parse_predict).await?;
    let labelled = outputs.into_iter().map(|output| {
        let Output::Labels(found) = output else { return Err(mixed_up()) };
        if found.truncated && plan.overlong == Overlong::Refused {
            return Err(ApiError::too_long("inputs", served.sizes().context_len));
        }
        let labels = found.labels.into_iter();
        Ok(labels.map(|(label, score)| Prediction { score, label }).collect())
    });
    let mut labelled: Vec<Vec<Prediction>> = labelled.collect::<Result<_, _>>()?;
    Ok(Json(match plan.single {
        true => Predictions::Single(labelled.swap_remove(0)),
        false => Predictions::Batch(labelled),
    }))
}

fn parse_predict(
    fields: &Fields<'_>,
    app: &App,
    served: &Served,
) -> Result<(PredictPlan, Vec<Task>), ApiError> {
    const WANTED: &str = "a string, a pair of strings, or an array of arrays of one or two strings";
    fields.refuse(&[("raw_scores", &["false"])])?;
    let overlong = overlong(fields)?;
    let refuse = || fields.unexpected("inputs", WANTED);
    let missing = || ApiError::invalid("inputs", format_args!("missing, expected {WANTED}"));
    let raw = fields.raw("inputs").ok_or_else(missing)?;
    let sequences: Vec<Sequence> = match raw.starts_with('"') {
        true => vec![Sequence::One(serde_json::from_str(raw).map_err(|_| refuse())?)],
        false => serde_json::from_str(raw).map_err(|_| refuse())?,
    };
    check_count("inputs", sequences.len(), app.config.limits.max_inputs)?;
    // A flat array is one text or one pair, as there.
    let flat = sequences.iter().all(|sequence| matches!(sequence, Sequence::One(_)));
    let batch: Vec<Vec<String>> = match flat {
        true => {
            let one = |sequence| match sequence {
                Sequence::One(text) => text,
                Sequence::Several(_) => String::new(),
            };
            vec![sequences.into_iter().map(one).collect()]
        }
        false => {
            let several = |sequence| match sequence {
                Sequence::Several(texts) => Ok(texts),
                Sequence::One(_) => Err(refuse()),
            };
            sequences.into_iter().map(several).collect::<Result<_, _>>()?
        }
    };
    let input = |texts: Vec<String>| {
        let mut texts = texts.into_iter();
        let (Some(text), pair, None) = (texts.next(), texts.next(), texts.next()) else {
            return Err(refuse());
        };
        let bounded = |text| bounded("inputs", text, overlong, served);
        Ok(Task::Classify(TextInput::Text { text: bounded(text)?, pair: pair.map(bounded).transpose()? }))
    };
    let tasks = batch.into_iter().map(input).collect::<Result<_, _>>()?;
    Ok((PredictPlan { overlong, single: flat }, tasks))
}

/// What a request for `/rerank` wants besides its ranking.
pub(super) struct RerankPlan {
    overlong: Overlong,
    raw_scores: bool,
    returned: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Rank {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    score: f32,
}

pub(super) fn parse_rerank(
    fields: &Fields<'_>,
    app: &App,
    served: &Served,
) -> Result<(RerankPlan, Vec<Task>), ApiError> {
    let overlong = overlong(fields)?;
    let raw_scores = fields.flag("raw_scores")?;
    let texts: Vec<String> = fields.required("texts", "an array of strings")?;
    let returned = fields.flag("return_text")?.then(|| texts.clone());
    let tasks = rerank::tasks(fields, "texts", texts, app, served)?;
    Ok((RerankPlan { overlong, raw_scores, returned }, tasks))
}

impl RerankPlan {
    /// The response of a request whose documents are ranked.
    pub(super) fn response(
        mut self,
        ranked: Vec<RankedDocument>,
        truncated: bool,
        served: &Served,
    ) -> Result<Response, ApiError> {
        if truncated && self.overlong == Overlong::Refused {
            return Err(ApiError::too_long("texts", served.sizes().context_len));
        }
        let rank = |found: RankedDocument| Rank {
            index: found.index,
            text: self.returned.as_mut().map(|texts| std::mem::take(&mut texts[found.index])),
            score: match found.logit {
                Some(logit) if self.raw_scores => logit,
                Some(logit) => 1.0 / (1.0 + (-logit).exp()),
                None => found.score,
            },
        };
        Ok(Json(ranked.into_iter().map(rank).collect::<Vec<_>>()).into_response())
    }
}

/// `GET /info`: the first model that embeds, ranks or classifies.
pub(in crate::http::routes) async fn info(State(app): State<Arc<App>>) -> Result<Json<Value>, TeiError> {
    let models = app.registry.list();
    let wanted = [Capability::Embed, Capability::Rerank, Capability::Classify];
    let served = models.iter().find(|served| served.can().iter().any(|can| wanted.contains(can)));
    let Some((served, shape)) = served.and_then(|served| Some((served, served.shape()?))) else {
        let error = app.served_for(None, Capability::Embed).err();
        return Err(error.unwrap_or_else(ApiError::no_such_route).into());
    };
    let labels = || {
        let by_id: Map<String, Value> =
            (0..).zip(&shape.labels).map(|(id, label): (u32, _)| (id.to_string(), json!(label))).collect();
        let ids: Map<String, Value> =
            (0..).zip(&shape.labels).map(|(id, label): (u32, _)| (label.clone(), json!(id))).collect();
        json!({"id2label": by_id, "label2id": ids})
    };
    let model_type = match served.can().first() {
        Some(Capability::Embed) => json!({"embedding": {"pooling": shape.pooling}}),
        Some(Capability::Rerank) => json!({"reranker": labels()}),
        _ => json!({"classifier": labels()}),
    };
    let limits = &app.config.limits;
    Ok(Json(json!({
        "model_id": served.info.id,
        "model_sha": null,
        "model_dtype": shape.dtype,
        "model_type": model_type,
        "max_concurrent_requests": limits.max_connections,
        "max_input_length": served.sizes().context_len,
        "max_batch_tokens": served.one_shot(served.can()[0]).map_or(0, OneShot::max_batch_tokens),
        "max_batch_requests": null,
        "max_client_batch_size": limits.max_inputs,
        "auto_truncate": true,
        "tokenization_workers": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
    })))
}
