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
    /// `https:` address that gets a POST, signed by the key of receipts.
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
    /// The latest alerts, the last one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fired: Vec<FiredAlert>,
}

/// A threshold that was passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiredAlert {
    /// `alert_…`; the same each time that it is told.
    pub id: String,
    /// Of what.
    pub of: AlertOf,
    /// The month, of a monthly budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month: Option<String>,
    /// Per cent that were passed.
    pub percent: u16,
    /// Of how much.
    pub bound: Pico,
    /// What was spent when it was found.
    pub spent: Pico,
    /// When that was, nanoseconds since the Unix epoch.
    pub fired_ns: u64,
    /// What became of telling it.
    pub deliveries: Vec<AlertDelivery>,
}

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertOf {
    /// The budget of a month.
    Monthly,
    /// The credits granted so far.
    Credits,
}

impl AlertOf {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AlertOf::Monthly => "monthly",
            AlertOf::Credits => "credits",
        }
    }
}

/// A way to tell an alert, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertDelivery {
    /// How.
    pub channel: AlertChannel,
    /// What became of it.
    pub state: AlertState,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it is not delivered; empty if it is, or was not tried yet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// How somebody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertChannel {
    /// A POST.
    Webhook,
    /// A mail.
    Email,
}

impl AlertChannel {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AlertChannel::Webhook => "webhook",
            AlertChannel::Email => "email",
        }
    }
}

/// Whether somebody was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// Not yet.
    Pending,
    /// The other side has it.
    Delivered,
    /// Nobody tries any more.
    Failed,
}

impl AlertState {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AlertState::Pending => "pending",
            AlertState::Delivered => "delivered",
            AlertState::Failed => "failed",
        }
    }
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
