use rusqlite::Connection;
use wasmeter_rating::{AmountError, charge};
use wasmeter_usage::{Meter, PriceSheet, Quantities};

use crate::open::load_sheets;
use crate::sums::{fit, time};
use crate::{Ledger, LedgerError, Reader};

use super::billed_until;

const SECOND_NS: i64 = 1_000_000_000;

/// The invoice of a period, and what of the ledger it was made of.
#[derive(Clone, Debug)]
pub struct Period {
    /// Whose it is.
    pub tenant: String,
    /// `cus_…`.
    pub customer: String,
    /// `in_…`.
    pub invoice: String,
    /// Start and end, seconds since the Unix epoch.
    pub window: (i64, i64),
    /// What was booked later is not looked at: it came too late for the invoice. Nanoseconds since the Unix epoch.
    pub booked_by_ns: u64,
}

/// What an invoice has to come to, by the ledger, in the smallest currency unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    /// Its usage: what was delivered for it, at the prices of the calls of its period. `None` where usage was delivered and no
    /// call tells a price.
    pub usage: Option<i64>,
    /// What the lines of usage come to at least; 0 where nothing bounds them.
    pub minimum: i64,
    /// The corrections that were made in its period.
    pub adjustments: i64,
    /// How many these are.
    pub count: u64,
}

/// An item that was added to an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemRow {
    /// `in_…`.
    pub invoice: String,
    /// `prices`, `minimum` or `adjustments`.
    pub kind: String,
    /// `ii_…`.
    pub item: String,
    /// In the smallest currency unit.
    pub amount: i64,
}

impl Reader {
    /// What an invoice has to come to: the same before it is out and at any time after. A correction goes on the invoice of
    /// the period in which it was made; none goes on two.
    ///
    /// # Errors
    /// SQLite's; [`LedgerError::Amount`] for a sum that does not fit.
    pub fn owed(&self, of: &Period) -> Result<Owed, LedgerError> {
        let ns = |s: i64| s.saturating_mul(SECOND_NS).max(0).cast_unsigned();
        let (start_s, end_s) = of.window;
        let upto = booked_by(&self.conn, of.booked_by_ns)?;
        let minimum = match self.last_sheet(&of.tenant, ns(start_s), ns(end_s), upto)? {
            Some(sheet) => {
                i64::try_from(sheet.terms.minimum_minor).map_err(|_| AmountError("the minimum"))?
            }
            None => 0,
        };
        let from_s = start_s.max(billed_until(&self.conn, &of.customer, &of.invoice, end_s)?.min(end_s));
        let made = self.adjustments(&of.tenant, ns(from_s), ns(end_s))?;
        let (adjustments, count) = made.map_or((0, 0), |all| (all.due_minor, all.count));
        let usage = self.usage_due(of, (ns(start_s), ns(end_s)), upto)?;
        Ok(Owed { usage, minimum, adjustments, count })
    }

    /// What was delivered for a period, at the prices of its calls. Stripe counts in hours and in units of its own, so that
    /// some of it may be of a call before or after: that is of the last prices.
    fn usage_due(
        &self,
        of: &Period,
        (from_ns, to_ns): (u64, u64),
        upto: i64,
    ) -> Result<Option<i64>, LedgerError> {
        let delivered = self.delivered(&of.customer, of.window)?;
        if delivered == Quantities::default() {
            return Ok(Some(0));
        }
        let mut used: Vec<(PriceSheet, Quantities)> = self
            .by_sheet(&of.tenant, from_ns, to_ns, upto)?
            .into_iter()
            .map(|(sheet, sums)| (sheet, sums.charged))
            .collect();
        if used.is_empty() {
            let Some(sheet) = self.last_sheet(&of.tenant, 0, to_ns, upto)? else { return Ok(None) };
            used.push((sheet, Quantities::default()));
        }
        for meter in Meter::ALL {
            share(&mut used, meter, delivered.get(meter));
        }
        let due = charge(&used)?.lines.iter().try_fold(0i64, |sum, line| sum.checked_add(line.due_minor));
        Ok(Some(due.ok_or(AmountError("the amount due"))?))
    }

    /// What Stripe was told of a customer, as of a time in the window, and took.
    fn delivered(&self, customer: &str, (from_s, to_s): (i64, i64)) -> Result<Quantities, LedgerError> {
        let mut all = Quantities::default();
        let mut statement = self.conn.prepare_cached(
            "SELECT value, units FROM bucket
             WHERE customer = ?1 AND meter = ?2 AND stamp_s >= ?3 AND stamp_s < ?4 AND state = 'delivered'",
        )?;
        for meter in Meter::ALL {
            let mut rows = statement.query((customer, meter.as_str(), from_s, to_s))?;
            let mut sum = 0i128;
            while let Some(row) = rows.next()? {
                let (value, units): (i64, i64) = (row.get(0)?, row.get(1)?);
                sum += i128::from(value) * i128::from(units);
            }
            *all.of_mut(meter) = fit(sum)?;
        }
        Ok(all)
    }

    /// The latest sheet under which a window has a charged call: its minimum holds, as in a bill.
    fn last_sheet(
        &self,
        tenant: &str,
        from_ns: u64,
        to_ns: u64,
        upto: i64,
    ) -> Result<Option<PriceSheet>, LedgerError> {
        let last: Option<i64> = self
            .conn
            .prepare_cached(
                "SELECT max(sheet) FROM entry INDEXED BY entry_window
                 WHERE tenant = ?1 AND end_ns >= ?2 AND end_ns < ?3 AND requests > 0 AND position <= ?4",
            )?
            .query_row((tenant, time(from_ns), time(to_ns), upto), |row| row.get(0))?;
        let Some(last) = last else { return Ok(None) };
        let found = load_sheets(&self.conn)?.into_iter().find(|(id, _)| *id == last);
        let (_, sheet) =
            found.ok_or_else(|| LedgerError::Damaged(format!("price sheet {last} is missing")))?;
        Ok(Some(sheet))
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

/// Gives the sheets, the oldest first, as much of what was delivered as their calls used; the last one takes what is left.
fn share(used: &mut [(PriceSheet, Quantities)], meter: Meter, mut delivered: u64) {
    // What costs nothing is not delivered.
    let last = used.iter().rposition(|(sheet, _)| sheet.charges(meter)).unwrap_or(used.len() - 1);
    for (n, (sheet, quantities)) in used.iter_mut().enumerate() {
        let quantity = quantities.of_mut(meter);
        *quantity = match n {
            _ if n == last => delivered,
            _ if sheet.charges(meter) => delivered.min(*quantity),
            _ => 0,
        };
        delivered -= *quantity;
    }
}

/// The last position that was booked by a time.
fn booked_by(conn: &Connection, at_ns: u64) -> Result<i64, LedgerError> {
    // Batches have numbers without a gap, in the order of their times.
    let mut high: i64 = conn.query_one("SELECT coalesce(max(id), 0) FROM batch", [], |row| row.get(0))?;
    let mut low = 0;
    let mut committed = conn.prepare_cached("SELECT committed_ns FROM batch WHERE id = ?1")?;
    while low < high {
        let middle = high - (high - low) / 2;
        if committed.query_row([middle], |row| row.get::<_, i64>(0))? <= time(at_ns) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    let sql = "SELECT coalesce(max(last_position), 0) FROM
               (SELECT last_position FROM batch WHERE id <= ?1 AND last_position IS NOT NULL ORDER BY id DESC LIMIT 1)";
    Ok(conn.prepare_cached(sql)?.query_row([low], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use wasmeter_rating::sheet;
    use wasmeter_usage::Rates;

    use super::*;

    #[test]
    fn what_was_delivered_is_shared_as_it_was_used() {
        let priced = |request| sheet("USD", Rates { request, ..Rates::default() });
        let calls = |requests| Quantities { requests, ..Quantities::default() };
        let told = |sheets: [(u64, u64); 3], delivered| {
            let mut used: Vec<_> = sheets.map(|(price, count)| (priced(price), calls(count))).into();
            share(&mut used, Meter::Requests, delivered);
            used.iter().map(|(_, q)| q.requests).collect::<Vec<_>>()
        };
        let sheets = [(1, 5), (2, 7), (3, 4)];
        assert_eq!(told(sheets, 16), [5, 7, 4]);
        // More, of an hour that began before or of a period before; less, of an hour that goes on.
        assert_eq!(told(sheets, 20), [5, 7, 8]);
        assert_eq!(told(sheets, 10), [5, 5, 0]);
        // Calls that were free were not delivered.
        assert_eq!(told([(1, 5), (2, 7), (0, 4)], 13), [5, 8, 0]);
        assert_eq!(told([(0, 5), (2, 7), (3, 4)], 11), [0, 7, 4]);
    }
}
