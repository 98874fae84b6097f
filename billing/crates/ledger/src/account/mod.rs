//! Tenants as Stripe's customers: their subscriptions, invoices, and the webhooks that tell of changes.
//!
//! A webhook is taken in one transaction: its id, what it says of a subscription, and the wish to read the object that
//! it is about. What counts is the object as it is read afterwards, one after another, so that no order or repetition of
//! webhooks matters.

mod customer;
mod free;
mod invoice;
mod item;
mod refresh;
mod standing;
mod subscription;
mod webhook;

use rusqlite::{Connection, OptionalExtension};

use crate::LedgerError;

pub use customer::Customer;
pub use free::FreeUse;
pub use invoice::{InvoiceRow, InvoiceSeen};
pub use item::{ItemRow, Owed, Period};
pub use refresh::{About, Refresh};
pub use standing::{Admission, Subscribe};
pub use subscription::SubscriptionSeen;
pub use webhook::{Observed, Webhook};

/// The customer whose subscription covers a tenant's usage at a time (seconds since the Unix epoch).
pub(crate) fn covers(conn: &Connection, tenant: &str, at_s: i64) -> Result<Option<String>, LedgerError> {
    Ok(conn
        .prepare_cached(
            "SELECT c.customer FROM stripe_customer c JOIN stripe_subscription s ON s.customer = c.customer
             WHERE c.tenant = ?1 AND c.gone_ns IS NULL AND s.start_s <= ?2
               AND (s.ended_s IS NULL OR s.ended_s > ?2)
               AND s.status NOT IN ('incomplete', 'incomplete_expired') LIMIT 1",
        )?
        .query_row((tenant, at_s), |row| row.get(0))
        .optional()?)
}

/// The end of the last period whose invoice is out, seconds since the Unix epoch; 0 before the first. `but` is an invoice that
/// does not count, and what ends after `by_s` neither.
pub(crate) fn billed_until(
    conn: &Connection,
    customer: &str,
    but: &str,
    by_s: i64,
) -> Result<i64, LedgerError> {
    Ok(conn
        .prepare_cached(
            "SELECT coalesce(max(period_end), 0) FROM stripe_invoice
             WHERE customer = ?1 AND invoice <> ?2 AND period_end <= ?3
               AND state = 'done' AND status IN ('open', 'paid', 'uncollectible')",
        )?
        .query_row((customer, but, by_s), |row| row.get(0))?)
}
