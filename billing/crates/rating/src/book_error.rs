use crate::RateError;

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
    /// Tiers, an included quantity or a minimum that says nothing, or what no invoice can say.
    #[error("book entry {entry}: {key} {what}")]
    Terms {
        /// Which entry.
        entry: usize,
        /// Which key, such as `tiers.request.bands[2].up_to`; bands count from 1.
        key: String,
        /// What is wrong with it, and what to do.
        what: String,
    },
}
