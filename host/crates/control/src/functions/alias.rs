use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use wasmeter_admission::Scope;
use wasmeter_types::{AliasName, Error, FunctionName, TenantName};

use super::view::{self, FunctionView};
use crate::error::{Answer, ErrorBody, Failure};
use crate::extract::{Caller, Given, Segments, name};
use crate::shared::{Shared, to_the_end};

/// Where the alias shall point.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AliasBody {
    /// Weights by revision id, 1 to 10,000 each; a revision gets its weight's part of the sum.
    revisions: BTreeMap<String, u32>,
}

/// Which alias shall go back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollbackBody {
    /// The alias; `live` if absent.
    alias: Option<String>,
}

/// Points an alias to one revision, or to several with weights. `live` is what the function's plain address means.
///
/// Which revision an invocation gets, its id decides. The revisions of one alias are all public, or none is.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/functions/{function}/aliases/{alias}", tag = "functions",
    operation_id = "set_alias",
    params(("tenant" = String, Path, description = "tenant"), ("function" = String, Path, description = "function"),
        ("alias" = String, Path, description = "alias")),
    request_body = AliasBody,
    responses((status = 200, body = FunctionView), (status = "default", body = ErrorBody)))]
pub(crate) async fn set(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, function, alias)): Segments<(String, String, String)>,
    Given(body): Given<AliasBody>,
) -> Answer<Json<FunctionView>> {
    let (tenant, function, alias) = names(&caller, &tenant, &function, &alias)?;
    to_the_end(async move {
        let weights = body.revisions;
        tracing::info!(subject = caller.0.subject, %tenant, %function, %alias, ?weights, "alias set");
        shared.deps.catalog.set_alias(tenant.clone(), function.clone(), alias, weights).await?;
        shown(&shared, &tenant, &function)
    })
    .await
}

/// Removes an alias; its revisions stay.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/functions/{function}/aliases/{alias}", tag = "functions",
    operation_id = "remove_alias",
    params(("tenant" = String, Path, description = "tenant"), ("function" = String, Path, description = "function"),
        ("alias" = String, Path, description = "alias")),
    responses((status = 204, description = "gone"), (status = "default", body = ErrorBody)))]
pub(crate) async fn remove(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, function, alias)): Segments<(String, String, String)>,
) -> Answer<StatusCode> {
    let (tenant, function, alias) = names(&caller, &tenant, &function, &alias)?;
    to_the_end(async move {
        shared.deps.catalog.remove_alias(tenant.clone(), function.clone(), alias.clone()).await?;
        tracing::info!(subject = caller.0.subject, %tenant, %function, %alias, "alias removed");
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// Points `live`, or another alias, to where it pointed before its last change. A second rollback takes the first
/// one back.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/functions/{function}/rollback", tag = "functions",
    params(("tenant" = String, Path, description = "tenant"), ("function" = String, Path, description = "function")),
    request_body = RollbackBody,
    responses((status = 200, body = FunctionView), (status = "default", body = ErrorBody)))]
pub(crate) async fn rollback(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, function)): Segments<(String, String)>,
    Given(body): Given<RollbackBody>,
) -> Answer<Json<FunctionView>> {
    let (tenant, function, alias) =
        names(&caller, &tenant, &function, body.alias.as_deref().unwrap_or("live"))?;
    to_the_end(async move {
        shared.deps.catalog.roll_back(tenant.clone(), function.clone(), alias.clone()).await?;
        tracing::info!(subject = caller.0.subject, %tenant, %function, %alias, "rolled back");
        shown(&shared, &tenant, &function)
    })
    .await
}

fn names(
    caller: &Caller,
    tenant: &str,
    function: &str,
    alias: &str,
) -> Answer<(TenantName, FunctionName, AliasName)> {
    Ok((caller.tenant(tenant, Scope::Deploy)?, name(function)?, name(alias)?))
}

/// The function as it is after the change; a deletion may have come in between.
fn shown(shared: &Shared, tenant: &TenantName, function: &FunctionName) -> Answer<Json<FunctionView>> {
    let now = shared.deps.catalog.snapshot();
    let found = now.function(tenant.as_str(), function.as_str());
    let found = found.ok_or_else(|| Failure(Error::not_found()))?;
    Ok(Json(view::function(shared, tenant, function, found)))
}
