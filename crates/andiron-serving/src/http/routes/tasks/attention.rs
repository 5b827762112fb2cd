//! `POST /attention`: which token of a text attends to which, in the heads of a layer.

use std::sync::Arc;

use andiron_models::attention::{AttentionKind, AttentionLayers, LayerAttention};
use andiron_pipelines::{AttentionRequest, ShownToken};
use axum::Json;
use axum::extract::{Request, State};
use serde::Serialize;

use super::{Answered, answer, mixed_up};
use crate::http::fields::Fields;
use crate::http::inputs::bounded;
use crate::http::text::Overlong;
use crate::http::{ApiError, App};
use crate::registry::{Capability, Served};
use crate::runner::{Output, Task};

/// Probabilities are rounded to this part of 1, which is finer than any picture of them.
const STEPS: f32 = 1e5;

#[derive(Serialize)]
pub(in crate::http::routes) struct Shown {
    model: String,
    /// Layers of the model; of an encoder-decoder, of its deeper stack.
    n_layers: usize,
    tokens: Vec<Token>,
    /// What the decoder of an encoder-decoder reads.
    target_tokens: Option<Vec<Token>>,
    attention: Vec<Layer>,
}

#[derive(Serialize)]
struct Token {
    id: u32,
    text: String,
    special: bool,
}

#[derive(Serialize)]
struct Layer {
    /// `text`; of an encoder-decoder `source`, `target` and `cross`.
    kind: &'static str,
    layer: usize,
    /// For each head and token: the probability of each token that it may attend to.
    probabilities: Vec<Vec<Vec<f32>>>,
}

impl From<ShownToken> for Token {
    fn from(ShownToken { id, text, special }: ShownToken) -> Self {
        Self { id, text, special }
    }
}

impl From<&LayerAttention> for Layer {
    fn from(attention: &LayerAttention) -> Self {
        let rounded = |row: &[f32]| row.iter().map(|p| (p * STEPS).round() / STEPS).collect();
        let rows = |head| (0..attention.n_queries).map(|query| rounded(attention.row(head, query))).collect();
        let kind = match attention.kind {
            AttentionKind::Text => "text",
            AttentionKind::Source => "source",
            AttentionKind::Target => "target",
            AttentionKind::Cross => "cross",
        };
        Self { kind, layer: attention.layer, probabilities: (0..attention.n_heads).map(rows).collect() }
    }
}

pub(in crate::http::routes) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    super::describe(fields, app, Capability::Attention, parse)
}

pub(in crate::http::routes) async fn create(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Shown>, ApiError> {
    let Answered { served, outputs, .. } =
        answer(&app, request, Capability::Attention, "input", parse).await?;
    let Some(Output::Attention(found)) = outputs.into_iter().next() else { return Err(mixed_up()) };
    let tokens = |tokens: Vec<ShownToken>| tokens.into_iter().map(Token::from).collect();
    Ok(Json(Shown {
        model: served.info.id.clone(),
        n_layers: found.attention.n_layers,
        tokens: tokens(found.tokens),
        target_tokens: found.target_tokens.map(tokens),
        attention: found.attention.layers.iter().map(Layer::from).collect(),
    }))
}

/// `input` is a text; `target` the one of an encoder-decoder; `layer` one layer, by default the last.
fn parse(fields: &Fields<'_>, app: &App, served: &Served) -> Result<((), Vec<Task>), ApiError> {
    let text = fields.required("input", "a string")?;
    let target = fields.optional::<String>("target", "a string")?;
    let bounded = |name, text| bounded(name, text, Overlong::Refused, served);
    let layer = fields.count("layer", 0, usize::MAX)?;
    let request = AttentionRequest {
        text: bounded("input", text)?,
        target: target.map(|target| bounded("target", target)).transpose()?,
        layers: layer.map_or(AttentionLayers::Last, AttentionLayers::One),
        max_tokens: app.config.limits.max_attention_tokens,
    };
    Ok(((), vec![Task::Attention(request)]))
}
