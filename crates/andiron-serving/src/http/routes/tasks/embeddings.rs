//! `POST /v1/embeddings`: OpenAI's embeddings.
//!
//! Source: OpenAI, "Create embeddings", <https://platform.openai.com/docs/api-reference/embeddings>. `truncate` is Jina's.

use std::sync::Arc;

use andiron_pipelines::Embedding;
use axum::Json;
use axum::extract::{Request, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use super::{Answered, answer, mixed_up};
use crate::http::fields::Fields;
use crate::http::inputs::Inputs;
use crate::http::text::Overlong;
use crate::http::{ApiError, App};
use crate::registry::{Capability, Served};
use crate::runner::{Output, Task};

/// Fields of other servers that would change the vectors, unless they have one of these values.
const REFUSED: &[(&str, &[&str])] = &[
    ("messages", &[]),
    // vLLM.
    ("truncate_prompt_tokens", &[]),
    ("add_special_tokens", &["true"]),
    ("embed_dtype", &["\"float32\""]),
    // Cohere, NVIDIA, Jina: prompts by the kind of text.
    ("input_type", &[]),
    ("task", &[]),
    ("prompt_name", &[]),
    ("late_chunking", &["false"]),
    ("embedding_type", &["\"float\""]),
];

/// What a request wants besides its texts.
struct Plan {
    base64: bool,
    dimensions: Option<usize>,
    refuses_overlong: bool,
}

#[derive(Serialize)]
pub(crate) struct Embeddings {
    object: &'static str,
    data: Vec<Entry>,
    model: String,
    usage: Usage,
}

#[derive(Serialize)]
struct Entry {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

/// A vector as JSON numbers, or its little-endian `f32` bytes in Base64.
enum Vector {
    Floats(Vec<f32>),
    Base64(Vec<f32>),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl Serialize for Vector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Floats(values) => values.serialize(serializer),
            Self::Base64(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                serializer.serialize_str(&STANDARD.encode(bytes))
            }
        }
    }
}

/// Reads a request, for the description of the API.
pub(in crate::http::routes) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    super::describe(fields, app, Capability::Embed, parse)
}

pub(in crate::http::routes) async fn create(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Embeddings>, ApiError> {
    let Answered { served, plan, outputs } = answer(&app, request, Capability::Embed, "input", parse).await?;
    let normalizes = served.shape().is_some_and(|shape| shape.normalizes);
    let mut tokens = 0;
    let mut data = Vec::with_capacity(outputs.len());
    for (index, output) in outputs.into_iter().enumerate() {
        let Output::Embedding(embedding) = output else { return Err(mixed_up()) };
        if plan.refuses_overlong && embedding.truncated {
            return Err(ApiError::too_long("input", served.sizes().context_len));
        }
        tokens += embedding.tokens;
        let Embedding { vector, .. } = match plan.dimensions {
            Some(dimensions) => embedding.shortened(dimensions, normalizes),
            None => embedding,
        };
        let embedding = if plan.base64 { Vector::Base64(vector) } else { Vector::Floats(vector) };
        data.push(Entry { object: "embedding", index, embedding });
    }
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    Ok(Json(Embeddings { object: "list", data, model: served.info.id.clone(), usage }))
}

fn parse(fields: &Fields<'_>, app: &App, served: &Served) -> Result<(Plan, Vec<Task>), ApiError> {
    const FORMATS: &str = "`float` or `base64`";
    fields.refuse(REFUSED)?;
    let base64 = match fields.optional::<String>("encoding_format", FORMATS)?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(fields.unexpected("encoding_format", FORMATS)),
    };
    let width = served.shape().map_or(0, |shape| shape.width);
    let dimensions = fields.count("dimensions", 1, width)?;
    let truncate = fields.flag("truncate")?;
    let overlong = if truncate { Overlong::Cut } else { Overlong::Refused };
    let Inputs { inputs, .. } = Inputs::parse(fields, "input", overlong, app, served)?;
    let plan = Plan { base64, dimensions, refuses_overlong: !truncate };
    Ok((plan, inputs.into_iter().map(Task::Embed).collect()))
}
