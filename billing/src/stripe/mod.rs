//! Everything that has to do with Stripe. Three tasks beside the socket: [`sender`] brings buckets to Stripe,
//! [`refresher`] reads what webhooks are about, [`invoices`] lets drafts go once they are what the ledger says,
//! with the minimum and the corrections of their period, and what its usage cost when it happened, which [`items`] brings onto
//! them. No
//! call to Stripe happens in a transaction of the ledger; what it found is written before and after.

mod catalogue;
mod invoices;
mod items;
mod listen;
mod options;
mod pace;
mod pages;
mod probes;
mod reconcile;
mod refresher;
mod sender;
mod webhook;

pub(crate) mod commands;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmeter_ledger::{Admission, Lane};
use wasmeter_rating::PriceBook;
use wasmeter_stripe::{Client, Secret};
use wasmeter_usage::wire::{Call, Reply};

use crate::service::{Service, code, refused};

pub(crate) use options::{Access, Options};

/// A Stripe that was configured, or the twin of it.
pub(crate) struct Stripe {
    pub(crate) client: Client,
    /// Where requests go, for the log.
    pub(crate) address: String,
    /// Whether it is about customers' money.
    pub(crate) live: bool,
    pub(crate) secret: Option<Secret>,
    pub(crate) admission: Admission,
    pub(crate) buckets: Buckets,
    pub(crate) catalogue: catalogue::Kept,
    pub(crate) booked: items::Booked,
    pub(crate) book: PriceBook,
    /// Rung when a webhook was taken.
    pub(crate) rung: tokio::sync::Notify,
}

/// When buckets are closed, and how fast they are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buckets {
    pub(crate) grace_ns: u64,
    pub(crate) flush_ns: Option<u64>,
    pub(crate) rate: u32,
}

/// How often tasks look at the ledger where nothing wakes them.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// Starts the tasks.
pub(crate) async fn start(
    service: &Arc<Service>,
    stripe: &Arc<Stripe>,
    webhooks: Option<std::net::SocketAddr>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if let Some(address) = webhooks {
        let listener = listen::bind(address).await?;
        tasks.spawn(listen::run(listener, Arc::clone(service), Arc::clone(stripe), stop.clone()));
    }
    tasks.spawn(sender::run(Arc::clone(service), Arc::clone(stripe), stop.clone()));
    tasks.spawn(probes::run(Arc::clone(service), Arc::clone(stripe), stop.clone()));
    tasks.spawn(refresher::run(Arc::clone(service), Arc::clone(stripe), stop.clone()));
    tasks.spawn(invoices::run(Arc::clone(service), Arc::clone(stripe), stop.clone()));
    tasks.spawn(reconcile::daily(Arc::clone(service), Arc::clone(stripe), stop.clone()));
    Ok(())
}

/// Answers what is about payments.
pub(crate) async fn answer(service: &Service, call: Call) -> Reply {
    let Some(stripe) = &service.stripe else {
        return refused(code::STRIPE_OFF, "no stripe is configured; start billing with --stripe");
    };
    match call {
        Call::Checkout { tenant, success_url, cancel_url } => {
            pages::checkout(service, stripe, &tenant, &success_url, &cancel_url).await
        }
        Call::Portal { tenant, return_url } => pages::portal(service, stripe, &tenant, &return_url).await,
        Call::Webhook { signature, body_base64 } => {
            let (status, message) = webhook::take_base64(service, stripe, &signature, &body_base64).await;
            Reply::Webhook { status, message }
        }
        Call::Standing { tenant } => {
            let admission = stripe.admission;
            let now = crate::now::now_ns();
            match service.readers.ask(move |r| r.standing(&tenant, &admission, now)).await {
                Ok(standing) => Reply::Standing(standing),
                Err(error) => ledger_failed(&error),
            }
        }
        other => refused(code::MALFORMED, format!("{other:?} is not about payments")),
    }
}

/// The ledger could not be asked or written.
pub(crate) fn ledger_failed(error: &dyn std::fmt::Display) -> Reply {
    tracing::error!(%error, "a question about payments failed");
    refused(code::INTERNAL, "the ledger could not be read or written; see the log of wasmeter-billing")
}

/// A lane, for the log.
pub(crate) fn named(lane: &Lane) -> String {
    format!("{}/{}", lane.tenant, lane.meter.as_str())
}
