use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use wasmeter_ledger::{About as Read, Observed, Webhook};
use wasmeter_stripe::{About, Event, MAX_WEBHOOK, verify};

use super::Stripe;
use crate::now::{now_ns, now_s};
use crate::service::Service;

/// Takes a webhook that the host passes on.
pub(super) async fn take_base64(
    service: &Service,
    stripe: &Stripe,
    signature: &str,
    body: &str,
) -> (u16, String) {
    match STANDARD.decode(body) {
        Ok(body) => take(service, stripe, signature, &body).await,
        Err(_) => (400, "the body is not base64".to_owned()),
    }
}

/// Takes a webhook: the HTTP status for Stripe, and why. 200 only once it is in the ledger; what follows from it is done
/// afterwards.
pub(super) async fn take(service: &Service, stripe: &Stripe, signature: &str, body: &[u8]) -> (u16, String) {
    let Some(secret) = &stripe.secret else {
        tracing::error!(
            "a webhook came and no signing secret is configured; start with --webhook-secret-file"
        );
        return (503, "no signing secret is configured here".to_owned());
    };
    if body.len() > MAX_WEBHOOK {
        return refuse(format!("the body has {} bytes, at most {MAX_WEBHOOK}", body.len()));
    }
    if let Err(error) = verify(signature, body, secret, now_s()) {
        return refuse(error);
    }
    let event = match Event::parse(body) {
        Ok(event) => event,
        Err(error) => return refuse(error),
    };
    if event.live != stripe.live {
        let mode = if event.live { "live" } else { "test" };
        return refuse(format!("it is of {mode} mode and the ledger is not"));
    }
    let webhook = translate(event);
    let (id, kind) = (webhook.id.clone(), webhook.kind.clone());
    match service.writer.with(move |ledger| ledger.take_webhook(&webhook, now_ns())).await {
        Ok(Ok(true)) => {
            tracing::debug!(id, kind, "webhook taken");
            stripe.rung.notify_one();
            (200, "taken".to_owned())
        }
        Ok(Ok(false)) => (200, "taken before".to_owned()),
        Ok(Err(error)) => {
            tracing::error!(%error, "a webhook cannot be kept; stripe sends it again");
            (503, "the ledger could not be written".to_owned())
        }
        Err(_) => (503, "the ledger could not be written".to_owned()),
    }
}

fn refuse(reason: impl ToString) -> (u16, String) {
    let reason = reason.to_string();
    tracing::warn!(reason, "webhook refused");
    (400, reason)
}

/// What is to be read because of an event.
fn translate(event: Event) -> Webhook {
    let Event { id, kind, created, about, .. } = event;
    let mut read = Vec::new();
    let mut observed = None;
    match about {
        About::Checkout { subscription, .. } => read.extend(subscription.map(|id| (Read::Subscription, id))),
        About::Subscription { id, status } => {
            observed = status.map(|status| Observed { subscription: id.clone(), created_s: created, status });
            read.push((Read::Subscription, id));
        }
        About::Invoice { id, subscription } => {
            read.push((Read::Invoice, id));
            // A payment changes the subscription's standing.
            read.extend(subscription.map(|id| (Read::Subscription, id)));
        }
        About::CustomerDeleted(customer) => read.push((Read::Customer, customer)),
        About::MeterErrors { summary, thin } => {
            tracing::error!(event = id, summary, "stripe could not use meter events");
            if thin {
                read.push((Read::MeterErrors, id.clone()));
            }
        }
        About::Other => {}
    }
    Webhook { id, kind, about: read, observed }
}
