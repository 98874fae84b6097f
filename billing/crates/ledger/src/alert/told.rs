use wasmeter_usage::{AlertChannel, AlertOf, AlertTerms, Pico};

use super::{channel, of};
use crate::budget::{amount, current_terms};
use crate::sums::time;
use crate::{Ledger, LedgerError, Reader};

/// An alert that is to be told in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueAlert {
    row: i64,
    /// The same each time that it is told.
    pub id: String,
    /// Whose budget.
    pub tenant: String,
    /// Of what.
    pub of: AlertOf,
    /// The month, of a monthly budget.
    pub month: Option<String>,
    /// Per cent that were passed.
    pub percent: u16,
    /// Of how much.
    pub bound: Pico,
    /// What was spent when it was found.
    pub spent: Pico,
    /// When that was, nanoseconds since the Unix epoch.
    pub fired_ns: u64,
    /// How.
    pub channel: AlertChannel,
    /// How often it was tried.
    pub attempts: u32,
    /// Where to, by the terms as they are now; `None` if the tenant wants it no more.
    pub target: Option<String>,
}

/// What became of telling an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The other side has it.
    Delivered,
    /// It is tried again after so many nanoseconds.
    Again {
        /// How long.
        wait_ns: u64,
        /// Why not now.
        reason: String,
    },
    /// Nobody tries any more.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Reader {
    /// Alerts that are to be told now, the longest due first.
    ///
    /// # Errors
    /// SQLite's.
    pub fn due_alerts(&self, limit: u32, now_ns: u64) -> Result<Vec<DueAlert>, LedgerError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT a.id, a.name, a.tenant, a.kind, a.period, a.percent, a.bound_pico, a.spent_pico, a.fired_ns,
               d.channel, d.attempts
             FROM alert_delivery d JOIN alert a ON a.id = d.alert
             WHERE d.state = 'pending' AND d.due_ns <= ?1 ORDER BY d.due_ns LIMIT ?2",
        )?;
        let mut rows = statement.query((time(now_ns), limit))?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let tenant: String = row.get(2)?;
            let channel = channel(&row.get::<_, String>(9)?)?;
            let AlertTerms { webhook, email, .. } =
                current_terms(&self.conn, &tenant)?.unwrap_or_default().alerts;
            all.push(DueAlert {
                row: row.get(0)?,
                id: row.get(1)?,
                of: of(&row.get::<_, String>(3)?)?,
                month: Some(row.get(4)?).filter(|month: &String| !month.is_empty()),
                percent: row.get(5)?,
                bound: Pico(amount(&row.get::<_, String>(6)?)?),
                spent: Pico(amount(&row.get::<_, String>(7)?)?),
                fired_ns: row.get::<_, i64>(8)?.cast_unsigned(),
                attempts: row.get(10)?,
                target: match channel {
                    AlertChannel::Webhook => webhook,
                    AlertChannel::Email => email,
                },
                channel,
                tenant,
            });
        }
        Ok(all)
    }

    /// Signs an alert as "Standard Webhooks" has it for asymmetric keys: Ed25519 over `id.timestamp.body`, base64 not
    /// included. The key is that of receipts; no other text that it signs begins like an alert's id.
    ///
    /// # Errors
    /// [`LedgerError::NoSigner`] of a reader that is not from [`Ledger::reader`].
    pub fn sign_alert(&self, id: &str, timestamp_s: i64, body: &str) -> Result<[u8; 64], LedgerError> {
        let signer = self.signer.as_ref().ok_or(LedgerError::NoSigner)?;
        Ok(signer.sign(&format!("{id}.{timestamp_s}.{body}"))?.0)
    }
}

impl Ledger {
    /// Writes down what became of telling an alert.
    ///
    /// # Errors
    /// SQLite's.
    pub fn settle_alert(&mut self, alert: &DueAlert, told: &Told, now_ns: u64) -> Result<(), LedgerError> {
        let (state, due_ns, reason) = match told {
            Told::Delivered => ("delivered", now_ns, ""),
            Told::Again { wait_ns, reason } => ("pending", now_ns.saturating_add(*wait_ns), reason.as_str()),
            Told::Failed { reason } => ("failed", now_ns, reason.as_str()),
        };
        self.conn
            .prepare_cached(
                "UPDATE alert_delivery SET state = ?3, attempts = attempts + 1, due_ns = ?4, reason = ?5
                 WHERE alert = ?1 AND channel = ?2 AND state = 'pending'",
            )?
            .execute((alert.row, alert.channel.as_str(), state, time(due_ns), reason))?;
        Ok(())
    }
}
