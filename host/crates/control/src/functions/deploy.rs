use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::{IntoParams, ToSchema};
use wasmeter_admission::Scope;
use wasmeter_catalog::{Deployed, Deployment};
use wasmeter_types::{
    AliasName, Digest, Error, ErrorKind, FunctionManifest, FunctionName, ModelName, TenantName,
};

use super::progress::{self, ProgressLine};
use super::view::{self, PriceView, RevisionView};
use crate::blobs;
use crate::deps::DeployStage;
use crate::error::{Answer, ErrorBody, Failure, refuse};
use crate::extract::{Asked, Caller, Segments, name};
use crate::secrets;
use crate::shared::{Shared, to_the_end};
use crate::upload::Upload;

/// The largest component, in bytes.
pub const MAX_COMPONENT: u64 = 64 << 20;

/// What a deployment made.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeployAnswer {
    #[serde(flatten)]
    revision: RevisionView,
    /// What its invocations will cost; absent while billing has not been reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    price_preview: Option<PriceView>,
}

/// What moves to the revision.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeployQuery {
    /// The alias that moves to the revision; `live` if absent.
    alias: Option<String>,
}

/// A component with its manifest.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the multipart form in the OpenAPI document")]
pub(crate) struct DeployForm {
    /// The component, at most 64 MiB.
    #[schema(value_type = String, format = Binary)]
    component: Vec<u8>,
    /// `wasmeter.toml`; without it the function has its name and the default limits.
    manifest: Option<String>,
}

/// Deploys a component: as the body (`application/wasm`), or as a multipart form with `component` and `manifest`.
///
/// It is validated and compiled first; nothing is stored of what is refused. The alias, `live` unless another is
/// named, moves to the revision. The same component and manifest give the same revision, with 200.
///
/// Uploads are compiled in turn, tenants in a round: 503 if too many wait, 429 if they are the tenant's own. With
/// `Accept: application/x-ndjson` what is not refused before that is answered 200 with lines, as they come: the place in
/// the queue, the seconds of compiling, and at last what the answer would have been. A client that leaves cancels.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/functions/{function}", tag = "functions",
    params(("tenant" = String, Path, description = "tenant"), ("function" = String, Path, description = "function"),
        DeployQuery),
    request_body(content((DeployForm = "multipart/form-data"), (Vec<u8> = "application/wasm"))),
    responses((status = 201, body = DeployAnswer),
        (status = 200, content((DeployAnswer = "application/json"), (ProgressLine = "application/x-ndjson"))),
        (status = "default", body = ErrorBody)))]
pub(crate) async fn deploy(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, function)): Segments<(String, String)>,
    Asked(query): Asked<DeployQuery>,
    request: Request,
) -> Answer<Response> {
    let tenant = caller.tenant(&tenant, Scope::Deploy)?;
    let function: FunctionName = name(&function)?;
    let alias = query.alias.as_deref().map_or_else(|| Ok(AliasName::live()), name)?;
    if !shared.deps.catalog.snapshot().tenants.contains_key(&tenant) {
        return Err(Failure(Error::not_found()));
    }
    let watched = progress::wanted(request.headers());
    let upload = Upload::new(request, MAX_COMPONENT)?;
    let taken = shared.component_upload(&tenant, upload.size())?;
    let (component, manifest) = read(upload, &function).await?;
    check_models(&shared, &tenant, &manifest)?;
    secrets::check(&shared, &tenant, &manifest)?;
    let (told, stage) = watch::channel(DeployStage::Checking);
    let work = Box::pin(async move {
        // A client that leaves while its component compiles has cancelled: nothing is stored yet.
        let checked = shared.deps.deployer.check(&tenant, component.clone(), &told).await?;
        let deployment = Deployment {
            tenant: tenant.clone(),
            digest: Digest::of(&component),
            size: component.len() as u64,
            manifest,
            imports: checked.imports,
            exports: checked.exports,
            alias,
        };
        let stored = to_the_end(async move {
            let Deployed { revision, created } = store(&shared, deployment, component).await?;
            drop(taken);
            tracing::info!(
                subject = caller.0.subject, %tenant, %function, revision = revision.id, created, "deployed"
            );
            let answer = DeployAnswer {
                revision: view::revision(&shared, &tenant, &function, &revision),
                price_preview: shared.deps.ledger.prices().map(view::prices),
            };
            Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, answer))
        });
        stored.await
    });
    if watched {
        return Ok(progress::answer(work, stage));
    }
    let (status, answer) = work.await?;
    Ok((status, Json(answer)).into_response())
}

/// The component and the manifest, which names the function of the path.
pub(super) async fn read(upload: Upload, function: &FunctionName) -> Answer<(Bytes, FunctionManifest)> {
    let (component, text) = if upload.is_multipart() {
        read_form(upload).await?
    } else {
        match upload.media_type().as_deref() {
            None | Some("application/wasm" | "application/octet-stream") => (upload.whole().await?, None),
            Some(other) => {
                let other: String = other.chars().take(100).collect();
                return Err(refuse(
                    ErrorKind::Malformed,
                    format!(
                        "content-type {other:?} is not taken: send application/wasm or multipart/form-data"
                    ),
                ));
            }
        }
    };
    let manifest = match text {
        None => FunctionManifest::new(function.clone()),
        Some(text) => {
            FunctionManifest::from_toml(&text).map_err(|e| refuse(ErrorKind::Invalid, e.to_string()))?
        }
    };
    if manifest.function.name != *function {
        let named = &manifest.function.name;
        return Err(refuse(
            ErrorKind::Invalid,
            format!("manifest: function.name is {named}, the path says {function}: make them equal"),
        ));
    }
    if component.is_empty() {
        return Err(refuse(ErrorKind::Invalid, "the component is empty"));
    }
    Ok((component, manifest))
}

async fn read_form(upload: Upload) -> Answer<(Bytes, Option<String>)> {
    let mut parts = upload.parts()?;
    let (mut component, mut manifest) = (None, None);
    while let Some(part) = parts.next().await? {
        match part.name().as_str() {
            "component" if component.is_none() => component = Some(part.bytes(MAX_COMPONENT).await?),
            "manifest" if manifest.is_none() => manifest = Some(part.text().await?),
            other => {
                let message =
                    format!("part {other:?} is unknown or there twice: send component and manifest");
                return Err(refuse(ErrorKind::Malformed, message));
            }
        }
    }
    let component = component.ok_or_else(|| refuse(ErrorKind::Malformed, "part \"component\" is missing"))?;
    Ok((component, manifest))
}

/// Blob first, event after: a revision always has its bytes.
async fn store(shared: &Shared, deployment: Deployment, component: Bytes) -> Answer<Deployed> {
    let key = blobs::component(&deployment.tenant, deployment.digest);
    let in_use = shared.blobs_in_use.read().await;
    let deployed = match shared.deps.blobs.put(&key, component.into()).await {
        Ok(()) => shared.deps.catalog.deploy(deployment.clone()).await.map_err(Failure::from),
        Err(error) => Err(error.into()),
    };
    drop(in_use);
    if deployed.is_err() {
        blobs::sweep_component(shared, key).await;
    }
    deployed
}

/// A function that may load a model which nobody pushed would fail at each call: better now than then.
fn check_models(shared: &Shared, tenant: &TenantName, manifest: &FunctionManifest) -> Answer<()> {
    let now = shared.deps.catalog.snapshot();
    let missing = |model: &&ModelName| now.model_for(tenant.as_str(), model.as_str()).is_none();
    match manifest.models.allow.iter().find(missing) {
        None => Ok(()),
        Some(model) => Err(refuse(
            ErrorKind::Invalid,
            format!(
                "[models] allow names {model}, which is not on this host: `wasmeter models list` shows what is"
            ),
        )),
    }
}
