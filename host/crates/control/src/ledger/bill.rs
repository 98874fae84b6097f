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

/// What a window costs by the price book. The window is one billing period: tiers, included quantities and the minimum
/// begin anew at its start. `…_pico` are strings of integers of 10^-12 of the currency unit, `…_minor` integers of its
/// smallest unit, and what has neither is for people.
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
    /// One line a meter and way of pricing it.
    lines: Vec<BillLine>,
    /// Sum of the invocations' list prices, exactly.
    list_total_pico: String,
    list_total: String,
    /// Where the price book has a minimum that the lines do not reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum: Option<BillMinimum>,
    /// Refunds and other corrections that were made in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    adjustments: Option<BillAdjustments>,
    /// What is due: the sum of what lines, minimum and adjustments say is due.
    due_minor: i64,
}

/// One line of a bill: a meter, at one list price and the same terms.
#[derive(Serialize, ToSchema)]
pub(super) struct BillLine {
    /// Such as `fuel`.
    meter: String,
    /// In the meter's unit; the sum over the parts.
    quantity: u64,
    /// List price of one `price_unit`.
    rate_pico: String,
    /// Such as `million fuel`, `second`, `request`, `GB`.
    price_unit: String,
    /// Quantity times list price.
    list_pico: String,
    /// Sum of the parts' amounts.
    amount_pico: String,
    amount: String,
    /// What the quantity is priced by: one part, or one for each tier that it reaches.
    parts: Vec<BillPart>,
    /// Sum of what the parts say is due.
    due_minor: i64,
}

/// A part of a quantity at one price: a line of an invoice.
#[derive(Serialize, ToSchema)]
pub(super) struct BillPart {
    /// In the meter's unit.
    quantity: u64,
    /// The last unit of the tier, in the meter's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    up_to: Option<u64>,
    /// Whether it is the included quantity, which costs nothing.
    included: bool,
    /// Price of one `price_unit` of the line.
    rate_pico: String,
    /// Quantity times price.
    amount_pico: String,
    amount: String,
    /// The amount, rounded once, half up.
    due_minor: i64,
}

/// What a period costs at least.
#[derive(Serialize, ToSchema)]
pub(super) struct BillMinimum {
    minimum_minor: i64,
    /// What the lines lack of it.
    due_minor: i64,
}

/// All corrections of the window.
#[derive(Serialize, ToSchema)]
pub(super) struct BillAdjustments {
    count: u64,
    /// Their exact sum; below zero for what the tenant gets back.
    amount_pico: String,
    amount: String,
    /// The sum, rounded once, half away from zero.
    due_minor: i64,
    /// The first 1000 of them.
    entries: Vec<Adjustment>,
}

/// One correction: an entry that was added; what it corrects stays as it was.
#[derive(Serialize, ToSchema)]
pub(super) struct Adjustment {
    id: String,
    /// Whose cost it gives back, if it is about one invocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    invocation: Option<String>,
    /// Below zero for what the tenant gets back.
    amount_pico: String,
    amount: String,
    reason: String,
    /// RFC 3339. It belongs to the period in which it was made.
    made: String,
}

/// The tenant's bill.
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
    let currency = &bill.currency;
    let part = |part: wire::BillPart| BillPart {
        quantity: part.quantity,
        up_to: part.up_to,
        included: part.included,
        rate_pico: part.rate_pico.0.to_string(),
        amount_pico: part.amount_pico.0.to_string(),
        amount: money(part.amount_pico, currency),
        due_minor: part.due_minor,
    };
    let line = |line: wire::BillLine| BillLine {
        meter: line.meter.as_str().to_owned(),
        quantity: line.quantity,
        rate_pico: line.rate_pico.0.to_string(),
        price_unit: line.price_unit,
        list_pico: line.list_pico.0.to_string(),
        amount_pico: line.amount_pico.0.to_string(),
        amount: money(line.amount_pico, currency),
        parts: line.parts.into_iter().map(part).collect(),
        due_minor: line.due_minor,
    };
    let minimum = |minimum: wire::BillMinimum| BillMinimum {
        minimum_minor: minimum.minimum_minor,
        due_minor: minimum.due_minor,
    };
    let adjustments = |all: wire::BillAdjustments| BillAdjustments {
        count: all.count,
        amount_pico: all.amount_pico.0.to_string(),
        amount: money(all.amount_pico, currency),
        due_minor: all.due_minor,
        entries: all.entries.into_iter().map(|one| adjustment(one, currency)).collect(),
    };
    Bill {
        tenant: bill.tenant,
        from: rfc3339(bill.from_ns),
        to: rfc3339(bill.to_ns),
        invocations: bill.invocations,
        lines: bill.lines.into_iter().map(line).collect(),
        list_total_pico: bill.list_total_pico.0.to_string(),
        list_total: money(bill.list_total_pico, currency),
        minimum: bill.minimum.map(minimum),
        adjustments: bill.adjustments.map(adjustments),
        due_minor: bill.due_minor,
        currency: bill.currency,
    }
}

pub(super) fn adjustment(one: wire::Adjustment, currency: &str) -> Adjustment {
    Adjustment {
        id: one.id,
        invocation: one.invocation.map(|id| id.to_string()),
        amount_pico: one.amount_pico.0.to_string(),
        amount: money(one.amount_pico, currency),
        reason: one.reason,
        made: rfc3339(one.made_ns),
    }
}
