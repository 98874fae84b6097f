use rusqlite::OptionalExtension;

use super::standing::class;
use crate::outbox::WAITS;
use crate::sums::time;
use crate::{Ledger, LedgerError};

/// A subscription as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionSeen {
    /// `sub_…`.
    pub subscription: String,
    /// `cus_…`.
    pub customer: String,
    /// Stripe's word.
    pub status: String,
    /// When it began, seconds since the Unix epoch.
    pub start_s: i64,
    /// When it ended.
    pub ended_s: Option<i64>,
}

impl Ledger {
    /// Keeps a subscription as it was read just now, and lets the usage that it covers go out. Whether its customer is
    /// one of ours; those of others are left alone.
    ///
    /// # Errors
    /// SQLite's.
    pub fn keep_subscription(&mut self, seen: &SubscriptionSeen, now_ns: u64) -> Result<bool, LedgerError> {
        let tx = self.conn.transaction()?;
        let tenant: Option<String> = tx
            .query_row("SELECT tenant FROM stripe_customer WHERE customer = ?1", [&seen.customer], |row| {
                row.get(0)
            })
            .optional()?;
        let Some(tenant) = tenant else { return Ok(false) };
        let before: Option<(String, i64)> = tx
            .query_row(
                "SELECT status, changed_s FROM stripe_subscription WHERE subscription = ?1",
                [&seen.subscription],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        let changed_s = match before {
            Some((status, changed_s)) if class(&status) == class(&seen.status) => changed_s,
            _ => time(now_ns) / 1_000_000_000,
        };
        tx.execute(
            "INSERT OR REPLACE INTO stripe_subscription VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (
                &seen.subscription,
                &seen.customer,
                &seen.status,
                seen.start_s,
                seen.ended_s,
                changed_s,
                time(now_ns),
            ),
        )?;
        // Each is looked at again when it is claimed.
        tx.execute(
            "UPDATE bucket SET due_ns = ?3 WHERE tenant = ?1 AND state = 'ready' AND due_ns = ?4
               AND hour + 3600 > ?2",
            (&tenant, seen.start_s, time(now_ns), WAITS),
        )?;
        tx.commit()?;
        Ok(true)
    }

    /// Stripe does not know a subscription any more.
    ///
    /// # Errors
    /// SQLite's.
    pub fn lose_subscription(&mut self, subscription: &str, now_ns: u64) -> Result<(), LedgerError> {
        let now_s = time(now_ns) / 1_000_000_000;
        self.conn.execute(
            "UPDATE stripe_subscription SET status = 'canceled', ended_s = coalesce(ended_s, ?2), changed_s = ?2,
               read_ns = ?3 WHERE subscription = ?1 AND status <> 'canceled'",
            (subscription, now_s, time(now_ns)),
        )?;
        Ok(())
    }
}
