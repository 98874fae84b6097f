use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wasmeter_admission::Scope;
use wasmeter_usage::wire::{self, Call, Reply};

use super::window::Window;
use super::{ask, confused, money};
use crate::clock::rfc3339;
use crate::error::{Answer, ErrorBody};
use crate::extract::{Asked, Caller, Segments};
use crate::shared::Shared;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct BillQuery {
    /// RFC 3339, inclusive; the start of this UTC month if absent.
    from: Option<String>,
    /// RFC 3339, exclusive; the end of this UTC month if absent.
    to: Option<String>,
}

/// A bill at list price.
#[derive(Serialize, ToSchema)]
pub(super) struct Bill {
    tenant: String,
    /// RFC 3339, inclusive.
    from: String,
    /// RFC 3339, exclusive.
    to: String,
    /// ISO 4217.
    currency: String,
    /// Charged invocations.
    invocations: u64,
    /// One line a meter and rate.
    lines: Vec<BillLine>,
    /// Sum of the invocations' list prices, exactly, in 10^-12 of the currency unit: a string of an integer.
    list_total_pico: String,
    /// The same for people.
    list_total: String,
    /// What is due, in the currency's smallest unit, rounded once.
    due_minor: i64,
}

/// One line of a bill.
#[derive(Serialize, ToSchema)]
pub(super) struct BillLine {
    /// Such as `fuel`.
    meter: String,
    /// In the meter's unit.
    quantity: u64,
    /// Price of one `price_unit`: a string of an integer.
    rate_pico: String,
    /// Such as `million fuel`, `second`, `request`, `GB`.
    price_unit: String,
    /// A string of an integer.
    amount_pico: String,
    /// The same for people.
    amount: String,
}

/// The tenant's bill at list price.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/bill", tag = "billing",
    params(("tenant" = String, Path, description = "tenant"), BillQuery),
    responses((status = 200, body = Bill), (status = "default", body = ErrorBody)))]
pub(super) async fn bill(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
    Asked(query): Asked<BillQuery>,
) -> Answer<Json<Bill>> {
    let tenant = caller.tenant(&tenant, Scope::Read)?.to_string();
    let Window { from_ns, to_ns } = Window::of_month(query.from.as_deref(), query.to.as_deref())?;
    match ask(&shared, Call::Bill { tenant, from_ns, to_ns }).await? {
        Reply::Bill(bill) => Ok(Json(view(bill))),
        other => Err(confused(&other)),
    }
}

fn view(bill: wire::Bill) -> Bill {
    let line = |line: wire::BillLine| BillLine {
        meter: line.meter.as_str().to_owned(),
        quantity: line.quantity,
        rate_pico: line.rate_pico.0.to_string(),
        price_unit: line.price_unit,
        amount_pico: line.amount_pico.0.to_string(),
        amount: money(line.amount_pico, &bill.currency),
    };
    Bill {
        tenant: bill.tenant,
        from: rfc3339(bill.from_ns),
        to: rfc3339(bill.to_ns),
        invocations: bill.invocations,
        lines: bill.lines.into_iter().map(line).collect(),
        list_total_pico: bill.list_total_pico.0.to_string(),
        list_total: money(bill.list_total_pico, &bill.currency),
        due_minor: bill.due_minor,
        currency: bill.currency,
    }
}
