use std::collections::BTreeMap;

use super::WAITS;
use crate::{LedgerError, Reader};

/// How many buckets are in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// By state; what is ready without a subscription to be billed by is `waiting`.
    pub states: BTreeMap<String, u64>,
    /// Entries that are not yet counted in buckets.
    pub uncounted: u64,
}

impl OutboxCounts {
    /// Buckets in a state.
    #[must_use]
    pub fn of(&self, state: &str) -> u64 {
        self.states.get(state).copied().unwrap_or(0)
    }
}

/// A bucket, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BucketRow {
    /// Tenant.
    pub tenant: String,
    /// Meter.
    pub meter: String,
    /// Beginning of the hour, seconds since the Unix epoch.
    pub hour: i64,
    /// `open`, `ready`, `waiting`, `sending`, `delivered`, `parked` or `refused`.
    pub state: String,
    /// In the meter's unit.
    pub raw: String,
    /// In Stripe's unit; absent while it is open.
    pub value: Option<i64>,
    /// Absent while it is open.
    pub identifier: Option<String>,
    /// Stripe's customer, once it was sent.
    pub customer: Option<String>,
    /// The time that Stripe was told, seconds since the Unix epoch.
    pub stamp_s: Option<i64>,
    /// How often it was sent.
    pub attempts: u32,
    /// When it is due again, nanoseconds since the Unix epoch.
    pub due_ns: Option<i64>,
    /// Why it is where it is.
    pub reason: String,
}

const STATE: &str =
    "CASE WHEN state = 'ready' AND due_ns = 9223372036854775807 THEN 'waiting' ELSE state END";

impl Reader {
    /// Counts buckets.
    ///
    /// # Errors
    /// SQLite's.
    pub fn outbox_counts(&self) -> Result<OutboxCounts, LedgerError> {
        let mut statement =
            self.conn.prepare_cached(&format!("SELECT {STATE}, count(*) FROM bucket GROUP BY 1"))?;
        let states = statement
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?
            .collect::<Result<_, _>>()?;
        Ok(OutboxCounts { states, uncounted: self.uncounted()? })
    }

    /// Entries that are not yet counted in buckets.
    pub(super) fn uncounted(&self) -> Result<u64, LedgerError> {
        let uncounted: i64 = self.conn.query_one(
            "SELECT coalesce(max(position), 0) - (SELECT position FROM outbox_read) FROM entry",
            [],
            |row| row.get(0),
        )?;
        Ok(uncounted.cast_unsigned())
    }

    /// Lists buckets in the order of their making, of one state where that is named.
    ///
    /// # Errors
    /// SQLite's.
    pub fn outbox_rows(&self, state: Option<&str>, limit: u32) -> Result<Vec<BucketRow>, LedgerError> {
        let sql = format!(
            "SELECT tenant, meter, hour, {STATE} AS shown, raw, value, identifier, customer, stamp_s, attempts, due_ns,
               reason FROM bucket WHERE ?1 IS NULL OR shown = ?1 ORDER BY id LIMIT ?2"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let rows = statement.query_map((state, limit), |row| {
            Ok(BucketRow {
                tenant: row.get(0)?,
                meter: row.get(1)?,
                hour: row.get(2)?,
                state: row.get(3)?,
                raw: row.get(4)?,
                value: row.get(5)?,
                identifier: row.get(6)?,
                customer: row.get(7)?,
                stamp_s: row.get(8)?,
                attempts: row.get(9)?,
                due_ns: Some(row.get(10)?).filter(|due| *due != WAITS),
                reason: row.get(11)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
