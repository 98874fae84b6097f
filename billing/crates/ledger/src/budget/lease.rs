use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use wasmeter_usage::{Lease, LeaseAsk, Pico};

use super::catch_up::catch_up;
use super::terms::current;
use super::{amount, credit, month, reserved, spent};
use crate::{BudgetRefused, Ledger, LedgerError};

/// How long a node may draw on a lease, in milliseconds from its question on.
const TERM_MS: u64 = 60_000;

/// How much longer it counts here: a call that began in time may end, and its record arrive.
const GRACE_NS: u64 = 60_000_000_000;

/// Up to a hundredth of the currency unit goes to one node whole; of more, half, so that there is some for others.
const WHOLE: i128 = Pico::UNIT / 100;

impl Ledger {
    /// Leases money to a node, or takes back what it does not need. What is leased, booked and not, never passes the
    /// budget.
    ///
    /// # Errors
    /// SQLite's, and then nothing is leased.
    pub fn lease(
        &mut self,
        ask: &LeaseAsk,
        now_ns: u64,
    ) -> Result<Result<Lease, BudgetRefused>, LedgerError> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let leased = lease(&tx, ask, now_ns)?;
        tx.commit()?;
        Ok(leased)
    }
}

fn lease(tx: &Connection, ask: &LeaseAsk, now_ns: u64) -> Result<Result<Lease, BudgetRefused>, LedgerError> {
    let LeaseAsk { node, epoch, settled, tenant, key, drawn, want } = ask;
    if drawn.0 < 0 || want.0 < 0 {
        return Ok(Err(BudgetRefused("a lease is of no negative amount".to_owned())));
    }
    let terms = current(tx, tenant)?.unwrap_or_default();
    let key = key.as_deref().unwrap_or("");
    let limited = if key.is_empty() { terms.is_limited() } else { terms.keys.contains_key(key) };
    if !limited {
        return Ok(Err(BudgetRefused(format!("tenant {tenant} has no budget to lease from"))));
    }
    catch_up(tx, tenant, now_ns)?;
    if *settled {
        // All that these epochs drew is booked.
        tx.prepare_cached("DELETE FROM lease WHERE tenant = ?1 AND key = ?2 AND node = ?3 AND epoch < ?4")?
            .execute((tenant, key, node, epoch.cast_signed()))?;
    }
    let now = now_ns.cast_signed();
    let row = tx
        .prepare_cached(
            "SELECT granted_pico, booked_pico, expires_ns FROM lease
             WHERE tenant = ?1 AND key = ?2 AND node = ?3 AND epoch = ?4",
        )?
        .query_row((tenant, key, node, epoch.cast_signed()), |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
        })
        .optional()?;
    let (old, booked) = match row {
        None => (0, 0),
        Some((granted, booked, expires)) => {
            let (granted, booked) = (amount(&granted)?, amount(&booked)?);
            // What ran out was given to others, perhaps: what the node drew of it stands, the rest it has to ask for.
            (if expires > now { granted } else { granted.min(drawn.0) }, booked)
        }
    };
    let own = (old - booked).max(0);
    // Its own row is put in place of the one that is stored, in case that one has run out.
    let others = reserved(tx, tenant, key, now_ns)? - stored(tx, ask, key, now)?;
    let mut free = i128::MAX;
    let this_month = month(now_ns);
    let monthly = if key.is_empty() { terms.monthly } else { terms.keys.get(key).copied() };
    if let Some(Pico(limit)) = monthly {
        free = limit - spent(tx, tenant, key, &this_month)? - others - own;
    }
    if key.is_empty() && terms.prepaid {
        free = free.min(credit(tx, tenant)?.1 - others - own);
    }
    let asked = drawn.0.saturating_add(want.0);
    let granted = if asked <= old {
        asked
    } else {
        let free = free.max(0);
        old + (asked - old).min((free / 2).max(free.min(WHOLE)))
    };
    tx.prepare_cached("INSERT OR REPLACE INTO lease VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute((
        tenant,
        key,
        node,
        epoch.cast_signed(),
        granted.to_string(),
        booked.to_string(),
        now.saturating_add((TERM_MS * 1_000_000 + GRACE_NS).cast_signed()),
    ))?;
    Ok(Ok(Lease { granted: Pico(granted), for_ms: TERM_MS }))
}

/// What the node's own row adds to the sum of all reserves.
fn stored(tx: &Connection, ask: &LeaseAsk, key: &str, now: i64) -> Result<i128, LedgerError> {
    let found = tx
        .prepare_cached(
            "SELECT granted_pico, booked_pico FROM lease
             WHERE tenant = ?1 AND key = ?2 AND node = ?3 AND epoch = ?4 AND expires_ns > ?5",
        )?
        .query_row((&ask.tenant, key, &ask.node, ask.epoch.cast_signed(), now), |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })
        .optional()?;
    let Some((granted, booked)) = found else { return Ok(0) };
    Ok((amount(&granted)? - amount(&booked)?).max(0))
}
