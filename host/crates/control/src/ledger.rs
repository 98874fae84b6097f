mod adjust;
mod bill;
mod budget;
mod quote;
mod receipts;
mod standing;
mod usage;
mod window;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasmeter_types::{Error, ErrorKind};
use wasmeter_usage::Pico;
use wasmeter_usage::wire::{Call, Reply};

use crate::error::{Answer, Failure, refuse};
use crate::shared::Shared;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(usage::usage))
        .routes(routes!(bill::bill))
        .routes(routes!(budget::show, budget::set))
        .routes(routes!(budget::grant))
        .routes(routes!(adjust::adjust))
        .routes(routes!(quote::quote))
        .routes(routes!(standing::show))
        .routes(routes!(standing::portal))
        .routes(routes!(standing::checkout))
        .routes(routes!(receipts::receipts))
        .routes(routes!(receipts::receipt))
        .routes(routes!(receipts::keys))
}

/// Asks billing. What it refuses is the caller's fault only where it says so.
async fn ask(shared: &Shared, call: Call) -> Answer<Reply> {
    match shared.deps.ledger.call(call).await? {
        Reply::Refused { code, message } if code == "malformed" => Err(refuse(ErrorKind::Malformed, message)),
        // What is asked for is not possible; the message says what is.
        Reply::Refused { code, message } if code == "budget" => Err(refuse(ErrorKind::Invalid, message)),
        Reply::Refused { code, .. } if code == "stripe_off" => Err(Failure(stripe_off())),
        Reply::Refused { code, .. } if code == "stripe_away" => Err(Failure(stripe_away())),
        Reply::Refused { code, .. } if code == "no_customer" => Err(Failure(no_customer())),
        Reply::Refused { code, message } => {
            tracing::error!(code, message, "billing refused a question of the control API");
            Err(Failure(Error::internal()))
        }
        reply => Ok(reply),
    }
}

fn stripe_off() -> Error {
    let message = "no Stripe is connected: start with `wasmeter serve --billing twin` for the stand-in, or set mode, stripe-key-file and webhook-secret-file in [billing] of the configuration";
    Error::new(ErrorKind::Conflict, message).coded("stripe_off")
}

fn stripe_away() -> Error {
    let message = "Stripe does not answer: nothing was changed, ask again in a moment";
    let mut error = Error::new(ErrorKind::Unavailable, message).coded("stripe_away");
    error.retry_after = Some(std::time::Duration::from_secs(5));
    error
}

fn no_customer() -> Error {
    let message = "the tenant is no customer of Stripe's yet: subscribe with `wasmeter checkout`";
    Error::new(ErrorKind::Conflict, message).coded("no_customer")
}

/// Billing answered another question.
fn confused(reply: &Reply) -> Failure {
    tracing::error!(?reply, "billing gave an answer of the wrong kind");
    Failure(Error::internal())
}

/// An amount for people, such as `0.000000001100 USD`.
fn money(amount: Pico, currency: &str) -> String {
    format!("{amount} {currency}")
}
