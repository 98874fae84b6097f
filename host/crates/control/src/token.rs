use std::time::Duration;

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasmeter_admission::{Grant, Principal, Scope, Scopes};
use wasmeter_types::{Error, ErrorKind, TenantName, unix_ns};

use crate::clock::rfc3339;
use crate::error::{Answer, ErrorBody, Failure, refuse};
use crate::extract::{Caller, Given};
use crate::shared::Shared;

/// The longest life of a token, in seconds: 30 days.
const LONGEST: u64 = 30 * 24 * 3600;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(mint))
}

/// What the new token shall allow.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    /// The caller's own if absent; an operator may name any.
    #[serde(default)]
    tenant: Option<String>,
    /// Of `deploy`, `invoke`, `read`, and for an operator `operator`.
    scopes: Vec<String>,
    /// One hour if absent, at most 30 days, and no longer than the caller's own token lives.
    #[serde(default)]
    ttl_seconds: Option<u64>,
    /// Tells it from the maker's other tokens, for caps (`PUT …/budget`) and logs: its subject is the maker's, a slash and
    /// this name. 1 to 40 of `a-z`, `0-9` and `-`.
    #[serde(default)]
    name: Option<String>,
}

/// A new token.
#[derive(Serialize, ToSchema)]
struct TokenAnswer {
    /// For `Authorization: Bearer …`.
    token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
    /// RFC 3339.
    expires: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    scopes: Vec<String>,
}

/// The longest subject: caps and logs name it.
const MAX_SUBJECT: usize = 256;

fn subject(maker: &str, name: &str) -> Answer<String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=40).contains(&name.len()) || !name.bytes().all(fits) {
        return Err(malformed("name is 1 to 40 of a-z, 0-9 and -"));
    }
    let subject = format!("{maker}/{name}");
    if subject.len() > MAX_SUBJECT {
        return Err(malformed("this token was made by too many others: make one with the first of them"));
    }
    Ok(subject)
}

/// Mints a token that allows no more than the caller's own, and lives no longer.
#[utoipa::path(post, path = "/api/v1/token", tag = "tokens", request_body = TokenRequest,
    responses((status = 201, body = TokenAnswer), (status = "default", body = ErrorBody)))]
async fn mint(
    State(shared): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    Given(asked): Given<TokenRequest>,
) -> Answer<(StatusCode, [(header::HeaderName, &'static str); 1], Json<TokenAnswer>)> {
    let scopes: Scopes = asked
        .scopes
        .join(" ")
        .parse()
        .map_err(|e: wasmeter_admission::ScopesError| malformed(e.to_string()))?;
    if scopes.is_empty() {
        return Err(malformed("scopes is empty: name what the token is for, such as \"invoke\""));
    }
    let tenant = tenant(&shared, &caller.0, asked.tenant.as_deref(), scopes)?;
    if !caller.0.scopes.covers(scopes) {
        let message = format!("the new token may have no more than its maker's scopes: {}", caller.0.scopes);
        return Err(refuse(ErrorKind::Forbidden, message));
    }
    let ttl = asked.ttl_seconds.unwrap_or(3600);
    if ttl == 0 || ttl > LONGEST {
        return Err(malformed(format!("ttl_seconds is {ttl}: it must be 1 to {LONGEST}")));
    }
    let now = unix_ns() / 1_000_000_000;
    // Without an end that we can read, there is no telling what would be longer.
    let own_end = expiry(&headers).ok_or_else(|| Failure(Error::unauthenticated()))?;
    let ttl = ttl.min(own_end.saturating_sub(now));
    if ttl == 0 {
        return Err(Failure(Error::unauthenticated()));
    }
    let subject = match asked.name.as_deref() {
        None => caller.0.subject.clone(),
        Some(name) => subject(&caller.0.subject, name)?,
    };
    let grant = Grant { subject, tenant: tenant.clone(), scopes, ttl: Duration::from_secs(ttl) };
    let token = shared.deps.keys.mint(grant).map_err(|error| {
        tracing::error!(%error, "a token could not be signed");
        Failure(Error::internal())
    })?;
    tracing::info!(subject = caller.0.subject, tenant = tenant.as_ref().map(TenantName::as_str), %scopes, ttl, "token minted");
    let answer = TokenAnswer {
        token,
        token_type: "Bearer",
        expires_in: ttl,
        expires: rfc3339((now + ttl) * 1_000_000_000),
        tenant: tenant.map(String::from),
        scopes: scopes.to_string().split(' ').map(str::to_owned).collect(),
    };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(answer)))
}

/// The tenant of the new token.
fn tenant(
    shared: &Shared,
    caller: &Principal,
    asked: Option<&str>,
    scopes: Scopes,
) -> Answer<Option<TenantName>> {
    let unknown = || Failure(Error::not_found());
    let Some(text) = asked else {
        if caller.is_operator() && caller.tenant.is_none() && !scopes.has(Scope::Operator) {
            return Err(malformed(
                "tenant is missing: a token without the scope operator belongs to a tenant",
            ));
        }
        return Ok(caller.tenant.clone());
    };
    if !caller.is_operator() {
        let own = caller.tenant.as_ref().filter(|own| own.as_str() == text);
        return own.cloned().map(Some).ok_or_else(unknown);
    }
    if scopes.has(Scope::Operator) {
        return Err(malformed("an operator's token belongs to no tenant: leave tenant or the scope out"));
    }
    let tenant: TenantName = text.parse().map_err(|e: wasmeter_types::NameError| malformed(e.to_string()))?;
    if !shared.deps.catalog.snapshot().tenants.contains_key(&tenant) {
        return Err(unknown());
    }
    Ok(Some(tenant))
}

/// `exp` of the caller's token, which the door has verified.
fn expiry(headers: &HeaderMap) -> Option<u64> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?.1.trim();
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Claims>(&claims).ok().map(|c| c.exp)
}

fn malformed(message: impl Into<String>) -> Failure {
    refuse(ErrorKind::Malformed, message)
}
