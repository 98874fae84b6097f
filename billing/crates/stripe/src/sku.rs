use wasmeter_rating::minor_digits;
use wasmeter_usage::{Meter, PriceSheet, Rates};

/// Meter events carry whole numbers of at most this many digits (Stripe documentation, "Record usage").
pub const LARGEST_VALUE: u64 = 999_999_999_999_999;

/// Places of `unit_amount_decimal` behind the point.
const PLACES: u32 = 12;

/// What Stripe counts and prices for one of our meters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sku {
    pub(crate) meter: Meter,
    /// Price of one Stripe unit in the currency's smallest unit, decimal text.
    pub(crate) unit_amount: String,
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
        .filter_map(|meter| {
            let (rate, per) = rate(&sheet.rates, meter);
            if rate == 0 {
                return None;
            }
            let amount = unit_amount(rate, per / divisor(meter), &sheet.currency)
                .ok_or(FineRate { meter: meter.as_str(), unit: unit(meter) });
            Some(amount.map(|unit_amount| Sku { meter, unit_amount }))
        })
        .collect()
}

/// A meter's rate in pico, and how many of the meter's own units it buys.
fn rate(rates: &Rates, meter: Meter) -> (u64, u64) {
    const GIGA: u64 = 1_000_000_000;
    match meter {
        Meter::Fuel => (rates.fuel_million, 1_000_000),
        Meter::GpuTime => (rates.gpu_second, GIGA),
        Meter::CpuTime => (rates.cpu_second, GIGA),
        Meter::Requests => (rates.request, 1),
        Meter::TokensIn => (rates.token_in, 1),
        Meter::TokensOut => (rates.token_out, 1),
        Meter::EgressBytes => (rates.egress_gb, GIGA),
    }
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

    use super::*;

    #[test]
    fn the_default_prices_are_exact() {
        let book = PriceBook::parse(DEFAULT_PRICES).unwrap();
        let skus = skus(&book.entries()[0].sheet).unwrap();
        let told: Vec<_> = skus.iter().map(|s| (s.meter.as_str(), s.unit_amount.as_str())).collect();
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
    fn a_rate_that_stripe_cannot_say_is_refused() {
        let rates = Rates { gpu_second: 1, ..Rates::default() };
        let error = skus(&sheet("USD", rates)).unwrap_err();
        assert_eq!(error, FineRate { meter: "gpu_time", unit: "microsecond" });
        assert_eq!(unit_amount(1_000_000_000_000, 1, "JPY").as_deref(), Some("1"));
        assert_eq!(unit_amount(1_000_000_000_000, 1, "KWD").as_deref(), Some("1000"));
    }
}
