use std::collections::{BTreeMap, HashMap};

use rusqlite::{OptionalExtension, TransactionBehavior};
use wasmeter_usage::{Meter, PriceSheet};

use super::{HOUR, whole};
use crate::{Ledger, LedgerError};

/// The columns of quantities, as the sweep reads them.
const COLUMNS: [(Meter, usize); 7] = [
    (Meter::Requests, 4),
    (Meter::Fuel, 5),
    (Meter::CpuTime, 6),
    (Meter::GpuTime, 7),
    (Meter::TokensIn, 8),
    (Meter::TokensOut, 9),
    (Meter::EgressBytes, 10),
];

impl Ledger {
    /// Counts at most `limit` entries more in open buckets; how many it were.
    ///
    /// # Errors
    /// SQLite's, and then nothing is counted.
    pub fn sweep(&mut self, limit: u32, now_ns: u64) -> Result<u32, LedgerError> {
        let priced: HashMap<i64, &PriceSheet> =
            self.sheets.values().map(|(id, sheet)| (*id, sheet)).collect();
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut mark: i64 = tx.query_one("SELECT position FROM outbox_read", [], |row| row.get(0))?;
        let mut sums: BTreeMap<(String, Meter, i64), i128> = BTreeMap::new();
        let mut counted = 0;
        {
            let mut entries = tx.prepare_cached(
                "SELECT position, tenant, end_ns, sheet, requests, fuel, cpu_ns, gpu_ns, tokens_in, tokens_out,
                   egress_bytes FROM entry WHERE position > ?1 ORDER BY position LIMIT ?2",
            )?;
            let mut rows = entries.query((mark, limit))?;
            while let Some(row) = rows.next()? {
                mark = row.get(0)?;
                counted += 1;
                let (end_ns, sheet): (i64, i64) = (row.get(2)?, row.get(3)?);
                let prices = priced
                    .get(&sheet)
                    .ok_or_else(|| LedgerError::Damaged(format!("entry {mark} has no price sheet")))?;
                let hour = end_ns.div_euclid(1_000_000_000).div_euclid(HOUR) * HOUR;
                for (meter, at) in COLUMNS {
                    let quantity: i64 = row.get(at)?;
                    // What costs nothing is not sent.
                    if quantity != 0 && prices.charges(meter) {
                        *sums.entry((row.get(1)?, meter, hour)).or_default() += i128::from(quantity);
                    }
                }
            }
        }
        if counted == 0 {
            return Ok(0);
        }
        for ((tenant, meter, hour), sum) in sums {
            let found = tx
                .prepare_cached(
                    "SELECT id, raw FROM bucket WHERE tenant = ?1 AND meter = ?2 AND hour = ?3 AND state = 'open'",
                )?
                .query_row((&tenant, meter.as_str(), hour), |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
                })
                .optional()?;
            match found {
                Some((id, raw)) => tx
                    .prepare_cached("UPDATE bucket SET raw = ?2 WHERE id = ?1")?
                    .execute((id, (whole(&raw)? + sum).to_string()))?,
                None => tx
                    .prepare_cached(
                        "INSERT INTO bucket (tenant, meter, hour, opened_ns, state, raw)
                         VALUES (?1, ?2, ?3, ?4, 'open', ?5)",
                    )?
                    .execute((&tenant, meter.as_str(), hour, now_ns.cast_signed(), sum.to_string()))?,
            };
        }
        tx.execute("UPDATE outbox_read SET position = ?1", [mark])?;
        tx.commit()?;
        Ok(counted)
    }
}
