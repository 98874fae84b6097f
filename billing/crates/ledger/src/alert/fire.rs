use aws_lc_rs::rand::fill;
use rusqlite::TransactionBehavior;
use wasmeter_usage::{AlertOf, BudgetTerms, Pico};

use crate::budget::{credit, month, spent};
use crate::budget::{current_terms, up_to_now};
use crate::sums::time;
use crate::{Ledger, LedgerError, Reader};

/// What decides whether a threshold may have been passed since: the same mark is the same answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertMark {
    position: i64,
    terms: i64,
    grants: i64,
    adjustment: i64,
    month: String,
}

impl Reader {
    /// The tenants that want to be told, each with its mark, sorted.
    ///
    /// # Errors
    /// SQLite's.
    pub fn alerting(&self, now_ns: u64) -> Result<Vec<(String, AlertMark)>, LedgerError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT b.tenant, b.id,
               (SELECT coalesce(max(position), 0) FROM entry e INDEXED BY entry_page WHERE e.tenant = b.tenant),
               (SELECT count(*) FROM credit c WHERE c.tenant = b.tenant),
               (SELECT coalesce(max(id), 0) FROM adjustment a WHERE a.tenant = b.tenant)
             FROM budget b WHERE b.id IN (SELECT max(id) FROM budget GROUP BY tenant)
               AND json_extract(b.terms, '$.alerts') IS NOT NULL ORDER BY b.tenant",
        )?;
        let month = month(now_ns);
        let rows = statement.query_map([], |row| {
            let mark = AlertMark {
                terms: row.get(1)?,
                position: row.get(2)?,
                grants: row.get(3)?,
                adjustment: row.get(4)?,
                month: month.clone(),
            };
            Ok((row.get(0)?, mark))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Ledger {
    /// Writes down which thresholds of a tenant were passed, each once for its bound and period, for all ways in which the
    /// tenant wants to be told. How many are new.
    ///
    /// # Errors
    /// SQLite's, and then none is.
    pub fn fire_alerts(&mut self, tenant: &str, now_ns: u64) -> Result<u32, LedgerError> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let Some(BudgetTerms { monthly, prepaid, alerts, .. }) = current_terms(&tx, tenant)? else {
            return Ok(0);
        };
        up_to_now(&tx, tenant, now_ns)?;
        let this_month = month(now_ns);
        let mut bounds = Vec::new();
        if let Some(Pico(limit)) = monthly {
            bounds.push((AlertOf::Monthly, this_month.as_str(), limit, spent(&tx, tenant, "", &this_month)?));
        }
        if prepaid {
            let (granted, left) = credit(&tx, tenant)?;
            bounds.push((AlertOf::Credits, "", granted, granted - left));
        }
        let channels = [("webhook", alerts.webhook.is_some()), ("email", alerts.email.is_some())];
        let mut fired = 0;
        for (of, period, bound, spent) in bounds.into_iter().filter(|(_, _, bound, _)| *bound > 0) {
            for percent in &alerts.percent {
                if spent.saturating_mul(100) < bound.saturating_mul(i128::from(*percent)) {
                    continue;
                }
                let new = tx
                    .prepare_cached(
                        "INSERT INTO alert (name, tenant, kind, period, bound_pico, percent, spent_pico, fired_ns)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
                    )?
                    .execute((
                        name()?,
                        tenant,
                        of.as_str(),
                        period,
                        bound.to_string(),
                        percent,
                        spent.to_string(),
                        time(now_ns),
                    ))?;
                if new == 0 {
                    continue;
                }
                fired += 1;
                let alert = tx.last_insert_rowid();
                for (channel, _) in channels.iter().filter(|(_, wanted)| *wanted) {
                    tx.prepare_cached(
                        "INSERT INTO alert_delivery (alert, channel, state, due_ns) VALUES (?1, ?2, 'pending', ?3)",
                    )?
                    .execute((alert, channel, time(now_ns)))?;
                }
            }
        }
        tx.commit()?;
        Ok(fired)
    }
}

/// What tells a repeated alert from a second one.
fn name() -> Result<String, LedgerError> {
    let mut bytes = [0; 16];
    fill(&mut bytes).map_err(|_| LedgerError::Damaged("the system gives no random bytes".into()))?;
    Ok(format!("alert_{}", hex::encode(bytes)))
}
