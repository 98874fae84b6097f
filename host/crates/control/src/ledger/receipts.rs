use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use futures_util::stream;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wasmeter_admission::Scope;
use wasmeter_types::{Error, ErrorKind, InvocationId};
use wasmeter_usage::wire::{self, Call, ExportCursor, Reply};

use super::window::Window;
use super::{ask, confused};
use crate::clock::rfc3339;
use crate::error::{Answer, ErrorBody, Failure, refuse};
use crate::extract::{Asked, Caller, Segments};
use crate::logs::ndjson;
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

/// One invocation in the ledger. Billing writes it and it is passed on as it is: what is hashed is among its bytes.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
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
    /// The usage record, from which the cost is computed, to the byte as it was booked.
    #[schema(value_type = Object)]
    record: wasmeter_usage::UsageRecord,
    /// Its place in the tenant's chain: `index`, `previous` and `link`.
    #[schema(value_type = Object)]
    chain: (),
    /// Of a receipt that stands alone: `sheet`, `key`, `commit`, `path` and `signature`.
    #[schema(value_type = Option<Object>)]
    proved: Option<()>,
}

/// The public keys of receipts.
#[derive(Serialize, ToSchema)]
pub(super) struct Keys {
    /// All that ever signed, the oldest first.
    keys: Vec<Key>,
}

/// A public key of receipts.
#[derive(Serialize, ToSchema)]
struct Key {
    /// What commits name it by.
    id: String,
    /// Ed25519, 64 hexadecimal digits.
    public: String,
    /// Since when, RFC 3339.
    since: String,
    /// Whether it signs now.
    current: bool,
}

impl From<wire::ReceiptKey> for Key {
    fn from(key: wire::ReceiptKey) -> Self {
        Self { id: key.id, public: key.public, since: rfc3339(key.added_ns), current: key.current }
    }
}

/// The receipts of the tenant in ledger order, as NDJSON, all of them, with all that it takes to check them offline:
/// `wasmeter verify`. Lines without `invocation` are the statement, price sheets, keys, commits, and entries outside the window.
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
    let mut pages = Pages { shared, tenant, window, cursor: None, ended: false };
    // The first page before the head, so that billing's absence is a status; later, the answer breaks off.
    let mut first = pages.fetch().await?;
    let lines = stream::try_unfold(pages, move |mut pages| {
        let first = first.take();
        async move {
            let text = match first {
                Some(text) => Some(text),
                None => pages.fetch().await.map_err(|failure| failure.0)?,
            };
            Ok::<_, Error>(text.map(|text| (Bytes::from(text), pages)))
        }
    });
    Ok(ndjson(Body::from_stream(lines)))
}

/// The receipt of one invocation, with all that it takes to check it offline.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/receipts/{invocation}", tag = "billing",
    params(("tenant" = String, Path, description = "tenant"),
        ("invocation" = String, Path, description = "as in the header x-wasmeter-invocation")),
    responses((status = 200, body = Receipt), (status = "default", body = ErrorBody)))]
pub(super) async fn receipt(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, invocation)): Segments<(String, String)>,
) -> Answer<Response> {
    let tenant = caller.tenant(&tenant, Scope::Read)?.to_string();
    let invocation: InvocationId = invocation
        .parse()
        .map_err(|e: wasmeter_usage::ParseInvocationIdError| refuse(ErrorKind::Malformed, e.to_string()))?;
    match ask(&shared, Call::ReceiptAlone { tenant, invocation }).await? {
        Reply::ReceiptAlone { text: Some(mut text) } => {
            text.push('\n');
            let mut response = Response::new(Body::from(text));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok(response)
        }
        Reply::ReceiptAlone { text: None } => Err(Failure(Error::not_found())),
        other => Err(confused(&other)),
    }
}

/// The public keys that receipts are signed with. A key that is asked for now can be held against receipts of later.
#[utoipa::path(get, path = "/api/v1/receipt-keys", tag = "billing",
    responses((status = 200, body = Keys), (status = "default", body = ErrorBody)))]
pub(super) async fn keys(State(shared): State<Shared>, _: Caller) -> Answer<Json<Keys>> {
    match ask(&shared, Call::ReceiptKeys).await? {
        Reply::ReceiptKeys { keys } => Ok(Json(Keys { keys: keys.into_iter().map(Key::from).collect() })),
        other => Err(confused(&other)),
    }
}

/// One page is held at a time, and the next is asked for when the client has read it.
struct Pages {
    shared: Shared,
    tenant: String,
    window: Window,
    cursor: Option<ExportCursor>,
    ended: bool,
}

impl Pages {
    /// The next page; `None` after the last.
    async fn fetch(&mut self) -> Answer<Option<String>> {
        if self.ended {
            return Ok(None);
        }
        let Window { from_ns, to_ns } = self.window;
        let (tenant, cursor) = (self.tenant.clone(), self.cursor.take());
        let after = cursor.as_ref().map_or(0, |cursor| cursor.after);
        match ask(&self.shared, Call::Export { tenant, from_ns, to_ns, cursor }).await? {
            Reply::Export { text, next } => {
                // A page that does not lead on would be asked for for ever.
                self.cursor = next.filter(|next| next.after > after);
                self.ended = self.cursor.is_none();
                Ok(Some(text))
            }
            other => Err(confused(&other)),
        }
    }
}
