use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasmeter_admission::Scope;
use wasmeter_catalog::RecordingError;
use wasmeter_types::{Error, ErrorKind, InvocationId, TenantName};

use crate::error::{Answer, ErrorBody, Failure, refuse};
use crate::extract::{Caller, Given, Segments};
use crate::shared::{Shared, to_the_end};

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(set, show)).routes(routes!(get))
}

/// Whether a tenant's calls shall be recorded.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RecordingSetting {
    /// Whether they are.
    on: bool,
}

/// Whether a tenant's calls are recorded, and what there is.
#[derive(Serialize, ToSchema)]
struct RecordingView {
    /// Whether they are.
    on: bool,
    /// Calls that are recorded now.
    calls: u64,
    /// Bytes that those take.
    bytes: u64,
}

impl From<RecordingError> for Failure {
    fn from(error: RecordingError) -> Self {
        tracing::error!(%error, "recordings cannot be had");
        Self(Error::internal())
    }
}

/// Switches recording on or off. What a call got from outside is kept from the next one on, so that `wasmeter verify
/// --replay` can run it again: its request, a seed, readings of clocks. To switch it off removes what was kept.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/recording", tag = "billing", operation_id = "set_recording",
    params(("tenant" = String, Path, description = "tenant")),
    request_body = RecordingSetting,
    responses((status = 200, body = RecordingView), (status = "default", body = ErrorBody)))]
async fn set(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
    Given(RecordingSetting { on }): Given<RecordingSetting>,
) -> Answer<Json<RecordingView>> {
    let tenant = caller.tenant(&tenant, Scope::Deploy)?;
    to_the_end(async move {
        shared.deps.catalog.set_recording(tenant.clone(), on).await?;
        tracing::info!(subject = caller.0.subject, %tenant, on, "recording switched");
        if !on {
            shared.deps.recordings.forget(&tenant).await?;
        }
        view(&shared, &tenant).await
    })
    .await
}

/// Whether the tenant's calls are recorded, and what there is.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/recording", tag = "billing", operation_id = "show_recording",
    params(("tenant" = String, Path, description = "tenant")),
    responses((status = 200, body = RecordingView), (status = "default", body = ErrorBody)))]
async fn show(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
) -> Answer<Json<RecordingView>> {
    let tenant = caller.tenant(&tenant, Scope::Read)?;
    view(&shared, &tenant).await
}

async fn view(shared: &Shared, tenant: &TenantName) -> Answer<Json<RecordingView>> {
    let now = shared.deps.catalog.snapshot();
    if !now.tenants.contains_key(tenant) {
        return Err(Failure(Error::not_found()));
    }
    let there = shared.deps.recordings.recorded(tenant).await?;
    let on = now.recorded.contains(tenant);
    Ok(Json(RecordingView { on, calls: there.calls, bytes: there.bytes }))
}

/// What a call got from outside, as JSON. It holds what the caller sent, and from its seed follows what the call drew at
/// random: who may change the functions may have it, and nobody else.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/recordings/{invocation}", tag = "billing",
    operation_id = "get_recording",
    params(("tenant" = String, Path, description = "tenant"),
        ("invocation" = String, Path, description = "as in the header x-wasmeter-invocation")),
    responses((status = 200, body = Object), (status = "default", body = ErrorBody)))]
async fn get(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, invocation)): Segments<(String, String)>,
) -> Answer<Response> {
    let tenant = caller.tenant(&tenant, Scope::Deploy)?;
    let invocation: InvocationId = invocation
        .parse()
        .map_err(|e: wasmeter_usage::ParseInvocationIdError| refuse(ErrorKind::Malformed, e.to_string()))?;
    let found = shared.deps.recordings.get(&tenant, invocation).await?;
    let found = found.ok_or_else(|| Failure(Error::not_found()))?;
    let mut response = Response::new(Body::from(found));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
