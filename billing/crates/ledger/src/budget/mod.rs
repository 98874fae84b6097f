//! Budgets, credits and leases. Nothing of this is touched while entries are booked: who asks for a lease sums up what
//! was booked since the last time, so that tenants without a budget cost nothing.

mod catch_up;
mod lease;
mod terms;

use rusqlite::{Connection, OptionalExtension};
use time::OffsetDateTime;
use wasmeter_usage::Pico;

use crate::LedgerError;

pub(crate) use catch_up::catch_up as up_to_now;
pub use terms::BudgetRefused;
pub(crate) use terms::current as current_terms;

/// The month of a moment (UTC), such as `2026-11`.
pub(crate) fn month(ns: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ns)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!("{:04}-{:02}", at.year(), u8::from(at.month()))
}

/// The first nanosecond of the month of a moment.
fn month_start(ns: u64) -> u64 {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ns)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let first = at.replace_day(1).map_or(at, |d| d.replace_time(time::Time::MIDNIGHT));
    u64::try_from(first.unix_timestamp_nanos()).unwrap_or(0)
}

/// An amount in a column.
pub(crate) fn amount(text: &str) -> Result<i128, LedgerError> {
    text.parse().map_err(|_| LedgerError::Damaged(format!("{text:?} is no amount")))
}

/// What was spent in a month on an account: booked, with the corrections that were made in it.
pub(crate) fn spent(conn: &Connection, tenant: &str, key: &str, month: &str) -> Result<i128, LedgerError> {
    Ok(booked(conn, tenant, key, month)? + crate::adjust::in_month(conn, tenant, key, month)?)
}

/// What was booked in a month on an account.
fn booked(conn: &Connection, tenant: &str, key: &str, month: &str) -> Result<i128, LedgerError> {
    let found = conn
        .prepare_cached("SELECT cost_pico FROM budget_month WHERE tenant = ?1 AND key = ?2 AND month = ?3")?
        .query_row((tenant, key, month), |row| row.get::<_, String>(0))
        .optional()?;
    found.map_or(Ok(0), |text| amount(&text))
}

/// What is leased on an account and neither booked nor expired.
fn reserved(conn: &Connection, tenant: &str, key: &str, now_ns: u64) -> Result<i128, LedgerError> {
    let mut rows = conn.prepare_cached(
        "SELECT granted_pico, booked_pico FROM lease WHERE tenant = ?1 AND key = ?2 AND expires_ns > ?3",
    )?;
    let mut rows = rows.query((tenant, key, now_ns.cast_signed()))?;
    let mut sum = 0;
    while let Some(row) = rows.next()? {
        let (granted, booked) = (amount(&row.get::<_, String>(0)?)?, amount(&row.get::<_, String>(1)?)?);
        sum += (granted - booked).max(0);
    }
    Ok(sum)
}

/// Credits granted so far, and what is left of them before leases.
pub(crate) fn credit(conn: &Connection, tenant: &str) -> Result<(i128, i128), LedgerError> {
    let mut rows = conn.prepare_cached("SELECT amount_pico FROM credit WHERE tenant = ?1")?;
    let texts = rows.query_map([tenant], |row| row.get::<_, String>(0))?;
    let mut granted = 0;
    for text in texts {
        granted += amount(&text?)?;
    }
    let since = conn
        .prepare_cached("SELECT since_pico, since_adjustment FROM budget_read WHERE tenant = ?1")?
        .query_row([tenant], |row| Ok((row.get::<_, Option<String>>(0)?, row.get::<_, i64>(1)?)))
        .optional()?;
    let Some((Some(since), adjustment)) = since else { return Ok((granted, granted)) };
    let Pico(cost) = crate::balance::cost(conn, tenant)?;
    let adjusted = crate::adjust::since(conn, tenant, adjustment)?;
    Ok((granted, granted - (cost - amount(&since)?) - adjusted))
}
