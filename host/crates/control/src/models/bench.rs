use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wasmeter_admission::Scope;
use wasmeter_types::{Error, ErrorKind, ModelName, TenantName};

use super::put::version_number;
use crate::error::{Answer, ErrorBody, Failure, refuse};
use crate::extract::{Caller, Given, Segments, name};
use crate::shared::Shared;

/// The longest measurement, in seconds.
const MAX_SECONDS: u64 = 60;
/// The most sizes, and the most values, that one request gives.
const MAX_NAMES: usize = 64;

/// What to measure.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bench {
    /// The largest batch, in rows: 1 to 1024. Measured are 1, 2, 4… and this.
    pub max_batch: u32,
    /// Sizes of the model's free dimensions but the batch: by name, or as `input.axis` where they have none.
    pub dimensions: BTreeMap<String, u32>,
    /// What inputs are filled with, by name; without, 0.5, and 1 in integers.
    pub values: BTreeMap<String, f64>,
    /// When to end with what is known by then: 1 to 60.
    pub seconds: u64,
}

impl Default for Bench {
    fn default() -> Self {
        Self { max_batch: 32, dimensions: BTreeMap::new(), values: BTreeMap::new(), seconds: 20 }
    }
}

/// What batches of a model cost on its device.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BenchReport {
    /// The device.
    pub device: String,
    /// Why there is nothing but batch 1: rows of the model cannot share a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alone: Option<String>,
    /// Each input of one row: its name, type and dimensions.
    pub inputs: Vec<String>,
    /// Batch sizes, rising.
    pub steps: Vec<BenchStep>,
    /// Why larger batches were not measured, though asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// What the card should say under `[batching]`.
    pub recommended: Recommended,
}

/// Runs with so many rows.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BenchStep {
    /// Rows in each run.
    pub rows: u32,
    /// How many runs.
    pub runs: usize,
    /// Busy time of the device in a run, nanoseconds.
    pub busy_ns: Spread,
    /// Time of a run on the clock, nanoseconds.
    pub latency_ns: Spread,
    /// At the median latency.
    pub rows_per_second: f64,
}

/// Of several measurements.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Spread {
    /// The smallest.
    pub min: u64,
    /// The lower median.
    pub median: u64,
    /// The largest.
    pub max: u64,
}

/// Lines for the card.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Recommended {
    /// `max-batch`.
    pub max_batch: u32,
    /// `max-queue-delay`, such as `0ms`.
    pub max_queue_delay: String,
    /// Why.
    pub reason: String,
}

/// Measures what batches of a version cost on its device (operator), with made-up inputs and on the platform's account:
/// nobody is charged. Runs take turns behind all calls. One measurement at a time; others are refused with 503.
#[utoipa::path(post, path = "/api/v1/models/{model}/versions/{version}/bench", tag = "models",
    operation_id = "bench_model",
    params(("model" = String, Path, description = "model"), ("version" = u32, Path, description = "from 1")),
    request_body = Bench,
    responses((status = 200, body = BenchReport), (status = "default", body = ErrorBody)))]
pub(crate) async fn bench(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((model, version)): Segments<(String, String)>,
    Given(asked): Given<Bench>,
) -> Answer<Json<BenchReport>> {
    caller.0.operator()?;
    measure(shared, None, name(&model)?, version_number(&version)?, asked).await
}

/// Measures what batches of a version of the tenant's own model cost. Otherwise as for an operator model.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/models/{model}/versions/{version}/bench", tag = "models",
    operation_id = "bench_own_model",
    params(("tenant" = String, Path, description = "tenant"), ("model" = String, Path, description = "model"),
        ("version" = u32, Path, description = "from 1")),
    request_body = Bench,
    responses((status = 200, body = BenchReport), (status = "default", body = ErrorBody)))]
pub(crate) async fn bench_own(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, model, version)): Segments<(String, String, String)>,
    Given(asked): Given<Bench>,
) -> Answer<Json<BenchReport>> {
    let tenant = caller.tenant(&tenant, Scope::Deploy)?;
    measure(shared, Some(tenant), name(&model)?, version_number(&version)?, asked).await
}

async fn measure(
    shared: Shared,
    owner: Option<TenantName>,
    model: ModelName,
    version: u32,
    asked: Bench,
) -> Answer<Json<BenchReport>> {
    check(&asked)?;
    let tenant = owner.as_ref().map(TenantName::as_str);
    let known = shared.deps.catalog.snapshot().model_version(tenant, model.as_str(), version).cloned();
    let known = known.ok_or_else(|| Failure(Error::not_found()))?;
    let _permit = shared.bench()?;
    // Not to the end: who leaves ends the measurement.
    Ok(Json(shared.deps.models.bench(owner.as_ref(), &known, &asked).await?))
}

fn check(asked: &Bench) -> Answer<()> {
    let message = if !(1..=1024).contains(&asked.max_batch) {
        "max_batch is 1 to 1024".to_owned()
    } else if !(1..=MAX_SECONDS).contains(&asked.seconds) {
        format!("seconds is 1 to {MAX_SECONDS}")
    } else if asked.dimensions.len() > MAX_NAMES || asked.values.len() > MAX_NAMES {
        format!("at most {MAX_NAMES} dimensions and values are taken")
    } else {
        return Ok(());
    };
    Err(refuse(ErrorKind::Malformed, message))
}
