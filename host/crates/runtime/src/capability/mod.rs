//! What a function may reach beyond its own memory, all of it denied until its manifest says otherwise.
//!
//! Each capability has three moments: it is linked once for all functions; it is bound to a revision when the manifest is
//! checked at upload; and it is bound to an invocation by a few pointers, without I/O.

mod caller;
mod clocks;
mod config;
mod invocation;
mod keyvalue;
mod logging;
mod outbound;
mod secrets;

use std::sync::Arc;

use wasmeter_catalog::{KeyValueStore, SecretStore};
use wasmtime::component::Linker;

use crate::guest::Guest;

pub(crate) use caller::Caller;
pub(crate) use keyvalue::Used as KeyValueUsed;
pub(crate) use outbound::{Hooks, Used};
pub use outbound::{Network, Outbound, OutboundError, OutboundOptions, ParseNetworkError};

/// What functions may reach, as far as their manifests say.
pub struct Capabilities {
    /// The way out.
    pub outbound: Outbound,
    /// Secrets of tenants.
    pub secrets: Arc<dyn SecretStore>,
    /// What functions keep.
    pub keyvalue: Arc<dyn KeyValueStore>,
}

/// Links what wasmtime does not bring.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    clocks::link(linker)?;
    config::link(linker)?;
    invocation::link(linker)?;
    keyvalue::link(linker)?;
    logging::link(linker)?;
    secrets::link(linker)
}
