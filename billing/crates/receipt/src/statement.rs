use serde::{Deserialize, Serialize};
use wasmeter_usage::Pico;

use crate::{Adjustments, Hash};

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
    /// The corrections; absent where the tenant never had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjustments: Option<Adjustments>,
}

impl Statement {
    /// What is signed: a line with the form's name, then one a field, in the order above; the tenant as a JSON string. With
    /// corrections it is form 2, and their fields stand at its end.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { stamp, currency, from_ns, to_ns, entries, cost_pico, first, last, .. } = self;
        let Self { tenant, chain, head, commit, commit_hash, made_ns, key, .. } = self;
        let tenant = serde_json::Value::from(tenant.as_str());
        let cost_pico = cost_pico.0;
        let form = if self.adjustments.is_some() { 2 } else { 1 };
        let mut text = format!(
            "wasmeter-statement/{form}\ntenant {tenant}\nstamp {stamp}\ncurrency {currency}\nfrom_ns {from_ns}\n\
             to_ns {to_ns}\nentries {entries}\ncost_pico {cost_pico}\nfirst {first}\nlast {last}\nchain {chain}\n\
             head {head}\ncommit {commit}\ncommit_hash {commit_hash}\nmade_ns {made_ns}\nkey {key}\n"
        );
        if let Some(Adjustments { count, amount_pico, first, last, chain, head }) = &self.adjustments {
            text.push_str(&format!(
                "adjustments {count}\nadjusted_pico {}\nadjustments_first {first}\nadjustments_last {last}\n\
                 adjustments_chain {chain}\nadjustments_head {head}\n",
                amount_pico.0
            ));
        }
        text
    }
}
