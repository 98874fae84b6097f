//! What integration tests stand on: the real program on a temporary data directory, with real children, real
//! components and real sockets.
//!
//! ```ignore
//! let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
//! host.deploy("echo", &manifest("echo").public()).await;
//! let answer = host.anonymous().get("/fn/dev/echo/hello").send().await;
//! assert_eq!((answer.status, answer.text()), (200, "hello\n"));
//! ```
//!
//! Everything panics with a message where a test would have to: a test has nothing else to do with such an error.
//! At its end each [`Host`] fails the test if the log holds a line of level WARN or ERROR that the test did not
//! expect ([`Host::allow_log`]), or if a child outlived it.

mod client;
mod deploy;
mod fuzz;
mod host;
mod ledger;
mod log;
mod paths;
mod process;
mod raw;
mod tls;

pub use client::{Answer, Call, Client, Streaming};
pub use deploy::{Manifest, manifest, model_card};
pub use fuzz::fuzz;
pub use host::{Builder, Host};
pub use log::LogLine;
pub use paths::{cache, component, component_path, fixture, model, repository, tiny_model};
pub use process::{Process, descendants};
pub use raw::raw;
