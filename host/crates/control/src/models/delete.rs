use axum::extract::State;
use http::StatusCode;
use wasmeter_types::ModelName;

use super::put::version_number;
use crate::blobs::sweep_models;
use crate::error::{Answer, ErrorBody};
use crate::extract::{Caller, Segments, name};
use crate::shared::{Shared, to_the_end};

/// Deletes a version (operator).
#[utoipa::path(delete, path = "/api/v1/models/{model}/versions/{version}", tag = "models",
    params(("model" = String, Path, description = "model"), ("version" = u32, Path, description = "from 1")),
    responses((status = 204, description = "gone"), (status = "default", body = ErrorBody)))]
pub(crate) async fn delete(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((model, version)): Segments<(String, String)>,
) -> Answer<StatusCode> {
    caller.0.operator()?;
    let model: ModelName = name(&model)?;
    let version = version_number(&version)?;
    to_the_end(async move {
        // A version is immutable, so this look stays true until it is gone.
        let before = shared.deps.catalog.snapshot().model(model.as_str(), Some(version)).cloned();
        shared.deps.catalog.delete_model(model.clone(), version).await?;
        shared.deps.models.unload(&model, version).await;
        let files = before.iter().flat_map(|v| v.files.values()).map(|(digest, _)| *digest).collect();
        sweep_models(&shared, files).await;
        tracing::info!(subject = caller.0.subject, %model, version, "model version deleted");
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
