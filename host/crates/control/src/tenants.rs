use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasmeter_admission::Scope;
use wasmeter_catalog::Tenant;
use wasmeter_types::{Error, TenantName};

use crate::blobs::{sweep_components, sweep_models};
use crate::clock::rfc3339;
use crate::error::{Answer, ErrorBody, Failure};
use crate::extract::{Caller, Given, Segments, name};
use crate::shared::{Shared, to_the_end};

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(put, get, delete)).routes(routes!(set))
}

/// A paying account.
#[derive(Serialize, ToSchema)]
struct TenantView {
    /// Name.
    tenant: String,
    /// RFC 3339.
    created: String,
    /// How many functions it has.
    functions: usize,
    /// How many models of its own it has.
    models: usize,
    /// Whether it may deploy components that handle HTTP with WASI 0.3.
    wasi3: bool,
}

/// What the operator decides about a tenant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TenantSettings {
    /// Whether it may deploy components that handle HTTP with WASI 0.3 (`wasi:http/handler`), which is young: what is
    /// deployed already stays.
    wasi3: bool,
}

/// All tenants.
#[derive(Serialize, ToSchema)]
struct TenantList {
    tenants: Vec<TenantView>,
}

fn view(name: &TenantName, tenant: &Tenant) -> TenantView {
    TenantView {
        tenant: name.to_string(),
        created: rfc3339(tenant.created_ns),
        functions: tenant.functions.len(),
        models: tenant.models.len(),
        wasi3: tenant.wasi3,
    }
}

/// The tenants (operator).
#[utoipa::path(get, path = "/api/v1/tenants", tag = "tenants",
    responses((status = 200, body = TenantList), (status = "default", body = ErrorBody)))]
async fn list(State(shared): State<Shared>, caller: Caller) -> Answer<Json<TenantList>> {
    caller.0.operator()?;
    let now = shared.deps.catalog.snapshot();
    let tenants = now.tenants.iter().map(|(name, tenant)| view(name, tenant)).collect();
    Ok(Json(TenantList { tenants }))
}

/// Creates a tenant (operator); the same name again changes nothing.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "name")),
    responses((status = 201, body = TenantView), (status = 200, body = TenantView),
        (status = "default", body = ErrorBody)))]
async fn put(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
) -> Answer<(StatusCode, Json<TenantView>)> {
    caller.0.operator()?;
    let tenant: TenantName = name(&tenant)?;
    to_the_end(async move {
        let created = shared.deps.catalog.put_tenant(tenant.clone()).await?;
        if created {
            tracing::info!(subject = caller.0.subject, %tenant, "tenant created");
        }
        let status = if created { StatusCode::CREATED } else { StatusCode::OK };
        Ok((status, Json(find(&shared, &tenant)?)))
    })
    .await
}

/// Changes what the operator decides about a tenant (operator).
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/settings", tag = "tenants",
    params(("tenant" = String, Path, description = "name")),
    request_body = TenantSettings,
    responses((status = 200, body = TenantView), (status = "default", body = ErrorBody)))]
async fn set(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
    Given(settings): Given<TenantSettings>,
) -> Answer<Json<TenantView>> {
    caller.0.operator()?;
    let tenant: TenantName = name(&tenant)?;
    to_the_end(async move {
        shared.deps.catalog.set_wasi3(tenant.clone(), settings.wasi3).await?;
        tracing::info!(subject = caller.0.subject, %tenant, wasi3 = settings.wasi3, "tenant changed");
        Ok(Json(find(&shared, &tenant)?))
    })
    .await
}

/// One tenant (operator, or its own token).
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "name")),
    responses((status = 200, body = TenantView), (status = "default", body = ErrorBody)))]
async fn get(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
) -> Answer<Json<TenantView>> {
    let tenant = caller.tenant(&tenant, Scope::Read)?;
    Ok(Json(find(&shared, &tenant)?))
}

/// Deletes a tenant, its functions with what they kept, its secrets, its recordings and its own models (operator). The ledger keeps its entries.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "name")),
    responses((status = 204, description = "gone"), (status = "default", body = ErrorBody)))]
async fn delete(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
) -> Answer<StatusCode> {
    caller.0.operator()?;
    let tenant: TenantName = name(&tenant)?;
    to_the_end(async move {
        // Nothing is deployed for the tenant between this look and its end.
        let alone = shared.blobs_in_use.write().await;
        let before = shared.deps.catalog.snapshot().tenants.get(&tenant).cloned();
        // First, so that the next tenant of this name can never have them: what fails here leaves all as it was.
        shared.deps.secrets.forget(&tenant).await?;
        shared.deps.recordings.forget(&tenant).await?;
        let before: Arc<Tenant> = before.ok_or_else(|| Failure(Error::not_found()))?;
        for (function, content) in &before.functions {
            shared.deps.deployer.forget_kept(&tenant, function, &content.revisions).await?;
        }
        shared.deps.catalog.delete_tenant(tenant.clone()).await?;
        drop(alone);
        for (function, content) in &before.functions {
            shared.deps.deployer.forget(&tenant, function, &content.revisions).await;
        }
        let revisions = before.functions.values().flat_map(|f| &f.revisions).map(AsRef::as_ref);
        sweep_components(&shared, &tenant, revisions).await;
        let versions = || before.models.values().flat_map(|m| m.versions.values());
        for version in versions() {
            shared.deps.models.unload(Some(&tenant), &version.model, version.version).await;
        }
        let files = versions().flat_map(|v| v.files.values()).map(|(digest, _)| *digest).collect();
        sweep_models(&shared, Some(&tenant), files).await;
        tracing::info!(subject = caller.0.subject, %tenant, "tenant deleted");
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

fn find(shared: &Shared, tenant: &TenantName) -> Answer<TenantView> {
    let now = shared.deps.catalog.snapshot();
    let found = now.tenants.get(tenant).ok_or_else(|| Failure(Error::not_found()))?;
    Ok(view(tenant, found))
}
