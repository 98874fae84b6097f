use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use wasmeter_admission::Scope;
use wasmeter_types::{ErrorKind, LabelName, ModelName, TenantName};

use super::list::{ModelView, find};
use crate::error::{Answer, ErrorBody, refuse};
use crate::extract::{Caller, Given, Segments, name};
use crate::shared::{Shared, to_the_end};

/// Where the label shall point.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LabelBody {
    /// A version that is there.
    version: u32,
}

/// Points a label of a model to a version (operator). `stable` is what the model's name alone stands for.
#[utoipa::path(post, path = "/api/v1/models/{model}/labels/{label}", tag = "models", operation_id = "set_label",
    params(("model" = String, Path, description = "model"), ("label" = String, Path, description = "label")),
    request_body = LabelBody,
    responses((status = 200, body = ModelView), (status = "default", body = ErrorBody)))]
pub(crate) async fn set(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((model, label)): Segments<(String, String)>,
    Given(body): Given<LabelBody>,
) -> Answer<Json<ModelView>> {
    caller.0.operator()?;
    point(shared, caller, None, name(&model)?, label_name(&label)?, body.version).await
}

/// Points a label of the tenant's own model to a version.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/models/{model}/labels/{label}", tag = "models",
    operation_id = "set_own_label",
    params(("tenant" = String, Path, description = "tenant"), ("model" = String, Path, description = "model"),
        ("label" = String, Path, description = "label")),
    request_body = LabelBody,
    responses((status = 200, body = ModelView), (status = "default", body = ErrorBody)))]
pub(crate) async fn set_own(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, model, label)): Segments<(String, String, String)>,
    Given(body): Given<LabelBody>,
) -> Answer<Json<ModelView>> {
    let tenant = caller.tenant(&tenant, Scope::Deploy)?;
    point(shared, caller, Some(tenant), name(&model)?, label_name(&label)?, body.version).await
}

/// Removes a label (operator); its version stays.
#[utoipa::path(delete, path = "/api/v1/models/{model}/labels/{label}", tag = "models",
    operation_id = "remove_label",
    params(("model" = String, Path, description = "model"), ("label" = String, Path, description = "label")),
    responses((status = 204, description = "gone"), (status = "default", body = ErrorBody)))]
pub(crate) async fn remove(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((model, label)): Segments<(String, String)>,
) -> Answer<StatusCode> {
    caller.0.operator()?;
    take(shared, caller, None, name(&model)?, label_name(&label)?).await
}

/// Removes a label of the tenant's own model; its version stays.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/models/{model}/labels/{label}", tag = "models",
    operation_id = "remove_own_label",
    params(("tenant" = String, Path, description = "tenant"), ("model" = String, Path, description = "model"),
        ("label" = String, Path, description = "label")),
    responses((status = 204, description = "gone"), (status = "default", body = ErrorBody)))]
pub(crate) async fn remove_own(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, model, label)): Segments<(String, String, String)>,
) -> Answer<StatusCode> {
    let tenant = caller.tenant(&tenant, Scope::Deploy)?;
    take(shared, caller, Some(tenant), name(&model)?, label_name(&label)?).await
}

/// A label that cannot be taken for a version.
fn label_name(text: &str) -> Answer<LabelName> {
    let label: LabelName = name(text)?;
    if label.is_number() {
        let message =
            format!("label {label} would read as a version, as in \"model@{label}\": use letters too");
        return Err(refuse(ErrorKind::Malformed, message));
    }
    Ok(label)
}

async fn point(
    shared: Shared,
    caller: Caller,
    owner: Option<TenantName>,
    model: ModelName,
    label: LabelName,
    version: u32,
) -> Answer<Json<ModelView>> {
    to_the_end(async move {
        shared.deps.catalog.set_label(owner.clone(), model.clone(), label.clone(), version).await?;
        let tenant = owner.as_ref().map(TenantName::as_str);
        tracing::info!(subject = caller.0.subject, tenant, %model, %label, version, "label set");
        Ok(Json(find(&shared, owner.as_ref(), &model, caller.0.is_operator())?))
    })
    .await
}

async fn take(
    shared: Shared,
    caller: Caller,
    owner: Option<TenantName>,
    model: ModelName,
    label: LabelName,
) -> Answer<StatusCode> {
    to_the_end(async move {
        shared.deps.catalog.remove_label(owner.clone(), model.clone(), label.clone()).await?;
        let tenant = owner.as_ref().map(TenantName::as_str);
        tracing::info!(subject = caller.0.subject, tenant, %model, %label, "label removed");
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
