use std::collections::BTreeMap;

use super::WAITS;
use crate::{LedgerError, Reader};

/// What somebody who watches wants to know of what is under way. Counted by index: what is delivered is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Buckets that are not delivered, by state; what is ready without a subscription to be billed by is `waiting`.
    pub buckets: BTreeMap<String, u64>,
    /// When the oldest of those that are to be delivered was closed, nanoseconds since the Unix epoch.
    pub oldest_ns: Option<u64>,
    /// Entries that are not yet counted in buckets.
    pub uncounted: u64,
    /// Drafts of invoices, by state: `held`, or `differs` where a person must look.
    pub invoices: BTreeMap<String, u64>,
    /// Alerts of budgets that are to be told.
    pub alerts: u64,
}

impl Reader {
    /// Counts what is under way to Stripe and to those who want to be told.
    ///
    /// # Errors
    /// SQLite's.
    pub fn under_way(&self) -> Result<UnderWay, LedgerError> {
        let mut all = UnderWay { uncounted: self.uncounted()?, ..UnderWay::default() };
        let open: i64 = self
            .conn
            .prepare_cached("SELECT count(*) FROM bucket INDEXED BY bucket_open WHERE state = 'open'")?
            .query_row([], |row| row.get(0))?;
        all.buckets.insert("open".to_owned(), open.cast_unsigned());
        let mut add = |sql: &str| -> Result<(), LedgerError> {
            let mut statement = self.conn.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (state, due, count): (String, bool, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let waits = state == "ready" && !due;
                let state = if waits { "waiting".to_owned() } else { state };
                if !waits && state != "refused" {
                    let oldest = row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned);
                    all.oldest_ns = all.oldest_ns.into_iter().chain(oldest).min();
                }
                *all.buckets.entry(state).or_default() += count.cast_unsigned();
            }
            Ok(())
        };
        add(&format!(
            "SELECT state, due_ns < {WAITS}, count(*), min(closed_ns) FROM bucket INDEXED BY bucket_lane
             WHERE state IN ('ready', 'parked') GROUP BY 1, 2"
        ))?;
        add("SELECT state, 1, count(*), min(closed_ns) FROM bucket INDEXED BY bucket_state
             WHERE state IN ('sending', 'parked', 'refused') AND state <> 'parked' GROUP BY 1")?;
        let mut statement = self
            .conn
            .prepare_cached("SELECT state, count(*) FROM stripe_invoice WHERE state <> 'done' GROUP BY 1")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
        all.invoices = rows.collect::<Result<_, _>>()?;
        let alerts: i64 = self.conn.query_one(
            "SELECT count(*) FROM alert_delivery INDEXED BY alert_due WHERE state = 'pending'",
            [],
            |row| row.get(0),
        )?;
        all.alerts = alerts.cast_unsigned();
        Ok(all)
    }
}
