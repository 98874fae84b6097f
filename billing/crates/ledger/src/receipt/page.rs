use rusqlite::{OptionalExtension, Row};
use wasmeter_usage::wire::{MAX_PAGE, Receipt};
use wasmeter_usage::{InvocationId, Pico, UsageRecord};

use crate::sums::time;
use crate::{LedgerError, Reader};

/// A page ends after this many bytes of records, so that its frame stays below the wire's limit.
const PAGE_BYTES: usize = 8 << 20;

/// The first position of a window; walks the window's own part of one index.
pub(crate) const FIRST_SQL: &str = "SELECT min(position) FROM entry INDEXED BY entry_window
  WHERE tenant = ?1 AND end_ns >= ?2 AND end_ns < ?3";

/// A page in ledger order, without a sort.
pub(crate) const PAGE_SQL: &str = "SELECT position, cost_pico, record FROM entry INDEXED BY entry_page
  WHERE tenant = ?1 AND position > ?4 AND end_ns >= ?2 AND end_ns < ?3 ORDER BY position LIMIT ?5";

/// One invocation.
pub(crate) const ONE_SQL: &str =
    "SELECT position, cost_pico, record FROM entry WHERE tenant = ?1 AND invocation = ?2";

impl Reader {
    /// A page of receipts of the invocations that ended in `from_ns .. to_ns`, in ledger order, after a position (0:
    /// from the first). The second value is what to pass as `after` for the next page, `None` after the last.
    ///
    /// # Errors
    /// SQLite's.
    pub fn receipts(
        &self,
        tenant: &str,
        from_ns: u64,
        to_ns: u64,
        after: u64,
        limit: u32,
    ) -> Result<(Vec<Receipt>, Option<u64>), LedgerError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let snapshot = self.conn.unchecked_transaction()?;
        let (from, to) = (time(from_ns), time(to_ns));
        let after = if after == 0 {
            let first: Option<i64> =
                snapshot.prepare_cached(FIRST_SQL)?.query_row((tenant, from, to), |row| row.get(0))?;
            match first {
                Some(first) => first - 1,
                None => return Ok((Vec::new(), None)),
            }
        } else {
            time(after)
        };
        let mut statement = snapshot.prepare_cached(PAGE_SQL)?;
        let mut rows = statement.query((tenant, from, to, after, i64::from(limit) + 1))?;
        let mut lines: Vec<Receipt> = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let full = lines.len() >= limit as usize || bytes > PAGE_BYTES;
            if let (true, Some(last)) = (full, lines.last()) {
                let next = last.entry;
                return Ok((lines, Some(next)));
            }
            let (receipt, size) = self.line(row)?;
            bytes += size;
            lines.push(receipt);
        }
        Ok((lines, None))
    }

    /// The receipt of one invocation; `None` if the tenant has no such.
    ///
    /// # Errors
    /// SQLite's.
    pub fn receipt(&self, tenant: &str, invocation: InvocationId) -> Result<Option<Receipt>, LedgerError> {
        let mut statement = self.conn.prepare_cached(ONE_SQL)?;
        let found =
            statement.query_row((tenant, invocation.to_string()), |row| Ok(self.line(row))).optional()?;
        found.map(|line| line.map(|(receipt, _)| receipt)).transpose()
    }

    fn line(&self, row: &Row<'_>) -> Result<(Receipt, usize), LedgerError> {
        let (position, cost): (i64, i64) = (row.get(0)?, row.get(1)?);
        let text = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
        let record: UsageRecord = serde_json::from_str(text)
            .map_err(|e| LedgerError::Damaged(format!("entry {position} does not parse: {e}")))?;
        let receipt = Receipt {
            invocation: record.invocation,
            entry: position.cast_unsigned(),
            cost_pico: Pico(i128::from(cost)),
            currency: self.currency.clone(),
            record,
        };
        Ok((receipt, text.len()))
    }
}
