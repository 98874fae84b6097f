use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::step::{State, after};
use super::{Attempted, WAITS};
use crate::sums::time;
use crate::{Ledger, LedgerError};

/// Of what is said about a bucket, so much is kept.
const REASON: usize = 300;

/// What became of a claimed bucket.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Its row.
    pub id: i64,
    /// What is known.
    pub attempt: Attempted,
    /// Why.
    pub reason: String,
}

impl Ledger {
    /// Writes what became of attempts, in one transaction.
    ///
    /// # Errors
    /// SQLite's, and then nothing is written: the buckets stay `sending`.
    pub fn settle(&mut self, settled: &[Settled], now_ns: u64) -> Result<(), LedgerError> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for one in settled {
            settle(&tx, one, now_ns)?;
        }
        tx.commit()?;
        Ok(())
    }

    /// Parks what a process that ended was sending; how many it were. Called before anything is claimed.
    ///
    /// # Errors
    /// SQLite's.
    pub fn park_interrupted(&mut self, now_ns: u64) -> Result<usize, LedgerError> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let ids: Vec<i64> = tx
            .prepare("SELECT id FROM bucket WHERE state = 'sending'")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in &ids {
            let reason = "billing ended during the call".to_owned();
            settle(&tx, &Settled { id: *id, attempt: Attempted::Unknown, reason }, now_ns)?;
        }
        tx.commit()?;
        Ok(ids.len())
    }

    /// Marks delivered buckets that Stripe could not use after all, by identifier; how many it were.
    ///
    /// # Errors
    /// SQLite's.
    pub fn refuse_delivered(
        &mut self,
        identifiers: &[String],
        reason: &str,
        now_ns: u64,
    ) -> Result<usize, LedgerError> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut changed = 0;
        for identifier in identifiers {
            changed += tx
                .prepare_cached(
                    "UPDATE bucket SET state = 'refused', reason = ?2, settled_ns = ?3
                     WHERE identifier = ?1 AND state = 'delivered'",
                )?
                .execute((identifier, shorten(reason), time(now_ns)))?;
        }
        tx.commit()?;
        Ok(changed)
    }
}

fn settle(tx: &Connection, settled: &Settled, now_ns: u64) -> Result<(), LedgerError> {
    let found = tx
        .prepare_cached(
            "SELECT attempts, began_ns, resend_until_ns FROM bucket WHERE id = ?1 AND state = 'sending'",
        )?
        .query_row([settled.id], |row| {
            let until: Option<i64> = row.get(2)?;
            Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned(), until.map(i64::cast_unsigned)))
        })
        .optional()?;
    let Some((attempts, began_ns, until)) = found else {
        return Err(LedgerError::Damaged(format!("bucket {} is not being sent", settled.id)));
    };
    let next = after(&settled.attempt, began_ns, attempts, until, now_ns);
    // What certainly did not arrive may be sent for another customer or as of another time.
    let keep = next.state != State::Ready;
    let due = if matches!(next.state, State::Ready | State::Parked) { time(next.due_ns) } else { WAITS };
    tx.prepare_cached(
        "UPDATE bucket SET state = ?2, due_ns = ?3, resend_until_ns = ?4, settled_ns = ?5, reason = ?6,
           customer = CASE WHEN ?7 THEN customer END, stamp_s = CASE WHEN ?7 THEN stamp_s END
         WHERE id = ?1",
    )?
    .execute((
        settled.id,
        next.state.as_str(),
        due,
        next.resend_until_ns.map(time),
        time(now_ns),
        shorten(&settled.reason),
        keep,
    ))?;
    Ok(())
}

pub(super) fn shorten(text: &str) -> &str {
    text.char_indices().nth(REASON).map_or(text, |(end, _)| &text[..end])
}
