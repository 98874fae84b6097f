use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use wasmeter_usage::{PriceSheet, Rates, Terms, TierMode};

/// The bytes that a sheet's hash is taken of. Whoever holds a sheet can check its hash by it.
///
/// A line with the form's name, one with the currency, one a rate in pico, in this order, zero rates included. Where
/// there are terms the form is the second one and has a line more for each meter that has some (in the order of bills:
/// mode, included units, then bound and rate of each band) and one for the minimum.
#[must_use]
pub fn canonical_form(currency: &str, rates: &Rates, terms: &Terms) -> String {
    let Rates { fuel_million, gpu_second, cpu_second, request, token_in, token_out, egress_gb } = rates;
    let version = if terms.is_empty() { 1 } else { 2 };
    let mut form = format!(
        "wasmeter-prices/{version}\ncurrency {currency}\nfuel_million {fuel_million}\ngpu_second {gpu_second}\n\
         cpu_second {cpu_second}\nrequest {request}\ntoken_in {token_in}\ntoken_out {token_out}\n\
         egress_gb {egress_gb}\n"
    );
    if terms.is_empty() {
        return form;
    }
    for meter in wasmeter_usage::Meter::ALL {
        let Some(terms) = terms.meters.get(&meter) else { continue };
        let mode = match terms.mode {
            TierMode::Graduated => "graduated",
            TierMode::Volume => "volume",
        };
        // Writing to a string cannot fail.
        let _ = write!(form, "{} {mode} {}", meter.as_str(), terms.included);
        for band in &terms.bands {
            let _ = match band.up_to {
                Some(up_to) => write!(form, " {up_to}:{}", band.rate),
                None => write!(form, " inf:{}", band.rate),
            };
        }
        form.push('\n');
    }
    let _ = writeln!(form, "minimum_minor {}", terms.minimum_minor);
    form
}

/// SHA-256 of the canonical form, in lower-case hexadecimal; what a true sheet has as its hash.
#[must_use]
pub fn sheet_hash(sheet: &PriceSheet) -> String {
    hash(&sheet.currency, &sheet.rates, &sheet.terms)
}

fn hash(currency: &str, rates: &Rates, terms: &Terms) -> String {
    hex::encode(Sha256::digest(canonical_form(currency, rates, terms)))
}

/// The sheet of these rates, with its hash and without further terms.
#[must_use]
pub fn sheet(currency: &str, rates: Rates) -> PriceSheet {
    sheet_with(currency, rates, Terms::default())
}

/// The sheet of these rates and terms, with its hash.
#[must_use]
pub fn sheet_with(currency: &str, rates: Rates, terms: Terms) -> PriceSheet {
    PriceSheet { hash: hash(currency, &rates, &terms), currency: currency.to_owned(), rates, terms }
}

#[cfg(test)]
mod tests {
    use wasmeter_usage::{Band, Meter, MeterTerms};

    use super::*;

    /// Spools and ledgers hold such hashes: a form never changes, a new one gets a new first line.
    #[test]
    fn golden_form() {
        let rates = Rates { fuel_million: 2_400, request: 200_000, ..Rates::default() };
        let form = canonical_form("USD", &rates, &Terms::default());
        assert_eq!(
            form,
            "wasmeter-prices/1\ncurrency USD\nfuel_million 2400\ngpu_second 0\ncpu_second 0\nrequest 200000\n\
             token_in 0\ntoken_out 0\negress_gb 0\n"
        );
        assert_eq!(sheet("USD", rates).hash.len(), 64);
        assert_ne!(sheet("USD", rates).hash, sheet("EUR", rates).hash);
    }

    #[test]
    fn golden_form_with_terms() {
        let rates = Rates { request: 200_000, ..Rates::default() };
        let bands = vec![Band { up_to: Some(1_000), rate: 200_000 }, Band { up_to: None, rate: 100_000 }];
        let requests = MeterTerms { mode: TierMode::Graduated, included: 10, bands };
        let fuel =
            MeterTerms { mode: TierMode::Volume, included: 0, bands: vec![Band { up_to: None, rate: 7 }] };
        let meters = [(Meter::Fuel, fuel), (Meter::Requests, requests)].into_iter().collect();
        let terms = Terms { meters, minimum_minor: 500 };
        assert_eq!(
            canonical_form("USD", &rates, &terms),
            "wasmeter-prices/2\ncurrency USD\nfuel_million 0\ngpu_second 0\ncpu_second 0\nrequest 200000\n\
             token_in 0\ntoken_out 0\negress_gb 0\nrequests graduated 10 1000:200000 inf:100000\n\
             fuel volume 0 inf:7\nminimum_minor 500\n"
        );
        let sheet = sheet_with("USD", rates, terms);
        assert_ne!(sheet.hash, super::sheet("USD", rates).hash);
        // As it lies in ledgers and travels to hosts.
        let json = serde_json::to_string(&sheet).unwrap();
        assert_eq!(serde_json::from_str::<PriceSheet>(&json).unwrap(), sheet);
        assert_eq!(sheet_hash(&sheet), sheet.hash);
    }
}
