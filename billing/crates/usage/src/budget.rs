//! Budgets and the leases on them, as they travel over `billing.sock`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Pico;

/// Keys with a cap that one tenant may have.
pub const MAX_KEYS: usize = 256;

/// Thresholds that one tenant may have.
pub const MAX_THRESHOLDS: usize = 8;

/// What an invocation drew on beside the invoice. Its presence in a record says that a lease paid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    /// The caller's key (the subject of its token), where that has a cap of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What a tenant may spend. The absence of everything is no budget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetTerms {
    /// In one calendar month (UTC, by the invocation's end); none is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<Pico>,
    /// Whether all is paid from credits that were granted before.
    #[serde(default)]
    pub prepaid: bool,
    /// In one calendar month, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, Pico>,
    /// Who is told, and when.
    #[serde(default, skip_serializing_if = "AlertTerms::is_empty")]
    pub alerts: AlertTerms,
}

/// Who is told how much of a budget is spent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertTerms {
    /// Per cent of the monthly budget, and of the credits granted so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub percent: Vec<u16>,
    /// `https:` address that gets a signed POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// Mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

impl AlertTerms {
    /// Whether nobody is told anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl BudgetTerms {
    /// Whether the tenant as a whole is bounded.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.prepaid || self.monthly.is_some()
    }
}

/// Which accounts of a tenant need a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budgeted {
    /// Tenant.
    pub tenant: String,
    /// Whether the tenant as a whole is bounded.
    pub limited: bool,
    /// Keys with a cap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

/// A tenant's budget and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetState {
    /// Tenant.
    pub tenant: String,
    /// ISO 4217.
    pub currency: String,
    /// What is set; `None` if nothing ever was.
    pub terms: Option<BudgetTerms>,
    /// Month, such as `2026-11`.
    pub month: String,
    /// Booked in it, at list price.
    pub spent: Pico,
    /// Leased to nodes and not booked yet.
    pub reserved: Pico,
    /// Credits granted so far.
    pub granted: Pico,
    /// Credits that nobody has spent.
    pub credit_left: Pico,
    /// Booked in this month, by key with a cap.
    pub keys_spent: BTreeMap<String, Pico>,
}

/// A node's question for money.
///
/// The figures are totals of the epoch and not differences, so that a question that is asked twice changes nothing more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAsk {
    /// Node.
    pub node: String,
    /// Epoch of its spool.
    pub epoch: u64,
    /// Whether the node has shipped all that its earlier epochs left: then their leases end.
    pub settled: bool,
    /// Tenant.
    pub tenant: String,
    /// The key's account; the tenant's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Spent and held on this node in this epoch.
    pub drawn: Pico,
    /// What the node would like to have beyond that. Less than it has gives the rest back.
    pub want: Pico,
}

/// An answer to [`LeaseAsk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// All that the node may draw in this epoch.
    pub granted: Pico,
    /// How long it may, in milliseconds from the question on.
    pub for_ms: u64,
}
