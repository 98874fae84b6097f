use axum::extract::State;
use http::StatusCode;
use wasmeter_admission::Scope;
use wasmeter_types::{Error, FunctionName};

use crate::blobs::sweep_components;
use crate::error::{Answer, ErrorBody, Failure};
use crate::extract::{Caller, Segments, name};
use crate::shared::{Shared, to_the_end};

/// Deletes a function with its revisions, its aliases and what it kept (`wasi:keyvalue`). The ledger keeps its entries.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/functions/{function}", tag = "functions",
    params(("tenant" = String, Path, description = "tenant"), ("function" = String, Path, description = "function")),
    responses((status = 204, description = "gone"), (status = "default", body = ErrorBody)))]
pub(crate) async fn delete(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, function)): Segments<(String, String)>,
) -> Answer<StatusCode> {
    let tenant = caller.tenant(&tenant, Scope::Deploy)?;
    let function: FunctionName = name(&function)?;
    to_the_end(async move {
        // Nothing is deployed between this look and the function's end.
        let alone = shared.blobs_in_use.write().await;
        let before = shared.deps.catalog.snapshot().function(tenant.as_str(), function.as_str()).cloned();
        let before = before.ok_or_else(|| Failure(Error::not_found()))?;
        // First, so that what fails here leaves the function, to be deleted again.
        shared.deps.deployer.forget_kept(&tenant, &function, &before.revisions).await?;
        shared.deps.catalog.delete_function(tenant.clone(), function.clone()).await?;
        drop(alone);
        shared.deps.deployer.forget(&tenant, &function, &before.revisions).await;
        sweep_components(&shared, &tenant, before.revisions.iter().map(AsRef::as_ref)).await;
        tracing::info!(subject = caller.0.subject, %tenant, %function, "function deleted");
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
