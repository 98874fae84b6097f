use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wasmeter_catalog::Granted;
use wasmeter_types::{ErrorKind, ModelName, TenantName};

use crate::error::{Answer, ErrorBody, refuse};
use crate::extract::{Caller, Given, Segments, name};
use crate::shared::{Shared, to_the_end};

/// Who may use a model: `{"all": true}`, or `{"tenants": [...]}`.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grants {
    /// Every tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    all: Option<bool>,
    /// These and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenants: Option<Vec<String>>,
}

impl From<Granted> for Grants {
    fn from(granted: Granted) -> Self {
        match granted {
            Granted::All => Self { all: Some(true), tenants: None },
            Granted::Tenants(tenants) => {
                Self { all: None, tenants: Some(tenants.into_iter().map(String::from).collect()) }
            }
        }
    }
}

impl Grants {
    fn read(self) -> Answer<Granted> {
        match self {
            Self { all: Some(true), tenants: None } => Ok(Granted::All),
            Self { all: None, tenants: Some(tenants) } => {
                let names: Answer<BTreeSet<TenantName>> = tenants.iter().map(|t| name(t)).collect();
                Ok(Granted::Tenants(names?))
            }
            _ => Err(refuse(ErrorKind::Malformed, "send either {\"all\": true} or {\"tenants\": [...]}")),
        }
    }
}

/// Says who may use the operator's model (operator); without it, everyone. For a tenant without the grant the model is
/// not there. It holds for the name: it can be said before the first version is pushed, and stays when the last is gone.
#[utoipa::path(put, path = "/api/v1/models/{model}/grants", tag = "models", operation_id = "grant_model",
    params(("model" = String, Path, description = "model")), request_body = Grants,
    responses((status = 200, body = Grants), (status = "default", body = ErrorBody)))]
pub(crate) async fn put(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(model): Segments<String>,
    Given(body): Given<Grants>,
) -> Answer<Json<Grants>> {
    caller.0.operator()?;
    let model: ModelName = name(&model)?;
    let granted = body.read()?;
    to_the_end(async move {
        shared.deps.catalog.grant_model(model.clone(), granted.clone()).await?;
        tracing::info!(subject = caller.0.subject, %model, ?granted, "model granted");
        Ok(Json(granted.into()))
    })
    .await
}
