use std::collections::{BTreeMap, HashMap};

use rusqlite::Connection;
use wasmeter_rating::charge;
use wasmeter_usage::{PriceSheet, Quantities};

use crate::LedgerError;
use crate::budget::month;
use crate::open::load_sheets;

/// How far tenants without a subscription are within what is free: what a price book includes, in each calendar month
/// (UTC). It is kept by who asks again and again, so that each entry is looked at once.
#[derive(Default)]
pub struct FreeUse {
    tenants: HashMap<String, Used>,
}

#[derive(Default)]
struct Used {
    position: i64,
    over: bool,
    /// By month and the row of a sheet.
    months: BTreeMap<String, BTreeMap<i64, Quantities>>,
}

impl FreeUse {
    /// Whether a tenant ever used more in a month than is free.
    pub(crate) fn is_over(&mut self, conn: &Connection, tenant: &str) -> Result<bool, LedgerError> {
        let used = self.tenants.entry(tenant.to_owned()).or_default();
        if used.over {
            return Ok(true);
        }
        let mut statement = conn.prepare_cached(
            "SELECT position, end_ns, sheet, requests, fuel, cpu_ns, gpu_ns, tokens_in, tokens_out, egress_bytes
             FROM entry INDEXED BY entry_page WHERE tenant = ?1 AND position > ?2 ORDER BY position",
        )?;
        let mut rows = statement.query((tenant, used.position))?;
        let before = used.position;
        while let Some(row) = rows.next()? {
            used.position = row.get(0)?;
            let month = month(row.get::<_, i64>(1)?.cast_unsigned());
            let sum = used.months.entry(month).or_default().entry(row.get(2)?).or_default();
            let add = |sum: &mut u64, at| -> Result<(), LedgerError> {
                *sum = sum.saturating_add(row.get::<_, i64>(at)?.cast_unsigned());
                Ok(())
            };
            add(&mut sum.requests, 3)?;
            add(&mut sum.fuel, 4)?;
            add(&mut sum.cpu_ns, 5)?;
            add(&mut sum.gpu_ns, 6)?;
            add(&mut sum.tokens_in, 7)?;
            add(&mut sum.tokens_out, 8)?;
            add(&mut sum.egress_bytes, 9)?;
        }
        if used.position == before {
            return Ok(false);
        }
        let sheets: HashMap<i64, PriceSheet> = load_sheets(conn)?.into_iter().collect();
        for sums in used.months.values() {
            let mut quantities = Vec::with_capacity(sums.len());
            for (id, sums) in sums {
                let sheet = sheets
                    .get(id)
                    .ok_or_else(|| LedgerError::Damaged(format!("price sheet {id} is missing")))?;
                quantities.push((sheet.clone(), *sums));
            }
            // The lines without the minimum: who has not subscribed owes none.
            used.over |= charge(&quantities)?.lines.iter().any(|line| line.amount_pico.0 > 0);
        }
        Ok(used.over)
    }
}
