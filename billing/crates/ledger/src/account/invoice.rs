use rusqlite::Row;

use crate::sums::time;
use crate::{Ledger, LedgerError, Reader};

/// An invoice as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceSeen {
    /// `in_…`.
    pub invoice: String,
    /// `cus_…`.
    pub customer: String,
    /// `draft`, `open`, `paid`, `void`, `uncollectible`, or `deleted`.
    pub status: String,
    /// Start of the period that it bills, seconds since the Unix epoch.
    pub period_start: i64,
    /// End of that period.
    pub period_end: i64,
    /// In the currency's smallest unit.
    pub total: i64,
}

/// An invoice in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceRow {
    /// As it was last read.
    pub seen: InvoiceSeen,
    /// Whose it is.
    pub tenant: String,
    /// `held`, `differs` or `done`.
    pub state: String,
    /// Why.
    pub detail: String,
}

impl Ledger {
    /// Keeps an invoice as it was read just now. A draft is `held` (or `differs` still); everything else is done.
    ///
    /// # Errors
    /// SQLite's.
    pub fn keep_invoice(&mut self, seen: &InvoiceSeen, now_ns: u64) -> Result<(), LedgerError> {
        let state = if seen.status == "draft" { "held" } else { "done" };
        self.conn.execute(
            "INSERT INTO stripe_invoice VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, '', ?8)
             ON CONFLICT (invoice) DO UPDATE SET status = ?3, period_start = ?4, period_end = ?5, total = ?6,
               state = CASE WHEN ?7 = 'held' AND state = 'differs' THEN state ELSE ?7 END, read_ns = ?8",
            (
                &seen.invoice,
                &seen.customer,
                &seen.status,
                seen.period_start,
                seen.period_end,
                seen.total,
                state,
                time(now_ns),
            ),
        )?;
        Ok(())
    }

    /// Stripe does not know an invoice any more: a draft was deleted.
    ///
    /// # Errors
    /// SQLite's.
    pub fn lose_invoice(&mut self, invoice: &str, now_ns: u64) -> Result<(), LedgerError> {
        self.conn.execute(
            "UPDATE stripe_invoice SET status = 'deleted', state = 'done', read_ns = ?2 WHERE invoice = ?1",
            (invoice, time(now_ns)),
        )?;
        Ok(())
    }

    /// Says why a draft is not finalised yet: `differs` if only a person can help.
    ///
    /// # Errors
    /// SQLite's.
    pub fn hold_invoice(&mut self, invoice: &str, differs: bool, detail: &str) -> Result<(), LedgerError> {
        self.conn.execute(
            "UPDATE stripe_invoice SET state = ?2, detail = ?3 WHERE invoice = ?1 AND state <> 'done'",
            (invoice, if differs { "differs" } else { "held" }, detail),
        )?;
        Ok(())
    }
}

impl Reader {
    /// Drafts that wait for us, the oldest period first.
    ///
    /// # Errors
    /// SQLite's.
    pub fn held_invoices(&self) -> Result<Vec<InvoiceRow>, LedgerError> {
        self.invoices_where("i.state <> 'done'")
    }

    /// All invoices, the oldest period first.
    ///
    /// # Errors
    /// SQLite's.
    pub fn invoices(&self) -> Result<Vec<InvoiceRow>, LedgerError> {
        self.invoices_where("true")
    }

    fn invoices_where(&self, which: &str) -> Result<Vec<InvoiceRow>, LedgerError> {
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT i.invoice, i.customer, i.status, i.period_start, i.period_end, i.total, i.state, i.detail, c.tenant
             FROM stripe_invoice i JOIN stripe_customer c ON c.customer = i.customer WHERE {which}
             ORDER BY i.period_end, i.invoice"
        ))?;
        let rows = statement.query_map([], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<InvoiceRow> {
    Ok(InvoiceRow {
        seen: InvoiceSeen {
            invoice: row.get(0)?,
            customer: row.get(1)?,
            status: row.get(2)?,
            period_start: row.get(3)?,
            period_end: row.get(4)?,
            total: row.get(5)?,
        },
        tenant: row.get(8)?,
        state: row.get(6)?,
        detail: row.get(7)?,
    })
}
