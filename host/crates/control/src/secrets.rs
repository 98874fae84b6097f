use axum::Json;
use axum::extract::{Request, State};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasmeter_admission::Scope;
use wasmeter_catalog::{SecretEntry, SecretError, SecretValue};
use wasmeter_types::{Error, ErrorKind, FunctionManifest, SecretName, TenantName};

use crate::clock::rfc3339;
use crate::error::{Answer, ErrorBody, Failure, refuse};
use crate::extract::{Caller, Segments, name};
use crate::shared::{Shared, to_the_end};
use crate::upload::Upload;

/// The longest value, in bytes.
const MAX_VALUE: u64 = 16 << 10;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(put, delete))
}

/// A secret, without its value: nothing gives that but a function that may ask for it.
#[derive(Serialize, ToSchema)]
struct SecretView {
    /// Name.
    secret: String,
    /// When it was last set; RFC 3339.
    updated: String,
}

/// All secrets of a tenant.
#[derive(Serialize, ToSchema)]
struct SecretList {
    secrets: Vec<SecretView>,
}

fn view(entry: &SecretEntry) -> SecretView {
    SecretView { secret: entry.name.to_string(), updated: rfc3339(entry.updated_ns) }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Full(_) => refuse(ErrorKind::Quota, error.to_string()),
            error => {
                tracing::error!(%error, "a secret could not be kept");
                Self(Error::internal())
            }
        }
    }
}

/// The names of the tenant's secrets.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/secrets", tag = "secrets", operation_id = "list_secrets",
    params(("tenant" = String, Path, description = "tenant")),
    responses((status = 200, body = SecretList), (status = "default", body = ErrorBody)))]
async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
) -> Answer<Json<SecretList>> {
    let tenant = caller.tenant(&tenant, Scope::Read)?;
    there(&shared, &tenant)?;
    Ok(Json(SecretList { secrets: shared.deps.secrets.list(&tenant).iter().map(view).collect() }))
}

/// Sets a secret to the bytes of the body, 1 to 16 KiB. Functions that list it get the new value from now on.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/secrets/{secret}", tag = "secrets", operation_id = "set_secret",
    params(("tenant" = String, Path, description = "tenant"), ("secret" = String, Path, description = "name")),
    request_body(content((Vec<u8> = "application/octet-stream"))),
    responses((status = 201, body = SecretView), (status = 200, body = SecretView),
        (status = "default", body = ErrorBody)))]
async fn put(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, secret)): Segments<(String, String)>,
    request: Request,
) -> Answer<(StatusCode, Json<SecretView>)> {
    let tenant = caller.tenant(&tenant, Scope::Deploy)?;
    let secret: SecretName = name(&secret)?;
    there(&shared, &tenant)?;
    let value = Upload::new(request, MAX_VALUE)?.whole().await?;
    if value.is_empty() {
        return Err(refuse(ErrorKind::Malformed, "the body is empty: send the value as it is"));
    }
    to_the_end(async move {
        // The tenant is not deleted between this look and the change.
        let in_use = shared.blobs_in_use.read().await;
        there(&shared, &tenant)?;
        let created = shared.deps.secrets.put(&tenant, &secret, SecretValue::new(value.into())).await?;
        drop(in_use);
        tracing::info!(subject = caller.0.subject, %tenant, %secret, created, "secret set");
        let entries = shared.deps.secrets.list(&tenant);
        let entry = entries.iter().find(|entry| entry.name == secret);
        let entry = entry.ok_or_else(|| refuse(ErrorKind::Conflict, "the secret was removed meanwhile"))?;
        Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(view(entry))))
    })
    .await
}

/// Removes a secret. Functions that list it are told that it is missing, from now on.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/secrets/{secret}", tag = "secrets",
    operation_id = "remove_secret",
    params(("tenant" = String, Path, description = "tenant"), ("secret" = String, Path, description = "name")),
    responses((status = 204, description = "gone"), (status = "default", body = ErrorBody)))]
async fn delete(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, secret)): Segments<(String, String)>,
) -> Answer<StatusCode> {
    let tenant = caller.tenant(&tenant, Scope::Deploy)?;
    let secret: SecretName = name(&secret)?;
    to_the_end(async move {
        if !shared.deps.secrets.delete(&tenant, &secret).await? {
            return Err(Failure(Error::not_found()));
        }
        tracing::info!(subject = caller.0.subject, %tenant, %secret, "secret removed");
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

fn there(shared: &Shared, tenant: &TenantName) -> Answer<()> {
    let now = shared.deps.catalog.snapshot();
    if now.tenants.contains_key(tenant) { Ok(()) } else { Err(Failure(Error::not_found())) }
}

/// A function that lists a secret which nobody set would fail at each call: better now than then.
pub(crate) fn check(shared: &Shared, tenant: &TenantName, manifest: &FunctionManifest) -> Answer<()> {
    let held = shared.deps.secrets.list(tenant);
    let missing = |name: &&SecretName| !held.iter().any(|entry| entry.name == **name);
    match manifest.secrets.allow.iter().find(missing) {
        None => Ok(()),
        Some(name) => Err(refuse(
            ErrorKind::Invalid,
            format!("[secrets] allow names {name}, which is not set: `wasmeter secrets set {name}` first"),
        )),
    }
}
