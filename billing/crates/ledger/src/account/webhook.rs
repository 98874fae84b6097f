use rusqlite::TransactionBehavior;

use super::About;
use crate::sums::time;
use crate::{Ledger, LedgerError};

/// Events are remembered for so long: Stripe repeats for three days, and a person may by hand for thirty.
const REMEMBERED_NS: u64 = 60 * 86_400_000_000_000;

/// A webhook that was believed.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// `evt_…`, the same each time it is sent.
    pub id: String,
    /// Such as `invoice.created`.
    pub kind: String,
    /// What is to be read because of it.
    pub about: Vec<(About, String)>,
    /// What it says of a subscription.
    pub observed: Option<Observed>,
}

/// What an event says of a subscription.
#[derive(Clone, Debug)]
pub struct Observed {
    /// `sub_…`.
    pub subscription: String,
    /// When Stripe made the event, seconds since the Unix epoch.
    pub created_s: i64,
    /// Stripe's word.
    pub status: String,
}

impl Ledger {
    /// Takes a webhook in one transaction. `false`: it was taken before, and nothing is changed.
    ///
    /// # Errors
    /// SQLite's, and then nothing is taken.
    pub fn take_webhook(&mut self, webhook: &Webhook, now_ns: u64) -> Result<bool, LedgerError> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let fresh = tx
            .prepare_cached("INSERT INTO stripe_event VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
            .execute((&webhook.id, &webhook.kind, time(now_ns)))?;
        if fresh == 0 {
            return Ok(false);
        }
        if let Some(Observed { subscription, created_s, status }) = &webhook.observed {
            tx.execute(
                "INSERT INTO stripe_seen VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                (subscription, created_s, &webhook.id, status),
            )?;
        }
        for (about, object) in &webhook.about {
            super::refresh::want(&tx, *about, object, now_ns)?;
        }
        tx.commit()?;
        Ok(true)
    }

    /// Forgets webhooks that nobody sends again.
    ///
    /// # Errors
    /// SQLite's.
    pub fn forget_webhooks(&mut self, now_ns: u64) -> Result<usize, LedgerError> {
        let before = time(now_ns.saturating_sub(REMEMBERED_NS));
        Ok(self.conn.execute("DELETE FROM stripe_event WHERE seen_ns < ?1", [before])?)
    }
}
