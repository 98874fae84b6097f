//! From usage and a price book to amounts: pure functions over integers.
//!
//! A [`PriceBook`] is a TOML file of list prices with the times from which they are in force. Each of its entries gives
//! a [`PriceSheet`](wasmeter_usage::PriceSheet), addressed by the hash of its canonical form, by which the host shows
//! each call's cost and the ledger books it. [`bill_lines`] and [`due_minor`] make a bill of booked quantities.

mod bill;
mod book;
mod currency;
mod decimal;
mod hash;

pub use bill::{AmountError, bill_lines, due_minor};
pub use book::{BookEntry, BookError, DEFAULT_PRICES, PriceBook};
pub use currency::{is_currency, minor_digits};
pub use decimal::{RateError, parse_rate};
pub use hash::{canonical_form, sheet, sheet_hash};
