mod adjust;
mod bill;
mod budget;
mod quote;
mod receipts;
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
        Reply::Refused { code, message } => {
            tracing::error!(code, message, "billing refused a question of the control API");
            Err(Failure(Error::internal()))
        }
        reply => Ok(reply),
    }
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
