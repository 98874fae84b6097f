use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::ToSchema;
use wasmeter_admission::Scope;
use wasmeter_catalog::{Alias, Function};
use wasmeter_types::{Error, FunctionName, TenantName};

use super::view::{self, FunctionView, RevisionView};
use crate::blobs;
use crate::error::{Answer, ErrorBody, Failure};
use crate::extract::{Caller, Segments, name};
use crate::shared::Shared;

/// The functions of a tenant.
#[derive(Serialize, ToSchema)]
pub(crate) struct FunctionList {
    functions: Vec<FunctionView>,
}

/// The revisions of a function, oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct RevisionList {
    revisions: Vec<RevisionView>,
}

/// A function with its live revision.
#[derive(Serialize, ToSchema)]
pub(crate) struct FunctionDetail {
    #[serde(flatten)]
    function: FunctionView,
    /// The live revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<RevisionView>,
}

/// The tenant's functions.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/functions", tag = "functions",
    params(("tenant" = String, Path, description = "tenant")),
    responses((status = 200, body = FunctionList), (status = "default", body = ErrorBody)))]
pub(crate) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
) -> Answer<Json<FunctionList>> {
    let tenant = caller.tenant(&tenant, Scope::Read)?;
    let now = shared.deps.catalog.snapshot();
    let found = now.tenants.get(&tenant).ok_or_else(|| Failure(Error::not_found()))?;
    let functions = found.functions.iter().map(|(f, c)| view::function(&shared, &tenant, f, c)).collect();
    Ok(Json(FunctionList { functions }))
}

/// One function.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/functions/{function}", tag = "functions",
    params(("tenant" = String, Path, description = "tenant"), ("function" = String, Path, description = "function")),
    responses((status = 200, body = FunctionDetail), (status = "default", body = ErrorBody)))]
pub(crate) async fn get(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, function)): Segments<(String, String)>,
) -> Answer<Json<FunctionDetail>> {
    let (tenant, function, found) = find(&shared, &caller, &tenant, &function)?;
    let live = found.aliases.get("live").map(Alias::main);
    let revision = live.map(|r| view::revision(&shared, &tenant, &function, r));
    Ok(Json(FunctionDetail { function: view::function(&shared, &tenant, &function, &found), revision }))
}

/// Its revisions.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/functions/{function}/revisions", tag = "functions",
    params(("tenant" = String, Path, description = "tenant"), ("function" = String, Path, description = "function")),
    responses((status = 200, body = RevisionList), (status = "default", body = ErrorBody)))]
pub(crate) async fn revisions(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, function)): Segments<(String, String)>,
) -> Answer<Json<RevisionList>> {
    let (tenant, function, found) = find(&shared, &caller, &tenant, &function)?;
    let revisions = found.revisions.iter().map(|r| view::revision(&shared, &tenant, &function, r)).collect();
    Ok(Json(RevisionList { revisions }))
}

/// One of its revisions.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/functions/{function}/revisions/{revision}", tag = "functions",
    params(("tenant" = String, Path, description = "tenant"), ("function" = String, Path, description = "function"),
        ("revision" = String, Path, description = "revision id")),
    responses((status = 200, body = RevisionView), (status = "default", body = ErrorBody)))]
pub(crate) async fn revision(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, function, revision)): Segments<(String, String, String)>,
) -> Answer<Json<RevisionView>> {
    let (tenant, function, found) = find(&shared, &caller, &tenant, &function)?;
    let revision = found.revisions.iter().find(|r| r.id == revision);
    let revision = revision.ok_or_else(|| Failure(Error::not_found()))?;
    Ok(Json(view::revision(&shared, &tenant, &function, revision)))
}

/// The component of one of its revisions, as it was uploaded.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/functions/{function}/revisions/{revision}/component",
    tag = "functions", operation_id = "get_component",
    params(("tenant" = String, Path, description = "tenant"), ("function" = String, Path, description = "function"),
        ("revision" = String, Path, description = "revision id")),
    responses((status = 200, body = Vec<u8>, content_type = "application/wasm"),
        (status = "default", body = ErrorBody)))]
pub(crate) async fn component(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, function, revision)): Segments<(String, String, String)>,
) -> Answer<Response> {
    let (tenant, _, found) = find(&shared, &caller, &tenant, &function)?;
    // Code is more than what a reader of logs and bills sees.
    caller.0.may(&tenant, Scope::Deploy)?;
    let revision = found.revisions.iter().find(|r| r.id == revision);
    let revision = revision.ok_or_else(|| Failure(Error::not_found()))?;
    let bytes =
        shared.deps.blobs.get(&blobs::component(&tenant, revision.digest)).await.map_err(|error| {
            tracing::error!(%error, "a component cannot be read");
            Failure(Error::internal())
        })?;
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/wasm"));
    Ok(response)
}

/// A function that the caller may read.
pub(crate) fn find(
    shared: &Shared,
    caller: &Caller,
    tenant: &str,
    function: &str,
) -> Answer<(TenantName, FunctionName, Arc<Function>)> {
    let tenant = caller.tenant(tenant, Scope::Read)?;
    let function: FunctionName = name(function)?;
    let found = shared.deps.catalog.snapshot().function(tenant.as_str(), function.as_str()).cloned();
    let found = found.ok_or_else(|| Failure(Error::not_found()))?;
    Ok((tenant, function, found))
}
