use axum::Json;
use axum::extract::State;
use wasmeter_admission::Scope;
use wasmeter_types::{Error, ModelName, TenantName};

use super::put::version_number;
use super::view::{self, VersionView};
use crate::error::{Answer, ErrorBody, Failure};
use crate::extract::{Caller, Segments, name};
use crate::shared::{Shared, to_the_end};

/// Lifts the quarantine of a version (operator): it is loaded, and its device's deaths are counted anew. 409 for a
/// version that is not quarantined.
#[utoipa::path(delete, path = "/api/v1/models/{model}/versions/{version}/quarantine", tag = "models",
    operation_id = "lift_quarantine",
    params(("model" = String, Path, description = "model"), ("version" = u32, Path, description = "from 1")),
    responses((status = 200, body = VersionView), (status = "default", body = ErrorBody)))]
pub(crate) async fn lift(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((model, version)): Segments<(String, String)>,
) -> Answer<Json<VersionView>> {
    caller.0.operator()?;
    release(shared, caller, None, name(&model)?, version_number(&version)?).await
}

/// Lifts the quarantine of a version of the tenant's own model, as for an operator model.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/models/{model}/versions/{version}/quarantine",
    tag = "models", operation_id = "lift_own_quarantine",
    params(("tenant" = String, Path, description = "tenant"), ("model" = String, Path, description = "model"),
        ("version" = u32, Path, description = "from 1")),
    responses((status = 200, body = VersionView), (status = "default", body = ErrorBody)))]
pub(crate) async fn lift_own(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, model, version)): Segments<(String, String, String)>,
) -> Answer<Json<VersionView>> {
    let tenant = caller.tenant(&tenant, Scope::Deploy)?;
    release(shared, caller, Some(tenant), name(&model)?, version_number(&version)?).await
}

async fn release(
    shared: Shared,
    caller: Caller,
    owner: Option<TenantName>,
    model: ModelName,
    number: u32,
) -> Answer<Json<VersionView>> {
    to_the_end(async move {
        let tenant = owner.as_ref().map(TenantName::as_str);
        let found = shared.deps.catalog.snapshot().model_version(tenant, model.as_str(), number).cloned();
        let version = found.ok_or_else(|| Failure(Error::not_found()))?;
        shared.deps.models.lift(owner.as_ref(), &version).await?;
        tracing::info!(subject = caller.0.subject, tenant, %model, version = number, "quarantine lifted");
        Ok(Json(view::version(&shared, owner.as_ref(), &version)))
    })
    .await
}
