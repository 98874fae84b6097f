use std::collections::HashMap;

use wasmeter_rating::{bill_lines, due_minor};
use wasmeter_usage::wire::Bill;
use wasmeter_usage::{Pico, Quantities, Rates};

use crate::open::load_sheets;
use crate::sums::{COLUMNS, Sums, sums_sql, time};
use crate::{LedgerError, Reader};

impl Reader {
    /// The bill of a tenant over the invocations that ended in `from_ns .. to_ns`. Its list total is the exact sum of
    /// the entries' costs.
    ///
    /// # Errors
    /// SQLite's; [`LedgerError::Amount`] for a window whose sums do not fit.
    pub fn bill(&self, tenant: &str, from_ns: u64, to_ns: u64) -> Result<Bill, LedgerError> {
        let used = self.by_sheet(tenant, from_ns, to_ns)?;
        let mut invocations = 0u64;
        let mut list_total_pico = Pico::ZERO;
        let mut quantities = Vec::with_capacity(used.len());
        for (rates, sums) in used {
            invocations = invocations.saturating_add(sums.charged.requests);
            list_total_pico = list_total_pico + sums.cost;
            quantities.push((rates, sums.charged));
        }
        Ok(Bill {
            tenant: tenant.to_owned(),
            from_ns,
            to_ns,
            currency: self.currency.clone(),
            invocations,
            lines: bill_lines(&quantities)?,
            list_total_pico,
            due_minor: due_minor(list_total_pico, &self.currency)?,
        })
    }

    /// Sums of a window under each price sheet.
    pub(crate) fn by_sheet(
        &self,
        tenant: &str,
        from_ns: u64,
        to_ns: u64,
    ) -> Result<Vec<(Rates, Sums)>, LedgerError> {
        // One snapshot for the sheets and the entries that refer to them.
        let snapshot = self.conn.unchecked_transaction()?;
        let sheets: HashMap<i64, Rates> =
            load_sheets(&snapshot)?.into_iter().map(|(id, s)| (id, s.rates)).collect();
        let mut statement = snapshot.prepare_cached(&by_sheet_sql())?;
        let mut rows = statement.query((tenant, time(from_ns), time(to_ns)))?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let rates = sheets
                .get(&id)
                .ok_or_else(|| LedgerError::Damaged(format!("price sheet {id} is missing")))?;
            all.push((*rates, Sums::read(row, 1)?));
        }
        Ok(all)
    }
}

pub(crate) fn by_sheet_sql() -> String {
    format!(
        "SELECT sheet, {} FROM entry WHERE tenant = ?1 AND end_ns >= ?2 AND end_ns < ?3 GROUP BY sheet ORDER BY sheet",
        sums_sql(&COLUMNS)
    )
}

/// The quantities of a model's device time alone.
pub(crate) fn device_time(cpu_ns: u64, gpu_ns: u64) -> Quantities {
    Quantities { cpu_ns, gpu_ns, ..Quantities::default() }
}
