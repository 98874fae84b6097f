//! The control API: everything under `/api/v1`, and `/api/openapi.json`, which is generated from the routes.
//!
//! What the API needs from the rest of the host are the traits in this crate; the composition root implements
//! them. Nothing here knows an engine, a database or a socket.

mod blobs;
mod clock;
mod deps;
mod error;
mod extract;
mod functions;
mod ledger;
mod logs;
mod models;
mod recordings;
mod room;
mod router;
mod secrets;
mod shared;
mod tenants;
mod token;
mod upload;

pub use clock::rfc3339;
pub use deps::{
    Candidate, Checked, DeployStage, Deployer, Deps, Ledger, LogLine, LogStream, Logs, ModelStatus, Models,
    Signature,
};
pub use functions::MAX_COMPONENT;
pub use models::{Bench, BenchReport, BenchStep, MAX_MODEL, Recommended, Spread};
pub use router::router;
