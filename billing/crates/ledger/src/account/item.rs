use crate::open::load_sheets;
use crate::sums::time;
use crate::{Ledger, LedgerError, Reader};

use super::billed_until;

const SECOND_NS: i64 = 1_000_000_000;

/// What an invoice has to have beside usage, by the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// What the lines of usage come to at least, in the smallest currency unit; 0 where nothing bounds them.
    pub minimum: i64,
    /// The corrections that were made in its period, in the smallest currency unit.
    pub adjustments: i64,
    /// How many these are.
    pub count: u64,
}

/// An item that was added to an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemRow {
    /// `in_…`.
    pub invoice: String,
    /// `minimum` or `adjustments`.
    pub kind: String,
    /// `ii_…`.
    pub item: String,
    /// In the smallest currency unit.
    pub amount: i64,
}

impl Reader {
    /// What an invoice has to have beside usage, for a period in seconds since the Unix epoch. A correction goes on the
    /// invoice of the period in which it was made; none goes on two.
    ///
    /// # Errors
    /// SQLite's; [`LedgerError::Amount`] for a sum that does not fit.
    pub fn extras(
        &self,
        tenant: &str,
        customer: &str,
        (start_s, end_s): (i64, i64),
    ) -> Result<Extras, LedgerError> {
        let ns = |s: i64| s.saturating_mul(SECOND_NS).max(0).cast_unsigned();
        let minimum = match self.last_sheet(tenant, ns(start_s), ns(end_s))? {
            Some(id) => {
                let sheet = load_sheets(&self.conn)?.into_iter().find(|(row, _)| *row == id);
                let sheet =
                    sheet.ok_or_else(|| LedgerError::Damaged(format!("price sheet {id} is missing")))?;
                i64::try_from(sheet.1.terms.minimum_minor)
                    .map_err(|_| wasmeter_rating::AmountError("the minimum"))?
            }
            None => 0,
        };
        let from_s = start_s.max(billed_until(&self.conn, customer)?.min(end_s));
        let made = self.adjustments(tenant, ns(from_s), ns(end_s))?;
        let (adjustments, count) = made.map_or((0, 0), |all| (all.due_minor, all.count));
        Ok(Extras { minimum, adjustments, count })
    }

    /// The latest sheet under which a period has a charged call: its minimum holds, as in a bill.
    fn last_sheet(&self, tenant: &str, from_ns: u64, to_ns: u64) -> Result<Option<i64>, LedgerError> {
        Ok(self
            .conn
            .prepare_cached(
                "SELECT max(sheet) FROM entry INDEXED BY entry_window
                 WHERE tenant = ?1 AND end_ns >= ?2 AND end_ns < ?3 AND requests > 0",
            )?
            .query_row((tenant, time(from_ns), time(to_ns)), |row| row.get(0))?)
    }

    /// The items that were added to an invoice.
    ///
    /// # Errors
    /// SQLite's.
    pub fn items(&self, invoice: &str) -> Result<Vec<ItemRow>, LedgerError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT invoice, kind, item, amount FROM stripe_item WHERE invoice = ?1 ORDER BY kind",
        )?;
        let rows = statement.query_map([invoice], |row| {
            Ok(ItemRow { invoice: row.get(0)?, kind: row.get(1)?, item: row.get(2)?, amount: row.get(3)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Ledger {
    /// Keeps what was added to an invoice.
    ///
    /// # Errors
    /// SQLite's.
    pub fn keep_item(&mut self, row: &ItemRow, now_ns: u64) -> Result<(), LedgerError> {
        self.conn.execute(
            "INSERT INTO stripe_item VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (invoice, kind) DO UPDATE SET item = ?3, amount = ?4, kept_ns = ?5
             WHERE item <> ?3 OR amount <> ?4",
            (&row.invoice, &row.kind, &row.item, row.amount, time(now_ns)),
        )?;
        Ok(())
    }
}
