use std::collections::{BTreeMap, HashMap};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wasmeter_rating::{AmountError, charge};
use wasmeter_usage::wire::{BillLine, UsageBy, UsageRow};
use wasmeter_usage::{Meter, Pico, Rates};

use crate::bill::device_time;
use crate::open::load_sheets;
use crate::sums::{COLUMNS, Sums, fit, read_sum, sums_sql, time};
use crate::{LedgerError, Reader};

/// The key of direct model calls among functions. No function's name has parentheses.
const DIRECT: &str = "(direct)";

const HOUR_NS: i64 = 3_600_000_000_000;

impl Reader {
    /// What a tenant was charged for, over the invocations that ended in `from_ns .. to_ns`, in rows sorted by key.
    ///
    /// By function and by hour, a row's cost is the exact sum of its entries' costs. By model, it is the list price of
    /// the device time alone; by meter, that of the meter alone, in a row with only the meter's own quantity.
    ///
    /// # Errors
    /// SQLite's; [`LedgerError::Amount`] for a window whose sums do not fit.
    pub fn usage(
        &self,
        tenant: &str,
        from_ns: u64,
        to_ns: u64,
        by: UsageBy,
    ) -> Result<Vec<UsageRow>, LedgerError> {
        match by {
            UsageBy::Function => self.grouped(&by_function_sql(), tenant, from_ns, to_ns, Ok),
            UsageBy::Hour => self.grouped(&by_hour_sql(), tenant, from_ns, to_ns, hour),
            UsageBy::Model => self.by_model(tenant, from_ns, to_ns),
            UsageBy::Meter => self.by_meter(tenant, from_ns, to_ns),
        }
    }

    fn grouped<K: rusqlite::types::FromSql>(
        &self,
        sql: &str,
        tenant: &str,
        from_ns: u64,
        to_ns: u64,
        key: impl Fn(K) -> Result<String, LedgerError>,
    ) -> Result<Vec<UsageRow>, LedgerError> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query((tenant, time(from_ns), time(to_ns)))?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let Sums { charged, cost } = Sums::read(row, 1)?;
            all.push(UsageRow {
                key: key(row.get(0)?)?,
                requests: charged.requests,
                fuel: charged.fuel,
                cpu_ns: charged.cpu_ns,
                gpu_ns: charged.gpu_ns,
                tokens_in: charged.tokens_in,
                tokens_out: charged.tokens_out,
                egress_bytes: charged.egress_bytes,
                cost_pico: cost,
            });
        }
        Ok(all)
    }

    fn by_model(&self, tenant: &str, from_ns: u64, to_ns: u64) -> Result<Vec<UsageRow>, LedgerError> {
        let snapshot = self.conn.unchecked_transaction()?;
        let sheets: HashMap<i64, Rates> =
            load_sheets(&snapshot)?.into_iter().map(|(id, s)| (id, s.rates)).collect();
        let mut statement = snapshot.prepare_cached(&by_model_sql())?;
        let mut rows = statement.query((tenant, time(from_ns), time(to_ns)))?;
        let mut all: BTreeMap<String, UsageRow> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let (model, version, sheet): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let used = device_time(fit(read_sum(row, 4)?)?, fit(read_sum(row, 6)?)?);
            let rates = sheets
                .get(&sheet)
                .ok_or_else(|| LedgerError::Damaged(format!("price sheet {sheet} is missing")))?;
            let cost = rates.cost(&used).ok_or(AmountError("an amount"))?;
            let key = format!("{model}@{version}");
            let sum = all.entry(key.clone()).or_insert_with(|| empty(key));
            sum.requests = sum.requests.saturating_add(row.get::<_, i64>(3)?.cast_unsigned());
            sum.cpu_ns = sum.cpu_ns.checked_add(used.cpu_ns).ok_or(AmountError("a quantity"))?;
            sum.gpu_ns = sum.gpu_ns.checked_add(used.gpu_ns).ok_or(AmountError("a quantity"))?;
            sum.cost_pico = sum.cost_pico + cost;
        }
        Ok(all.into_values().collect())
    }

    fn by_meter(&self, tenant: &str, from_ns: u64, to_ns: u64) -> Result<Vec<UsageRow>, LedgerError> {
        let used: Vec<_> = self
            .by_sheet(tenant, from_ns, to_ns, i64::MAX)?
            .into_iter()
            .map(|(sheet, sums)| (sheet, sums.charged))
            .collect();
        let mut all: BTreeMap<String, UsageRow> = BTreeMap::new();
        for BillLine { meter, quantity, list_pico, .. } in charge(&used)?.lines {
            let key = meter.as_str().to_owned();
            let row = all.entry(key.clone()).or_insert_with(|| empty(key));
            row.cost_pico = row.cost_pico + list_pico;
            let field = match meter {
                Meter::Fuel => &mut row.fuel,
                Meter::GpuTime => &mut row.gpu_ns,
                Meter::CpuTime => &mut row.cpu_ns,
                Meter::Requests => &mut row.requests,
                Meter::TokensIn => &mut row.tokens_in,
                Meter::TokensOut => &mut row.tokens_out,
                Meter::EgressBytes => &mut row.egress_bytes,
            };
            *field = field.checked_add(quantity).ok_or(AmountError("a quantity"))?;
        }
        Ok(all.into_values().collect())
    }
}

fn empty(key: String) -> UsageRow {
    UsageRow {
        key,
        requests: 0,
        fuel: 0,
        cpu_ns: 0,
        gpu_ns: 0,
        tokens_in: 0,
        tokens_out: 0,
        egress_bytes: 0,
        cost_pico: Pico::ZERO,
    }
}

fn hour(hour: i64) -> Result<String, LedgerError> {
    OffsetDateTime::from_unix_timestamp(hour * 3600)
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok())
        .ok_or_else(|| LedgerError::Damaged(format!("hour {hour} is no time")))
}

pub(crate) fn by_function_sql() -> String {
    format!(
        "SELECT coalesce(function, '{DIRECT}') AS name, {} FROM entry
         WHERE tenant = ?1 AND end_ns >= ?2 AND end_ns < ?3 GROUP BY name ORDER BY name",
        sums_sql(&COLUMNS)
    )
}

pub(crate) fn by_hour_sql() -> String {
    format!(
        "SELECT end_ns / {HOUR_NS} AS hour, {} FROM entry
         WHERE tenant = ?1 AND end_ns >= ?2 AND end_ns < ?3 GROUP BY hour ORDER BY hour",
        sums_sql(&COLUMNS)
    )
}

pub(crate) fn by_model_sql() -> String {
    format!(
        "SELECT model, version, sheet, count(*), {} FROM entry_model
         WHERE tenant = ?1 AND end_ns >= ?2 AND end_ns < ?3 GROUP BY model, version, sheet",
        sums_sql(&["cpu_ns", "gpu_ns"])
    )
}
