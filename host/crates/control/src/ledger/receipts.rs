use std::collections::VecDeque;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wasmeter_admission::Scope;
use wasmeter_types::{Error, ErrorKind, InvocationId};
use wasmeter_usage::wire::{self, Call, MAX_PAGE, Reply};

use super::window::Window;
use super::{ask, confused, money};
use crate::error::{Answer, ErrorBody, Failure, refuse};
use crate::extract::{Asked, Caller, Segments};
use crate::logs::{line, ndjson};
use crate::shared::Shared;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReceiptsQuery {
    /// RFC 3339, inclusive; the first receipt if absent.
    from: Option<String>,
    /// RFC 3339, exclusive; now if absent.
    to: Option<String>,
}

/// One invocation in the ledger.
#[derive(Serialize, ToSchema)]
pub(super) struct Receipt {
    /// Its presence tells an invocation line from a batch commit.
    invocation: String,
    /// Ledger position.
    entry: u64,
    /// Booked list price in 10^-12 of the currency unit: a string of an integer.
    cost_pico: String,
    /// The same for people.
    cost: String,
    /// ISO 4217.
    currency: String,
    /// The usage record, from which the cost is computed.
    #[schema(value_type = Object)]
    record: wasmeter_usage::UsageRecord,
}

impl From<wire::Receipt> for Receipt {
    fn from(receipt: wire::Receipt) -> Self {
        Self {
            invocation: receipt.invocation.to_string(),
            entry: receipt.entry,
            cost_pico: receipt.cost_pico.0.to_string(),
            cost: money(receipt.cost_pico, &receipt.currency),
            currency: receipt.currency,
            record: receipt.record,
        }
    }
}

/// The receipts of the tenant in ledger order, as NDJSON, all of them.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/receipts", tag = "billing",
    params(("tenant" = String, Path, description = "tenant"), ReceiptsQuery),
    responses((status = 200, body = Receipt, content_type = "application/x-ndjson"),
        (status = "default", body = ErrorBody)))]
pub(super) async fn receipts(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
    Asked(query): Asked<ReceiptsQuery>,
) -> Answer<Response> {
    let tenant = caller.tenant(&tenant, Scope::Read)?.to_string();
    let window = Window::of_all(query.from.as_deref(), query.to.as_deref())?;
    let mut pages = Pages { shared, tenant, window, next: Some(0), lines: VecDeque::new() };
    // The first page before the head, so that billing's absence is a status; later, the answer breaks off.
    pages.fetch().await?;
    let lines = stream::try_unfold(pages, |mut pages| async move {
        loop {
            if let Some(receipt) = pages.lines.pop_front() {
                return Ok::<_, Error>(Some((line(&Receipt::from(receipt)), pages)));
            }
            if pages.next.is_none() {
                return Ok(None);
            }
            pages.fetch().await.map_err(|failure| failure.0)?;
        }
    });
    Ok(ndjson(Body::from_stream(lines)))
}

/// The receipt of one invocation.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/receipts/{invocation}", tag = "billing",
    params(("tenant" = String, Path, description = "tenant"),
        ("invocation" = String, Path, description = "as in the header x-wasmeter-invocation")),
    responses((status = 200, body = Receipt), (status = "default", body = ErrorBody)))]
pub(super) async fn receipt(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, invocation)): Segments<(String, String)>,
) -> Answer<Json<Receipt>> {
    let tenant = caller.tenant(&tenant, Scope::Read)?.to_string();
    let invocation: InvocationId = invocation
        .parse()
        .map_err(|e: wasmeter_usage::ParseInvocationIdError| refuse(ErrorKind::Malformed, e.to_string()))?;
    match ask(&shared, Call::Receipt { tenant, invocation }).await? {
        Reply::Receipt { receipt: Some(receipt) } => Ok(Json((*receipt).into())),
        Reply::Receipt { receipt: None } => Err(Failure(Error::not_found())),
        other => Err(confused(&other)),
    }
}

/// One page is held at a time, and the next is asked for when the client has read it.
struct Pages {
    shared: Shared,
    tenant: String,
    window: Window,
    next: Option<u64>,
    lines: VecDeque<wire::Receipt>,
}

impl Pages {
    async fn fetch(&mut self) -> Answer<()> {
        let Some(after) = self.next else { return Ok(()) };
        let Window { from_ns, to_ns } = self.window;
        let tenant = self.tenant.clone();
        let call = Call::Receipts { tenant, from_ns, to_ns, after, limit: MAX_PAGE };
        match ask(&self.shared, call).await? {
            Reply::Receipts { lines, next } => {
                // A page that does not lead on would be asked for for ever.
                self.next = next.filter(|next| *next > after);
                self.lines = lines.into();
                Ok(())
            }
            other => Err(confused(&other)),
        }
    }
}
