use rusqlite::TransactionBehavior;
use wasmeter_usage::Meter;

use super::settle::shorten;
use super::step::COUNTED_AFTER;
use super::{HOUR, WAITS, meter};
use crate::sums::time;
use crate::{Ledger, LedgerError, Reader};

/// Parked buckets of one hour whose arrivals are told apart by their sum; with more, a person must look.
const SUBSETS: usize = 16;

/// When the sums are asked again where they did not tell.
const AGAIN_NS: u64 = 6 * 3_600_000_000_000;

/// When they are asked again where a call of that hour is under way.
const SOON_NS: u64 = 600_000_000_000;

/// An hour of which Stripe's sum tells what became of parked buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Stripe's customer.
    pub customer: String,
    /// Meter.
    pub meter: Meter,
    /// Beginning of the hour, seconds since the Unix epoch.
    pub hour: i64,
    /// What was delivered of it when the question was made: what is delivered while it is asked would be missed in the
    /// answer.
    delivered: u64,
}

/// What a sum told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// So many had arrived, and so many had not and are sent again.
    Told {
        /// Delivered.
        arrived: usize,
        /// Ready again.
        absent: usize,
    },
    /// Something of that hour is under way; it is asked again.
    Busy,
    /// It is neither: a person must look.
    Unclear,
}

/// Which of the parked values Stripe has, given its sum and that of what is known to be delivered. `None` if none or
/// several of the possibilities give that sum.
#[must_use]
fn resolve(counted: u64, delivered: u64, parked: &[u64]) -> Option<Vec<bool>> {
    let missing = u128::from(counted.checked_sub(delivered)?);
    let all: u128 = parked.iter().map(|v| u128::from(*v)).sum();
    if missing == 0 || missing == all {
        // Values are never zero, so that nothing else gives these sums.
        return Some(vec![missing != 0; parked.len()]);
    }
    if parked.len() > SUBSETS {
        return None;
    }
    let sum = |set: u32| -> u128 {
        parked.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, v)| u128::from(*v)).sum()
    };
    let mut fits = (0..1u32 << parked.len()).filter(|set| sum(*set) == missing);
    match (fits.next(), fits.next()) {
        (Some(set), None) => Some((0..parked.len()).map(|i| set >> i & 1 == 1).collect()),
        _ => None,
    }
}

impl Reader {
    /// Hours that are to be asked about.
    ///
    /// # Errors
    /// SQLite's.
    pub fn due_probes(&self, now_ns: u64) -> Result<Vec<Probe>, LedgerError> {
        let rows: Vec<(String, String, i64)> = self
            .conn
            .prepare_cached(
                "SELECT customer, meter, stamp_s - stamp_s % 3600 FROM bucket
                 WHERE state = 'parked' AND due_ns <= ?1 AND resend_until_ns <= ?1 GROUP BY 1, 2, 3 LIMIT 1000",
            )?
            .query_map([time(now_ns)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        rows.into_iter()
            .map(|(customer, name, hour)| {
                let hours = self.counted_hours(&customer, meter(&name)?, hour, hour + HOUR)?;
                let delivered = hours.iter().fold(0u64, |sum, hour| sum.saturating_add(hour.delivered));
                Ok(Probe { customer, meter: meter(&name)?, hour, delivered })
            })
            .collect()
    }
}

impl Ledger {
    /// Writes what Stripe's sum of an hour tells about its parked buckets.
    ///
    /// # Errors
    /// SQLite's.
    pub fn settle_probe(&mut self, probe: &Probe, counted: u64, now_ns: u64) -> Result<Probed, LedgerError> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let rows: Vec<(i64, String, u64, bool, bool)> = tx
            .prepare_cached(
                "SELECT id, state, value, coalesce(due_ns <= ?4 AND resend_until_ns <= ?4, 0),
                   coalesce(settled_ns > ?5, 0) FROM bucket
                 WHERE customer = ?1 AND meter = ?2 AND stamp_s >= ?3 AND stamp_s < ?3 + 3600",
            )?
            .query_map(
                (
                    &probe.customer,
                    probe.meter.as_str(),
                    probe.hour,
                    time(now_ns),
                    time(now_ns.saturating_sub(COUNTED_AFTER)),
                ),
                |row| {
                    let value = row.get::<_, i64>(2)?.cast_unsigned();
                    Ok((row.get(0)?, row.get(1)?, value, row.get(3)?, row.get(4)?))
                },
            )?
            .collect::<Result<_, _>>()?;
        let delivered =
            rows.iter().filter(|r| r.1 == "delivered").fold(0u64, |sum, r| sum.saturating_add(r.2));
        let asked: Vec<_> = rows.iter().filter(|r| r.1 == "parked" && r.3).collect();
        // Stripe counts with a delay, so that its sum lacks what was delivered a moment ago.
        let busy = delivered != probe.delivered
            || rows.iter().any(|r| match r.1.as_str() {
                "sending" => true,
                "parked" => !r.3,
                "delivered" => r.4,
                _ => false,
            });
        let values: Vec<_> = asked.iter().map(|r| r.2).collect();
        let outcome = match resolve(counted, delivered, &values) {
            _ if busy => Probed::Busy,
            None => Probed::Unclear,
            Some(arrived) => {
                for (row, arrived) in asked.iter().zip(&arrived) {
                    let sql = if *arrived {
                        "UPDATE bucket SET state = 'delivered', due_ns = ?2, settled_ns = ?3, resend_until_ns = NULL,
                           reason = 'found in the sums of stripe' WHERE id = ?1"
                    } else {
                        "UPDATE bucket SET state = 'ready', due_ns = ?2, settled_ns = ?3, resend_until_ns = NULL,
                           customer = NULL, stamp_s = NULL, reason = 'absent from the sums of stripe' WHERE id = ?1"
                    };
                    let due = if *arrived { WAITS } else { time(now_ns) };
                    tx.prepare_cached(sql)?.execute((row.0, due, time(now_ns)))?;
                }
                let count = arrived.iter().filter(|a| **a).count();
                Probed::Told { arrived: count, absent: arrived.len() - count }
            }
        };
        let wait = match outcome {
            Probed::Told { .. } => None,
            Probed::Busy => Some((SOON_NS, "a call of the same hour is under way".to_owned())),
            Probed::Unclear => {
                Some((AGAIN_NS, format!("stripe counts {counted} in that hour, delivered are {delivered}")))
            }
        };
        if let Some((wait, reason)) = wait {
            for row in &asked {
                tx.prepare_cached("UPDATE bucket SET due_ns = ?2, reason = ?3 WHERE id = ?1")?.execute((
                    row.0,
                    time(now_ns.saturating_add(wait)),
                    shorten(&reason),
                ))?;
            }
        }
        tx.commit()?;
        Ok(outcome)
    }

    /// The sums could not be asked: they are once more, later.
    ///
    /// # Errors
    /// SQLite's.
    pub fn postpone_probe(
        &mut self,
        probe: &Probe,
        reason: &str,
        wait_ns: u64,
        now_ns: u64,
    ) -> Result<(), LedgerError> {
        self.conn.execute(
            "UPDATE bucket SET due_ns = ?5, reason = ?6 WHERE customer = ?1 AND meter = ?2 AND stamp_s >= ?3
               AND stamp_s < ?3 + ?7 AND state = 'parked' AND due_ns <= ?4 AND resend_until_ns <= ?4",
            (
                &probe.customer,
                probe.meter.as_str(),
                probe.hour,
                time(now_ns),
                time(now_ns.saturating_add(wait_ns)),
                shorten(reason),
                HOUR,
            ),
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_tells_or_does_not() {
        assert_eq!(resolve(10, 10, &[5]), Some(vec![false]));
        assert_eq!(resolve(15, 10, &[5]), Some(vec![true]));
        assert_eq!(resolve(13, 10, &[5]), None);
        assert_eq!(resolve(9, 10, &[5]), None);
        assert_eq!(resolve(13, 10, &[5, 3, 4]), Some(vec![false, true, false]));
        // 3 or 1 + 2.
        assert_eq!(resolve(13, 10, &[1, 2, 3]), None);
        assert_eq!(resolve(11, 10, &[1; 17]), None);
        assert_eq!(resolve(27, 10, &[1; 17]), Some(vec![true; 17]));
    }
}
