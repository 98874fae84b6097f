use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use wasmeter_admission::Scope;
use wasmeter_catalog::{ModelEntry, Snapshot};
use wasmeter_types::{Error, ModelName, TenantName};

use super::grants::Grants;
use super::view::{self, VersionView};
use crate::error::{Answer, ErrorBody, Failure};
use crate::extract::{Caller, Segments, name};
use crate::shared::Shared;

/// A model with its versions, ascending.
#[derive(Serialize, ToSchema)]
#[schema(as = Model)]
pub(crate) struct ModelView {
    model: String,
    /// Whose; absent for the operator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    versions: Vec<VersionView>,
    /// Labels and the versions that they point to.
    labels: BTreeMap<String, u32>,
    /// Who may use it; of operator models, and shown to the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    granted: Option<Grants>,
}

/// Models by name.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    models: Vec<ModelView>,
}

/// The operator's models; for a tenant's token those that the tenant may use.
#[utoipa::path(get, path = "/api/v1/models", tag = "models", operation_id = "list_models",
    responses((status = 200, body = ModelList), (status = "default", body = ErrorBody)))]
pub(crate) async fn list(State(shared): State<Shared>, caller: Caller) -> Json<ModelList> {
    let now = shared.deps.catalog.snapshot();
    let seen = now.models.iter().filter(|(name, _)| may_see(&now, &caller, name));
    let operator = caller.0.is_operator();
    let models = seen.map(|(name, entry)| model(&shared, &now, None, name, entry, operator)).collect();
    Json(ModelList { models })
}

/// One of the operator's models.
#[utoipa::path(get, path = "/api/v1/models/{model}", tag = "models", operation_id = "get_model",
    params(("model" = String, Path, description = "model")),
    responses((status = 200, body = ModelView), (status = "default", body = ErrorBody)))]
pub(crate) async fn get(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(text): Segments<String>,
) -> Answer<Json<ModelView>> {
    let name: ModelName = name(&text)?;
    if !may_see(&shared.deps.catalog.snapshot(), &caller, &name) {
        return Err(Failure(Error::not_found()));
    }
    Ok(Json(find(&shared, None, &name, caller.0.is_operator())?))
}

/// The tenant's own models.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/models", tag = "models", operation_id = "list_own_models",
    params(("tenant" = String, Path, description = "tenant")),
    responses((status = 200, body = ModelList), (status = "default", body = ErrorBody)))]
pub(crate) async fn list_own(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
) -> Answer<Json<ModelList>> {
    let tenant = caller.tenant(&tenant, Scope::Read)?;
    let now = shared.deps.catalog.snapshot();
    let models = now.models_of(Some(tenant.as_str())).ok_or_else(|| Failure(Error::not_found()))?;
    let models = models.iter().map(|(name, entry)| model(&shared, &now, Some(&tenant), name, entry, false));
    Ok(Json(ModelList { models: models.collect() }))
}

/// One of the tenant's own models.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/models/{model}", tag = "models",
    operation_id = "get_own_model",
    params(("tenant" = String, Path, description = "tenant"), ("model" = String, Path, description = "model")),
    responses((status = 200, body = ModelView), (status = "default", body = ErrorBody)))]
pub(crate) async fn get_own(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, model)): Segments<(String, String)>,
) -> Answer<Json<ModelView>> {
    let tenant = caller.tenant(&tenant, Scope::Read)?;
    Ok(Json(find(&shared, Some(&tenant), &name(&model)?, false)?))
}

/// A model that was not granted is not there for a tenant.
fn may_see(now: &Snapshot, caller: &Caller, model: &ModelName) -> bool {
    caller.0.is_operator()
        || caller.0.tenant.as_ref().is_some_and(|t| now.granted_to(model.as_str(), t.as_str()))
}

pub(crate) fn find(
    shared: &Shared,
    owner: Option<&TenantName>,
    name: &ModelName,
    operator: bool,
) -> Answer<ModelView> {
    let now = shared.deps.catalog.snapshot();
    let entry = now.models_of(owner.map(TenantName::as_str)).and_then(|models| models.get(name));
    let entry = entry.ok_or_else(|| Failure(Error::not_found()))?;
    Ok(model(shared, &now, owner, name, entry, operator))
}

fn model(
    shared: &Shared,
    now: &Snapshot,
    owner: Option<&TenantName>,
    name: &ModelName,
    entry: &ModelEntry,
    operator: bool,
) -> ModelView {
    ModelView {
        model: name.to_string(),
        tenant: owner.map(ToString::to_string),
        versions: entry.versions.values().map(|v| view::version(shared, owner, v)).collect(),
        labels: entry.labels.iter().map(|(label, version)| (label.to_string(), *version)).collect(),
        granted: (operator && owner.is_none()).then(|| now.granted(name).into()),
    }
}
