use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wasmeter_admission::Scope;
use wasmeter_catalog::Revision;
use wasmeter_types::{Error, FunctionName};
use wasmeter_usage::wire::{Call, Reply, Spread};
use wasmeter_usage::{Pico, Quantities, Rates};

use super::{ask, confused, money};
use crate::error::{Answer, ErrorBody};
use crate::extract::{Caller, Given, Segments, name};
use crate::shared::Shared;

/// What is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QuoteBody {
    /// The function.
    function: String,
    /// How many calls `all` is about; one if left out.
    #[serde(default = "one")]
    calls: u64,
}

fn one() -> u64 {
    1
}

/// What calls of a function cost at list price. `…_pico` are strings of integers of 10^-12 of the currency unit.
#[derive(Serialize, ToSchema)]
pub(super) struct Quote {
    tenant: String,
    function: String,
    /// ISO 4217.
    currency: String,
    calls: u64,
    /// On how many charged calls of the function `one` and `all` stand, among the latest ones of the tenant; with none,
    /// they are absent.
    stands_on: u64,
    of_latest: u64,
    /// Of one call, by rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    one: Option<SpreadView>,
    /// Of all calls together: as many independent calls like those.
    #[serde(skip_serializing_if = "Option::is_none")]
    all: Option<SpreadView>,
    /// What the limits of the newest revision allow at most.
    bound: Bound,
}

/// How much it may be.
#[derive(Serialize, ToSchema)]
#[schema(as = QuoteSpread)]
struct SpreadView {
    p50_pico: String,
    p50: String,
    p95_pico: String,
    p95: String,
    max_pico: String,
    max: String,
}

/// The dearest call that the limits allow: all fuel, the longest body and, where it may call models, a processor and an
/// accelerator for all of the deadline. Tokens have no limit and are not in it.
#[derive(Serialize, ToSchema)]
#[schema(as = QuoteBound)]
struct Bound {
    /// Of one call.
    one_pico: String,
    one: String,
    /// Of all calls.
    all_pico: String,
    all: String,
}

/// What calls of a function cost: from the tenant's own history, and at most by the function's limits.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/quote", tag = "billing",
    params(("tenant" = String, Path, description = "tenant")), request_body = QuoteBody,
    responses((status = 200, body = Quote), (status = "default", body = ErrorBody)))]
pub(super) async fn quote(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
    Given(body): Given<QuoteBody>,
) -> Answer<Json<Quote>> {
    let tenant = caller.tenant(&tenant, Scope::Read)?;
    let function: FunctionName = name(&body.function)?;
    let snapshot = shared.deps.catalog.snapshot();
    let newest =
        snapshot.function(tenant.as_str(), function.as_str()).and_then(|f| f.revisions.last().cloned());
    let newest = newest.ok_or_else(Error::not_found)?;
    let prices = shared.deps.ledger.prices().ok_or_else(|| {
        Error::new(
            wasmeter_types::ErrorKind::Unavailable,
            "billing was not reached yet: ask again in a moment",
        )
    })?;
    let (calls, tenant) = (body.calls.max(1), tenant.to_string());
    let call = Call::Quote { tenant: tenant.clone(), function: function.to_string(), calls };
    let found = match ask(&shared, call).await? {
        Reply::Quote(found) => found,
        other => return Err(confused(&other)),
    };
    let currency = prices.currency;
    let dearest = dearest(&newest, &prices.rates);
    let together = Pico(dearest.0.saturating_mul(i128::from(calls)));
    let spread = |s: Spread| SpreadView {
        p50_pico: s.p50.0.to_string(),
        p50: money(s.p50, &currency),
        p95_pico: s.p95.0.to_string(),
        p95: money(s.p95, &currency),
        max_pico: s.max.0.to_string(),
        max: money(s.max, &currency),
    };
    let has = found.stands_on > 0;
    Ok(Json(Quote {
        tenant,
        function: function.to_string(),
        calls,
        stands_on: found.stands_on,
        of_latest: found.of_latest,
        one: has.then(|| spread(found.one)),
        all: has.then(|| spread(found.all)),
        bound: Bound {
            one_pico: dearest.0.to_string(),
            one: money(dearest, &currency),
            all_pico: together.0.to_string(),
            all: money(together, &currency),
        },
        currency,
    }))
}

fn dearest(revision: &Revision, rates: &Rates) -> Pico {
    let limits = &revision.manifest.limits;
    let deadline = u64::try_from(limits.deadline.0.as_nanos()).unwrap_or(u64::MAX);
    let device_ns = if revision.manifest.models.allow.is_empty() { 0 } else { deadline };
    let most = Quantities {
        fuel: limits.fuel,
        gpu_ns: device_ns,
        cpu_ns: device_ns,
        requests: 1,
        egress_bytes: limits.response_body.0,
        ..Quantities::default()
    };
    rates.cost(&most).unwrap_or(Pico(i128::MAX))
}
