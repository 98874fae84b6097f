//! The public listener: function triggers, health, and the control API behind one port; and the admin listener.
//!
//! Cheapest checks first: connection permit, sizes, token, catalog, admission. One place ([`answer`]) turns an error
//! into HTTP, and one ([`walls`]) keeps a function from reaching beyond its own path.

mod admin;
mod answer;
mod authority;
mod budget;
mod control;
#[cfg(test)]
mod fuzz;
mod head;
mod once;
mod paced;
mod route;
mod server;
mod socket;
mod taped;
mod tls;
mod trigger;
mod walls;
mod webhook;

pub use admin::{AdminDeps, serve_admin};
pub use answer::{Body, BoxError, boxed};
pub use authority::{Domain, DomainError};
pub use once::Once;
pub use server::{ControlService, Deps, Readiness, ServerOptions, serve};
pub use tls::{Tls, TlsError};
pub use webhook::{Taken, WebhookSink, Webhooks};
