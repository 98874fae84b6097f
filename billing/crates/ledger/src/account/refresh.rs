use rusqlite::{Connection, OptionalExtension};

use crate::sums::time;
use crate::{Ledger, LedgerError, Reader};

/// Kinds of objects that are read from Stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// `sub_…`.
    Subscription,
    /// `in_…`.
    Invoice,
    /// `cus_…`.
    Customer,
    /// `evt_…` of meter events that Stripe could not use.
    MeterErrors,
}

impl About {
    const ALL: [About; 4] = [About::Subscription, About::Invoice, About::Customer, About::MeterErrors];

    fn as_str(self) -> &'static str {
        match self {
            About::Subscription => "subscription",
            About::Invoice => "invoice",
            About::Customer => "customer",
            About::MeterErrors => "meter_errors",
        }
    }
}

/// An object that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// Its kind.
    pub about: About,
    /// Its id.
    pub object: String,
    /// How often it was asked for: what was asked for while it was read is read again.
    pub wanted: i64,
    /// Readings that failed.
    pub attempts: u32,
}

/// Asks for a reading.
pub(super) fn want(conn: &Connection, about: About, object: &str, now_ns: u64) -> Result<(), LedgerError> {
    conn.prepare_cached(
        "INSERT INTO stripe_refresh (kind, object, wanted, due_ns) VALUES (?1, ?2, 1, ?3)
         ON CONFLICT DO UPDATE SET wanted = wanted + 1, due_ns = ?3, attempts = 0",
    )?
    .execute((about.as_str(), object, time(now_ns)))?;
    Ok(())
}

impl Reader {
    /// The next object to read.
    ///
    /// # Errors
    /// SQLite's.
    pub fn due_refresh(&self, now_ns: u64) -> Result<Option<Refresh>, LedgerError> {
        let found: Option<(String, String, i64, u32)> = self
            .conn
            .prepare_cached(
                "SELECT kind, object, wanted, attempts FROM stripe_refresh WHERE due_ns <= ?1 ORDER BY due_ns LIMIT 1",
            )?
            .query_row([time(now_ns)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        let Some((kind, object, wanted, attempts)) = found else { return Ok(None) };
        let about = About::ALL
            .into_iter()
            .find(|about| about.as_str() == kind)
            .ok_or_else(|| LedgerError::Damaged(format!("{kind:?} is nothing to read")))?;
        Ok(Some(Refresh { about, object, wanted, attempts }))
    }
}

impl Ledger {
    /// Asks for a reading, as a webhook would.
    ///
    /// # Errors
    /// SQLite's.
    pub fn want_refresh(&mut self, about: About, object: &str, now_ns: u64) -> Result<(), LedgerError> {
        want(&self.conn, about, object, now_ns)
    }

    /// It was read and kept.
    ///
    /// # Errors
    /// SQLite's.
    pub fn refreshed(&mut self, refresh: &Refresh) -> Result<(), LedgerError> {
        self.conn.execute(
            "DELETE FROM stripe_refresh WHERE kind = ?1 AND object = ?2 AND wanted = ?3",
            (refresh.about.as_str(), &refresh.object, refresh.wanted),
        )?;
        Ok(())
    }

    /// It could not be read; it is due again after a while.
    ///
    /// # Errors
    /// SQLite's.
    pub fn refresh_failed(
        &mut self,
        refresh: &Refresh,
        wait_ns: u64,
        now_ns: u64,
    ) -> Result<(), LedgerError> {
        self.conn.execute(
            "UPDATE stripe_refresh SET due_ns = ?4, attempts = attempts + 1
             WHERE kind = ?1 AND object = ?2 AND wanted = ?3",
            (refresh.about.as_str(), &refresh.object, refresh.wanted, time(now_ns.saturating_add(wait_ns))),
        )?;
        Ok(())
    }
}
