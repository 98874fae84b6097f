use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};
use serde::Deserialize;
use wasmeter_usage::Draw;

use super::{amount, booked, month, month_start};
use crate::LedgerError;
use crate::sums::{read_sum, sums_sql};

/// The part of a record that says what it drew on.
#[derive(Deserialize)]
struct Drawn {
    #[serde(default)]
    draw: Option<Draw>,
}

/// A lease: key, node, epoch.
type LeaseOf = (String, String, i64);

/// Sums up what was booked since the last time, by month, key and lease.
pub(crate) fn catch_up(conn: &Connection, tenant: &str, now_ns: u64) -> Result<(), LedgerError> {
    let Some(position) = position(conn, tenant)? else { return begin(conn, tenant, now_ns) };
    let mut months: BTreeMap<(String, String), i128> = BTreeMap::new();
    let mut leases: BTreeMap<LeaseOf, i128> = BTreeMap::new();
    let mut last = position;
    {
        let mut entries = conn.prepare_cached(
            "SELECT e.position, e.end_ns, e.cost_pico, e.record, h.node, h.epoch
             FROM entry e JOIN high_water h ON h.spool = e.spool
             WHERE e.tenant = ?1 AND e.position > ?2 ORDER BY e.position",
        )?;
        let mut rows = entries.query((tenant, position))?;
        while let Some(row) = rows.next()? {
            last = row.get(0)?;
            let cost = i128::from(row.get::<_, i64>(2)?);
            let month = month(row.get::<_, i64>(1)?.cast_unsigned());
            let record: String = row.get(3)?;
            let Drawn { draw } = serde_json::from_str(&record).map_err(|e| {
                LedgerError::Damaged(format!("the record of entry {last} does not parse: {e}"))
            })?;
            if let Some(draw) = draw {
                let (node, epoch): (String, i64) = (row.get(4)?, row.get(5)?);
                if let Some(key) = draw.key {
                    *months.entry((key.clone(), month.clone())).or_default() += cost;
                    *leases.entry((key, node.clone(), epoch)).or_default() += cost;
                }
                *leases.entry((String::new(), node, epoch)).or_default() += cost;
            }
            *months.entry((String::new(), month)).or_default() += cost;
        }
    }
    if last == position {
        return Ok(());
    }
    for ((key, month), cost) in months {
        let sum = booked(conn, tenant, &key, &month)? + cost;
        conn.prepare_cached("INSERT OR REPLACE INTO budget_month VALUES (?1, ?2, ?3, ?4)")?.execute((
            tenant,
            key,
            month,
            sum.to_string(),
        ))?;
    }
    for (lease, cost) in leases {
        add_booked(conn, tenant, &lease, cost)?;
    }
    conn.prepare_cached("UPDATE budget_read SET position = ?2 WHERE tenant = ?1")?.execute((tenant, last))?;
    Ok(())
}

fn position(conn: &Connection, tenant: &str) -> Result<Option<i64>, LedgerError> {
    Ok(conn
        .prepare_cached("SELECT position FROM budget_read WHERE tenant = ?1")?
        .query_row([tenant], |row| row.get(0))
        .optional()?)
}

/// The first time: this month in one sum. What was booked before drew on no lease.
fn begin(conn: &Connection, tenant: &str, now_ns: u64) -> Result<(), LedgerError> {
    let last: i64 =
        conn.query_one("SELECT coalesce(max(position), 0) FROM entry WHERE tenant = ?1", [tenant], |row| {
            row.get(0)
        })?;
    let sql = format!(
        "SELECT count(*), {} FROM entry WHERE tenant = ?1 AND end_ns >= ?2",
        sums_sql(&["cost_pico"])
    );
    let cost = conn.prepare(&sql)?.query_one((tenant, month_start(now_ns).cast_signed()), |row| {
        let entries: i64 = row.get(0)?;
        Ok(if entries == 0 { Ok(0) } else { read_sum(row, 1) })
    })??;
    conn.execute(
        "INSERT OR REPLACE INTO budget_month VALUES (?1, '', ?2, ?3)",
        (tenant, month(now_ns), cost.to_string()),
    )?;
    conn.execute("INSERT INTO budget_read (tenant, position) VALUES (?1, ?2)", (tenant, last))?;
    Ok(())
}

fn add_booked(
    conn: &Connection,
    tenant: &str,
    (key, node, epoch): &LeaseOf,
    cost: i128,
) -> Result<(), LedgerError> {
    let booked = conn
        .prepare_cached(
            "SELECT booked_pico FROM lease WHERE tenant = ?1 AND key = ?2 AND node = ?3 AND epoch = ?4",
        )?
        .query_row((tenant, key, node, epoch), |row| row.get::<_, String>(0))
        .optional()?;
    // A lease of a budget that was taken away and of which nothing is kept.
    let Some(booked) = booked else { return Ok(()) };
    conn.prepare_cached(
        "UPDATE lease SET booked_pico = ?5 WHERE tenant = ?1 AND key = ?2 AND node = ?3 AND epoch = ?4",
    )?
    .execute((tenant, key, node, epoch, (amount(&booked)? + cost).to_string()))?;
    Ok(())
}
