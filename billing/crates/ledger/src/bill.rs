use std::collections::HashMap;

use wasmeter_rating::{AmountError, Charges, charge};
use wasmeter_usage::wire::Bill;
use wasmeter_usage::{Pico, PriceSheet, Quantities};

use crate::open::load_sheets;
use crate::sums::{COLUMNS, Sums, sums_sql, time};
use crate::{LedgerError, Reader};

impl Reader {
    /// The bill of a tenant over the invocations that ended in `from_ns .. to_ns`, which is one billing period. Its list
    /// total is the exact sum of the entries' costs.
    ///
    /// # Errors
    /// SQLite's; [`LedgerError::Amount`] for a window whose sums do not fit.
    pub fn bill(&self, tenant: &str, from_ns: u64, to_ns: u64) -> Result<Bill, LedgerError> {
        let used = self.by_sheet(tenant, from_ns, to_ns, i64::MAX)?;
        let mut invocations = 0u64;
        let mut list_total_pico = Pico::ZERO;
        let mut quantities = Vec::with_capacity(used.len());
        for (sheet, sums) in used {
            invocations = invocations.saturating_add(sums.charged.requests);
            list_total_pico = list_total_pico + sums.cost;
            quantities.push((sheet, sums.charged));
        }
        let Charges { lines, minimum, due_minor } = charge(&quantities)?;
        let adjustments = self.adjustments(tenant, from_ns, to_ns)?;
        let adjusted = adjustments.as_ref().map_or(0, |all| all.due_minor);
        let due_minor = due_minor.checked_add(adjusted).ok_or(AmountError("the amount due"))?;
        Ok(Bill {
            tenant: tenant.to_owned(),
            from_ns,
            to_ns,
            currency: self.currency.clone(),
            invocations,
            lines,
            list_total_pico,
            minimum,
            adjustments,
            due_minor,
        })
    }

    /// Sums of a window under each price sheet, in the order in which the sheets came; of entries up to a position.
    pub(crate) fn by_sheet(
        &self,
        tenant: &str,
        from_ns: u64,
        to_ns: u64,
        upto: i64,
    ) -> Result<Vec<(PriceSheet, Sums)>, LedgerError> {
        // One snapshot for the sheets and the entries that refer to them.
        let snapshot = self.conn.unchecked_transaction()?;
        let mut sheets: HashMap<i64, PriceSheet> = load_sheets(&snapshot)?.into_iter().collect();
        let mut statement = snapshot.prepare_cached(&by_sheet_sql())?;
        let mut rows = statement.query((tenant, time(from_ns), time(to_ns), upto))?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let sheet = sheets
                .remove(&id)
                .ok_or_else(|| LedgerError::Damaged(format!("price sheet {id} is missing")))?;
            all.push((sheet, Sums::read(row, 1)?));
        }
        Ok(all)
    }
}

pub(crate) fn by_sheet_sql() -> String {
    format!(
        "SELECT sheet, {} FROM entry WHERE tenant = ?1 AND end_ns >= ?2 AND end_ns < ?3 AND position <= ?4
         GROUP BY sheet ORDER BY sheet",
        sums_sql(&COLUMNS)
    )
}

/// The quantities of a model's device time alone.
pub(crate) fn device_time(cpu_ns: u64, gpu_ns: u64) -> Quantities {
    Quantities { cpu_ns, gpu_ns, ..Quantities::default() }
}
