use wasmeter_rating::minor_digits;
use wasmeter_usage::{Band, Meter, MeterTerms, PriceSheet, TierMode};

/// Meter events carry whole numbers of at most this many digits (Stripe documentation, "Record usage").
pub const LARGEST_VALUE: u64 = 999_999_999_999_999;

/// Places of `unit_amount_decimal` behind the point.
const PLACES: u32 = 12;

/// What Stripe counts and prices for one of our meters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sku {
    pub(crate) meter: Meter,
    pub(crate) pricing: Pricing,
}

/// How Stripe prices a meter's sum of a period. Amounts are decimal texts: one Stripe unit's price in the currency's
/// smallest unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pricing {
    /// One price for all units.
    Unit(String),
    /// Tiers, each up to so many Stripe units; the last holds all that follow. What is included is a first tier at 0.
    Tiers(TierMode, Vec<(Option<u64>, String)>),
}

/// A rate that Stripe's prices cannot say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {meter} rate is finer than the {PLACES} places of a price at stripe, by {unit}; round it in the price book"
)]
pub struct FineRate {
    /// The meter.
    pub meter: &'static str,
    /// Its unit at Stripe.
    pub unit: &'static str,
}

/// How many of a meter's units make one unit at Stripe: fuel by the million, as it is priced, and time by the
/// microsecond; what is left over is carried.
#[must_use]
pub fn divisor(meter: Meter) -> u64 {
    match meter {
        Meter::Fuel => 1_000_000,
        Meter::GpuTime | Meter::CpuTime => 1_000,
        Meter::Requests | Meter::TokensIn | Meter::TokensOut | Meter::EgressBytes => 1,
    }
}

/// The name of a meter's unit at Stripe.
#[must_use]
pub fn unit(meter: Meter) -> &'static str {
    match meter {
        Meter::Fuel => "million fuel",
        Meter::GpuTime | Meter::CpuTime => "microsecond",
        Meter::Requests => "request",
        Meter::TokensIn | Meter::TokensOut => "token",
        Meter::EgressBytes => "byte",
    }
}

/// The event name of a meter.
#[must_use]
pub fn event_name(meter: Meter) -> String {
    format!("wasmeter_{}", meter.as_str())
}

/// What a sheet prices. A meter that costs nothing is not sent.
pub(crate) fn skus(sheet: &PriceSheet) -> Result<Vec<Sku>, FineRate> {
    Meter::ALL
        .into_iter()
        .filter_map(|meter| pricing(sheet, meter).map(|pricing| Ok(Sku { meter, pricing: pricing? })))
        .collect()
}

fn pricing(sheet: &PriceSheet, meter: Meter) -> Option<Result<Pricing, FineRate>> {
    if !sheet.charges(meter) {
        return None;
    }
    let (list, per) = sheet.rates.of(meter);
    let amount = |rate| {
        unit_amount(rate, per / divisor(meter), &sheet.currency)
            .ok_or(FineRate { meter: meter.as_str(), unit: unit(meter) })
    };
    let Some(MeterTerms { mode, included, bands }) = sheet.terms.meters.get(&meter) else {
        return Some(amount(list).map(Pricing::Unit));
    };
    let free = (*included > 0).then_some(Band { up_to: Some(*included), rate: 0 });
    let tiers = free.iter().chain(bands).map(|band| {
        // Bounds are whole numbers of what a price is for, and so of Stripe's units.
        Ok((band.up_to.map(|units| units / divisor(meter)), amount(band.rate)?))
    });
    Some(tiers.collect::<Result<_, _>>().map(|tiers| Pricing::Tiers(*mode, tiers)))
}

/// `rate` pico for `units` units, as decimal text of the smallest currency unit for one; `None` where it is not exact.
fn unit_amount(rate: u64, units: u64, currency: &str) -> Option<String> {
    // One pico is 10^-12 of the currency unit, so 10^(digits - 12) of its smallest unit.
    let scaled = u128::from(rate) * 10u128.pow(PLACES + minor_digits(currency));
    let per = u128::from(units) * 1_000_000_000_000;
    if !scaled.is_multiple_of(per) {
        return None;
    }
    let amount = scaled / per;
    let one = 10u128.pow(PLACES);
    let text = format!("{}.{:012}", amount / one, amount % one);
    Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use wasmeter_rating::{DEFAULT_PRICES, PriceBook, sheet};
    use wasmeter_usage::Rates;

    use super::*;

    #[test]
    fn the_default_prices_are_exact() {
        let book = PriceBook::parse(DEFAULT_PRICES).unwrap();
        let skus = skus(&book.entries()[0].sheet).unwrap();
        let told: Vec<_> = skus
            .iter()
            .map(|s| match &s.pricing {
                Pricing::Unit(amount) => (s.meter.as_str(), amount.as_str()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            told,
            [
                ("requests", "0.00002"),
                ("fuel", "0.00000024"),
                ("cpu_time", "0.0000000024"),
                ("gpu_time", "0.00000011"),
                ("egress_bytes", "0.000000009"),
            ]
        );
    }

    #[test]
    fn what_is_included_is_a_first_tier_at_nothing() {
        let text = "[[book]]\neffective = \"2026-01-01T00:00:00Z\"\ncurrency = \"USD\"\n[book.list]\n\
             gpu_second = \"0.001\"\nrequest = \"0.0000002\"\n[book.included]\ngpu_second = 10\n\
             [book.tiers.request]\nmode = \"volume\"\n\
             bands = [{ up_to = 1000, rate = \"0.01\" }, { rate = \"0.005\" }]\n";
        let book = PriceBook::parse(text).unwrap();
        let skus = skus(&book.entries()[0].sheet).unwrap();
        let tiers = |mode, tiers: &[(Option<u64>, &str)]| {
            Pricing::Tiers(mode, tiers.iter().map(|(up_to, amount)| (*up_to, (*amount).to_owned())).collect())
        };
        assert_eq!(skus[0].pricing, tiers(TierMode::Volume, &[(Some(1000), "1"), (None, "0.5")]));
        let free = tiers(TierMode::Graduated, &[(Some(10_000_000), "0"), (None, "0.0000001")]);
        assert_eq!((skus[1].meter, &skus[1].pricing, skus.len()), (Meter::GpuTime, &free, 2));
    }

    #[test]
    fn a_rate_that_stripe_cannot_say_is_refused() {
        let rates = Rates { gpu_second: 1, ..Rates::default() };
        let error = skus(&sheet("USD", rates)).unwrap_err();
        assert_eq!(error, FineRate { meter: "gpu_time", unit: "microsecond" });
        assert_eq!(unit_amount(1_000_000_000_000, 1, "JPY").as_deref(), Some("1"));
        assert_eq!(unit_amount(1_000_000_000_000, 1, "KWD").as_deref(), Some("1000"));
    }
}
