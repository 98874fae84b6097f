use std::fmt;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wasmeter_usage::{PriceSheet, Rates};

use crate::{RateError, is_currency, parse_rate, sheet};

/// The price book that is used where the operator names none.
pub const DEFAULT_PRICES: &str = include_str!("../default-prices.toml");

/// List prices over time. Never empty; entries in the order of their times, all in one currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceBook {
    entries: Vec<BookEntry>,
}

/// One set of list prices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookEntry {
    /// When it comes into force, nanoseconds since the Unix epoch.
    pub effective_ns: u64,
    /// The prices.
    pub sheet: PriceSheet,
}

/// Why a price book is refused. `entry` counts from 1 in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// Not TOML, or not of this shape.
    #[error("price book does not parse: {0}")]
    Toml(String),
    /// No entry at all.
    #[error("price book has no entry; add a [[book]]")]
    Empty,
    /// Not a point in time.
    #[error(
        "book entry {entry}: effective {text:?} is not an RFC 3339 time since 1970, such as \"2026-01-01T00:00:00Z\""
    )]
    Time {
        /// Which entry.
        entry: usize,
        /// What it says.
        text: String,
    },
    /// Not a currency code.
    #[error(
        "book entry {entry}: currency {text:?} is not an ISO 4217 code; write three upper-case letters, such as \"USD\""
    )]
    Currency {
        /// Which entry.
        entry: usize,
        /// What it says.
        text: String,
    },
    /// A ledger sums in one currency.
    #[error(
        "book entry {entry}: currency {text} differs from {first} of the first entry; another currency needs a ledger of its own"
    )]
    CurrencyChange {
        /// Which entry.
        entry: usize,
        /// What it says.
        text: String,
        /// The book's currency.
        first: String,
    },
    /// A price that cannot be represented.
    #[error("book entry {entry}: {rate} = {text:?} {reason}")]
    Rate {
        /// Which entry.
        entry: usize,
        /// Which rate.
        rate: &'static str,
        /// What it says.
        text: String,
        /// What is wrong with it.
        reason: RateError,
    },
    /// Two entries for one moment.
    #[error("book entries {first} and {second} are both effective at {at}; keep one")]
    SameTime {
        /// One.
        first: usize,
        /// The other.
        second: usize,
        /// The moment.
        at: String,
    },
    /// Every entry lies in the future.
    #[error("no book entry is in force at {at}; the first is effective at {first}")]
    NotYet {
        /// The moment asked for.
        at: String,
        /// The first entry's.
        first: String,
    },
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
    list: List,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    fuel_million: Option<String>,
    gpu_second: Option<String>,
    cpu_second: Option<String>,
    request: Option<String>,
    token_in: Option<String>,
    token_out: Option<String>,
    egress_gb: Option<String>,
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
        Ok(BookEntry { effective_ns, sheet: sheet(&self.currency, rates) })
    }
}

impl List {
    fn rates(self, entry: usize) -> Result<Rates, BookError> {
        let read = |rate: &'static str, text: Option<String>| match text {
            None => Ok(0),
            Some(text) => parse_rate(&text).map_err(|reason| BookError::Rate { entry, rate, text, reason }),
        };
        Ok(Rates {
            fuel_million: read("fuel_million", self.fuel_million)?,
            gpu_second: read("gpu_second", self.gpu_second)?,
            cpu_second: read("cpu_second", self.cpu_second)?,
            request: read("request", self.request)?,
            token_in: read("token_in", self.token_in)?,
            token_out: read("token_out", self.token_out)?,
            egress_gb: read("egress_gb", self.egress_gb)?,
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
