//! Alerts of budgets. Nothing of this happens while entries are booked: somebody looks from time to time, and what a
//! threshold that was passed has to say is in the ledger, in the transaction that finds it, before anybody is told.

mod fire;
mod told;

use rusqlite::Connection;
use wasmeter_usage::{AlertChannel, AlertDelivery, AlertOf, AlertState, FiredAlert, Pico};

use crate::LedgerError;
use crate::budget::amount;

pub use fire::AlertMark;
pub use told::{DueAlert, Told};

/// Alerts that a budget shows, the latest first.
const SHOWN: u32 = 20;

fn of(word: &str) -> Result<AlertOf, LedgerError> {
    match word {
        "monthly" => Ok(AlertOf::Monthly),
        "credits" => Ok(AlertOf::Credits),
        _ => Err(LedgerError::Damaged(format!("{word:?} is no kind of alert"))),
    }
}

fn channel(word: &str) -> Result<AlertChannel, LedgerError> {
    match word {
        "webhook" => Ok(AlertChannel::Webhook),
        "email" => Ok(AlertChannel::Email),
        _ => Err(LedgerError::Damaged(format!("{word:?} is no way to tell an alert"))),
    }
}

fn state(word: &str) -> Result<AlertState, LedgerError> {
    match word {
        "pending" => Ok(AlertState::Pending),
        "delivered" => Ok(AlertState::Delivered),
        "failed" => Ok(AlertState::Failed),
        _ => Err(LedgerError::Damaged(format!("{word:?} is no state of an alert"))),
    }
}

/// The latest alerts of a tenant.
pub(crate) fn latest(conn: &Connection, tenant: &str) -> Result<Vec<FiredAlert>, LedgerError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, name, kind, period, bound_pico, percent, spent_pico, fired_ns FROM alert
         WHERE tenant = ?1 ORDER BY id DESC LIMIT ?2",
    )?;
    let mut deliveries = conn.prepare_cached(
        "SELECT channel, state, attempts, reason FROM alert_delivery WHERE alert = ?1 ORDER BY channel",
    )?;
    let mut rows = statement.query((tenant, SHOWN))?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let mut told = Vec::new();
        let mut ways = deliveries.query([row.get::<_, i64>(0)?])?;
        while let Some(way) = ways.next()? {
            told.push(AlertDelivery {
                channel: channel(&way.get::<_, String>(0)?)?,
                state: state(&way.get::<_, String>(1)?)?,
                attempts: way.get(2)?,
                reason: way.get(3)?,
            });
        }
        all.push(FiredAlert {
            id: row.get(1)?,
            of: of(&row.get::<_, String>(2)?)?,
            month: Some(row.get(3)?).filter(|month: &String| !month.is_empty()),
            bound: Pico(amount(&row.get::<_, String>(4)?)?),
            percent: row.get(5)?,
            spent: Pico(amount(&row.get::<_, String>(6)?)?),
            fired_ns: row.get::<_, i64>(7)?.cast_unsigned(),
            deliveries: told,
        });
    }
    Ok(all)
}
