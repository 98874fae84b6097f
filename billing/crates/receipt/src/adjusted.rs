use serde::{Deserialize, Serialize};
use wasmeter_usage::Pico;

use crate::{Hash, Made};

/// A correction of what a tenant owes: a refund of an invocation, or any other amount.
///
/// The corrections of a tenant are a chain of their own beside that of its entries, each signed by itself, since they are
/// few. Each names how far the chain of entries was, so that neither chain can be exchanged under the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adjusted {
    /// Tenant.
    pub tenant: String,
    /// What the ledger was stamped with.
    pub stamp: String,
    /// ISO 4217.
    pub currency: String,
    /// Signed when it was made, or later.
    pub made: Made,
    /// Place among the tenant's corrections, from 1.
    pub index: u64,
    /// [`Adjusted::hash`] of the one before; [`Hash::ZERO`] of the first.
    pub previous: Hash,
    /// As the operator named it.
    pub id: String,
    /// Whose cost it gives back, if it is about one invocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
    /// Below zero for what the tenant gets back.
    pub amount_pico: Pico,
    /// Why.
    pub reason: String,
    /// When, nanoseconds since the Unix epoch; never before the one before.
    pub made_ns: u64,
    /// Length of the tenant's chain of entries when it was signed.
    pub chain: u64,
    /// Its last link; [`Hash::ZERO`] if there was none.
    pub head: Hash,
    /// Which key signed.
    pub key: Hash,
}

impl Adjusted {
    /// What is signed: a line with the form's name, then one a field, in the order above; tenant, id and reason as JSON
    /// strings, `none` without an invocation.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { tenant, stamp, currency, made, index, previous, id, invocation, .. } = self;
        let Self { amount_pico, reason, made_ns, chain, head, key, .. } = self;
        let json = |text: &str| serde_json::Value::from(text);
        let (tenant, id, reason) = (json(tenant), json(id), json(reason));
        let invocation = invocation.as_deref().map_or(json("none"), json);
        format!(
            "wasmeter-adjustment/1\ntenant {tenant}\nstamp {stamp}\ncurrency {currency}\nmade {}\nindex {index}\n\
             previous {previous}\nid {id}\ninvocation {invocation}\namount_pico {}\nreason {reason}\n\
             made_ns {made_ns}\nchain {chain}\nhead {head}\nkey {key}\n",
            made.as_str(),
            amount_pico.0
        )
    }

    /// SHA-256 of [`Adjusted::text`].
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(&[self.text().as_bytes()])
    }
}

/// What a statement says of the corrections that were made in its window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adjustments {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub amount_pico: Pico,
    /// Place of the first of them; 0 if there is none.
    pub first: u64,
    /// Place of the last.
    pub last: u64,
    /// How many the tenant has, whatever the window.
    pub chain: u64,
    /// [`Adjusted::hash`] of the last of these.
    pub head: Hash,
}
