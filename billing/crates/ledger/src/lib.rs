//! The ledger: usage records become append-only entries with a cost, each exactly once, in one SQLite file.
//!
//! [`Ledger`] is the one writer. [`Ledger::append`] books batches of records in one transaction: entries, balances, the
//! batch's own row and the high-water mark of its spool, so that a crash leaves all of it or nothing, and a sender that
//! resends from the high-water mark books nothing twice. [`Reader`] is a further connection for questions; it sees
//! whole commits and blocks nobody. [`Reader::check`] recomputes everything from the records.
//!
//! Deduplication is by `(node, epoch, sequence)`; the invocation id guards it: the same invocation under another
//! sequence is rejected, not booked. Rejected records are kept whole and acknowledged, so that a spool never stops.
//!
//! The entries of each tenant are a hash chain, and each transaction signs what it books, with a key that lies beside the
//! ledger (`keys/receipt.key`): [`Reader::export`] and [`Reader::receipt_alone`] show it so that `wasmeter-receipt` can check
//! it anywhere. Entries of a ledger from before that are chained and signed when it is opened next, and say so.

mod account;
mod adjust;
mod alert;
mod append;
mod balance;
mod bill;
mod budget;
mod check;
mod entries;
mod error;
mod judge;
mod open;
mod outbox;
mod quote;
mod reader;
mod receipt;
mod schema;
mod sums;
mod usage;

pub use account::{
    About, Admission, Customer, FreeUse, InvoiceRow, InvoiceSeen, ItemRow, Observed, Owed, Period, Refresh,
    Subscribe, SubscriptionSeen, Webhook,
};
pub use adjust::AdjustmentAsk;
pub use alert::{AlertMark, DueAlert, Told};
pub use append::{Batch, Committed, Refusal};
pub use budget::BudgetRefused;
pub use check::CheckReport;
pub use error::LedgerError;
pub use judge::{Reason, Rejection};
pub use open::{Ledger, Stamp};
pub use outbox::{
    Attempted, BucketRow, Claimed, Closing, CountedHour, Lane, OutboxCounts, Probe, Probed, SAFE_NS, Settled,
    UnderWay,
};
pub use reader::Reader;
pub use schema::SCHEMA_VERSION;
