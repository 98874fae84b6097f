use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wasmeter_admission::Scope;
use wasmeter_types::{ErrorKind, TenantName};
use wasmeter_usage::wire::{Call, Reply};

use super::budget::known;
use super::{ask, confused};
use crate::clock::rfc3339;
use crate::error::{Answer, ErrorBody, refuse};
use crate::extract::{Caller, GivenOrNot, Segments};
use crate::shared::{Shared, to_the_end};

/// No address that the customer is sent back to is longer.
const MAX_URL: usize = 2048;

/// How a tenant stands with Stripe.
#[derive(Serialize, ToSchema)]
pub(super) struct Standing {
    tenant: String,
    /// `none`, `active`, `grace` (a payment is late, work goes on), `unpaid` (calls answer 402) or `canceled`.
    state: String,
    /// Stripe's name of the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    customer: Option<String>,
    /// Stripe's name of the subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription: Option<String>,
    /// Since when the state is what it is, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// When the grace ends, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_ends: Option<String>,
}

/// Where Stripe sends the customer back to from the portal.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PortalBody {
    /// `https:`, or `http:` on this machine; a page of the platform that says so if absent.
    #[serde(default)]
    return_url: Option<String>,
}

/// Where Stripe sends the customer back to from checkout.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckoutBody {
    /// After a subscription; as `return_url` of the portal.
    #[serde(default)]
    success_url: Option<String>,
    /// After none.
    #[serde(default)]
    cancel_url: Option<String>,
}

/// A page of Stripe's, for this tenant alone, for a short time: whoever has the address is in.
#[derive(Serialize, ToSchema)]
pub(super) struct Page {
    url: String,
}

/// The tenant's subscription.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/billing", tag = "billing",
    params(("tenant" = String, Path, description = "tenant")),
    responses((status = 200, body = Standing), (status = "default", body = ErrorBody)))]
pub(super) async fn show(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
) -> Answer<Json<Standing>> {
    let tenant = caller.tenant(&tenant, Scope::Read)?;
    known(&shared, &tenant)?;
    match ask(&shared, Call::Standing { tenant: tenant.to_string() }).await? {
        Reply::Standing(standing) => Ok(Json(view(standing))),
        other => Err(confused(&other)),
    }
}

/// A page of Stripe's where the customer sees invoices, changes how it pays, and cancels.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/billing/portal", tag = "billing",
    params(("tenant" = String, Path, description = "tenant")), request_body = Option<PortalBody>,
    responses((status = 200, body = Page), (status = "default", body = ErrorBody)))]
pub(super) async fn portal(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
    GivenOrNot(body): GivenOrNot<PortalBody>,
) -> Answer<Json<Page>> {
    let tenant = payer(&shared, &caller, &tenant)?;
    let return_url = back(&shared, "return_url", body.return_url)?;
    page(shared, caller, Call::Portal { tenant: tenant.to_string(), return_url }).await
}

/// A page of Stripe's where the customer subscribes.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/billing/checkout", tag = "billing",
    params(("tenant" = String, Path, description = "tenant")), request_body = Option<CheckoutBody>,
    responses((status = 200, body = Page), (status = "default", body = ErrorBody)))]
pub(super) async fn checkout(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
    GivenOrNot(body): GivenOrNot<CheckoutBody>,
) -> Answer<Json<Page>> {
    let tenant = payer(&shared, &caller, &tenant)?;
    let success_url = back(&shared, "success_url", body.success_url)?;
    let cancel_url = back(&shared, "cancel_url", body.cancel_url)?;
    page(shared, caller, Call::Checkout { tenant: tenant.to_string(), success_url, cancel_url }).await
}

/// Who deploys for a tenant may spend its money, and so arrange how it is paid.
fn payer(shared: &Shared, caller: &Caller, tenant: &str) -> Answer<TenantName> {
    let tenant = caller.tenant(tenant, Scope::Deploy)?;
    known(shared, &tenant)?;
    Ok(tenant)
}

/// Stripe shows the address as a link and redirects to it: nothing but an address of the web is passed on.
fn back(shared: &Shared, what: &str, given: Option<String>) -> Answer<String> {
    let Some(url) = given else { return Ok(format!("{}/billing/done", shared.deps.base_url)) };
    let good = url.len() <= MAX_URL && url.bytes().all(|b| b.is_ascii_graphic()) && is_address(&url);
    if good {
        return Ok(url);
    }
    let got: String = url.chars().take(80).collect();
    let message = format!(
        "{what} is {got:?}: it must be an https:// address of at most {MAX_URL} characters, or http:// on this machine"
    );
    Err(refuse(ErrorKind::Malformed, message))
}

fn is_address(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let Some(authority) = uri.authority().filter(|a| !a.as_str().contains('@')) else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let here = || host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => here(),
        _ => false,
    }
}

async fn page(shared: Shared, caller: Caller, call: Call) -> Answer<Json<Page>> {
    // A customer or a session that Stripe has made is noted, whether or not the client is still there.
    to_the_end(async move {
        match ask(&shared, call).await? {
            Reply::Page { url } => {
                tracing::info!(subject = caller.0.subject, "a page of Stripe's was opened");
                Ok(Json(Page { url }))
            }
            other => Err(confused(&other)),
        }
    })
    .await
}

fn view(standing: wasmeter_usage::Standing) -> Standing {
    Standing {
        tenant: standing.tenant,
        state: standing.state.as_str().to_owned(),
        customer: standing.customer,
        subscription: standing.subscription,
        since: (standing.since_ns > 0).then(|| rfc3339(standing.since_ns)),
        grace_ends: standing.grace_ends_ns.map(rfc3339),
    }
}

#[cfg(test)]
mod tests {
    use super::is_address;

    #[test]
    fn addresses_to_come_back_to() {
        for good in
            ["https://x.example/a?b=c", "http://127.0.0.1:8080/", "http://[::1]/", "http://localhost:1/x"]
        {
            assert!(is_address(good), "{good}");
        }
        for bad in
            ["", "/x", "javascript:alert(1)", "http://x.example/", "https://me@x/", "ftp://x/", "https:///x"]
        {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
