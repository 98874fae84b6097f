use std::fmt;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wasmeter_usage::{Meter, PriceSheet, Rates};

use crate::terms::{Minimum, TierTable, terms};
use crate::{BookError, is_currency, parse_rate, sheet_with};

/// The price book that is used where the operator names none.
pub const DEFAULT_PRICES: &str = include_str!("../default-prices.toml");

/// List prices and terms over time. Never empty; entries in the order of their times, all in one currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceBook {
    entries: Vec<BookEntry>,
}

/// One set of list prices and terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookEntry {
    /// When it comes into force, nanoseconds since the Unix epoch.
    pub effective_ns: u64,
    /// The prices.
    pub sheet: PriceSheet,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    book: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    effective: String,
    currency: String,
    list: PerMeter<String>,
    #[serde(default)]
    included: PerMeter<u64>,
    #[serde(default)]
    tiers: PerMeter<TierTable>,
    minimum: Option<Minimum>,
}

/// Something for each meter, by what its price is called.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PerMeter<T> {
    fuel_million: Option<T>,
    gpu_second: Option<T>,
    cpu_second: Option<T>,
    request: Option<T>,
    token_in: Option<T>,
    token_out: Option<T>,
    egress_gb: Option<T>,
}

impl PriceBook {
    /// Reads and validates a price book.
    ///
    /// # Errors
    /// The first fault found, as [`BookError`] lists them.
    pub fn parse(text: &str) -> Result<Self, BookError> {
        let file: File =
            toml::from_str(text).map_err(|e| BookError::Toml(e.to_string().trim().to_owned()))?;
        let first_currency = file.book.first().ok_or(BookError::Empty)?.currency.clone();
        let mut entries = Vec::with_capacity(file.book.len());
        for (index, entry) in file.book.into_iter().enumerate() {
            entries.push((index + 1, entry.validate(index + 1, &first_currency)?));
        }
        entries.sort_by_key(|(_, entry)| entry.effective_ns);
        if let Some([a, b]) = entries.windows(2).find(|w| w[0].1.effective_ns == w[1].1.effective_ns) {
            let at = Moment(a.1.effective_ns).to_string();
            return Err(BookError::SameTime { first: a.0, second: b.0, at });
        }
        Ok(Self { entries: entries.into_iter().map(|(_, entry)| entry).collect() })
    }

    /// The entry in force at a moment (nanoseconds since the Unix epoch).
    ///
    /// # Errors
    /// [`BookError::NotYet`] before the first entry.
    pub fn at(&self, now_ns: u64) -> Result<&BookEntry, BookError> {
        self.entries.iter().rev().find(|e| e.effective_ns <= now_ns).ok_or_else(|| BookError::NotYet {
            at: Moment(now_ns).to_string(),
            first: Moment(self.entries[0].effective_ns).to_string(),
        })
    }

    /// All entries, the earliest first.
    #[must_use]
    pub fn entries(&self) -> &[BookEntry] {
        &self.entries
    }

    /// The book's one currency.
    #[must_use]
    pub fn currency(&self) -> &str {
        &self.entries[0].sheet.currency
    }
}

impl BookEntry {
    /// When it comes into force, as RFC 3339 text.
    #[must_use]
    pub fn effective(&self) -> String {
        Moment(self.effective_ns).to_string()
    }
}

impl Entry {
    fn validate(self, entry: usize, first: &str) -> Result<BookEntry, BookError> {
        let effective_ns = OffsetDateTime::parse(&self.effective, &Rfc3339)
            .ok()
            .and_then(|t| u64::try_from(t.unix_timestamp_nanos()).ok())
            .ok_or(BookError::Time { entry, text: self.effective })?;
        if !is_currency(&self.currency) {
            return Err(BookError::Currency { entry, text: self.currency });
        }
        if self.currency != first {
            return Err(BookError::CurrencyChange { entry, text: self.currency, first: first.to_owned() });
        }
        let rates = self.list.rates(entry)?;
        let list = |meter| rates.of(meter).0;
        let terms = terms(entry, &self.currency, self.included, self.tiers, self.minimum, list)?;
        Ok(BookEntry { effective_ns, sheet: sheet_with(&self.currency, rates, terms) })
    }
}

impl<T> Default for PerMeter<T> {
    fn default() -> Self {
        Self {
            fuel_million: None,
            gpu_second: None,
            cpu_second: None,
            request: None,
            token_in: None,
            token_out: None,
            egress_gb: None,
        }
    }
}

impl<T> PerMeter<T> {
    /// What there is for a meter.
    pub(crate) fn take(&mut self, meter: Meter) -> Option<T> {
        match meter {
            Meter::Fuel => self.fuel_million.take(),
            Meter::GpuTime => self.gpu_second.take(),
            Meter::CpuTime => self.cpu_second.take(),
            Meter::Requests => self.request.take(),
            Meter::TokensIn => self.token_in.take(),
            Meter::TokensOut => self.token_out.take(),
            Meter::EgressBytes => self.egress_gb.take(),
        }
    }
}

/// What the price of a meter is called in a price book.
#[must_use]
pub fn price_name(meter: Meter) -> &'static str {
    match meter {
        Meter::Fuel => "fuel_million",
        Meter::GpuTime => "gpu_second",
        Meter::CpuTime => "cpu_second",
        Meter::Requests => "request",
        Meter::TokensIn => "token_in",
        Meter::TokensOut => "token_out",
        Meter::EgressBytes => "egress_gb",
    }
}

impl PerMeter<String> {
    fn rates(mut self, entry: usize) -> Result<Rates, BookError> {
        let mut read = |meter| match self.take(meter) {
            None => Ok(0),
            Some(text) => parse_rate(&text).map_err(|reason| BookError::Rate {
                entry,
                rate: price_name(meter),
                text,
                reason,
            }),
        };
        Ok(Rates {
            fuel_million: read(Meter::Fuel)?,
            gpu_second: read(Meter::GpuTime)?,
            cpu_second: read(Meter::CpuTime)?,
            request: read(Meter::Requests)?,
            token_in: read(Meter::TokensIn)?,
            token_out: read(Meter::TokensOut)?,
            egress_gb: read(Meter::EgressBytes)?,
        })
    }
}

/// Nanoseconds since the Unix epoch, shown as RFC 3339.
struct Moment(u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0));
        match time.map(|t| t.format(&Rfc3339)) {
            Ok(Ok(text)) => f.write_str(&text),
            _ => write!(f, "{} ns", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(entries: &[(&str, &str, &str)]) -> Result<PriceBook, BookError> {
        let text: String = entries
            .iter()
            .map(|(effective, currency, list)| {
                format!(
                    "[[book]]\neffective = \"{effective}\"\ncurrency = \"{currency}\"\n[book.list]\n{list}\n"
                )
            })
            .collect();
        PriceBook::parse(&text)
    }

    #[test]
    fn default_prices_are_valid_and_in_force() {
        let book = PriceBook::parse(DEFAULT_PRICES).unwrap();
        let sheet = &book.at(1_790_000_000_000_000_000).unwrap().sheet;
        assert_eq!(sheet.currency, "USD");
        assert_eq!(sheet.rates.request, 200_000);
        assert_eq!(sheet.rates.fuel_million, 2_400);
        assert_eq!(sheet.rates.cpu_second, 24_000_000);
        assert_eq!(sheet.rates.gpu_second, 1_100_000_000);
    }

    #[test]
    fn the_latest_begun_entry_is_in_force() {
        let book = book(&[
            ("2026-06-01T00:00:00Z", "EUR", "request = \"0.2\""),
            ("2026-01-01T00:00:00+01:00", "EUR", "request = \"0.1\""),
        ])
        .unwrap();
        assert_eq!(book.entries()[0].effective(), "2025-12-31T23:00:00Z");
        let june = book.entries()[1].effective_ns;
        assert_eq!(book.at(june - 1).unwrap().sheet.rates.request, 100_000_000_000);
        assert_eq!(book.at(june).unwrap().sheet.rates.request, 200_000_000_000);
        assert!(matches!(book.at(0), Err(BookError::NotYet { .. })));
    }

    #[test]
    fn refuses_with_the_place_and_the_way_out() {
        let jan = "2026-01-01T00:00:00Z";
        let message = |entries: &[(&str, &str, &str)]| book(entries).unwrap_err().to_string();
        assert!(message(&[]).contains("no entry"));
        assert!(message(&[(jan, "USD", "fuel = \"1\"")]).contains("unknown field `fuel`"));
        assert!(message(&[(jan, "USD", "request = 0.1")]).contains("expected a string"));
        assert!(message(&[("tomorrow", "USD", "")]).contains("effective \"tomorrow\""));
        assert!(message(&[("1969-01-01T00:00:00Z", "USD", "")]).contains("since 1970"));
        assert!(message(&[(jan, "usd", "")]).contains("ISO 4217"));
        assert!(message(&[(jan, "USD", "request = \"-1\"")]).contains("negative"));
        assert!(
            message(&[(jan, "USD", ""), ("2027-01-01T00:00:00Z", "EUR", "")])
                .contains("entry 2: currency EUR")
        );
        assert!(message(&[(jan, "USD", ""), ("2026-01-01T01:00:00+01:00", "USD", "")]).contains("keep one"));
        assert_eq!(
            message(&[(jan, "USD", "request = \"0.0000000000001\"")]),
            "book entry 1: request = \"0.0000000000001\" has 13 decimals; at most 12 can be represented"
        );
    }
}
