use axum::extract::State;
use http::StatusCode;
use wasmeter_admission::Scope;
use wasmeter_types::{ModelName, TenantName};

use super::put::version_number;
use crate::blobs::sweep_models;
use crate::error::{Answer, ErrorBody};
use crate::extract::{Caller, Segments, name};
use crate::shared::{Shared, to_the_end};

/// Deletes a version and the labels that point to it (operator). Invocations that hold it may use it to their end.
#[utoipa::path(delete, path = "/api/v1/models/{model}/versions/{version}", tag = "models",
    params(("model" = String, Path, description = "model"), ("version" = u32, Path, description = "from 1")),
    responses((status = 204, description = "gone"), (status = "default", body = ErrorBody)))]
pub(crate) async fn delete(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((model, version)): Segments<(String, String)>,
) -> Answer<StatusCode> {
    caller.0.operator()?;
    remove(shared, caller, None, name(&model)?, version_number(&version)?).await
}

/// Deletes a version of the tenant's own model and the labels that point to it.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/models/{model}/versions/{version}", tag = "models",
    operation_id = "delete_own_model",
    params(("tenant" = String, Path, description = "tenant"), ("model" = String, Path, description = "model"),
        ("version" = u32, Path, description = "from 1")),
    responses((status = 204, description = "gone"), (status = "default", body = ErrorBody)))]
pub(crate) async fn delete_own(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, model, version)): Segments<(String, String, String)>,
) -> Answer<StatusCode> {
    let tenant = caller.tenant(&tenant, Scope::Deploy)?;
    remove(shared, caller, Some(tenant), name(&model)?, version_number(&version)?).await
}

async fn remove(
    shared: Shared,
    caller: Caller,
    owner: Option<TenantName>,
    model: ModelName,
    version: u32,
) -> Answer<StatusCode> {
    to_the_end(async move {
        let tenant = owner.as_ref().map(TenantName::as_str);
        // A version is immutable, so this look stays true until it is gone.
        let before = shared.deps.catalog.snapshot().model_version(tenant, model.as_str(), version).cloned();
        shared.deps.catalog.delete_model(owner.clone(), model.clone(), version).await?;
        shared.deps.models.unload(owner.as_ref(), &model, version).await;
        let files = before.iter().flat_map(|v| v.files.values()).map(|(digest, _)| *digest).collect();
        sweep_models(&shared, owner.as_ref(), files).await;
        tracing::info!(subject = caller.0.subject, tenant, %model, version, "model version deleted");
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
