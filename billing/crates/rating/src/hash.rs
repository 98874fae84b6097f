use sha2::{Digest, Sha256};
use wasmeter_usage::{PriceSheet, Rates};

/// The bytes that a sheet's hash is taken of: a line with the form's name, one with the currency, one a rate in pico,
/// in this order, zero rates included. Whoever holds a sheet can check its hash by it.
#[must_use]
pub fn canonical_form(currency: &str, rates: &Rates) -> String {
    let Rates { fuel_million, gpu_second, cpu_second, request, token_in, token_out, egress_gb } = rates;
    format!(
        "wasmeter-prices/1\ncurrency {currency}\nfuel_million {fuel_million}\ngpu_second {gpu_second}\n\
         cpu_second {cpu_second}\nrequest {request}\ntoken_in {token_in}\ntoken_out {token_out}\n\
         egress_gb {egress_gb}\n"
    )
}

/// SHA-256 of the canonical form, in lower-case hexadecimal.
#[must_use]
pub fn sheet_hash(currency: &str, rates: &Rates) -> String {
    hex::encode(Sha256::digest(canonical_form(currency, rates)))
}

/// The sheet of these rates, with its hash.
#[must_use]
pub fn sheet(currency: &str, rates: Rates) -> PriceSheet {
    PriceSheet { hash: sheet_hash(currency, &rates), currency: currency.to_owned(), rates }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spools and ledgers hold such hashes: the form never changes, a new one gets a new first line.
    #[test]
    fn golden_form() {
        let rates = Rates { fuel_million: 2_400, request: 200_000, ..Rates::default() };
        let form = canonical_form("USD", &rates);
        assert_eq!(
            form,
            "wasmeter-prices/1\ncurrency USD\nfuel_million 2400\ngpu_second 0\ncpu_second 0\nrequest 200000\n\
             token_in 0\ntoken_out 0\negress_gb 0\n"
        );
        assert_eq!(sheet_hash("USD", &rates).len(), 64);
        assert_ne!(sheet_hash("USD", &rates), sheet_hash("EUR", &rates));
    }
}
