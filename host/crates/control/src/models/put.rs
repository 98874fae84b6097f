use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Request, State};
use bytes::Bytes;
use http::StatusCode;
use utoipa::ToSchema;
use wasmeter_admission::Scope;
use wasmeter_catalog::{ModelPut, ModelVersion};
use wasmeter_types::{Digest, Error, ErrorKind, ModelCard, ModelName, TenantName, unix_ns};

use super::view::{self, VersionView};
use crate::Candidate;
use crate::blobs::{model_file, sweep_models};
use crate::error::{Answer, ErrorBody, Failure, refuse};
use crate::extract::{Caller, Segments, name};
use crate::shared::{Shared, to_the_end};
use crate::upload::{Parts, Upload};

/// The largest model version, all files together, in bytes.
pub const MAX_MODEL: u64 = 1 << 30;

/// A card with its files.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the multipart form in the OpenAPI document")]
pub(crate) struct ModelForm {
    /// `model.toml`, first.
    card: String,
    /// One part for each file of the card, named as the card names it; at most 1 GiB together.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// The most versions of own models that a tenant may have.
const MAX_OWN: usize = 64;

/// Adds a version of an operator model (operator). It is loaded on a device first; nothing is stored of what is
/// refused. Versions are immutable: the same content again is 200, and a version that had failed or was quarantined is
/// tried once more; other content is 409.
#[utoipa::path(put, path = "/api/v1/models/{model}/versions/{version}", tag = "models", operation_id = "put_model",
    params(("model" = String, Path, description = "model"), ("version" = u32, Path, description = "from 1")),
    request_body(content = ModelForm, content_type = "multipart/form-data"),
    responses((status = 201, body = VersionView), (status = 200, body = VersionView),
        (status = "default", body = ErrorBody)))]
pub(crate) async fn put(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((model, version)): Segments<(String, String)>,
    request: Request,
) -> Answer<(StatusCode, Json<VersionView>)> {
    caller.0.operator()?;
    push(shared, caller, None, name(&model)?, version_number(&version)?, request).await
}

/// Adds a version of a model of the tenant's own. It is private to the tenant, runs in a worker process of its own, and
/// shadows the operator's model of the same name. Otherwise as for an operator model; at most 64 versions a tenant.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/models/{model}/versions/{version}", tag = "models",
    operation_id = "put_own_model",
    params(("tenant" = String, Path, description = "tenant"), ("model" = String, Path, description = "model"),
        ("version" = u32, Path, description = "from 1")),
    request_body(content = ModelForm, content_type = "multipart/form-data"),
    responses((status = 201, body = VersionView), (status = 200, body = VersionView),
        (status = "default", body = ErrorBody)))]
pub(crate) async fn put_own(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, model, version)): Segments<(String, String, String)>,
    request: Request,
) -> Answer<(StatusCode, Json<VersionView>)> {
    let tenant = caller.tenant(&tenant, Scope::Deploy)?;
    let number = version_number(&version)?;
    let model: ModelName = name(&model)?;
    let now = shared.deps.catalog.snapshot();
    let own = now.models_of(Some(tenant.as_str())).ok_or_else(|| Failure(Error::not_found()))?;
    let versions: usize = own.values().map(|m| m.versions.len()).sum();
    let known = own.get(&model).is_some_and(|m| m.versions.contains_key(&number));
    if versions >= MAX_OWN && !known {
        let message =
            format!("tenant {tenant} has {MAX_OWN} model versions, the most it may have: remove one first");
        return Err(refuse(ErrorKind::Quota, message));
    }
    push(shared, caller, Some(tenant), model, number, request).await
}

async fn push(
    shared: Shared,
    caller: Caller,
    owner: Option<TenantName>,
    model: ModelName,
    number: u32,
    request: Request,
) -> Answer<(StatusCode, Json<VersionView>)> {
    let upload = Upload::new(request, MAX_MODEL)?;
    if !upload.is_multipart() {
        let message = "send multipart/form-data: the part card, then one part for each of its files";
        return Err(refuse(ErrorKind::Malformed, message));
    }
    let permit = shared.model_upload(owner.as_ref())?;
    let (card, files) = read(upload.parts()?, &model).await?;
    let version = ModelVersion {
        model: model.clone(),
        version: number,
        card: card.clone(),
        files: files.iter().map(|(n, b)| (n.clone(), (Digest::of(b), b.len() as u64))).collect(),
        created_ns: unix_ns(),
    };
    let tenant = owner.as_ref().map(TenantName::as_str);
    let known = shared.deps.catalog.snapshot().model_version(tenant, model.as_str(), number).cloned();
    let known = known.filter(|known| known.files == version.files && known.card == version.card);
    if let Some(known) = &known
        && !shared.deps.models.status(owner.as_ref(), known).is_down()
    {
        return Ok((StatusCode::OK, Json(view::version(&shared, owner.as_ref(), known))));
    }
    let candidate = Candidate { tenant: owner.clone(), model, version: number, card, files };
    // Also for a pusher who leaves: what the check loads would stay without a version that owns it.
    to_the_end(async move {
        let signature = shared.deps.models.check(&candidate).await?;
        let ModelPut { version, created } = store(&shared, owner.as_ref(), version, candidate.files).await?;
        drop(permit);
        let tenant = owner.as_ref().map(TenantName::as_str);
        tracing::info!(
            subject = caller.0.subject, tenant, model = %version.model, version = version.version, created, "model stored"
        );
        let status = if created { StatusCode::CREATED } else { StatusCode::OK };
        Ok((status, Json(view::version(&shared, owner.as_ref(), &version).with_signature(signature))))
    })
    .await
}

/// A version number of the path.
pub(crate) fn version_number(text: &str) -> Answer<u32> {
    match text.parse::<u32>() {
        Ok(n) if n > 0 && n.to_string() == text => Ok(n),
        _ => {
            let got: String = text.chars().take(40).collect();
            Err(refuse(ErrorKind::Malformed, format!("version {got:?} is not a number from 1")))
        }
    }
}

/// The card first, so that every file is known before its bytes are read.
async fn read(mut parts: Parts, model: &ModelName) -> Answer<(ModelCard, BTreeMap<String, Bytes>)> {
    let first = parts.next().await?.filter(|part| part.name() == "card");
    let Some(first) = first else {
        return Err(refuse(ErrorKind::Malformed, "the first part must be \"card\", the text of model.toml"));
    };
    let invalid = |message: String| refuse(ErrorKind::Invalid, message);
    let card = ModelCard::from_toml(&first.text().await?).map_err(|e| invalid(format!("model.toml: {e}")))?;
    if card.model.name != *model {
        let named = &card.model.name;
        return Err(invalid(format!(
            "model.toml: model.name is {named}, the path says {model}: make them equal"
        )));
    }
    let mut files = BTreeMap::new();
    let mut left = MAX_MODEL;
    while let Some(part) = parts.next().await? {
        let name = part.name();
        if !card.model.files.contains(&name) || files.contains_key(&name) {
            return Err(invalid(format!("part {name:?} is not in the card's model.files, or there twice")));
        }
        let bytes = part.bytes(left).await?;
        left -= bytes.len() as u64;
        files.insert(name, bytes);
    }
    if let Some(missing) = card.model.files.iter().find(|f| !files.contains_key(*f)) {
        return Err(invalid(format!(
            "file {missing:?} of the card is missing: send it as a part of that name"
        )));
    }
    Ok((card, files))
}

/// Blobs first, event after: a version always has its bytes.
async fn store(
    shared: &Shared,
    owner: Option<&TenantName>,
    version: ModelVersion,
    files: BTreeMap<String, Bytes>,
) -> Answer<ModelPut> {
    let digests = version.files.values().map(|(digest, _)| *digest).collect();
    let (model, number) = (version.model.clone(), version.version);
    let in_use = shared.blobs_in_use.read().await;
    let stored = put_all(shared, owner, version, files).await;
    drop(in_use);
    if stored.is_err() {
        // What the check has loaded would stay for nothing.
        let tenant = owner.map(TenantName::as_str);
        if shared.deps.catalog.snapshot().model_version(tenant, model.as_str(), number).is_none() {
            shared.deps.models.unload(owner, &model, number).await;
        }
        sweep_models(shared, owner, digests).await;
    }
    stored
}

async fn put_all(
    shared: &Shared,
    owner: Option<&TenantName>,
    version: ModelVersion,
    files: BTreeMap<String, Bytes>,
) -> Answer<ModelPut> {
    for (name, bytes) in files {
        if let Some((digest, _)) = version.files.get(&name) {
            shared.deps.blobs.put(&model_file(owner, *digest), bytes.into()).await?;
        }
    }
    shared.deps.catalog.put_model(owner.cloned(), version).await.map_err(Failure::from)
}
