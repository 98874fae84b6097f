//! What a tenant's subscription allows, as it travels over `billing.sock`.

use serde::{Deserialize, Serialize};

/// What became of a tenant's subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StandingState {
    /// There never was one.
    #[default]
    None,
    /// Paid, or on trial.
    Active,
    /// A payment failed and the grace runs.
    Grace,
    /// A payment failed and the grace is over.
    Unpaid,
    /// It ended.
    Canceled,
}

impl StandingState {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            StandingState::None => "none",
            StandingState::Active => "active",
            StandingState::Grace => "grace",
            StandingState::Unpaid => "unpaid",
            StandingState::Canceled => "canceled",
        }
    }
}

/// Where a tenant stands with its payments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Tenant.
    pub tenant: String,
    /// What became of its subscription.
    pub state: StandingState,
    /// Stripe's customer, `cus_…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// The subscription that decides, `sub_…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    /// Since when, nanoseconds since the Unix epoch; 0 where nothing ever happened.
    pub since_ns: u64,
    /// When the grace ends, nanoseconds since the Unix epoch; only in `grace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ends_ns: Option<u64>,
}

/// A tenant that is not admitted because of its subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpaid {
    /// Tenant.
    pub tenant: String,
    /// Since when, nanoseconds since the Unix epoch.
    pub since_ns: u64,
    /// For the tenant: what is wrong and what to do.
    pub reason: String,
}
