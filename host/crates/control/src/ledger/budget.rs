use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wasmeter_admission::Scope;
use wasmeter_types::{ErrorKind, InvocationId};
use wasmeter_usage::wire::{Call, Reply};
use wasmeter_usage::{AlertTerms, BudgetState, BudgetTerms, FiredAlert, Pico};

use super::{ask, confused, money};
use crate::error::{Answer, ErrorBody, refuse};
use crate::extract::{Caller, Given, Segments};
use crate::shared::{Shared, to_the_end};

/// What a tenant may spend; what is left out is not bounded.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BudgetBody {
    /// In one calendar month (UTC), in currency units such as `10.00`.
    #[serde(default)]
    monthly: Option<String>,
    /// Whether credits pay for everything (operator; as before if left out).
    #[serde(default)]
    prepaid: Option<bool>,
    /// In one calendar month, by the subject of the caller's token.
    #[serde(default)]
    keys: BTreeMap<String, String>,
    /// Who is told how much is spent.
    #[serde(default)]
    alerts: AlertsBody,
}

/// Who is told, and when; each threshold once a month and bound, and once for each sum of credits granted.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AlertsBody {
    /// Per cent of the monthly bound, and of the credits granted so far, such as 80 and 100; at most eight.
    #[serde(default)]
    percent: Vec<u16>,
    /// `https://` address that gets a POST, signed as "Standard Webhooks" has it (`v1a`) by the key of receipts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    webhook: Option<String>,
    /// Mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
}

/// Credits for a tenant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreditBody {
    /// In currency units, such as `25`.
    amount: String,
    /// For the books.
    #[serde(default)]
    note: String,
    /// Tells a repeated grant from a second one; a new one each time if left out.
    #[serde(default)]
    id: Option<String>,
}

/// A budget and what became of it; amounts in units of 10^-12 of the currency unit, and for people.
#[derive(Serialize, ToSchema)]
pub(super) struct Budget {
    tenant: String,
    /// ISO 4217.
    currency: String,
    /// The month that is running (UTC), such as `2026-11`.
    month: String,
    /// The monthly bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    monthly: Option<Amount>,
    /// Whether credits pay for everything.
    prepaid: bool,
    /// Booked in the running month.
    spent: Amount,
    /// Leased to hosts and not booked yet.
    reserved: Amount,
    /// Credits granted so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    credits: Option<Amount>,
    /// Credits that are not spent.
    #[serde(skip_serializing_if = "Option::is_none")]
    credits_left: Option<Amount>,
    /// Caps by key.
    keys: BTreeMap<String, Key>,
    /// Who is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    alerts: Option<AlertsBody>,
    /// The latest alerts, the last one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fired: Vec<Fired>,
}

/// A threshold that was passed.
#[derive(Serialize, ToSchema)]
struct Fired {
    /// The same each time that it is told.
    id: String,
    /// `monthly` or `credits`.
    of: &'static str,
    /// Of a monthly bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    month: Option<String>,
    percent: u16,
    bound: Amount,
    /// When it was found.
    spent: Amount,
    /// Seconds since the Unix epoch.
    created: u64,
    deliveries: Vec<Delivery>,
}

/// What became of telling it.
#[derive(Serialize, ToSchema)]
struct Delivery {
    /// `webhook` or `email`.
    channel: &'static str,
    /// `pending`, `delivered`, or `failed` after three days.
    state: &'static str,
    attempts: u32,
    /// Why it is not delivered.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// The cap of one key.
#[derive(Serialize, ToSchema)]
struct Key {
    monthly: Amount,
    spent: Amount,
}

/// An amount.
#[derive(Serialize, ToSchema)]
struct Amount {
    /// Integer of 10^-12 currency units.
    pico: String,
    /// The same for people.
    amount: String,
}

/// The tenant's budget and what of it is spent.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/budget", tag = "billing",
    params(("tenant" = String, Path, description = "tenant")),
    responses((status = 200, body = Budget), (status = "default", body = ErrorBody)))]
pub(super) async fn show(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
) -> Answer<Json<Budget>> {
    let tenant = caller.tenant(&tenant, Scope::Read)?.to_string();
    Ok(Json(view(state(&shared, Call::Budget { tenant }).await?)))
}

/// Sets the tenant's budget, all of it; it holds at once.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/budget", tag = "billing",
    params(("tenant" = String, Path, description = "tenant")), request_body = BudgetBody,
    responses((status = 200, body = Budget), (status = "default", body = ErrorBody)))]
pub(super) async fn set(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
    Given(body): Given<BudgetBody>,
) -> Answer<Json<Budget>> {
    let tenant = caller.tenant(&tenant, Scope::Deploy)?;
    known(&shared, &tenant)?;
    if body.prepaid.is_some() {
        caller.0.operator()?;
    }
    let monthly = body.monthly.as_deref().map(|text| units("monthly", text)).transpose()?;
    let keys = body.keys.iter().map(|(key, text)| Ok((key.clone(), units(key, text)?)));
    let keys = keys.collect::<Answer<BTreeMap<_, _>>>()?;
    to_the_end(async move {
        let tenant = tenant.to_string();
        let before = state(&shared, Call::Budget { tenant: tenant.clone() }).await?.terms.unwrap_or_default();
        let prepaid = body.prepaid.unwrap_or(before.prepaid);
        let AlertsBody { percent, webhook, email } = body.alerts;
        let alerts = AlertTerms { percent, webhook, email };
        let terms = BudgetTerms { monthly, prepaid, keys, alerts };
        tracing::info!(subject = caller.0.subject, tenant, "budget set");
        Ok(Json(view(state(&shared, Call::SetBudget { tenant, terms }).await?)))
    })
    .await
}

/// Grants credits (operator). From the first grant on, credits pay for everything.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/credits", tag = "billing",
    params(("tenant" = String, Path, description = "tenant")), request_body = CreditBody,
    responses((status = 200, body = Budget), (status = "default", body = ErrorBody)))]
pub(super) async fn grant(
    State(shared): State<Shared>,
    caller: Caller,
    Segments(tenant): Segments<String>,
    Given(body): Given<CreditBody>,
) -> Answer<Json<Budget>> {
    caller.0.operator()?;
    let tenant = caller.tenant(&tenant, Scope::Operator)?;
    known(&shared, &tenant)?;
    let amount = units("amount", &body.amount)?;
    to_the_end(async move {
        let id = body.id.unwrap_or_else(|| InvocationId::new().to_string());
        tracing::info!(subject = caller.0.subject, %tenant, id, %amount, "credits granted");
        let call = Call::GrantCredit { tenant: tenant.to_string(), id, amount, note: body.note };
        Ok(Json(view(state(&shared, call).await?)))
    })
    .await
}

pub(super) fn known(shared: &Shared, tenant: &wasmeter_types::TenantName) -> Answer<()> {
    let there = shared.deps.catalog.snapshot().tenants.contains_key(tenant);
    if there { Ok(()) } else { Err(wasmeter_types::Error::not_found().into()) }
}

pub(super) fn units(what: &str, text: &str) -> Answer<Pico> {
    Pico::from_units(text).ok_or_else(|| {
        let got: String = text.chars().take(40).collect();
        let message = format!("{what} is {got:?}: write an amount such as `12.50`, with at most 12 decimals");
        refuse(ErrorKind::Malformed, message)
    })
}

async fn state(shared: &Shared, call: Call) -> Answer<BudgetState> {
    match ask(shared, call).await? {
        Reply::Budget(state) => Ok(*state),
        other => Err(confused(&other)),
    }
}

fn view(state: BudgetState) -> Budget {
    let show = |pico: Pico| Amount { pico: pico.0.to_string(), amount: money(pico, &state.currency) };
    let terms = state.terms.unwrap_or_default();
    let key = |(key, cap): (String, Pico)| {
        let spent = state.keys_spent.get(&key).copied().unwrap_or_default();
        (key, Key { monthly: show(cap), spent: show(spent) })
    };
    let alerts = (!terms.alerts.is_empty()).then(|| {
        let AlertTerms { percent, webhook, email } = terms.alerts.clone();
        AlertsBody { percent, webhook, email }
    });
    let fired = |alert: FiredAlert| Fired {
        id: alert.id,
        of: alert.of.as_str(),
        month: alert.month,
        percent: alert.percent,
        bound: show(alert.bound),
        spent: show(alert.spent),
        created: alert.fired_ns / 1_000_000_000,
        deliveries: alert
            .deliveries
            .into_iter()
            .map(|d| Delivery {
                channel: d.channel.as_str(),
                state: d.state.as_str(),
                attempts: d.attempts,
                reason: d.reason,
            })
            .collect(),
    };
    Budget {
        alerts,
        fired: state.fired.into_iter().map(fired).collect(),
        monthly: terms.monthly.map(show),
        prepaid: terms.prepaid,
        spent: show(state.spent),
        reserved: show(state.reserved),
        credits: terms.prepaid.then(|| show(state.granted)),
        credits_left: terms.prepaid.then(|| show(state.credit_left)),
        keys: terms.keys.into_iter().map(key).collect(),
        tenant: state.tenant,
        month: state.month,
        currency: state.currency.clone(),
    }
}
