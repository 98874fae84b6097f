use wasmeter_usage::Meter;

use super::HOUR;
use crate::{LedgerError, Reader};

/// What the ledger says that Stripe has, of one customer, meter and hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedHour {
    /// Beginning, seconds since the Unix epoch.
    pub hour: i64,
    /// Delivered.
    pub delivered: u64,
    /// Sent, and perhaps there.
    pub unsure: u64,
}

impl Reader {
    /// By hours that begin in `from_s .. to_s`, in their order; those without any are left out.
    ///
    /// # Errors
    /// SQLite's.
    pub fn counted_hours(
        &self,
        customer: &str,
        meter: Meter,
        from_s: i64,
        to_s: i64,
    ) -> Result<Vec<CountedHour>, LedgerError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT stamp_s, state, value FROM bucket WHERE customer = ?1 AND meter = ?2 AND stamp_s >= ?3
               AND stamp_s < ?4 AND state IN ('delivered', 'parked', 'sending') ORDER BY stamp_s",
        )?;
        let mut rows = statement.query((customer, meter.as_str(), from_s, to_s))?;
        let mut all: Vec<CountedHour> = Vec::new();
        while let Some(row) = rows.next()? {
            let stamp: i64 = row.get(0)?;
            let hour = stamp.div_euclid(HOUR) * HOUR;
            if all.last().is_none_or(|last| last.hour != hour) {
                all.push(CountedHour { hour, delivered: 0, unsure: 0 });
            }
            let (state, value): (String, i64) = (row.get(1)?, row.get(2)?);
            if let Some(last) = all.last_mut() {
                let sum = if state == "delivered" { &mut last.delivered } else { &mut last.unsure };
                *sum = sum.saturating_add(value.cast_unsigned());
            }
        }
        Ok(all)
    }

    /// How many buckets with usage of a tenant before a time (seconds since the Unix epoch) are still to be delivered,
    /// and how many of them only a person can help. Those that wait for a subscription are none of them.
    ///
    /// # Errors
    /// SQLite's.
    pub fn undelivered(&self, tenant: &str, before_s: i64) -> Result<(u64, u64), LedgerError> {
        // As of when Stripe is or will be told, as in `natural`.
        let sql = "SELECT count(*), coalesce(sum(state = 'refused'), 0) FROM bucket
             WHERE tenant = ?1 AND hour < ?2
               AND coalesce(stamp_s, min(hour + 3599, coalesce(closed_ns / 1000000000, hour + 3599))) < ?2
               AND (state IN ('open', 'sending', 'parked', 'refused') OR (state = 'ready' AND due_ns < ?3))";
        Ok(self.conn.prepare_cached(sql)?.query_row((tenant, before_s, super::WAITS), |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
        })?)
    }
}
