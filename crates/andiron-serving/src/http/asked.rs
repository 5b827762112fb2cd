//! The beginning of every route that asks a model: the body is read, the model found, the fields checked.

use std::sync::Arc;

use axum::extract::Request;

use super::fields::Fields;
use super::limits::read_json;
use super::work::Reserved;
use super::{ApiError, App, Phase};
use crate::registry::{Capability, Served};

/// A request for a model, read and checked.
pub(super) struct Asked<P> {
    /// The model that it is for.
    pub(super) served: Arc<Served>,
    /// What its fields hold.
    pub(super) parsed: P,
    /// Who sent it.
    pub(super) client: u64,
    /// The memory of its texts, until they are tokenized.
    pub(super) reserved: Reserved,
}

/// Reads a request for a model with `wanted`. Its body is dropped when its fields have been parsed.
pub(super) async fn read<P>(
    app: &App,
    request: Request,
    wanted: Capability,
    parse: impl FnOnce(&Fields<'_>, &Served) -> Result<P, ApiError>,
) -> Result<Asked<P>, ApiError> {
    let parse = |fields: &Fields<'_>| {
        let served = app.served_for(fields.model()?.as_deref(), wanted)?;
        let parsed = parse(fields, &served)?;
        Ok((served, parsed))
    };
    read_with(app, request, parse).await
}

/// The same where `parse` chooses the model, too.
pub(super) async fn read_with<P>(
    app: &App,
    request: Request,
    parse: impl FnOnce(&Fields<'_>) -> Result<(Arc<Served>, P), ApiError>,
) -> Result<Asked<P>, ApiError> {
    if app.shutdown.phase() != Phase::Serving {
        return Err(ApiError::shutting_down());
    }
    let (head, body) = request.into_parts();
    let (body, reserved) = read_json(app, &head.headers, body).await?;
    let (served, parsed) = parse(&Fields::parse(&body)?)?;
    Ok(Asked { served, parsed, client: app.config.access.client(&head), reserved })
}
