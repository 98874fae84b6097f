//! From usage and a price book to amounts: pure functions over integers.
//!
//! A [`PriceBook`] is a TOML file of list prices and of terms (tiers, included quantities, minimums) with the times from
//! which they are in force. Each of its entries gives a [`PriceSheet`](wasmeter_usage::PriceSheet), addressed by the hash
//! of its canonical form, by which the host shows each call's cost and the ledger books it: at list price, to the pico.
//! [`charge`] makes the lines of a bill of a period's booked quantities; there alone, terms and the one rounding of each
//! line ([`due_minor`]) apply.

mod bill;
mod book;
mod book_error;
mod currency;
mod decimal;
mod hash;
mod quote;
mod round;
mod terms;
mod tiers;

pub use bill::{AmountError, Charges, charge};
pub use book::{BookEntry, DEFAULT_PRICES, PriceBook, price_name};
pub use book_error::BookError;
pub use currency::{is_currency, minor_digits};
pub use decimal::{RateError, parse_rate};
pub use hash::{canonical_form, sheet, sheet_hash, sheet_with};
pub use quote::quote;
pub use round::due_minor;
pub use tiers::rate;
