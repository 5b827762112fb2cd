//! `GET /models`, `POST /models/load` and `POST /models/unload`: models that come and go, as in llama-server.
//!
//! Source: llama.cpp, `tools/server/README.md`, "Using multiple models". As there, loading goes on after the answer; `GET /models` tells
//! how far it is.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};

use crate::http::fields::Fields;
use crate::http::limits::read_json;
use crate::http::{ApiError, App, Phase};
use crate::registry::{Loader, ModelStatus};

/// `GET /models`.
pub(super) async fn statuses(State(app): State<Arc<App>>) -> Json<Value> {
    let statuses = app.registry.statuses(app.loader.as_deref());
    let entry = |(name, status): (String, ModelStatus)| {
        let mut value = json!({"value": status.name()});
        if let ModelStatus::Failed(why) = status {
            value["failed"] = true.into();
            value["message"] = why.into();
        }
        json!({"id": name, "object": "model", "owned_by": "andiron", "status": value})
    };
    Json(json!({"object": "list", "data": statuses.into_iter().map(entry).collect::<Vec<_>>()}))
}

/// `POST /models/load`.
pub(super) async fn load(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, ApiError> {
    let (loader, name) = named(&app, request).await?;
    let loading = app.registry.load(&*loader, &name)?;
    let on_thread = Arc::clone(&app);
    tokio::spawn(async move {
        let loaded = on_thread.loading.run(move || loading.run(&*loader)).await.flatten();
        // What was loaded while the server began to shut down takes no work.
        if let Some(served) = loaded.filter(|_| on_thread.shutdown.phase() != Phase::Serving) {
            served.drain();
        }
    });
    Ok(Json(json!({"success": true})))
}

/// `POST /models/unload`.
pub(super) async fn unload(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, ApiError> {
    let (_, name) = named(&app, request).await?;
    let served = app.registry.remove(&name)?;
    served.drain();
    let (begun, id, cost) = (Instant::now(), served.info.id.clone(), served.info.cost.clone());
    tokio::spawn(async move {
        served.idle().await;
        // Ending its thread may take a moment.
        drop(tokio::task::spawn_blocking(move || drop(served)).await);
        let (seconds, bytes) = (begun.elapsed().as_secs_f64(), cost.weight_bytes);
        tracing::info!(model = id, family = cost.family, seconds, bytes, "unloaded");
    });
    Ok(Json(json!({"success": true})))
}

/// What the field `model` holds.
const MODEL: &str = "the name of a model";

/// Reads a request, for the description of the API.
pub(super) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    fields.required::<String>("model", MODEL)?;
    match app.loader {
        Some(_) => Ok(()),
        None => Err(ApiError::models_are_fixed()),
    }
}

/// The loader, and the model that a request names.
async fn named(app: &Arc<App>, request: Request) -> Result<(Arc<dyn Loader>, String), ApiError> {
    let Some(loader) = app.loader.clone() else { return Err(ApiError::models_are_fixed()) };
    if app.shutdown.phase() != Phase::Serving {
        return Err(ApiError::shutting_down());
    }
    let (head, body) = request.into_parts();
    let (body, _reserved) = read_json(app, &head.headers, body).await?;
    let name = Fields::parse(&body)?.required("model", MODEL)?;
    Ok((loader, name))
}
