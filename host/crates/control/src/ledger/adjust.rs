use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use wasmeter_admission::Scope;
use wasmeter_types::{ErrorKind, InvocationId};
use wasmeter_usage::Pico;
use wasmeter_usage::wire::{Call, Reply};

use super::bill::{Adjustment, adjustment};
use super::budget::{known, units};
use super::{ask, confused};
use crate::error::{Answer, ErrorBody, refuse};
use crate::extract::{Caller, Given, Segments};
use crate::shared::{Shared, to_the_end};

/// A correction of what a tenant owes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdjustmentBody {
    /// The invocation whose cost is given back: once, and at most all of it.
    #[serde(default)]
    invocation: Option<String>,
    /// In currency units, such as `-1.50`: below zero for what the tenant gets back. The whole cost of the invocation if
    /// left out.
    #[serde(default)]
    amount: Option<String>,
    /// For the books and the bill.
    reason: String,
    /// Tells a repeated one from a second one; a new one each time if left out.
    #[serde(default)]
    id: Option<String>,
}

/// Gives back the cost of an invocation, or corrects what the tenant owes by an amount (operator). What it corrects
/// stays as it was; the bill of the period in which it is made shows it.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/adjustments", tag = "billing",
    params(("tenant" = String, Path, description = "tenant")), request_body = AdjustmentBody,
    responses((status = 200, body = Adjustment), (status = "default", body = ErrorBody)))]
pub(super) async fn adjust(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
    Given(body): Given<AdjustmentBody>,
) -> Answer<Json<Adjustment>> {
    caller.0.operator()?;
    let tenant = caller.tenant(&tenant, Scope::Operator)?;
    known(&shared, &tenant)?;
    let parse = |text: &String| {
        text.parse::<InvocationId>()
            .map_err(|e: wasmeter_usage::ParseInvocationIdError| refuse(ErrorKind::Malformed, e.to_string()))
    };
    let invocation = body.invocation.as_ref().map(parse).transpose()?;
    let amount = body.amount.as_deref().map(signed).transpose()?;
    to_the_end(async move {
        let id = body.id.unwrap_or_else(|| InvocationId::new().to_string());
        tracing::info!(subject = caller.0.subject, %tenant, id, ?invocation, ?amount, "adjustment asked for");
        let call = Call::Adjust { tenant: tenant.to_string(), id, invocation, amount, reason: body.reason };
        match ask(&shared, call).await? {
            Reply::Adjustment(made) => {
                let currency = shared.deps.ledger.prices().map(|p| p.currency).unwrap_or_default();
                Ok(Json(adjustment(made, &currency)))
            }
            other => Err(confused(&other)),
        }
    })
    .await
}

fn signed(text: &str) -> Answer<Pico> {
    match text.strip_prefix('-') {
        Some(rest) => Ok(Pico(-units("amount", rest)?.0)),
        None => units("amount", text),
    }
}
