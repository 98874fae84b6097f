use serde::{Deserialize, Serialize};
use wasmeter_usage::Pico;

use crate::Hash;

/// What an export holds: the entries of one tenant that ended in `from_ns .. to_ns`, as of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Tenant.
    pub tenant: String,
    /// What the ledger is stamped with: `twin`, `test` or `live`.
    pub stamp: String,
    /// ISO 4217.
    pub currency: String,
    /// Inclusive, nanoseconds since the Unix epoch.
    pub from_ns: u64,
    /// Exclusive.
    pub to_ns: u64,
    /// How many entries of the tenant ended in between.
    pub entries: u64,
    /// What they cost together.
    pub cost_pico: Pico,
    /// Place of the first of them in the tenant's chain; 0 if there is none.
    pub first: u64,
    /// Place of the last.
    pub last: u64,
    /// Length of the tenant's chain, whatever the window.
    pub chain: u64,
    /// Its last link; [`Hash::ZERO`] if there is none.
    pub head: Hash,
    /// The ledger's last commit; 0 if there is none.
    pub commit: u64,
    /// Its hash; [`Hash::ZERO`] if there is none.
    pub commit_hash: Hash,
    /// When, nanoseconds since the Unix epoch, by the clock of billing.
    pub made_ns: u64,
    /// Which key signed.
    pub key: Hash,
}

impl Statement {
    /// What is signed: a line with the form's name, then one a field, in the order above; the tenant as a JSON string.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { stamp, currency, from_ns, to_ns, entries, cost_pico, first, last, .. } = self;
        let Self { tenant, chain, head, commit, commit_hash, made_ns, key, .. } = self;
        let tenant = serde_json::Value::from(tenant.as_str());
        let cost_pico = cost_pico.0;
        format!(
            "wasmeter-statement/1\ntenant {tenant}\nstamp {stamp}\ncurrency {currency}\nfrom_ns {from_ns}\n\
             to_ns {to_ns}\nentries {entries}\ncost_pico {cost_pico}\nfirst {first}\nlast {last}\nchain {chain}\n\
             head {head}\ncommit {commit}\ncommit_hash {commit_hash}\nmade_ns {made_ns}\nkey {key}\n"
        )
    }
}
