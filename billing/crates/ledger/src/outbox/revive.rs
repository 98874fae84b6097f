use rusqlite::TransactionBehavior;
use wasmeter_usage::Meter;

use super::Closing;
use super::close::natural;
use crate::account::covers;
use crate::sums::time;
use crate::{Ledger, LedgerError};

/// Stripe's sums are asked only so long after a restore: the lost ledger may have sent a moment before.
const SETTLED_NS: u64 = 3_600_000_000_000;

impl Ledger {
    /// After a backup was restored: the outbox begins another life, and what the lost ledger may have sent since is
    /// parked until Stripe's sums say whether it did. How many buckets are parked.
    ///
    /// # Errors
    /// SQLite's.
    pub fn revive(&mut self, units: impl Fn(Meter) -> u64, now_ns: u64) -> Result<usize, LedgerError> {
        while self.sweep(5_000, now_ns)? > 0 {}
        // First, because the lost ledger gave the next numbers of the old life to buckets of its own.
        self.conn.execute(
            "INSERT INTO outbox_life (word, reason) VALUES (lower(hex(randomblob(16))), 'restored')",
            [],
        )?;
        self.close_buckets(&Closing::All, units, now_ns)?;
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let unsent: Vec<(i64, String, i64, i64)> = tx
            .prepare("SELECT id, tenant, hour, closed_ns FROM bucket WHERE state IN ('ready', 'sending', 'parked')")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
            .collect::<Result<_, _>>()?;
        let mut parked = 0;
        for (id, tenant, hour, closed_ns) in unsent {
            let natural = natural(hour, closed_ns.cast_unsigned());
            // Without a subscription it was not sent.
            let Some(customer) = covers(&tx, &tenant, natural)? else { continue };
            parked += tx
                .prepare_cached(
                    "UPDATE bucket SET state = 'parked', customer = coalesce(customer, ?2),
                       stamp_s = coalesce(stamp_s, ?3), resend_until_ns = 0, due_ns = ?4,
                       reason = 'a backup was restored: it may have been sent since' WHERE id = ?1",
                )?
                .execute((id, customer, natural, time(now_ns.saturating_add(SETTLED_NS))))?;
        }
        tx.commit()?;
        Ok(parked)
    }
}
