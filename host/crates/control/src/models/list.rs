use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use wasmeter_catalog::ModelEntry;
use wasmeter_types::{Error, ModelName};

use super::view::{self, VersionView};
use crate::error::{Answer, ErrorBody, Failure};
use crate::extract::{Caller, Segments, name};
use crate::shared::Shared;

/// A model with its versions, ascending.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelView {
    model: String,
    versions: Vec<VersionView>,
}

/// All operator models.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    models: Vec<ModelView>,
}

/// The operator's models.
#[utoipa::path(get, path = "/api/v1/models", tag = "models",
    responses((status = 200, body = ModelList), (status = "default", body = ErrorBody)))]
pub(crate) async fn list(State(shared): State<Shared>, _caller: Caller) -> Json<ModelList> {
    let now = shared.deps.catalog.snapshot();
    let models = now.models.iter().map(|(name, entry)| model(&shared, name, entry)).collect();
    Json(ModelList { models })
}

/// One model.
#[utoipa::path(get, path = "/api/v1/models/{model}", tag = "models",
    params(("model" = String, Path, description = "model")),
    responses((status = 200, body = ModelView), (status = "default", body = ErrorBody)))]
pub(crate) async fn get(
    State(shared): State<Shared>,
    _caller: Caller,
    Segments(text): Segments<String>,
) -> Answer<Json<ModelView>> {
    let name: ModelName = name(&text)?;
    let now = shared.deps.catalog.snapshot();
    let entry = now.models.get(&name).ok_or_else(|| Failure(Error::not_found()))?;
    Ok(Json(model(&shared, &name, entry)))
}

fn model(shared: &Shared, name: &ModelName, entry: &ModelEntry) -> ModelView {
    let versions = entry.versions.values().map(|v| view::version(shared, v)).collect();
    ModelView { model: name.to_string(), versions }
}
