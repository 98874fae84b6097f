//! Usage on its way to Stripe, in immutable buckets of one tenant, meter and hour.
//!
//! Buckets are made by a sweep over entry positions with a mark, and not while entries are booked: positions are
//! without gaps and rise with commits, so that entries counted and the mark that says so, written in one transaction,
//! are as exact as counting in the transaction that books; booking, which thousands a second wait for, costs nothing
//! more; and a ledger without Stripe has no outbox at all.
//!
//! ```text
//! open -> ready -> sending -> delivered
//!           ^        |  \---> refused
//!           |        v
//!           \----- parked ---> delivered
//! ```
//!
//! A bucket is `sending` before its call begins; what is found so after a crash was sent or not, and is parked.

mod claim;
mod close;
mod counted;
mod list;
mod probe;
mod quantity;
mod revive;
mod settle;
mod step;
mod sweep;
mod watch;

use rusqlite::Connection;
use wasmeter_usage::Meter;

use crate::LedgerError;

pub use claim::{Claimed, Lane};
pub use close::Closing;
pub use counted::CountedHour;
pub use list::{BucketRow, OutboxCounts};
pub use probe::{Probe, Probed};
pub use settle::Settled;
pub use step::{Attempted, SAFE_NS};
pub use watch::UnderWay;

/// Seconds of an hour.
pub(crate) const HOUR: i64 = 3_600;

/// `due_ns` of what waits for a subscription.
pub(crate) const WAITS: i64 = i64::MAX;

/// A meter by its name in a column.
pub(crate) fn meter(name: &str) -> Result<Meter, LedgerError> {
    Meter::ALL
        .into_iter()
        .find(|m| m.as_str() == name)
        .ok_or_else(|| LedgerError::Damaged(format!("{name:?} is no meter")))
}

/// An exact sum in a column.
pub(crate) fn whole(text: &str) -> Result<i128, LedgerError> {
    text.parse().map_err(|_| LedgerError::Damaged(format!("{text:?} is no whole number")))
}

/// The word of the outbox's present life.
pub(crate) fn life(conn: &Connection) -> Result<String, LedgerError> {
    Ok(conn.query_one("SELECT word FROM outbox_life ORDER BY id DESC LIMIT 1", [], |row| row.get(0))?)
}
