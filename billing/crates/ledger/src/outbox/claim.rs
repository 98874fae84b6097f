use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use wasmeter_usage::Meter;

use super::close::natural;
use super::{WAITS, meter};
use crate::account::{billed_until, covers};
use crate::sums::time;
use crate::{Ledger, LedgerError, Reader};

/// Stripe takes timestamps of up to 35 days back (documentation, "Record usage").
const OLDEST_S: i64 = 34 * 86_400;

/// Lanes that are looked for at once.
const LANES: u32 = 10_000;

/// One tenant and meter: of these only one call is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    /// Tenant.
    pub tenant: String,
    /// Meter.
    pub meter: Meter,
}

/// A bucket that is `sending` from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Its row.
    pub id: i64,
    /// Its lane.
    pub lane: Lane,
    /// Stripe's customer.
    pub customer: String,
    /// In Stripe's unit of the meter.
    pub value: u64,
    /// The same for ever.
    pub identifier: String,
    /// Seconds since the Unix epoch; the same as long as an attempt may have arrived.
    pub stamp_s: i64,
}

impl Reader {
    /// Lanes with something to send.
    ///
    /// # Errors
    /// SQLite's.
    pub fn due_lanes(&self, now_ns: u64) -> Result<Vec<Lane>, LedgerError> {
        let rows: Vec<(String, String)> = self
            .conn
            .prepare_cached(
                "SELECT tenant, meter FROM bucket WHERE state IN ('ready', 'parked') AND due_ns <= ?1
                   AND (resend_until_ns IS NULL OR resend_until_ns > ?1)
                 GROUP BY tenant, meter LIMIT ?2",
            )?
            .query_map((time(now_ns), LANES), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        rows.into_iter().map(|(tenant, name)| Ok(Lane { tenant, meter: meter(&name)? })).collect()
    }
}

impl Ledger {
    /// Claims the next bucket of each lane, in one transaction.
    ///
    /// # Errors
    /// SQLite's, and then none is claimed.
    pub fn claim(&mut self, lanes: &[Lane], now_ns: u64) -> Result<Vec<Claimed>, LedgerError> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut claimed = Vec::new();
        for lane in lanes {
            while let Some(due) = next(&tx, lane, now_ns)? {
                let fixed = match due.fixed {
                    Some(fixed) => Some(fixed),
                    None => fix(&tx, lane, due.natural_s, now_ns)?,
                };
                let Some((customer, stamp_s)) = fixed else {
                    tx.prepare_cached("UPDATE bucket SET due_ns = ?2 WHERE id = ?1")?
                        .execute((due.id, WAITS))?;
                    continue;
                };
                tx.prepare_cached(
                    "UPDATE bucket SET state = 'sending', customer = ?2, stamp_s = ?3, attempts = attempts + 1,
                       began_ns = ?4 WHERE id = ?1",
                )?
                .execute((due.id, &customer, stamp_s, time(now_ns)))?;
                claimed.push(Claimed {
                    id: due.id,
                    lane: lane.clone(),
                    customer,
                    value: due.value,
                    identifier: due.identifier,
                    stamp_s,
                });
                break;
            }
        }
        tx.commit()?;
        Ok(claimed)
    }
}

struct Due {
    id: i64,
    value: u64,
    identifier: String,
    natural_s: i64,
    /// Customer and timestamp of an attempt that may have arrived.
    fixed: Option<(String, i64)>,
}

fn next(conn: &Connection, lane: &Lane, now_ns: u64) -> Result<Option<Due>, LedgerError> {
    let row = conn
        .prepare_cached(
            "SELECT id, value, identifier, hour, closed_ns, state, customer, stamp_s FROM bucket
             WHERE tenant = ?1 AND meter = ?2 AND state IN ('ready', 'parked') AND due_ns <= ?3
               AND (resend_until_ns IS NULL OR resend_until_ns > ?3)
             ORDER BY due_ns, id LIMIT 1",
        )?
        .query_row((&lane.tenant, lane.meter.as_str(), time(now_ns)), |row| {
            let parked = row.get::<_, String>(5)? == "parked";
            let fixed: Option<(String, i64)> =
                row.get::<_, Option<String>>(6)?.zip(row.get::<_, Option<i64>>(7)?);
            Ok(Due {
                id: row.get(0)?,
                value: row.get::<_, i64>(1)?.cast_unsigned(),
                identifier: row.get(2)?,
                natural_s: natural(row.get(3)?, row.get::<_, i64>(4)?.cast_unsigned()),
                fixed: fixed.filter(|_| parked),
            })
        })
        .optional()?;
    Ok(row)
}

/// Whom a bucket is sent for and as of when; `None` where no subscription covers it. Usage of a period that is billed
/// already, or that Stripe would not take any more, counts from now on: it goes on the next invoice.
fn fix(
    conn: &Connection,
    lane: &Lane,
    natural_s: i64,
    now_ns: u64,
) -> Result<Option<(String, i64)>, LedgerError> {
    let Some(customer) = covers(conn, &lane.tenant, natural_s)? else { return Ok(None) };
    let now_s = i64::try_from(now_ns / 1_000_000_000).unwrap_or(i64::MAX);
    let billed = billed_until(conn, &customer, "", i64::MAX)?;
    let late = natural_s < billed || natural_s < now_s.saturating_sub(OLDEST_S);
    // A twin's clock may be ahead of ours, and its periods with it.
    Ok(Some((customer, if late { now_s.max(billed) } else { natural_s })))
}
