use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};
use wasmeter_usage::{Meter, Pico, Quantities};

use crate::LedgerError;

/// What a transaction adds to balances, by tenant.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Deltas(pub(crate) BTreeMap<String, Delta>);

/// Sums of one tenant, in the order of [`Meter::ALL`].
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) quantities: [i128; Meter::ALL.len()],
    pub(crate) cost_pico: i128,
}

impl Deltas {
    /// Adds one entry. One entry's figures fit 64 bits, so that no ledger has enough of them to pass 127.
    pub(crate) fn add(&mut self, tenant: &str, charged: &Quantities, cost_pico: i64) {
        if !self.0.contains_key(tenant) {
            self.0.insert(tenant.to_owned(), Delta::default());
        }
        if let Some(delta) = self.0.get_mut(tenant) {
            for (sum, meter) in delta.quantities.iter_mut().zip(Meter::ALL) {
                *sum += i128::from(charged.get(meter));
            }
            delta.cost_pico += i128::from(cost_pico);
        }
    }

    /// Adds all of it to the balances in the file.
    pub(crate) fn store(&self, conn: &Connection) -> Result<(), LedgerError> {
        let mut read =
            conn.prepare_cached("SELECT quantity FROM balance WHERE tenant = ?1 AND meter = ?2")?;
        let mut write = conn.prepare_cached("INSERT OR REPLACE INTO balance VALUES (?1, ?2, ?3)")?;
        let mut read_cost = conn.prepare_cached("SELECT cost_pico FROM balance_cost WHERE tenant = ?1")?;
        let mut write_cost = conn.prepare_cached("INSERT OR REPLACE INTO balance_cost VALUES (?1, ?2)")?;
        for (tenant, delta) in &self.0 {
            for (meter, quantity) in Meter::ALL.into_iter().zip(delta.quantities).filter(|(_, q)| *q != 0) {
                let old =
                    read.query_row((tenant, meter.as_str()), |row| row.get::<_, String>(0)).optional()?;
                let sum = parse(tenant, old)? + quantity;
                write.execute((tenant, meter.as_str(), sum.to_string()))?;
            }
            let old = read_cost.query_row([tenant], |row| row.get::<_, String>(0)).optional()?;
            let sum = parse(tenant, old)? + delta.cost_pico;
            write_cost.execute((tenant, sum.to_string()))?;
        }
        Ok(())
    }

    /// The balances in the file.
    pub(crate) fn load(conn: &Connection) -> Result<Self, LedgerError> {
        let mut all = Self::default();
        let mut statement = conn.prepare("SELECT tenant, cost_pico FROM balance_cost")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let tenant: String = row.get(0)?;
            let cost_pico = parse(&tenant, Some(row.get(1)?))?;
            all.0.insert(tenant, Delta { cost_pico, ..Delta::default() });
        }
        let mut statement = conn.prepare("SELECT tenant, meter, quantity FROM balance")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (tenant, meter): (String, String) = (row.get(0)?, row.get(1)?);
            let quantity = parse(&tenant, Some(row.get(2)?))?;
            let index = Meter::ALL.iter().position(|m| m.as_str() == meter);
            match (index, all.0.get_mut(&tenant)) {
                (Some(index), Some(delta)) => delta.quantities[index] = quantity,
                _ => {
                    return Err(LedgerError::Damaged(format!(
                        "balance of {tenant:?} has a stray meter {meter:?}"
                    )));
                }
            }
        }
        Ok(all)
    }
}

/// The running cost of one tenant over all time; zero for one that never paid.
pub(crate) fn cost(conn: &Connection, tenant: &str) -> Result<Pico, LedgerError> {
    let mut statement = conn.prepare_cached("SELECT cost_pico FROM balance_cost WHERE tenant = ?1")?;
    let text = statement.query_row([tenant], |row| row.get::<_, String>(0)).optional()?;
    parse(tenant, text).map(Pico)
}

fn parse(tenant: &str, text: Option<String>) -> Result<i128, LedgerError> {
    let Some(text) = text else { return Ok(0) };
    text.parse().map_err(|_| LedgerError::Damaged(format!("balance of {tenant:?} is {text:?}")))
}
