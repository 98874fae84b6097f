use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Meter, Pico, Quantities, UsageRecord};

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
    /// What a bill makes of a period's quantities beyond that. No call's cost depends on it.
    #[serde(default, skip_serializing_if = "Terms::is_empty")]
    pub terms: Terms,
}

/// Tiers, included quantities and a minimum, all by billing period.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Terms {
    /// Meters that are not simply quantity times list price.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub meters: BTreeMap<Meter, MeterTerms>,
    /// What a period with any charged call costs at least, in the currency's smallest unit; 0 is no minimum.
    pub minimum_minor: u64,
}

/// How one meter is priced over a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeterTerms {
    /// What the bounds of the bands mean.
    pub mode: TierMode,
    /// Units of the meter that cost nothing. They are the first of the period, and count towards the bounds.
    #[serde(default)]
    pub included: u64,
    /// At least one; bounds rise, and only the last has none.
    pub bands: Vec<Band>,
}

/// What the bounds of bands mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TierMode {
    /// Each unit has the price of the band that it falls into.
    Graduated,
    /// All units have the price of the band that the last one falls into.
    Volume,
}

/// A range of a period's quantity and its price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    /// The last unit of the meter that it holds; none for all that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<u64>,
    /// Pico, for as many units as the list price is for.
    pub rate: u64,
}

impl Terms {
    /// Whether bills are quantity times list price.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.meters.is_empty() && self.minimum_minor == 0
    }
}

impl Rates {
    /// The list price of one meter, and how many of its units that buys.
    #[must_use]
    pub fn of(&self, meter: Meter) -> (u64, u64) {
        (
            match meter {
                Meter::Fuel => self.fuel_million,
                Meter::GpuTime => self.gpu_second,
                Meter::CpuTime => self.cpu_second,
                Meter::Requests => self.request,
                Meter::TokensIn => self.token_in,
                Meter::TokensOut => self.token_out,
                Meter::EgressBytes => self.egress_gb,
            },
            meter.units_priced(),
        )
    }

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
    /// Whether any quantity of the meter can cost anything, on a bill.
    #[must_use]
    pub fn charges(&self, meter: Meter) -> bool {
        match self.terms.meters.get(&meter) {
            Some(terms) => terms.bands.iter().any(|band| band.rate > 0),
            None => self.rates.of(meter).0 > 0,
        }
    }

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
