use wasmeter_stripe::{SetupError, StripeError};
use wasmeter_usage::StandingState;
use wasmeter_usage::wire::Reply;

use super::catalogue::CatalogueError;
use super::{Stripe, ledger_failed};
use crate::now::now_ns;
use crate::service::{Service, code, refused};

/// The longest address that a page leads back to.
const MAX_URL: usize = 2_048;

/// The page on which a tenant subscribes; one that has a subscription is led to where it is managed, because a second
/// one would be charged as well.
pub(super) async fn checkout(
    service: &Service,
    stripe: &Stripe,
    tenant: &str,
    success_url: &str,
    cancel_url: &str,
) -> Reply {
    for url in [success_url, cancel_url] {
        if let Some(refusal) = unfit(url) {
            return refusal;
        }
    }
    let (admission, name) = (stripe.admission, tenant.to_owned());
    let standing = match service.readers.ask(move |r| r.standing(&name, &admission, now_ns())).await {
        Ok(standing) => standing,
        Err(error) => return ledger_failed(&error),
    };
    let customer = match standing.customer {
        Some(customer) => customer,
        None => match make_customer(service, stripe, tenant).await {
            Ok(customer) => customer,
            Err(reply) => return reply,
        },
    };
    if matches!(standing.state, StandingState::Active | StandingState::Grace | StandingState::Unpaid) {
        return page(stripe.client.portal(&customer, success_url).await);
    }
    let catalogue = match stripe.catalogue().await {
        Ok(catalogue) => catalogue,
        Err(CatalogueError::Setup(SetupError::Stripe(error))) => return page(Err(error)),
        Err(error) => {
            tracing::error!(%error, "the price book is not at stripe; run `wasmeter-billing setup`");
            return refused(
                code::INTERNAL,
                "the prices could not be set up; see the log of wasmeter-billing",
            );
        }
    };
    page(stripe.client.checkout(tenant, &customer, &catalogue.prices, success_url, cancel_url).await)
}

/// The page on which a tenant manages subscription, cards and invoices.
pub(super) async fn portal(service: &Service, stripe: &Stripe, tenant: &str, return_url: &str) -> Reply {
    if let Some(refusal) = unfit(return_url) {
        return refusal;
    }
    let name = tenant.to_owned();
    match service.readers.ask(move |r| r.customer(&name)).await {
        Ok(Some(customer)) => page(stripe.client.portal(&customer, return_url).await),
        Ok(None) => refused(code::NO_CUSTOMER, "this tenant has never subscribed; ask for checkout first"),
        Err(error) => ledger_failed(&error),
    }
}

async fn make_customer(service: &Service, stripe: &Stripe, tenant: &str) -> Result<String, Reply> {
    let name = tenant.to_owned();
    let (life, had) =
        service.readers.ask(move |r| r.next_customer(&name)).await.map_err(|e| ledger_failed(&e))?;
    // Asked for twice, also after a crash between the answer and our keeping it, it is one customer.
    let key = format!("wasmeter-customer-{life}-{tenant}-{had}");
    let made = stripe.client.create_customer(tenant, &life, &key).await.map_err(|e| page(Err(e)))?;
    let name = tenant.to_owned();
    match service.writer.with(move |ledger| ledger.keep_customer(&name, &made, now_ns())).await {
        Ok(Ok(kept)) => Ok(kept),
        Ok(Err(error)) => Err(ledger_failed(&error)),
        Err(error) => Err(ledger_failed(&error)),
    }
}

fn page(outcome: Result<String, StripeError>) -> Reply {
    match outcome {
        Ok(url) => Reply::Page { url },
        Err(error) if error.may_pass() => {
            tracing::warn!(%error, "stripe gives no page");
            refused(code::STRIPE_AWAY, "stripe does not answer; try again later")
        }
        Err(error) => {
            tracing::error!(%error, "stripe refuses a page");
            refused(code::INTERNAL, "stripe refuses this page; see the log of wasmeter-billing")
        }
    }
}

fn unfit(url: &str) -> Option<Reply> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let fits = url.len() <= MAX_URL
        && rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic()));
    (!fits).then(|| {
        refused(
            code::MALFORMED,
            format!("a page leads back to an http or https address of at most {MAX_URL} bytes"),
        )
    })
}
