use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wasmeter_admission::Scope;
use wasmeter_usage::wire::{Call, Reply, UsageBy, UsageRow};

use super::window::Window;
use super::{ask, confused};
use crate::clock::rfc3339;
use crate::error::{Answer, ErrorBody};
use crate::extract::{Asked, Caller, Segments};
use crate::shared::Shared;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageQuery {
    /// RFC 3339, inclusive; the start of this UTC month if absent.
    from: Option<String>,
    /// RFC 3339, exclusive; the end of this UTC month if absent.
    to: Option<String>,
    /// `function` if absent.
    by: Option<Grouping>,
}

/// What one row is about.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Grouping {
    Function,
    Model,
    Meter,
    Hour,
}

/// Usage of a tenant.
#[derive(Serialize, ToSchema)]
pub(super) struct Usage {
    tenant: String,
    /// RFC 3339, inclusive.
    from: String,
    /// RFC 3339, exclusive.
    to: String,
    by: Grouping,
    /// Of the amounts; absent while billing has not been reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    rows: Vec<Row>,
}

/// One row of usage.
#[derive(Serialize, ToSchema)]
#[schema(as = UsageRow)]
pub(super) struct Row {
    /// Function, `model@version`, meter or RFC 3339 hour.
    key: String,
    requests: u64,
    fuel: u64,
    cpu_ns: u64,
    gpu_ns: u64,
    tokens_in: u64,
    tokens_out: u64,
    egress_bytes: u64,
    /// List price in 10^-12 of the currency unit: a string of an integer.
    cost_pico: String,
    /// The same in the currency unit.
    cost: String,
}

/// Usage of the tenant, by function, model, meter or hour.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/usage", tag = "billing",
    params(("tenant" = String, Path, description = "tenant"), UsageQuery),
    responses((status = 200, body = Usage), (status = "default", body = ErrorBody)))]
pub(super) async fn usage(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
    Asked(query): Asked<UsageQuery>,
) -> Answer<Json<Usage>> {
    let tenant = caller.tenant(&tenant, Scope::Read)?.to_string();
    let Window { from_ns, to_ns } = Window::of_month(query.from.as_deref(), query.to.as_deref())?;
    let by = query.by.unwrap_or(Grouping::Function);
    let grouping = match by {
        Grouping::Function => UsageBy::Function,
        Grouping::Model => UsageBy::Model,
        Grouping::Meter => UsageBy::Meter,
        Grouping::Hour => UsageBy::Hour,
    };
    let call = Call::Usage { tenant: tenant.clone(), from_ns, to_ns, by: grouping };
    let rows = match ask(&shared, call).await? {
        Reply::Usage { rows } => rows.into_iter().map(row).collect(),
        other => return Err(confused(&other)),
    };
    let currency = shared.deps.ledger.prices().map(|p| p.currency);
    Ok(Json(Usage { tenant, from: rfc3339(from_ns), to: rfc3339(to_ns), by, currency, rows }))
}

fn row(row: UsageRow) -> Row {
    Row {
        key: row.key,
        requests: row.requests,
        fuel: row.fuel,
        cpu_ns: row.cpu_ns,
        gpu_ns: row.gpu_ns,
        tokens_in: row.tokens_in,
        tokens_out: row.tokens_out,
        egress_bytes: row.egress_bytes,
        cost_pico: row.cost_pico.0.to_string(),
        cost: row.cost_pico.to_string(),
    }
}
