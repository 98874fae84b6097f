//! Money that bounds work: a host draws on leases of the ledger, an invocation holds what it may cost at most before it
//! begins, and gives back what it did not use when its usage is recorded. So a lease is never overdrawn, whatever runs
//! at one time.

mod account;
mod budgets;
mod purse;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use wasmeter_usage::{Budgeted, Lease, Pico, Unpaid};

pub use budgets::{Budgets, Opening};
pub use purse::Purse;

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The ledger does not answer: what is leased already is good until it runs out.
    #[error("billing does not answer")]
    Away,
    /// The ledger knows no such budget (any more).
    #[error("there is no such budget")]
    Gone,
}

/// What the ledger says of all tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Which accounts need leases.
    pub budgets: Vec<Budgeted>,
    /// Whose subscription ends their work.
    #[serde(default)]
    pub unpaid: Vec<Unpaid>,
}

/// Where leases come from.
#[async_trait]
pub trait LeaseSource: Send + Sync + 'static {
    /// Which accounts need leases, and who has not paid.
    ///
    /// # Errors
    /// [`LeaseError::Away`].
    async fn known(&self) -> Result<Known, LeaseError>;

    /// A lease; the amounts are totals since this process started (see [`wasmeter_usage::LeaseAsk`]).
    ///
    /// # Errors
    /// [`LeaseError`].
    async fn lease(
        &self,
        tenant: &str,
        key: Option<&str>,
        drawn: Pico,
        want: Pico,
    ) -> Result<Lease, LeaseError>;
}
