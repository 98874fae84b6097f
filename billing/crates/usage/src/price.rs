use serde::{Deserialize, Serialize};

use crate::{Pico, Quantities, UsageRecord};

/// List prices in pico (10^-12 of the currency unit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// Per million fuel units.
    pub fuel_million: u64,
    /// Per second of accelerator time.
    pub gpu_second: u64,
    /// Per second of CPU time of models.
    pub cpu_second: u64,
    /// Per invocation.
    pub request: u64,
    /// Per token read.
    pub token_in: u64,
    /// Per token written.
    pub token_out: u64,
    /// Per GB (10^9 bytes) of response bodies.
    pub egress_gb: u64,
}

/// The list prices of one price book. The host shows each call's cost by it; the ledger books by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceSheet {
    /// Address of the price book: the hash of its canonical form.
    pub hash: String,
    /// ISO 4217, upper case.
    pub currency: String,
    /// The list prices.
    pub rates: Rates,
}

impl Rates {
    /// The list price of the quantities, rounded down once, to a whole pico. `None` if it does not fit.
    #[must_use]
    pub fn cost(&self, q: &Quantities) -> Option<Pico> {
        // Common denominator 10^9. Each product is below 2^138 only in theory: checked, not assumed.
        const NANO: u128 = 1_000_000_000;
        let terms = [
            (q.fuel, self.fuel_million, 1_000),
            (q.gpu_ns, self.gpu_second, 1),
            (q.cpu_ns, self.cpu_second, 1),
            (q.requests, self.request, NANO),
            (q.tokens_in, self.token_in, NANO),
            (q.tokens_out, self.token_out, NANO),
            (q.egress_bytes, self.egress_gb, 1),
        ];
        let mut sum = 0u128;
        for (quantity, rate, scale) in terms {
            let term = (u128::from(quantity) * u128::from(rate)).checked_mul(scale)?;
            sum = sum.checked_add(term)?;
        }
        i128::try_from(sum / NANO).ok().map(Pico)
    }
}

impl PriceSheet {
    /// The list price of one invocation. `None` if the record's quantities are beyond any real amount.
    #[must_use]
    pub fn cost(&self, record: &UsageRecord) -> Option<Pico> {
        self.rates.cost(&record.quantities())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rounds_down_once() {
        let rates = Rates { fuel_million: 1_500, cpu_second: 1, ..Rates::default() };
        // 999 fuel = 1.4985 pico, 999,999,999 ns = 0.999999999 pico: together 2.49, so 2.
        let q = Quantities { fuel: 999, cpu_ns: 999_999_999, ..Quantities::default() };
        assert_eq!(rates.cost(&q), Some(Pico(2)));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let rates = Rates { request: u64::MAX, token_in: u64::MAX, ..Rates::default() };
        let q = Quantities { requests: u64::MAX, tokens_in: u64::MAX, ..Quantities::default() };
        assert_eq!(rates.cost(&q), None);
    }

    proptest! {
        #[test]
        fn more_use_never_costs_less(fuel in 0u64..1 << 50, ns in 0u64..1 << 50, more in 0u64..1 << 40) {
            let rates = Rates { fuel_million: 17, gpu_second: 3_000_000, request: 200, ..Rates::default() };
            let q = Quantities { fuel, gpu_ns: ns, requests: 1, ..Quantities::default() };
            let r = Quantities { fuel: fuel + more, ..q };
            prop_assert!(rates.cost(&r) >= rates.cost(&q));
        }
    }
}
