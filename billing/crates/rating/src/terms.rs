use serde::Deserialize;
use wasmeter_usage::{Band, Meter, MeterTerms, Pico, Terms, TierMode};

use crate::book::{PerMeter, price_name};
use crate::round::pico_per_minor;
use crate::{BookError, parse_rate};

/// The most bands of one meter: each that is reached is a line of every invoice.
const MAX_BANDS: usize = 20;

/// The largest minimum, in the smallest currency unit: what Stripe takes as an amount (eight digits).
const MAX_MINIMUM: i128 = 99_999_999;

/// `[book.tiers.…]`: the bands of one meter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TierTable {
    mode: TierMode,
    bands: Vec<BandTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BandTable {
    up_to: Option<u64>,
    rate: String,
}

/// `[book.minimum]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Minimum {
    amount: String,
    currency: String,
}

/// What an entry says beyond its list prices.
pub(crate) fn terms(
    entry: usize,
    currency: &str,
    mut included: PerMeter<u64>,
    mut tiers: PerMeter<TierTable>,
    minimum: Option<Minimum>,
    list: impl Fn(Meter) -> u64,
) -> Result<Terms, BookError> {
    let mut terms = Terms::default();
    for meter in Meter::ALL {
        let at = Place { entry, meter };
        let free = included.take(meter).unwrap_or(0);
        let free = at.units(free).ok_or_else(|| at.wrong("included", "", TOO_LARGE))?;
        let (mode, bands) = match tiers.take(meter) {
            Some(table) => (table.mode, at.bands(table.bands, free)?),
            None if free == 0 => continue,
            // The list price after what is included.
            None => (TierMode::Graduated, vec![Band { up_to: None, rate: list(meter) }]),
        };
        if mode == TierMode::Volume && free > 0 {
            return Err(at.wrong(
                "included",
                "",
                "stands beside tiers in volume mode, where one price holds for all units: use graduated tiers, or leave \
                 it out and write a first band of rate \"0\"",
            ));
        }
        terms.meters.insert(meter, MeterTerms { mode, included: free, bands });
    }
    if let Some(minimum) = minimum {
        terms.minimum_minor = minimum.minor(entry, currency)?;
    }
    Ok(terms)
}

const TOO_LARGE: &str = "is beyond 2^63 of the meter's own units: write a smaller number";

/// Where in the book something stands.
struct Place {
    entry: usize,
    meter: Meter,
}

impl Place {
    fn wrong(&self, table: &str, rest: &str, what: impl Into<String>) -> BookError {
        let key = format!("{table}.{}{rest}", price_name(self.meter));
        BookError::Terms { entry: self.entry, key, what: what.into() }
    }

    /// As many of what a price is for, in the meter's units.
    fn units(&self, priced: u64) -> Option<u64> {
        priced.checked_mul(self.meter.units_priced()).filter(|units| i64::try_from(*units).is_ok())
    }

    fn bands(&self, bands: Vec<BandTable>, included: u64) -> Result<Vec<Band>, BookError> {
        let (count, mut before) = (bands.len(), included);
        let mut all = Vec::with_capacity(count);
        if count == 0 || count > MAX_BANDS {
            let what = format!("has {count} bands: write 1 to {MAX_BANDS}");
            return Err(self.wrong("tiers", ".bands", what));
        }
        for (index, band) in bands.into_iter().enumerate() {
            let place = |key: &str| format!(".bands[{}].{key}", index + 1);
            let wrong = |key: &str, what: String| self.wrong("tiers", &place(key), what);
            let rate = parse_rate(&band.rate)
                .map_err(|reason| wrong("rate", format!("= {:?} {reason}", band.rate)))?;
            let last = index + 1 == count;
            let up_to = match band.up_to {
                None if !last => {
                    let what = "is missing: only the last band has no bound, and holds all that follows";
                    return Err(wrong("up_to", what.to_owned()));
                }
                Some(_) if last => {
                    let what = "bounds the last band, beyond which nothing would have a price: leave it out";
                    return Err(wrong("up_to", what.to_owned()));
                }
                None => None,
                Some(up_to) => {
                    let units = self.units(up_to).ok_or_else(|| wrong("up_to", TOO_LARGE.to_owned()))?;
                    if units <= before {
                        let what = match index {
                            0 if included > 0 => "is not beyond the included quantity",
                            0 => "is nothing",
                            _ => "does not rise above the band before it",
                        };
                        let what = format!("= {up_to} {what}: write a larger number, or leave the band out");
                        return Err(wrong("up_to", what));
                    }
                    before = units;
                    Some(units)
                }
            };
            all.push(Band { up_to, rate });
        }
        Ok(all)
    }
}

impl Minimum {
    fn minor(&self, entry: usize, currency: &str) -> Result<u64, BookError> {
        let wrong =
            |key: &str, what: String| Err(BookError::Terms { entry, key: format!("minimum.{key}"), what });
        if self.currency != currency {
            let what = format!(
                "= {:?} is not {currency}, the currency of the entry: a bill has one currency",
                self.currency
            );
            return wrong("currency", what);
        }
        let amount = match parse_rate(&self.amount) {
            Ok(pico) => i128::from(pico),
            Err(reason) => return wrong("amount", format!("= {:?} {reason}", self.amount)),
        };
        let per = pico_per_minor(currency);
        if amount % per != 0 {
            let smallest = Pico(per).to_string();
            let smallest = smallest.trim_end_matches('0').trim_end_matches('.');
            let what = format!(
                "= {:?} is no whole number of {smallest} {currency}: no invoice has less",
                self.amount
            );
            return wrong("amount", what);
        }
        match u64::try_from(amount / per) {
            Ok(minor) if i128::from(minor) <= MAX_MINIMUM => Ok(minor),
            _ => wrong("amount", format!("= {:?} is more than an invoice can say: write less", self.amount)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{PriceBook, rate};

    use super::*;

    fn book(rest: &str) -> Result<PriceBook, BookError> {
        let head = "[[book]]\neffective = \"2026-01-01T00:00:00Z\"\ncurrency = \"USD\"\n";
        PriceBook::parse(&format!("{head}[book.list]\nrequest = \"0.01\"\negress_gb = \"0.09\"\n{rest}"))
    }

    fn sheet(rest: &str) -> wasmeter_usage::PriceSheet {
        book(rest).unwrap().entries()[0].sheet.clone()
    }

    fn message(rest: &str) -> String {
        book(rest).unwrap_err().to_string()
    }

    #[test]
    fn reads_tiers_in_the_units_of_prices() {
        let sheet = sheet(
            "[book.included]\negress_gb = 1\n[book.tiers.egress_gb]\nmode = \"graduated\"\n\
             bands = [{ up_to = 10, rate = \"0.08\" }, { rate = \"0.05\" }]\n\
             [book.minimum]\namount = \"5\"\ncurrency = \"USD\"\n",
        );
        assert_eq!(sheet.terms.minimum_minor, 500);
        const GB: u64 = 1_000_000_000;
        let parts = rate(&sheet, Meter::EgressBytes, 11 * GB).unwrap();
        let told: Vec<_> =
            parts.iter().map(|p| (p.quantity / GB, p.up_to.map(|u| u / GB), p.due_minor)).collect();
        assert_eq!(told, [(1, Some(1), 0), (9, Some(10), 72), (1, None, 5)]);
        assert!(parts[0].included && !parts[1].included);
        // Calls show the list price all the same.
        assert_eq!(sheet.rates.egress_gb, 90_000_000_000);
    }

    #[test]
    fn after_what_is_included_the_list_price_holds() {
        let sheet = sheet("[book.included]\nrequest = 1_000\n");
        let parts = rate(&sheet, Meter::Requests, 1_003).unwrap();
        assert_eq!(parts.iter().map(|p| p.due_minor).collect::<Vec<_>>(), [0, 3]);
    }

    #[test]
    fn a_book_without_terms_has_the_hash_that_it_had() {
        let plain = sheet("");
        assert!(plain.terms.is_empty());
        assert_eq!(plain.hash, crate::sheet("USD", plain.rates).hash);
        assert_ne!(plain.hash, sheet("[book.included]\nrequest = 1\n").hash);
        assert_eq!(plain.hash, sheet("[book.included]\nrequest = 0\n").hash);
    }

    #[test]
    fn refuses_with_entry_key_and_the_way_out() {
        let tiers = |mode: &str, bands: &str| {
            message(&format!("[book.tiers.request]\nmode = \"{mode}\"\nbands = [{bands}]\n"))
        };
        let last = "{ rate = \"0\" }";
        for (bands, told) in [
            (
                "{ up_to = 5, rate = \"1\" }, { up_to = 5, rate = \"1\" }, ".to_owned() + last,
                "tiers.request.bands[2].up_to = 5 does not rise above the band before it: write a larger number, or \
                 leave the band out",
            ),
            (
                "{ up_to = 0, rate = \"1\" }, ".to_owned() + last,
                "tiers.request.bands[1].up_to = 0 is nothing: write a larger number, or leave the band out",
            ),
            (
                "{ rate = \"1\" }, ".to_owned() + last,
                "tiers.request.bands[1].up_to is missing: only the last band has no bound, and holds all that follows",
            ),
            (
                "{ up_to = 5, rate = \"1\" }".to_owned(),
                "tiers.request.bands[1].up_to bounds the last band, beyond which nothing would have a price: leave it out",
            ),
            (
                "{ rate = \"-1\" }".to_owned(),
                "tiers.request.bands[1].rate = \"-1\" is negative; a price is zero or more",
            ),
            (String::new(), "tiers.request.bands has 0 bands: write 1 to 20"),
        ] {
            assert_eq!(tiers("graduated", &bands), format!("book entry 1: {told}"));
        }
        assert!(tiers("graduated", &"{ rate = \"0\" }, ".repeat(21)).contains("21 bands"));
        assert!(tiers("linear", last).contains("graduated"), "{}", tiers("linear", last));
        let volume = "[book.tiers.request]\nmode = \"volume\"\nbands = [{ rate = \"1\" }]\n";
        let beside = message(&format!("[book.included]\nrequest = 5\n{volume}"));
        assert!(
            beside.starts_with("book entry 1: included.request stands beside tiers in volume mode"),
            "{beside}"
        );
        let within = message(
            "[book.included]\nrequest = 5\n[book.tiers.request]\nmode = \"graduated\"\n\
             bands = [{ up_to = 5, rate = \"1\" }, { rate = \"1\" }]\n",
        );
        assert!(within.contains("bands[1].up_to = 5 is not beyond the included quantity"), "{within}");
        // 2^63 units, of prices and of the meter's own.
        let large = message("[book.included]\nrequest = 9223372036854775808\n");
        assert!(large.contains("request = 9223372036854775808") || large.contains("2^63"), "{large}");
        let large = message("[book.included]\negress_gb = 9223372037\n");
        assert_eq!(
            large,
            "book entry 1: included.egress_gb is beyond 2^63 of the meter's own units: write a smaller number"
        );
        assert!(message("[book.included]\nrequest = -1\n").contains("request = -1"));
        assert!(message("[book.included]\nfuel = 1\n").contains("unknown field `fuel`"));
    }

    #[test]
    fn refuses_minimums_that_no_invoice_can_say() {
        let minimum = |amount: &str, currency: &str| {
            message(&format!("[book.minimum]\namount = \"{amount}\"\ncurrency = \"{currency}\"\n"))
        };
        assert_eq!(
            minimum("5", "EUR"),
            "book entry 1: minimum.currency = \"EUR\" is not USD, the currency of the entry: a bill has one currency"
        );
        assert_eq!(
            minimum("0.001", "USD"),
            "book entry 1: minimum.amount = \"0.001\" is no whole number of 0.01 USD: no invoice has less"
        );
        assert!(minimum("-5", "USD").contains("minimum.amount = \"-5\" is negative"));
        assert!(minimum("1000000", "USD").contains("more than an invoice can say"));
    }
}
