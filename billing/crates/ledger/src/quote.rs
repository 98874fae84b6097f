use wasmeter_rating::quote;
use wasmeter_usage::wire::Quote;

use crate::{LedgerError, Reader};

/// So many of a tenant's latest calls are looked at: a bound of the work, whatever the ledger holds.
const LATEST: u32 = 10_000;

/// Walks one index backwards; no sort.
pub(crate) const LATEST_SQL: &str = "SELECT function, requests, cost_pico FROM entry INDEXED BY entry_page
  WHERE tenant = ?1 ORDER BY position DESC LIMIT ?2";

impl Reader {
    /// What charged calls of a function cost, among the latest calls of its tenant, and what `calls` would together.
    ///
    /// # Errors
    /// SQLite's; [`LedgerError::Amount`] if so many calls cost more than an amount can be.
    pub fn quote(&self, tenant: &str, function: &str, calls: u64) -> Result<Quote, LedgerError> {
        let mut statement = self.conn.prepare_cached(LATEST_SQL)?;
        let mut rows = statement.query((tenant, LATEST))?;
        let (mut of_latest, mut costs) = (0, Vec::new());
        while let Some(row) = rows.next()? {
            of_latest += 1;
            let called = row.get_ref(0)?.as_str_or_null().map_err(rusqlite::Error::from)?;
            // What was not charged says nothing of the next call's cost.
            if called == Some(function) && row.get::<_, i64>(1)? > 0 {
                costs.push(row.get::<_, i64>(2)?.cast_unsigned());
            }
        }
        let stands_on = costs.len() as u64;
        let (one, all) = quote(costs, calls)?.unwrap_or_default();
        Ok(Quote { stands_on, of_latest, one, all })
    }
}
