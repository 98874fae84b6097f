use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use sha2::{Digest, Sha256};
use wasmeter_usage::Meter;

use super::quantity::quantity;
use super::{HOUR, WAITS, life, meter, whole};
use crate::account::covers;
use crate::sums::time;
use crate::{Ledger, LedgerError};

/// Which open buckets are closed.
#[derive(Clone, Debug)]
pub enum Closing<'a> {
    /// Those whose hour ended so many nanoseconds ago, and, where the second is set, those that were opened so many ago.
    Due(u64, Option<u64>),
    /// All of one tenant whose hour ended by a time, in seconds since the Unix epoch.
    Tenant(&'a str, i64),
    /// All.
    All,
}

impl Ledger {
    /// Closes buckets: their quantity, in units of `units` of their meter's own, and their identifier are fixed from
    /// here on. How many it were.
    ///
    /// # Errors
    /// SQLite's, and then none is closed.
    pub fn close_buckets(
        &mut self,
        which: &Closing<'_>,
        units: impl Fn(Meter) -> u64,
        now_ns: u64,
    ) -> Result<u32, LedgerError> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let life = life(&tx)?;
        let (tenant, hour, opened) = match *which {
            Closing::Due(grace, after) => {
                let ended = now_ns.saturating_sub(grace) / 1_000_000_000;
                let hour = i64::try_from(ended).unwrap_or(i64::MAX).saturating_sub(HOUR);
                (None, hour, after.map_or(i64::MIN, |after| time(now_ns.saturating_sub(after))))
            }
            Closing::Tenant(tenant, before) => (Some(tenant), before.saturating_sub(HOUR), i64::MIN),
            Closing::All => (None, i64::MAX, i64::MAX),
        };
        let open: Vec<Open> = tx
            .prepare_cached(
                "SELECT id, tenant, meter, hour, raw FROM bucket
                 WHERE state = 'open' AND (?1 IS NULL OR tenant = ?1) AND (hour <= ?2 OR opened_ns <= ?3)
                 ORDER BY tenant, meter, hour",
            )?
            .query_map((tenant, hour, opened), |row| {
                Ok(Open {
                    id: row.get(0)?,
                    tenant: row.get(1)?,
                    meter: row.get(2)?,
                    hour: row.get(3)?,
                    raw: row.get(4)?,
                })
            })?
            .collect::<Result<_, _>>()?;
        let mut closed = 0;
        for bucket in open {
            closed += close(&tx, &life, &bucket, units(meter(&bucket.meter)?).max(1), now_ns)?;
        }
        tx.commit()?;
        Ok(closed)
    }
}

struct Open {
    id: i64,
    tenant: String,
    meter: String,
    hour: i64,
    raw: String,
}

/// Closes one, with further ones where a value would be longer than Stripe takes.
fn close(tx: &Connection, life: &str, open: &Open, units: u64, now_ns: u64) -> Result<u32, LedgerError> {
    let Open { id, tenant, meter, hour, raw } = open;
    let last = tx
        .prepare_cached(
            "SELECT number, carry_out FROM bucket WHERE tenant = ?1 AND meter = ?2 AND number IS NOT NULL
             ORDER BY number DESC LIMIT 1",
        )?
        .query_row((tenant, meter), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    let (mut number, mut carry) = match last {
        Some((number, carry)) => (number, whole(&carry)?),
        None => (0, 0),
    };
    let (mut row, mut raw) = (Some(*id), whole(raw)?);
    let mut closed = 0;
    while let Some(id) = row {
        number += 1;
        closed += 1;
        let (value, left) = quantity(raw, carry, units);
        let natural = natural(*hour, now_ns);
        // Nothing to send is nothing to wait for.
        let (state, due) = match value {
            0 => ("delivered", WAITS),
            _ if covers(tx, tenant, natural)?.is_some() => ("ready", time(now_ns)),
            _ => ("ready", WAITS),
        };
        tx.prepare_cached(
            "UPDATE bucket SET state = ?2, number = ?3, carry_in = ?4, units = ?5, value = ?6, carry_out = ?7,
               identifier = ?8, closed_ns = ?9, due_ns = ?10 WHERE id = ?1",
        )?
        .execute((
            id,
            state,
            number,
            carry.to_string(),
            units.cast_signed(),
            value,
            left.to_string(),
            identifier(life, tenant, meter, number),
            now_ns.cast_signed(),
            due,
        ))?;
        (raw, carry, row) = (0, left, None);
        if left >= i128::from(units) {
            tx.prepare_cached(
                "INSERT INTO bucket (tenant, meter, hour, opened_ns, state, raw) VALUES (?1, ?2, ?3, ?4, 'open', '0')",
            )?
            .execute((tenant, meter, hour, now_ns.cast_signed()))?;
            row = Some(tx.last_insert_rowid());
        }
    }
    Ok(closed)
}

/// When the usage of a bucket is said to have been, in seconds since the Unix epoch: the end of its hour, so that the
/// hour of a new subscription counts, and never ahead of our clock.
pub(super) fn natural(hour: i64, closed_ns: u64) -> i64 {
    let closed = i64::try_from(closed_ns / 1_000_000_000).unwrap_or(i64::MAX);
    (hour + HOUR - 1).min(closed)
}

/// The same bucket of the same life has the same identifier, and no other has it.
fn identifier(life: &str, tenant: &str, meter: &str, number: i64) -> String {
    let text = format!("wasmeter-bucket/1\n{life}\n{tenant}\n{meter}\n{number}\n");
    let mut name = "wm-".to_owned();
    for byte in &Sha256::digest(text)[..24] {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stripe remembers these: they never change.
    #[test]
    fn an_identifier_is_for_ever() {
        let one = identifier("00ff", "dev", "fuel", 1);
        assert_eq!(one.len(), 51);
        assert_eq!(one, identifier("00ff", "dev", "fuel", 1));
        for other in [
            identifier("00fe", "dev", "fuel", 1),
            identifier("00ff", "dev2", "fuel", 1),
            identifier("00ff", "dev", "requests", 1),
            identifier("00ff", "dev", "fuel", 2),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn usage_is_timed_at_the_end_of_its_hour_and_never_ahead() {
        assert_eq!(natural(7_200, 20_000_000_000_000), 10_799);
        assert_eq!(natural(7_200, 8_000_999_999_999), 8_000);
    }
}
